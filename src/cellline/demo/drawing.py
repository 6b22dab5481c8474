"""A small synthetic competition, drawn, in the exact layout of the real one.

Like the real one it has unequal classes, copies and overlapping crops, also in the test set.
"""

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cellline.data.views import VIEWS, take_view
from cellline.demo.cells import CELL_LINES, CHANNELS, draw_field
from cellline.host.files import atomic, write_csv

HEADER = ("file_id", "cell_line")

# One copy in five is flipped or rotated, as in the real data; the rest are exact.
TURNED_EVERY = 5


@dataclass(frozen=True)
class Drawing:
    """Settings of a drawn competition; each part has samples of every cell line."""

    samples_train: int
    samples_test: int
    size: int = 64
    """Side of a picture, pixels."""
    seed: int = 0
    copies: float = 0.1
    """Share of the training samples that copy another one; half of it for test samples."""
    overlaps: float = 0.03
    """Share of the training samples that are another crop of another one's field."""

    @property
    def train_ids(self) -> range:
        """Ids of the training samples."""
        return range(1, self.samples_train + 1)

    @property
    def test_ids(self) -> range:
        """Ids of the test samples."""
        return range(self.samples_train + 1, self.samples_train + self.samples_test + 1)

    @property
    def margin(self) -> int:
        """Largest shift between two crops of one field, pixels."""
        return self.size // 4


@dataclass(frozen=True)
class Sample:
    """Origin of a sample's picture: a crop at `offset` of a field, in one of the VIEWS.

    Samples of the same `field` are copies or overlapping crops of each other; no others are.
    """

    cell_line: str
    field: int
    offset: tuple[int, int]
    view: int = 0


def draw_competition(folder: Path, drawing: Drawing) -> dict[int, str]:
    """Write a competition's four files into `folder`; return each test sample's true label."""
    samples = plan_samples(drawing)
    parts = (drawing.train_ids, drawing.test_ids)
    labels, truth = ({i: samples[i].cell_line for i in ids} for ids in parts)
    train, test = (((i, draw_sample(samples[i], drawing)) for i in ids) for ids in parts)
    write_competition(folder, train, test, labels, truth)
    return truth


def write_competition(
    folder: Path,
    train: Iterable[tuple[int, np.ndarray]],
    test: Iterable[tuple[int, np.ndarray]],
    labels: Mapping[int, str],
    test_ids: Iterable[int],
) -> None:
    """Write the four files of a competition whose pictures come one by one, with their ids."""
    write_tar(folder / "images_train.tar", train)
    write_tar(folder / "images_test.tar", test)
    write_csv(folder / "y_train.csv", HEADER, list(labels.items()))
    placeholder = next(iter(CELL_LINES))
    write_csv(folder / "sample_submission.csv", HEADER, [(i, placeholder) for i in test_ids])


def write_tar(path: Path, pictures: Iterable[tuple[int, np.ndarray]]) -> None:
    """Pack pictures uint8 [channel, height, width] as the competition does, without times."""
    with (
        atomic(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for i, picture in pictures:
            for channel, plane in zip(CHANNELS, picture, strict=True):
                png = io.BytesIO()
                Image.fromarray(plane).save(png, format="PNG")
                member = tarfile.TarInfo(f"{path.stem}/{i:05d}_{channel}.png")
                member.size = png.tell()
                png.seek(0)
                archive.addfile(member, png)


def draw_sample(sample: Sample, drawing: Drawing) -> np.ndarray:
    """Draw one sample's picture, uint8 [channel, size, size]."""
    rng = np.random.default_rng([drawing.seed, 2, sample.field])
    field = draw_field(rng, sample.cell_line, drawing.size, drawing.margin)
    y, x = sample.offset
    crop = field[:, y : y + drawing.size, x : x + drawing.size]
    return np.ascontiguousarray(take_view(crop, sample.view))


def plan_samples(drawing: Drawing) -> dict[int, Sample]:
    """Decide what every sample shows, by id: the truth that a search for copies should find."""
    rng = np.random.default_rng([drawing.seed, 1])
    train_ids, test_ids = drawing.train_ids, drawing.test_ids
    samples: dict[int, Sample] = {}
    for ids in (train_ids, test_ids):
        for i, cell_line in zip(ids, deal_cell_lines(rng, len(ids)), strict=True):
            y, x = rng.integers(0, drawing.margin + 1, size=2).tolist()
            samples[i] = Sample(cell_line, field=i, offset=(y, x))

    alone = set(samples)
    for targets, share, overlap in (
        (train_ids, drawing.copies, False),
        (train_ids, drawing.overlaps, True),
        (test_ids, drawing.copies / 2, False),
    ):
        planted, wanted = 0, round(share * len(targets))
        for target in rng.permutation(targets).tolist():
            if planted == wanted:
                break
            line = samples[target].cell_line
            sources = [i for i in train_ids if samples[i].cell_line == line and i != target]
            if target in alone and sources:
                source = sources[rng.integers(len(sources))]
                planted += 1
                copy = samples[source]
                if overlap:
                    shift = rng.integers(1, drawing.margin + 1, size=2)
                    y, x = ((shift + copy.offset) % (drawing.margin + 1)).tolist()
                    copy = replace(copy, offset=(y, x))
                elif planted % TURNED_EVERY == 0:
                    view = (copy.view + int(rng.integers(1, len(VIEWS)))) % len(VIEWS)
                    copy = replace(copy, view=view)
                samples[target] = copy
                alone -= {target, source}
    return samples


def deal_cell_lines(rng: np.random.Generator, count: int) -> list[str]:
    """Labels in random order: each class once, and the rest by its frequency."""
    frequency = np.array([look.frequency for look in CELL_LINES.values()])
    share = (count - len(CELL_LINES)) * frequency / frequency.sum()
    extra = np.floor(share).astype(int)
    extra[np.argsort(extra - share, kind="stable")[: round(share.sum()) - extra.sum()]] += 1
    dealt: list[str] = rng.permutation(np.repeat(list(CELL_LINES), extra + 1)).tolist()
    return dealt
