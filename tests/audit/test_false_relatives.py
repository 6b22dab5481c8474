"""Pictures that look alike and show different things don't become relatives."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from cellline.audit.copies import find_copies
from cellline.audit.dealing import Plan, make_folds
from cellline.audit.findings import read_findings
from cellline.audit.groups import choose_overlaps
from cellline.audit.splitting import deal_folds, find_missing
from cellline.audit.words import describe_dealt
from cellline.config import Folders, Reading
from cellline.errors import Caution
from cellline.runs.folds import Folds

SIDE, N, CLASSES = 48, 128, 4
Drawn = tuple[np.ndarray, np.ndarray]  # images uint8 [n, 1, side, side], labels int [n]


def texture(rng: np.random.Generator, contrast: float) -> np.ndarray:
    """A smooth random picture float [SIDE, SIDE] of mean 0."""
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE)))
    down, right = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)
    out = np.fft.irfft2(spectrum * np.exp(-120 * (down**2 + right**2)), (SIDE, SIDE))
    return np.asarray(contrast * out / out.std())


def draw(paint: Callable[[np.random.Generator, int], np.ndarray], classes: int = CLASSES) -> Drawn:
    """Pictures of each class in turn, with camera noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % classes
    pictures = [paint(rng, label) + rng.normal(0, 1, (SIDE, SIDE)) for label in labels.tolist()]
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)[:, None], labels


def shape(ground: np.ndarray, label: int, at: np.ndarray, radius: float, value: int) -> np.ndarray:
    """Paint a triangle, a square ... by the class, on a picture float [SIDE, SIDE]."""
    mask = Image.new("L", (4 * SIDE, 4 * SIDE))
    circle = (*(4 * at).tolist(), 4 * radius)
    ImageDraw.Draw(mask).regular_polygon(circle, 3 + label, rotation=20 * label, fill=255)
    weight = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255
    return np.asarray(ground * (1 - weight) + value * weight)


def digits(side: int) -> Drawn:
    data = load_digits(n_class=10)
    images = [Image.fromarray((15 * image).astype(np.uint8)) for image in data.images[:400]]
    return np.stack([image.resize((side, side)) for image in images])[:, None], data.target[:400]


def dots() -> Drawn:
    y, x = np.mgrid[:SIDE, :SIDE]

    def paint(rng: np.random.Generator, label: int) -> np.ndarray:
        places = rng.uniform(4, SIDE - 4, (4 + label, 2))
        return 220 * sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 4.5) for a, b in places)

    return draw(paint)


def same_background() -> Drawn:
    ground = 120 + texture(np.random.default_rng(1), 30)
    return draw(lambda rng, label: shape(ground, label, rng.uniform(8, SIDE - 8, 2), 5, 230))


def dish() -> Drawn:
    ground = shape(np.full((SIDE, SIDE), 20.0), 30, np.array([24, 24]), 21, 170)
    return draw(lambda rng, label: shape(ground, label, rng.uniform(16, 32, 2), 4, 80))


def silhouettes() -> Drawn:
    white = np.full((SIDE, SIDE), 255.0)
    middle = np.array([24, 24])

    def paint(rng: np.random.Generator, label: int) -> np.ndarray:
        body = shape(white, label, middle + rng.uniform(-6, 6, 2), rng.uniform(10, 16), 20)
        return shape(body, 1, middle + rng.uniform(-12, 12, 2), rng.uniform(4, 9), 20)

    return draw(paint)


def one_field_a_class() -> Drawn:
    """Labels agree, and all of a class would be one group."""
    fields = [128 + texture(np.random.default_rng(label), 40) for label in range(CLASSES)]
    return draw(lambda rng, label: np.roll(fields[label], rng.integers(0, 24, 2), (0, 1)))


def scale_bar() -> Drawn:
    def paint(rng: np.random.Generator, label: int) -> np.ndarray:
        image = Image.fromarray((90 + 8 * label + texture(rng, 4)).astype(np.uint8))
        pen = ImageDraw.Draw(image)
        pen.rectangle((26, 41, 42, 43), fill=255)
        pen.text((18, 28), "10 um", fill=255, font=ImageFont.load_default(9))
        return np.asarray(image, np.float64)

    return draw(paint)


def letters() -> Drawn:
    def paint(rng: np.random.Generator, label: int) -> np.ndarray:
        image = Image.new("L", (SIDE, SIDE))
        font = ImageFont.load_default(int(rng.integers(24, 30)))
        place = tuple(rng.uniform(4, 20, 2))
        ImageDraw.Draw(image).text(place, "BDEPRF"[label], fill=255, font=font)
        return np.asarray(image, np.float64)

    return draw(paint, classes=6)


SETS: dict[str, Callable[[], Drawn]] = {
    "digits of 28 px": lambda: digits(28),
    "digits of 64 px": lambda: digits(64),
    "dots on black": dots,
    "objects on one background": same_background,
    "a dish": dish,
    "silhouettes on white": silhouettes,
    "one field of view a class": one_field_a_class,
    "a scale bar": scale_bar,
    "letters": letters,
}


@pytest.mark.parametrize("name", SETS)
def test_less_than_one_pair_in_a_hundred_joins_two_labels(name: str) -> None:
    images, labels = SETS[name]()
    found = find_copies(images, scratch=Path())
    copies, trust = choose_overlaps(found, labels, 5, "auto")
    pairs = copies.overlaps
    assert np.sum(labels[pairs[:, 0]] != labels[pairs[:, 1]]) < max(0.01 * len(pairs), 1)
    assert trust.trusted
    assert find_missing(labels, deal_folds(labels, copies.group, 5, seed=0), 5) == []


def test_true_overlaps_are_kept_among_false_ones() -> None:
    images, labels = dots()
    rng = np.random.default_rng(2)
    fields = [np.tile(128 + texture(rng, 40), 2)[:, : SIDE + 16] for _ in range(20)]
    crops = [field[:, start : start + SIDE] for field in fields for start in (0, 16)]
    both = np.concatenate([np.rint(crops).clip(0, 255).astype(np.uint8)[:, None], images])
    found = find_copies(both, scratch=Path())
    classes = np.concatenate([np.arange(20).repeat(2) % CLASSES, labels])
    copies, trust = choose_overlaps(found, classes, 5, "auto")
    assert trust.found.false_share > 0.5
    assert trust.strictness in (1, 2)
    kept = copies.overlaps.tolist()
    assert all(second == first + 1 < 40 for first, second in kept)
    assert len(kept) > 15


def deal(drawn: Drawn, overlaps: str = "auto") -> Folds:
    """Deal folds of pictures written as a competition's files; the last eight are the test set."""
    images, labels = drawn
    tables: dict[str, list[tuple[object, object]]] = {"y_train": [], "sample_submission": []}
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        part, table = ("test", "sample_submission") if number >= N - 8 else ("train", "y_train")
        path = Path(f"input/images_{part}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(path)
        tables[table].append((number, f"class {label}"))
    for name, rows in tables.items():
        with Path(f"input/{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "kind"), *rows])
    return make_folds(Folders(), Plan(Reading(channels=("",)), n_folds=5, overlaps=overlaps))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("drawn", "why"),
    [
        (same_background, "of them are false, or labels are wrong"),
        (one_field_a_class, "1 group for"),
    ],
)
def test_overlaps_that_are_left_out_are_told_in_one_line(
    drawn: Callable[[], Drawn], why: str
) -> None:
    folds = deal(drawn())
    assert folds.group.tolist() == folds.competition.train_ids.tolist()
    told = [line for line in describe_dealt(folds) if isinstance(line, Caution)]
    assert len(told) == 1
    assert told[0].startswith("overlaps are left out, groups are exact copies only")
    assert why in told[0]
    assert read_findings(folds.record).trust.trusted


def test_a_user_can_do_without_overlaps() -> None:
    folds = deal(dots(), overlaps="off")
    assert folds.group.tolist() == folds.competition.train_ids.tolist()
    assert any("--overlaps off" in line for line in describe_dealt(folds))


def test_large_and_mixed_groups_are_named_and_shown() -> None:
    images, labels = draw(lambda rng, label: 128 + texture(rng, 40))
    images[::CLASSES][:12] = images[0]  # copies of one picture, all of class 0
    images[1] = images[2]
    folds = deal((images, labels))
    told = [line for line in describe_dealt(folds) if isinstance(line, Caution)]
    [large] = [line for line in told if "that of 0 has 12 (10.0 %), among them 40.0 %" in line]
    [mixed] = [line for line in told if "groups with different labels (1): 1, 2" in line]
    assert "audit/large.png beside folds.csv shows 0 and" in large
    assert "audit/mixed-1.png beside folds.csv shows 1 and 2" in mixed
    with Image.open("oof/audit/mixed-1.png") as picture:
        pixels = np.asarray(picture)
    np.testing.assert_array_equal(pixels[: 6 * SIDE : 6, : 6 * SIDE : 6], images[1, 0])
    assert not read_findings(folds.record).trust.trusted  # one of twelve pairs
