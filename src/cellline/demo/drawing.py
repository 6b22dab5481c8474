"""A small synthetic competition, drawn rather than photographed, in the real one's exact layout.

It keeps what makes the real data awkward: unequal classes, copies (also turned, also across the
training and test parts) and overlapping crops of one field of view.
"""

import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellline.demo.cells import CELL_LINES, CHANNELS, draw_field
from cellline.host.files import atomic, write_csv

Picture = NDArray[np.uint8]  # [3, size, size], channels in the order of CHANNELS

HEADER = ("file_id", "cell_line")

# One copy in five is flipped or rotated, the rest are exact: as rare as they are in the real data.
TURNED_EVERY = 5


@dataclass(frozen=True)
class Sample:
    """Where one sample's picture comes from: a crop at `offset` of a field, seen in a D4 view.

    Two samples are copies or overlapping crops of each other exactly if their `field` is the same.
    """

    cell_line: str
    field: int
    offset: tuple[int, int]
    view: int = 0


def draw_competition(
    folder: Path,
    *,
    samples_train: int = 270,
    samples_test: int = 108,
    size: int = 64,
    seed: int = 0,
    copies: float = 0.1,
    overlaps: float = 0.03,
    mislabelled: float = 0.0,
    test_gain: float = 1.0,
) -> dict[int, str]:
    """Write a competition's four files into `folder`; return each test sample's true label.

    Training ids start at 1 and test ids follow. Of the training samples a fraction `copies` copies
    another one, a fraction `overlaps` is another crop of another one's field, and a fraction
    `mislabelled` of them, none that has copies, carries a wrong label in `y_train.csv`. Half the
    fraction `copies` of the test samples copies a training sample. The test images' red channel is
    `test_gain` times as bright, up to 255: a test set that doesn't look like the training set, and
    has no exact copies of it. The same arguments give the same bytes in every file (on the same
    machine, NumPy and Pillow).

    Raises FileExistsError if one of the files exists, ValueError for a part smaller than the number
    of classes, a `size` below 16 pixels, fractions that can't be met, or a negative gain.
    """
    if test_gain < 0:
        raise ValueError("test_gain must not be negative")
    samples = plan_samples(
        samples_train, samples_test, size=size, seed=seed, copies=copies, overlaps=overlaps
    )
    train_ids = range(1, samples_train + 1)
    test_ids = range(samples_train + 1, samples_train + samples_test + 1)
    labels = _given_labels(samples, train_ids, mislabelled, seed)
    pictures = ((i, draw_sample(samples[i], size, seed)) for i in train_ids)
    of_test = ((i, _brighten(draw_sample(samples[i], size, seed), test_gain)) for i in test_ids)
    write_competition(folder, pictures, of_test, labels, test_ids)
    return {i: samples[i].cell_line for i in test_ids}


def write_competition(
    folder: Path,
    train: Iterable[tuple[int, Picture]],
    test: Iterable[tuple[int, Picture]],
    labels: Mapping[int, str],
    test_ids: Iterable[int],
) -> None:
    """Write the four files of a competition whose pictures come one by one, as id and picture.

    Raises FileExistsError if one of the files exists.
    """
    train_path, test_path, labels_path, template_path = (
        folder / name
        for name in ("images_train.tar", "images_test.tar", "y_train.csv", "sample_submission.csv")
    )
    for path in (train_path, test_path, labels_path, template_path):
        if path.exists():
            raise FileExistsError(f"{path} exists already: choose an empty folder")
    _write_tar(train_path, train)
    _write_tar(test_path, test)
    write_csv(labels_path, HEADER, labels.items())
    placeholder = next(iter(CELL_LINES))
    write_csv(template_path, HEADER, dict.fromkeys(test_ids, placeholder).items())


def plan_samples(
    samples_train: int,
    samples_test: int,
    *,
    size: int = 64,
    seed: int = 0,
    copies: float = 0.1,
    overlaps: float = 0.03,
) -> dict[int, Sample]:
    """Decide what every sample shows, id -> Sample, training ids (from 1) before test ids.

    The truth that a search for copies and overlaps is to find. See `draw_competition`.
    """
    if min(samples_train, samples_test) < len(CELL_LINES) or size < 16:
        raise ValueError(f"each part needs {len(CELL_LINES)} samples or more, of 16 pixels or more")
    if min(copies, overlaps) < 0 or copies + overlaps > 0.5:
        raise ValueError("copies and overlaps must not be negative nor exceed half the samples")
    rng = np.random.default_rng([seed, 1])
    margin = _margin(size)
    samples: dict[int, Sample] = {}
    for first, count in ((1, samples_train), (samples_train + 1, samples_test)):
        for i, cell_line in enumerate(_deal_cell_lines(rng, count), start=first):
            y, x = rng.integers(0, margin + 1, size=2).tolist()
            samples[i] = Sample(cell_line, field=i, offset=(y, x))

    train_ids = range(1, samples_train + 1)
    test_ids = range(samples_train + 1, samples_train + samples_test + 1)
    of_line: dict[str, list[int]] = defaultdict(list)
    for i in train_ids:
        of_line[samples[i].cell_line].append(i)
    alone = set(samples)
    for targets, wanted, overlap in (
        (train_ids, round(copies * samples_train), False),
        (train_ids, round(overlaps * samples_train), True),
        (test_ids, round(copies * samples_test / 2), False),
    ):
        planted = 0
        for target in rng.permutation(targets).tolist():
            if planted == wanted:
                break
            sources = [i for i in of_line[samples[target].cell_line] if i != target]
            if target in alone and sources:
                source = sources[rng.integers(len(sources))]
                planted += 1
                turned = planted % TURNED_EVERY == 0
                samples[target] = _another(rng, samples[source], margin, overlap, turned)
                alone -= {target, source}
    return samples


def draw_sample(sample: Sample, size: int, seed: int) -> Picture:
    """Draw one sample's picture, uint8 [3, size, size]."""
    rng = np.random.default_rng([seed, 2, sample.field])
    field = draw_field(rng, sample.cell_line, size, _margin(size))
    y, x = sample.offset
    crop = np.rot90(field[:, y : y + size, x : x + size], sample.view % 4, axes=(1, 2))
    return np.ascontiguousarray(crop[:, :, ::-1] if sample.view >= 4 else crop)


def _brighten(picture: Picture, gain: float) -> Picture:
    """Return a picture whose red channel is `gain` times as bright."""
    red = CHANNELS.index("red")
    brightened = picture.copy()
    brightened[red] = np.minimum(np.rint(picture[red] * float(gain)), 255)
    return brightened


def _margin(size: int) -> int:
    """Return by how much two crops of one field may be shifted, in pixels."""
    return size // 4


def _another(
    rng: np.random.Generator, source: Sample, margin: int, overlap: bool, turned: bool
) -> Sample:
    """Return a sample of the same field: a shifted crop, a turned copy or an exact copy."""
    if overlap:
        shift_y, shift_x = rng.integers(1, margin + 1, size=2).tolist()
        y, x = source.offset
        return replace(source, offset=((y + shift_y) % (margin + 1), (x + shift_x) % (margin + 1)))
    if turned:
        return replace(source, view=(source.view + int(rng.integers(1, 8))) % 8)
    return source


def _deal_cell_lines(rng: np.random.Generator, count: int) -> list[str]:
    """Return `count` labels in random order, each class once and the rest by its frequency."""
    frequency = np.array([look.frequency for look in CELL_LINES.values()])
    share = (count - len(CELL_LINES)) * frequency / frequency.sum()
    extra = np.floor(share).astype(int)
    extra[np.argsort(extra - share, kind="stable")[: round(share.sum()) - extra.sum()]] += 1
    dealt: list[str] = rng.permutation(np.repeat(list(CELL_LINES), extra + 1)).tolist()
    return dealt


def _given_labels(
    samples: Mapping[int, Sample], train_ids: range, mislabelled: float, seed: int
) -> dict[int, str]:
    """Return the training labels as published: some of the samples without copies are wrong."""
    rng = np.random.default_rng([seed, 4])
    labels = {i: samples[i].cell_line for i in train_ids}
    fields = Counter(sample.field for sample in samples.values())
    alone = [i for i in train_ids if fields[samples[i].field] == 1]
    wanted = round(mislabelled * len(train_ids))
    if not 0 <= wanted <= len(alone):
        raise ValueError(f"can't mislabel {wanted} of {len(alone)} samples without copies")
    for i in rng.choice(alone, wanted, replace=False).tolist():
        wrong = [name for name in CELL_LINES if name != labels[i]]
        labels[i] = wrong[rng.integers(len(wrong))]
    return labels


def _write_tar(path: Path, pictures: Iterable[tuple[int, Picture]]) -> None:
    """Pack pictures as the competition does; TarInfo's defaults leave no time and no owner."""
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
