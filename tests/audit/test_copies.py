"""Copies and overlapping crops are found in every view; different pictures are left alone."""

from __future__ import annotations

import csv
import errno
import io
import tarfile
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from disks import small_file_system
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cellline.audit import copies as copies_module
from cellline.audit.overlaps import Rows, described_blocks

SMALL = Path(__file__).resolve().parents[2].parent / "shared/data/cell-lines-small"
SHRINK = 4  # fine pixels a pixel: crops of a field can be shifted by quarters of a pixel
VIEWS = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]

Images = NDArray[np.uint8]

# Each test has a folder of its own.
find_copies = partial(copies_module.find_copies, scratch=Path())


def field(seed: int, height: int = 128, width: int = 128, channels: int = 3) -> NDArray[np.float32]:
    """A textured picture [channel, SHRINK * height, SHRINK * width], gray values 0 to 255."""
    rng = np.random.default_rng(seed)
    out = rng.standard_normal((channels, SHRINK * height, SHRINK * width), np.float32)
    for axis in (1, 2):
        for _ in range(3):  # three boxes of 9 make nearly a Gaussian of 4.5 fine pixels
            out = np.sum([np.roll(out, k, axis) for k in range(-4, 5)], 0)
    return np.asarray(np.clip(128 + 45 * out / out.std(), 0, 255), np.float32)


def crop(
    fine: NDArray[np.float32], y: float, x: float, height: int = 64, width: int = 64
) -> Images:
    """What a camera sees from (y, x), in pixels: cut first, shrunk afterwards."""
    top, left = round(y * SHRINK), round(x * SHRINK)
    cut = fine[:, top : top + SHRINK * height, left : left + SHRINK * width]
    shrunk = cut.reshape(-1, height, SHRINK, width, SHRINK).mean((2, 4))
    return np.asarray(shrunk.round(), np.uint8)


def viewed(image: Images, mirrored: bool, turns: int) -> Images:
    return np.rot90(image[:, :, ::-1] if mirrored else image, turns, axes=(1, 2))


FIELD = field(0)
OTHERS = [crop(field(seed, 64, 64), 0, 0) for seed in range(1, 4)]


def groups(*images: Images) -> list[int]:
    return [int(name) for name in find_copies(np.stack(images)).group]


@pytest.mark.parametrize(("mirrored", "turns"), VIEWS)
def test_exact_copy_is_found_in_every_view(mirrored: bool, turns: int) -> None:
    copies = find_copies(np.stack([*OTHERS, viewed(OTHERS[1], mirrored, turns)]))
    assert copies.group.tolist() == [0, 1, 2, 1]
    assert copies.exact.tolist() == [[1, 3]]
    assert len(copies.overlaps) == 0


def test_copy_in_two_of_three_channels_is_not_an_exact_copy() -> None:
    changed = OTHERS[0].copy()
    changed[2, 5, 7] ^= 1
    assert len(find_copies(np.stack([OTHERS[0], changed])).exact) == 0


@settings(max_examples=40, deadline=None)
@given(
    area=st.floats(0.3, 1.0),
    aspect=st.floats(0, 1),
    down=st.booleans(),
    view=st.sampled_from(VIEWS),
)
def test_overlap_of_three_tenths_is_found_at_any_shift_and_view(
    area: float, aspect: float, down: bool, view: tuple[bool, int]
) -> None:
    """Shifts by quarters of a pixel, whose overlap is `area` of the crop, from square to strip."""
    height = area**aspect
    y, x = (round(64 * SHRINK * (1 - side)) / SHRINK for side in (height, area / height))
    first, second = crop(FIELD, 0 if down else y, 0), crop(FIELD, y if down else 0, x)
    copies = find_copies(np.stack([OTHERS[0], first, viewed(second, *view), OTHERS[1]]))
    assert copies.group.tolist() == [0, 1, 1, 3]
    if not len(copies.exact):
        assert copies.overlaps.tolist() == [[1, 2]]
        assert copies.fraction[0] == pytest.approx((64 - y) * (64 - x) / 64**2, abs=0.02)


def test_overlap_below_the_least_area_is_not_claimed() -> None:
    """Squares of 18 pixels have keypoints, but too few pixels (12 x 12) are left to compare."""
    for step in range(0, 16, 2):
        assert groups(crop(FIELD, step, step), crop(FIELD, step + 46, step + 46)) == [0, 1]


def test_same_speck_on_black_proves_nothing() -> None:
    images = np.zeros((2, 3, 64, 64), np.uint8)
    images[0, :, 20, 20] = images[1, :, 40, 35] = 60
    assert find_copies(images).group.tolist() == [0, 1]


def test_periodic_picture_does_not_overlap_itself() -> None:
    tiled = np.tile(OTHERS[0][:, :32, :32], (1, 2, 2))
    assert len(find_copies(tiled[None]).overlaps) == 0


def test_chain_of_overlaps_is_one_group_named_by_its_smallest_row() -> None:
    ends = crop(FIELD, 0, 0), crop(FIELD, 0, 64)
    assert groups(OTHERS[0], ends[1], ends[0]) == [0, 1, 2]
    assert groups(OTHERS[0], ends[1], ends[0], OTHERS[1], crop(FIELD, 0, 31)) == [0, 1, 1, 3, 1]


def test_copy_of_an_overlapping_crop_joins_its_group() -> None:
    first, second = crop(FIELD, 0, 0), crop(FIELD, 20, 10)
    copies = find_copies(np.stack([first, OTHERS[0], second, second]))
    assert copies.group.tolist() == [0, 1, 0, 0]
    assert copies.exact.tolist() == [[2, 3]]
    assert copies.overlaps.tolist() == [[0, 2]]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_different_pictures_and_noise_stay_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (4, 3, 64, 64), dtype=np.uint8)
    pictures = [crop(field(seed + k, 64, 64), 0, 0) for k in range(4)]
    assert groups(*noise, *pictures) == list(range(8))


def test_different_cells_on_black_stay_alone() -> None:
    """They share a black border, a blank corner, and a burnt-in mark, which is 4 % of the area."""
    images = np.zeros((4, 3, 64, 64), np.uint8)
    images[:3, :, 24:56, 24:56] = np.stack(OTHERS)[:, :, :32, :32]
    images[:, :, 4:17, 4:17] = crop(FIELD, 0, 0)[:, :13, :13]
    assert find_copies(images).group.tolist() == [0, 1, 2, 3]


def test_overlapping_cells_on_black_are_found() -> None:
    fine = np.zeros_like(FIELD)
    fine[:, 160:320, 160:320] = FIELD[:, 160:320, 160:320]
    assert groups(OTHERS[0], crop(fine, 20, 30), crop(fine, 35.5, 22.25)) == [0, 1, 1]


def test_same_shape_with_different_texture_stays_alone() -> None:
    """One channel alone (a smooth nucleus, here the same) does not make a picture."""
    images = np.stack(OTHERS)
    images[:, 0] = images[0, 0]
    assert find_copies(images).group.tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [0, 255])
def test_blank_channel_neither_hides_nor_makes_a_pair(value: int) -> None:
    images = np.stack([crop(FIELD, 0, 0), crop(FIELD, 10.25, 20.5), *OTHERS])
    images[:, 0] = value
    assert find_copies(images).group.tolist() == [0, 0, 2, 3, 4]


def test_constant_images_are_copies_when_equal_and_overlap_nothing() -> None:
    images = np.empty((5, 3, 64, 64), np.uint8)
    images[:] = np.array([0, 255, 0, 7, 255], np.uint8)[:, None, None, None]
    copies = find_copies(images)
    assert copies.group.tolist() == [0, 1, 0, 3, 1]
    assert len(copies.overlaps) == 0


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(8)))
def test_permuting_samples_permutes_groups(order: list[int]) -> None:
    images = np.stack(
        [
            crop(FIELD, 0, 0),
            crop(FIELD, 0, 20.5),
            crop(FIELD, 64, 64),
            crop(FIELD, 64, 40.75),
            viewed(OTHERS[0], True, 1),
            *OTHERS,
        ]
    )
    expected = np.array([0, 0, 1, 1, 2, 2, 3, 4])[order]
    smallest = {int(name): int(np.argmax(expected == name)) for name in expected}
    assert find_copies(images[order]).group.tolist() == [smallest[int(k)] for k in expected]


def test_one_channel_and_non_square() -> None:
    fine = field(0, channels=1)
    first = crop(fine, 0, 0, 48, 80)
    second = crop(fine, 12.25, 20, 48, 80)
    turned = np.rot90(crop(fine, 30, 0.5, 80, 48), axes=(1, 2))
    other = crop(field(1, channels=1), 0, 0, 48, 80)
    copies = find_copies(np.stack([other, first, second, turned, other[:, ::-1]]))
    assert copies.group.tolist() == [0, 1, 1, 1, 0]
    assert copies.exact.tolist() == [[0, 4]]
    assert [1, 2] in copies.overlaps.tolist()
    assert copies.overlaps[:, 1].max() == 3
    same_bytes = np.ascontiguousarray(np.rot90(other, axes=(1, 2))).reshape(other.shape)
    assert groups(other, same_bytes) == [0, 1]


def test_many_copies_make_a_star_not_all_pairs() -> None:
    images = np.zeros((3000, 1, 32, 32), np.uint8)
    images[1::2] = OTHERS[0][:1, :32, :32]
    copies = find_copies(images)
    assert copies.group.tolist() == [0, 1] * 1500
    assert len(copies.exact) == 2998


def test_pattern_in_all_samples_is_compared_with_few_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """400 different cells that share one mark: 79,800 pairs, of which few may be looked at."""
    rng = np.random.default_rng(0)
    images = np.zeros((400, 1, 32, 32), np.uint8)
    images[:, :, 4:17, 4:17] = crop(FIELD, 0, 0)[:1, :13, :13]
    images[:, :, 20:, 20:] = rng.integers(0, 256, (400, 1, 12, 12))
    looks = 0

    def look(*_: object) -> float:
        nonlocal looks
        looks += 1
        return 0.0

    monkeypatch.setattr("cellline.data.overlaps.shared_area", look)
    find_copies(images)
    assert 0 < looks < 400 * 8 * 12


def test_rows_are_numbered_over_all_arrays(tmp_path: Path) -> None:
    path = tmp_path / "test.npy"
    np.save(path, np.stack([OTHERS[1], crop(FIELD, 9, 9)]))
    train = np.stack([OTHERS[0], OTHERS[1], crop(FIELD, 0, 0)])
    copies = find_copies(train, np.load(path, mmap_mode="r"), train[:0], np.stack(OTHERS[1:]))
    assert copies.group.tolist() == [0, 1, 2, 1, 2, 1, 6]
    assert copies.exact.tolist() == [[1, 3], [1, 5]]
    assert copies.overlaps.tolist() == [[2, 4]]


@pytest.mark.parametrize("side", [1, 12, 13])
def test_tiny_images_can_only_be_exact_copies(side: int) -> None:
    images = np.stack([OTHERS[0], OTHERS[1], OTHERS[0]])[:, :, :side, :side]
    assert find_copies(images).group.tolist() == [0, 1, 0]


def test_memory_does_not_grow_with_what_is_remembered_of_keypoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Noise has 49 keypoints a sample, of 488 bytes each; the file takes them."""
    # Or blocks of samples would take more at a time than all keypoints of so few.
    monkeypatch.setattr("cellline.data.overlaps.BLOCK_BYTES", 2 * 3 * 48 * 48)
    many = np.random.default_rng(0).integers(0, 256, (800, 3, 48, 48), np.uint8)
    few = many[:200]
    peaks = []
    for images in (few, many):
        tracemalloc.start()
        find_copies(images)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (len(many) - len(few)) < 5000
    assert not list(Path().iterdir())


def test_memory_of_a_block_is_the_same_for_large_images() -> None:
    peaks = []
    for n, side in ((256, 64), (16, 256)):
        rows = Rows([np.random.default_rng(0).integers(0, 256, (n, 3, side, side), np.uint8)])
        tracemalloc.start()
        for _ in described_blocks(rows, np.arange(n)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A larger image has more of its pixels away from the border: more keypoints.
    assert peaks[1] < 1.7 * peaks[0]


def test_a_full_disk_is_an_error_that_names_the_folder() -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 64, 64), np.uint8)
    with (
        small_file_system(Path("full").resolve(), "64k") as folder,
        pytest.raises(OSError) as caught,
    ):
        copies_module.find_copies(images, scratch=folder)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(folder)


def test_no_samples() -> None:
    assert len(find_copies().group) == 0
    copies = find_copies(np.empty((0, 3, 64, 64), np.uint8))
    assert (len(copies.group), copies.exact.shape, copies.overlaps.shape) == (0, (0, 2), (0, 2))


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros((2, 3, 8, 8), np.float32)],
        [np.zeros((2, 8, 8), np.uint8)],
        [np.zeros((2, 3, 8, 8), np.uint8), np.zeros((2, 1, 8, 8), np.uint8)],
    ],
)
def test_wrong_arrays_are_refused(arrays: list[Images]) -> None:
    with pytest.raises(ValueError, match="one sample shape"):
        find_copies(*arrays)


@pytest.mark.skipif(not SMALL.is_dir(), reason="needs the real samples in shared/")
def test_real_pairs_agree_in_their_labels() -> None:
    """Labels are not looked at, and two samples agree by chance in one of seven cases."""
    channels: dict[int, dict[str, Images]] = {}
    with tarfile.open(SMALL / "images_train.tar") as tar:
        for member in tar:
            if member.name.endswith(".png"):
                number, colour = Path(member.name).stem.split("_")
                file = tar.extractfile(member)
                assert file is not None
                with Image.open(io.BytesIO(file.read())) as image:
                    channels.setdefault(int(number), {})[colour] = np.asarray(image)
    with (SMALL / "y_train.csv").open() as table:
        label = {int(line["file_id"]): line["cell_line"] for line in csv.DictReader(table)}
    ids = sorted(channels)
    copies = find_copies(
        np.stack([[channels[k][colour] for colour in ("blue", "red", "yellow")] for k in ids])
    )
    labels = np.array([label[k] for k in ids])
    assert len(copies.exact) > 10
    assert len(copies.overlaps) > 10
    assert (labels == labels[copies.group]).all()
