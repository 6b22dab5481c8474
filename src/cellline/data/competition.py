"""The competition's input folder: its four files, matched by id, checked, decoded once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellline.config import MetricName, Output, Reading
from cellline.data.cache import DecodedSplit, open_images
from cellline.data.files import FORMS
from cellline.data.images import ImageNames, SplitReader
from cellline.data.lookalikes import describe_alike, describe_placeholder
from cellline.data.problems import Fault, Problems, describe_fault
from cellline.data.tables import LABELS, TEMPLATE, LabelTable, read_labels, read_template
from cellline.errors import Caution, UserError
from cellline.host.files import digest_text

_EXPECTED = (
    f"Expected there, as the competition offers them: images_train and images_test (each a folder, "
    f".tar, .tar.gz or .zip), {LABELS} and {TEMPLATE}."
)
# Words that may name a class, and that programs write for a missing label.
_LIKE_MISSING = ("na", "n/a", "none", "null")


@dataclass(frozen=True, eq=False)
class Competition:
    """The labelled and the unlabelled samples of one competition."""

    reading: Reading
    """How the files were read: settings, and what was worked out."""
    metric: MetricName
    output: Output
    template_columns: tuple[str, ...]
    """Header of a submission; empty without a template."""
    classes: tuple[str, ...]
    """Sorted as text."""
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
    train_images: np.ndarray
    """uint8 memory map [n, channel, height, width], read-only."""
    test_images: np.ndarray
    """uint8 memory map [m, channel, height, width], read-only."""
    digest: str
    """Digest of training images, ids and labels: what predictions were made from."""
    test_digest: str
    """Digest of the test images alone: ids, channels, pixels."""
    warnings: tuple[Caution, ...]
    """Findings that may be mistakes."""
    own_group: np.ndarray | None = None
    """int64 [n + m]: group of each training and test sample by the user's columns; samples without
    one have a number of their own."""
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

    `input_dir` holds `images_train` and `images_test` (each a folder, `.tar`, `.tar.gz`, `.tgz` or
    `.zip`) with 8-bit grayscale PNG images `<id>_<channel>.png` of one size (for the channel ""
    `<id>.png`), `y_train.csv` and `sample_submission.csv`. If all ids of the latter are whole
    numbers, ids match by value, so `17` matches `00017`; else they are text and must match exactly.
    The folder is never written to. The decoded arrays are kept in `cache_dir`.

    Raises UserError with every problem found, one line each, and leaves nothing in `cache_dir`.
    """
    reading = reading or Reading()
    channels = reading.channels or ("blue", "red", "yellow")
    if not channels or len(set(channels)) < len(channels):
        raise UserError(f"--channels must name one channel or more, each once: {channels}")
    problems = Problems(input_dir)
    try:
        there = {path.name for path in input_dir.iterdir()}
    except OSError as error:
        why = f"The input folder {input_dir} can't be read: {error.strerror}."
        raise UserError(f"{why}\n{_EXPECTED}") from error
    template = read_template(input_dir / TEMPLATE, problems)
    labels = read_labels(input_dir / LABELS, template, problems)
    if labels is not None and template is not None:
        both = labels.rows.keys() & template.rows.keys()
        problems.count(TEMPLATE, Fault("id", f"in {LABELS} as well"), both)
    # Without ids in the template, those of the labels tell what kind the images' are.
    known = next((table for table in (template, labels) if table and table.rows), None)
    names = ImageNames(channels, numeric=known is None or known.numeric)
    readers = []
    for split, table in (("train", labels), ("test", template)):
        stem = f"images_{split}"
        found = [f"{stem}{form}" for form in FORMS if f"{stem}{form}" in there]
        if len(found) == 1:
            readers.append(SplitReader(split, input_dir / found[0], table, names, problems))
        elif found:
            problems.note(stem, f"there as {' and '.join(found)}", "Keep one of them.")
        else:
            problems.note(stem, "missing", _EXPECTED)
    images = open_images(cache_dir, readers, problems, image_size, reading.resize)
    for reader in readers:
        reader.match(images[reader.split].ids.tolist())
    problems.check()
    assert labels is not None and template is not None  # or there was a problem
    return _competition(replace(reading, channels=channels), images, labels, template)


def _competition(
    reading: Reading,
    images: Mapping[str, DecodedSplit],
    labels: LabelTable,
    template: LabelTable,
) -> Competition:
    train, test = images["train"], images["test"]
    given = [labels.rows[sample][1] for sample in train.ids.tolist()]
    classes = tuple(sorted(set(given)))
    index = {label: at for at, label in enumerate(classes)}
    warnings = [
        f"images_{split}: {describe_fault(Fault(f'{channel} image'.lstrip(), 'all zero'), ids)}"
        for split, decoded in images.items()
        for channel, ids in decoded.blank.items()
    ]
    warnings += [
        f"{LABELS}: {given.count(label)} x the class {label!r}; if that stands for a missing "
        "label, remove these samples together with their images"
        for label in classes
        if label.lower() in _LIKE_MISSING
    ]
    warnings += describe_alike(LABELS, given)
    warnings += describe_placeholder(TEMPLATE, template.labels, classes)
    return Competition(
        reading=replace(reading, id_column=template.columns[0], label_column=template.columns[1]),
        metric=reading.metric or "balanced_accuracy",
        output=reading.output or "label",
        template_columns=tuple(template.columns),
        classes=classes,
        channels=train.channels,
        train_ids=train.ids,
        labels=np.array([index[label] for label in given], dtype=np.int64),
        test_ids=test.ids,
        template=tuple(written for written, _ in template.rows.values()),
        train_images=train.pixels,
        test_images=test.pixels,
        digest=digest_text(train.digest, json.dumps(given)),
        test_digest=test.digest,
        warnings=tuple(map(Caution, warnings)),
    )
