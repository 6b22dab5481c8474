"""A competition as its input folder holds it: matched by id, checked, decoded once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cellline.config import MetricName, Output, Reading
from cellline.data.asked import describe_unknown, find_asked, sort_classes
from cellline.data.cache import DecodedSplit, Images, open_images
from cellline.data.decoding import Form, Scale
from cellline.data.groups import group_samples, number_folds
from cellline.data.ids import to_array
from cellline.data.images import SplitReader
from cellline.data.labels import EXPECTED
from cellline.data.layout import Layout, find_layout
from cellline.data.lookalikes import describe_alike, describe_placeholder
from cellline.data.naming import ImageNames
from cellline.data.problems import Fault, Problems, describe_fault
from cellline.data.rows import Rows
from cellline.errors import Caution, UserError
from cellline.host.files import digest_text

# Words that may name a class, and that programs write for a missing label.
_LIKE_MISSING = ("na", "n/a", "none", "null")


@dataclass(frozen=True, eq=False)
class Competition:
    """The labelled and the unlabelled samples of one competition."""

    reading: Reading
    """Settings by which the files were read, with those that were inferred."""
    metric: MetricName
    output: Output
    template_columns: tuple[str, ...]
    """Header of a submission; empty without a template."""
    classes: tuple[str, ...]
    """Sorted as text; as numbers for quadratic kappa."""
    channels: tuple[str, ...]
    """In the images' order."""
    train_ids: np.ndarray
    """int64 or text [n], ascending."""
    labels: np.ndarray
    """int64 [n], index into classes."""
    test_ids: np.ndarray
    """The test samples' ids, of the same kind [m], ascending."""
    template: tuple[str, ...]
    """The test ids as written in the template, in its order; empty without one."""
    train_images: Images
    """uint8 [n, channel, height, width]"""
    test_images: Images
    """uint8 [m, channel, height, width]"""
    digest: str
    """Digest of training images, ids and labels: what predictions were made from."""
    test_digest: str
    """Digest of the test images alone: ids, channels, pixels."""
    warnings: tuple[Caution, ...]
    """Findings that may be mistakes."""
    resized: bool = False
    """True if training images had another size than `train_images`."""
    scales: Mapping[str, Scale] = field(default_factory=dict)
    """Channel -> range of its 16-bit values, see `DecodedSplit.scales`."""
    own_group: np.ndarray | None = None
    """int64 [n + m]: group of each training and test sample by the user's columns; samples without
    one have a number of their own."""
    own_train_group: np.ndarray | None = None
    """int64 [n]: the user's groups by training samples alone; test samples may connect several."""
    own_fold: np.ndarray | None = None
    """int64 [n]: the user's folds, 0 to K - 1."""

    @property
    def id_column(self) -> str:
        """Name of the ids' column."""
        return self.reading.id_column or "id"

    @property
    def label_column(self) -> str:
        """Name of the labels' column."""
        return self.reading.label_column or "label"


def load_competition(
    input_dir: Path,
    cache_dir: Path,
    reading: Reading | None = None,
    image_size: int | None = None,
) -> Competition:
    """Check the input folder as a whole and open its images, decoded on the first start.

    `reading` says how the folder is read; what it leaves open is worked out from the files, see
    layout.py. Ids that are whole numbers match by value, so `17` matches `00017`; others are text
    and must match exactly, but for the endings of image files. The folder is never written to. The
    decoded arrays are kept in `cache_dir`: as they are, if all images have one size that
    `image_size` suits, else as squares with this side.

    Raises UserError with every problem found, one line each, and leaves nothing in `cache_dir`.
    """
    reading = reading or Reading()
    if len(set(reading.channels)) < len(reading.channels):
        raise UserError(f"--channels must name each channel once: {reading.channels}")
    problems = Problems(input_dir)
    try:
        layout = find_layout(input_dir, reading, problems)
    except OSError as error:
        why = f"The input folder {input_dir} can't be read: {error.strerror}."
        raise UserError(f"{why}\n{EXPECTED}") from error
    if layout is None:
        problems.check()
        raise AssertionError  # or there was a problem
    classes = sort_classes(layout, problems)
    reading = find_asked(layout, classes, problems)
    readers = find_readers(input_dir, layout, reading, problems)
    if layout.folds:
        without = Fault("sample", f"without a fold in {reading.folds_column}")
        problems.count(layout.train.name, without, layout.train.ids.keys() - layout.folds.keys())
    form = Form(reading.channels or ("",), image_size, reading.resize)
    images = open_images(cache_dir, readers, problems, form)
    problems.check()
    train = images["train"]
    given = [layout.train.labels[sample] for sample in train.ids.tolist()]
    index = {label: at for at, label in enumerate(classes)}
    test = images.get("test") or replace(
        train,
        ids=to_array([], numeric=layout.train.numeric),
        pixels=train.pixels[:0],
        blank={},
        digest="",
    )
    assert reading.metric is not None and reading.output is not None
    return Competition(
        reading=reading,
        metric=reading.metric,
        output=reading.output,
        template_columns=layout.template_columns,
        classes=classes,
        channels=train.channels,
        train_ids=train.ids,
        labels=np.array([index[label] for label in given], dtype=np.int64),
        test_ids=test.ids,
        template=tuple(layout.test.ids.values()) if layout.test is not None else (),
        train_images=train.pixels,
        test_images=test.pixels,
        digest=digest_text(train.digest, json.dumps(given)),
        test_digest=test.digest,
        warnings=tuple(find_warnings(layout, reading, {"train": train, "test": test}, classes)),
        resized=train.resized,
        scales=train.scales,
        own_group=group_samples(
            layout.groups, {"train": train.ids.tolist(), "test": test.ids.tolist()}
        ),
        own_train_group=group_samples(layout.groups, {"train": train.ids.tolist()}),
        own_fold=number_folds(layout.folds, train.ids.tolist()),
    )


def find_readers(
    input_dir: Path, layout: Layout, reading: Reading, problems: Problems
) -> list[SplitReader]:
    """Readers of the images of the training part and, if there is one, of the test part."""
    parts = [("train", reading.train_images, layout.train)]
    if layout.test is not None:
        parts.append(("test", reading.test_images, layout.test))
    written = [text for _, _, rows in parts for text in rows.ids.values()]
    return [
        SplitReader(split, input_dir / place, rows, name_images(reading, rows, written), problems)
        for split, place, rows in parts
        if place is not None
    ]


def name_images(reading: Reading, rows: Rows, written: Sequence[str]) -> ImageNames:
    """Names of the images of a part, which knows the ids of both parts, as written, in its kind."""
    parsed = map(rows.parse, written)
    known = frozenset(sample for sample in parsed if sample is not None)
    return ImageNames(
        reading.channels or ("",),
        numeric=rows.numeric,
        ids=known,
        omit_extra=reading.extra_images == "omit",
    )


def find_warnings(
    layout: Layout,
    reading: Reading,
    images: Mapping[str, DecodedSplit],
    classes: Sequence[str],
) -> Iterator[Caution]:
    """Yield a Caution for each finding that may be a mistake."""
    places = {"train": reading.train_images, "test": reading.test_images}
    for split, decoded in images.items():
        yield from describe_blank(str(places[split]), decoded)
    yield from map(Caution, layout.notes)
    name, labels = layout.train.name, list(layout.train.labels.values())
    for label in classes:
        if label.lower() in _LIKE_MISSING:
            yield Caution(
                f"{name}: {labels.count(label)} x the class {label!r}; if that stands for a "
                "missing label, remove these samples together with their images"
            )
    if layout.repeated:
        yield Caution(
            f"{name}: some rows repeat a sample with the same label ({len(layout.repeated)}); "
            "each sample counts once"
        )
    grouped = {sample for part, sample, _ in layout.groups if part == "train"}
    if reading.group_column and (alone := len(layout.train.ids) - len(grouped)):
        yield Caution(
            f"{alone} training samples have no value in {' or '.join(reading.group_column)}: each "
            "is a group of its own"
        )
    yield from describe_alike(name, labels)
    if layout.test is not None and reading.output == "label":
        yield from describe_placeholder(layout.test.name, layout.test.placeholders, classes)
    yield from describe_unknown(layout, reading, classes)


def describe_blank(place: str, images: DecodedSplit) -> Iterator[Caution]:
    """Yield a Caution for each channel with images that are all zero."""
    for channel, ids in images.blank.items():
        fault = Fault(f"{channel} image".lstrip(), "all zero")
        yield Caution(f"{place}: {describe_fault(fault, ids)}")
