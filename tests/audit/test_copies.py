"""Copies and overlapping crops are found in every view; different pictures are left alone."""

import errno
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from disks import small_file_system
from hypothesis import given, settings
from hypothesis import strategies as st

from cellline.audit import copies as copies_module
from cellline.audit.keypoints import MOST, find_keypoints
from cellline.data.competition import load_competition
from cellline.data.views import VIEWS, take_view

SMALL = Path(__file__).resolve().parents[2].parent / "shared/data/cell-lines-small"
SHRINK = 4  # fine pixels per pixel: crops of a field can be shifted by quarters of a pixel

# Each test has a folder of its own.
find_copies = partial(copies_module.find_copies, scratch=Path())


def field(seed: int, side: int = 128, channels: int = 3) -> np.ndarray:
    """A textured picture float32 [channel, SHRINK * side, SHRINK * side], gray values 0 to 255."""
    rng = np.random.default_rng(seed)
    out = rng.standard_normal((channels, SHRINK * side, SHRINK * side), np.float32)
    for axis in (1, 2):
        for _ in range(3):  # three boxes of 9 make nearly a Gaussian of 4.5 fine pixels
            out = np.sum([np.roll(out, k, axis) for k in range(-4, 5)], 0)
    return np.clip(128 + 45 * out / out.std(), 0, 255)


def crop(fine: np.ndarray, y: float, x: float, height: int = 64, width: int = 64) -> np.ndarray:
    """A camera's picture from (y, x), in pixels: cut first, shrunk afterwards."""
    top, left = round(y * SHRINK), round(x * SHRINK)
    cut = fine[:, top : top + SHRINK * height, left : left + SHRINK * width]
    shrunk = cut.reshape(-1, height, SHRINK, width, SHRINK).mean((2, 4))
    return shrunk.round().astype(np.uint8)


FIELD = field(0)
OTHERS = [crop(field(seed, 64), 0, 0) for seed in range(1, 4)]


def groups(*images: np.ndarray) -> list[int]:
    return find_copies(np.stack(images)).group.tolist()


@pytest.mark.parametrize("view", VIEWS)
def test_exact_copy_is_found_in_every_view(view: int) -> None:
    copies = find_copies(np.stack([*OTHERS, take_view(OTHERS[1], view)]))
    assert copies.group.tolist() == [0, 1, 2, 1]
    assert copies.exact.tolist() == [[1, 3]]
    assert len(copies.overlaps) == 0


@settings(max_examples=40)
@given(
    area=st.floats(0.3, 1.0),
    aspect=st.floats(0, 1),
    down=st.booleans(),
    view=st.sampled_from(VIEWS),
)
def test_overlap_of_three_tenths_is_found_at_any_shift_and_view(
    area: float, aspect: float, down: bool, view: int
) -> None:
    """Shifts by quarters of a pixel, whose overlap is `area` of the crop, from square to strip."""
    height = area**aspect
    y, x = (round(64 * SHRINK * (1 - side)) / SHRINK for side in (height, area / height))
    first, second = crop(FIELD, 0 if down else y, 0), crop(FIELD, y if down else 0, x)
    copies = find_copies(np.stack([OTHERS[0], first, take_view(second, view), OTHERS[1]]))
    assert copies.group.tolist() == [0, 1, 1, 3]
    assert len(copies.exact) or copies.overlaps.tolist() == [[1, 2]]


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_different_pictures_and_noise_stay_alone(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 3, 64, 64), dtype=np.uint8)
    pictures = [crop(field(seed + k, 64), 0, 0) for k in range(4)]
    assert groups(*noise, *pictures) == list(range(8))


def test_different_cells_on_black_stay_alone() -> None:
    """They share a black border, a blank corner, and a burnt-in mark, which is 4 % of the area."""
    images = np.zeros((4, 3, 64, 64), np.uint8)
    images[:3, :, 24:56, 24:56] = np.stack(OTHERS)[:, :, :32, :32]
    images[:, :, 4:17, 4:17] = crop(FIELD, 0, 0)[:, :13, :13]
    assert groups(*images) == [0, 1, 2, 3]
    specks = np.zeros((2, 3, 64, 64), np.uint8)
    specks[0, :, 20, 20] = specks[1, :, 40, 35] = 60
    assert groups(*specks) == [0, 1]


def test_overlapping_cells_on_black_are_found() -> None:
    fine = np.zeros_like(FIELD)
    fine[:, 160:320, 160:320] = FIELD[:, 160:320, 160:320]
    assert groups(OTHERS[0], crop(fine, 20, 30), crop(fine, 35.5, 22.25)) == [0, 1, 1]


@pytest.mark.parametrize("value", [0, 255])
def test_blank_channel_neither_hides_nor_makes_a_pair(value: int) -> None:
    images = np.stack([crop(FIELD, 0, 0), crop(FIELD, 10.25, 20.5), *OTHERS])
    images[:, 0] = value
    assert groups(*images) == [0, 0, 2, 3, 4]


def test_constant_images_are_copies_when_equal_and_overlap_nothing() -> None:
    images = np.empty((5, 3, 64, 64), np.uint8)
    images[:] = np.array([0, 255, 0, 7, 255], np.uint8)[:, None, None, None]
    copies = find_copies(images)
    assert copies.group.tolist() == [0, 1, 0, 3, 1]
    assert len(copies.overlaps) == 0


def test_chain_of_overlaps_is_one_group_named_by_its_smallest_row() -> None:
    ends = crop(FIELD, 0, 0), crop(FIELD, 0, 64)
    assert groups(OTHERS[0], ends[1], ends[0]) == [0, 1, 2]
    assert groups(OTHERS[0], ends[1], ends[0], OTHERS[1], crop(FIELD, 0, 31)) == [0, 1, 1, 3, 1]


def test_rows_are_numbered_over_all_arrays(tmp_path: Path) -> None:
    path = tmp_path / "test.npy"
    np.save(path, np.stack([OTHERS[1], crop(FIELD, 9, 9)]))
    train = np.stack([OTHERS[0], OTHERS[1], crop(FIELD, 0, 0)])
    copies = find_copies(train, np.load(path, mmap_mode="r"), train[:0], np.stack(OTHERS[1:]))
    assert copies.group.tolist() == [0, 1, 2, 1, 2, 1, 6]
    assert copies.exact.tolist() == [[1, 3], [1, 5]]
    assert copies.overlaps.tolist() == [[2, 4]]


def test_one_channel_and_non_square() -> None:
    fine = field(0, channels=1)
    first, second = crop(fine, 0, 0, 48, 80), crop(fine, 12.25, 20, 48, 80)
    turned = np.rot90(crop(fine, 30, 0.5, 80, 48), axes=(1, 2))
    other = crop(field(1, channels=1), 0, 0, 48, 80)
    copies = find_copies(np.stack([other, first, second, turned, other[:, ::-1]]))
    assert copies.group.tolist() == [0, 1, 1, 1, 0]
    assert copies.exact.tolist() == [[0, 4]]
    same_bytes = np.ascontiguousarray(np.rot90(other, axes=(1, 2))).reshape(other.shape)
    assert groups(other, same_bytes) == [0, 1]


def test_large_images_that_overlap_are_found_by_their_sharpest_keypoints() -> None:
    fine = field(3, 330, channels=1)
    first, second = crop(fine, 0, 0, 224, 224), crop(fine, 100.25, 60.5, 224, 224)
    keypoints = find_keypoints(np.stack([first, second]), np.arange(2))
    assert np.bincount(keypoints["row"]).tolist() == [MOST, MOST]
    assert groups(first, take_view(second, 5)) == [0, 0]


@pytest.mark.parametrize("side", [1, 12, 13])
def test_tiny_images_can_only_be_exact_copies(side: int) -> None:
    images = np.stack([OTHERS[0], OTHERS[1], OTHERS[0]])[:, :, :side, :side]
    assert groups(*images) == [0, 1, 0]


def test_a_full_disk_is_an_error_that_names_the_folder() -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 64, 64), np.uint8)
    with (
        small_file_system(Path("full").resolve(), "64k") as folder,
        pytest.raises(OSError) as caught,
    ):
        copies_module.find_copies(images, scratch=folder)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(folder)


@pytest.mark.skipif(not SMALL.is_dir(), reason="needs the real samples in shared/")
def test_real_pairs_agree_in_their_labels() -> None:
    """The search ignores labels, and two samples agree by chance in one of seven cases."""
    competition = load_competition(SMALL, Path("cache"))
    copies = find_copies(competition.train_images)
    assert len(copies.exact) > 10
    assert len(copies.overlaps) > 10
    assert (competition.labels == competition.labels[copies.group]).all()
