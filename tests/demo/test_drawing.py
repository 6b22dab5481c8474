import csv
import io
import tarfile
from collections import Counter
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cellline.demo.drawing import (
    CELL_LINES,
    CHANNELS,
    draw_competition,
    draw_field,
    draw_sample,
    plan_samples,
)

FILES = ("images_train.tar", "images_test.tar", "y_train.csv", "sample_submission.csv")
Pictures = dict[int, NDArray[np.uint8]]


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def pictures(path: Path) -> Pictures:
    planes: dict[int, list[NDArray[np.uint8]]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            image = Image.open(io.BytesIO(file.read()))
            assert image.mode == "L" and image.format == "PNG"
            planes.setdefault(int(Path(member.name).name[:5]), []).append(np.asarray(image))
    return {i: np.stack(channels) for i, channels in planes.items()}


def views(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    turned = [np.rot90(picture, k, axes=(1, 2)) for k in range(4)]
    return turned + [view[:, :, ::-1] for view in turned]


def pairs_alike(drawn: Pictures, key: Callable[[NDArray[np.uint8]], bytes]) -> set[tuple[int, int]]:
    found: dict[bytes, list[int]] = {}
    for i, picture in drawn.items():
        found.setdefault(key(picture), []).append(i)
    return {pair for alike in found.values() for pair in combinations(sorted(alike), 2)}


def canonical(picture: NDArray[np.uint8]) -> bytes:
    return min(view.tobytes() for view in views(picture))


def overlapping_pairs(drawn: Pictures) -> set[tuple[int, int]]:
    """Find pairs of different pictures that are equal where one, shifted, covers the other."""
    middle = {p[:, 24:40, 24:40].tobytes(): i for i, p in drawn.items()}
    found = set()
    for i, p in drawn.items():
        for dy in range(-16, 17):
            for dx in range(-16, 17):
                patch = p[:, 24 + dy : 40 + dy, 24 + dx : 40 + dx].tobytes()
                j = middle.get(patch, i)
                if (dy or dx) and j != i:
                    q = drawn[j]
                    y, x, v, u = max(dy, 0), max(dx, 0), max(-dy, 0), max(-dx, 0)
                    ours = p[:, y : 64 - v, x : 64 - u]
                    if np.array_equal(ours, q[:, v : 64 - y, u : 64 - x]):
                        found.add((min(i, j), max(i, j)))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "input"
    draw_competition(folder)
    return folder


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Pictures:
    return pictures(folder / FILES[0]) | pictures(folder / FILES[1])


@pytest.fixture(scope="module")
def labels(folder: Path) -> dict[int, str]:
    true = {i: sample.cell_line for i, sample in plan_samples(270, 108).items() if i > 270}
    return {int(i): label for i, label in rows(folder / "y_train.csv")[1:]} | true


def test_layout_is_the_competitions(folder: Path, drawn: Pictures) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for part, ids in (("images_train", range(1, 271)), ("images_test", range(271, 379))):
        with tarfile.open(folder / f"{part}.tar") as archive:
            members = archive.getmembers()
        wanted = [f"{part}/{i:05d}_{c}.png" for i in ids for c in ("blue", "red", "yellow")]
        assert [member.name for member in members] == wanted
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert all(p.shape == (3, 64, 64) and p.dtype == np.uint8 for p in drawn.values())


def test_tables_have_header_ids_and_placeholder(folder: Path) -> None:
    train, template = rows(folder / "y_train.csv"), rows(folder / "sample_submission.csv")
    assert train[0] == template[0] == ["file_id", "cell_line"]
    assert [row[0] for row in train[1:]] == [str(i) for i in range(1, 271)]
    assert template[1:] == [[str(i), "A549"] for i in range(271, 379)]
    assert {row[1] for row in train[1:]} == set(CELL_LINES)


def test_returned_truth_is_the_test_labels(tmp_path: Path) -> None:
    truth = draw_competition(tmp_path, samples_train=27, samples_test=18, size=16, seed=3)
    plan = plan_samples(27, 18, size=16, seed=3)
    assert truth == {i: plan[i].cell_line for i in range(28, 46)}
    assert set(truth.values()) == set(CELL_LINES)


def test_classes_are_unequal_but_none_is_rare(drawn: Pictures, labels: dict[int, str]) -> None:
    train = {i: label for i, label in labels.items() if i <= 270}
    counts = Counter(train.values())
    assert 2.5 < max(counts.values()) / min(counts.values()) < 3.5
    distinct = Counter({canonical(drawn[i]): label for i, label in train.items()}.values())
    assert set(distinct) == set(CELL_LINES) and min(distinct.values()) >= 6


def test_order_of_ids_tells_nothing_of_the_class(labels: dict[int, str]) -> None:
    train = [labels[i] for i in range(1, 271)]
    neighbours_alike = sum(a == b for a, b in pairwise(train)) / 269
    assert neighbours_alike < 0.25  # 0.13 by chance at these frequencies, nearly 1 if sorted


def test_planted_pairs_are_in_the_pixels_and_share_labels(
    drawn: Pictures, labels: dict[int, str]
) -> None:
    exact = pairs_alike(drawn, lambda picture: picture.tobytes())
    turned = pairs_alike(drawn, canonical) - exact
    shifted = overlapping_pairs(drawn)
    copied = {i for pair in exact for i in pair if i <= 270}
    assert 0.1 < len(copied) / 270 < 0.25  # a copy and its source each count
    assert len(turned) >= 4
    assert len(shifted) >= 7
    assert sum(a <= 270 < b for a, b in exact) >= 3
    planted = exact | turned | shifted
    assert all(labels[a] == labels[b] for a, b in planted)
    plan = plan_samples(270, 108)
    assert all(plan[a].field == plan[b].field for a, b in planted)


def test_pairs_of_one_field_in_the_plan_are_found_in_the_pixels(drawn: Pictures) -> None:
    found = pairs_alike(drawn, canonical) | overlapping_pairs(drawn)
    plan = plan_samples(270, 108)
    for a, b in combinations(plan, 2):
        if plan[a].field == plan[b].field and (
            plan[a].view == plan[b].view or plan[a].offset == plan[b].offset
        ):
            assert (a, b) in found


def test_no_pairs_without_copies_and_overlaps() -> None:
    plan = plan_samples(90, 36, copies=0, overlaps=0)
    assert len({sample.field for sample in plan.values()}) == 126
    drawn = {i: draw_sample(sample, 64, seed=0) for i, sample in plan.items()}
    assert not pairs_alike(drawn, canonical) and not overlapping_pairs(drawn)


def test_planting_keeps_every_samples_label() -> None:
    planted, plain = plan_samples(270, 108), plan_samples(270, 108, copies=0, overlaps=0)
    assert {i: s.cell_line for i, s in planted.items()} == {
        i: s.cell_line for i, s in plain.items()
    }


def test_other_seed_draws_the_same_sample_otherwise() -> None:
    sample = plan_samples(9, 9)[1]
    assert np.array_equal(draw_sample(sample, 64, seed=0), draw_sample(sample, 64, seed=0))
    assert not np.array_equal(draw_sample(sample, 64, seed=0), draw_sample(sample, 64, seed=1))


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        draw_competition(tmp_path / name, samples_train=18, samples_test=9, size=32, seed=seed)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    for name in FILES[:3]:
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()


def test_mislabelling_changes_that_many_training_labels_and_nothing_else(tmp_path: Path) -> None:
    small = {"samples_train": 90, "samples_test": 18, "size": 16}
    truth = draw_competition(tmp_path / "clean", **small)
    assert draw_competition(tmp_path / "noisy", **small, mislabelled=0.5) == truth
    clean, noisy = (rows(tmp_path / name / "y_train.csv") for name in ("clean", "noisy"))
    assert sum(a != b for a, b in zip(clean, noisy, strict=True)) == 45
    assert {label for _, label in noisy[1:]} <= set(CELL_LINES)
    for name in FILES[:2]:
        assert (tmp_path / "clean" / name).read_bytes() == (tmp_path / "noisy" / name).read_bytes()


def test_gain_changes_the_red_channel_of_the_test_images_and_nothing_else(tmp_path: Path) -> None:
    small = {"samples_train": 18, "samples_test": 9, "size": 16}
    truth = draw_competition(tmp_path / "plain", **small)
    assert draw_competition(tmp_path / "bright", **small, test_gain=3) == truth
    for name in ("images_train.tar", "y_train.csv", "sample_submission.csv"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "bright" / name).read_bytes()
    plain, bright = (pictures(tmp_path / name / FILES[1]) for name in ("plain", "bright"))
    red = CHANNELS.index("red")
    for i, picture in plain.items():
        expected = picture.astype(int)
        expected[red] = np.minimum(3 * expected[red], 255)
        np.testing.assert_array_equal(bright[i], expected)


@pytest.mark.parametrize("name", FILES)
def test_refuses_to_overwrite(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(FileExistsError, match=name):
        draw_competition(tmp_path, samples_train=9, samples_test=9, size=16)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples_train": 8},
        {"samples_test": 8},
        {"size": 15},
        {"copies": 0.6},
        {"mislabelled": 2},
        {"test_gain": -1},
    ],
)
def test_refuses_what_it_can_not_draw(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        draw_competition(tmp_path, **({"samples_train": 9, "samples_test": 9, "size": 16} | wrong))
    assert not list(tmp_path.iterdir())


def test_a_cell_line_is_told_by_simple_statistics() -> None:
    """A nearest-centroid rule on means, deviations and edges is far above chance (1 in 9)."""

    def statistics(name: str, i: int) -> NDArray[np.float64]:
        rng = np.random.default_rng([5, i, len(name)])
        field = draw_field(rng, name, 64).astype(np.float64)
        assert field.shape == (len(CHANNELS), 64, 64)
        edges = np.abs(np.diff(field, axis=2)).mean(axis=(1, 2))
        return np.concatenate([field.mean(axis=(1, 2)), field.std(axis=(1, 2)), edges])

    x = np.array([[statistics(name, i) for i in range(12)] for name in CELL_LINES])
    x /= x.std(axis=(0, 1))
    centroids = x[:, :6].mean(axis=1)
    gap = np.linalg.norm(x[:, 6:, None] - centroids, axis=-1)
    recall = (gap.argmin(axis=-1) == np.arange(9)[:, None]).mean()
    assert recall > 0.8
