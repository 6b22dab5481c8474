"""The competition's input folder: its four files, matched by id, checked, decoded once."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellline.data.cache import SPLITS, DecodedSplit, cache_key, decode_images, open_images
from cellline.data.files import FORMS
from cellline.data.ids import are_numbers, parse_number
from cellline.data.images import ImageNames, Source
from cellline.data.problems import ID_IS, Fault, Problems, brief, describe_fault
from cellline.data.tables import LABELS, TEMPLATE, LabelTable, read_labels, read_template
from cellline.errors import Caution, UserError
from cellline.host.files import digest_text
from cellline.host.names import printable

_EXPECTED = (
    f"Expected there, as the competition offers them: images_train and images_test (each a folder, "
    f".tar, .tar.gz or .zip), {LABELS} and {TEMPLATE}."
)
# Words that may name a class, and that programs write for a missing label.
_LIKE_MISSING = ("na", "n/a", "none", "null")


@dataclass(frozen=True, eq=False)
class Competition:
    """The labelled and the unlabelled samples of one competition."""

    id_column: str
    """The template's name of the ids."""
    label_column: str
    """The template's name of the labels."""
    classes: tuple[str, ...]
    """Sorted as text."""
    channels: tuple[str, ...]
    """In the images' order."""
    train_ids: np.ndarray
    """int64 or text [n], ascending."""
    labels: np.ndarray
    """int64 [n], index into classes."""
    test_ids: np.ndarray
    """Of the same kind [m], ascending."""
    template: tuple[str, ...]
    """The ids of sample_submission.csv as written there, in its order."""
    train_images: np.ndarray
    """uint8 memory map [n, channel, height, width], read-only."""
    test_images: np.ndarray
    """uint8 memory map [m, channel, height, width], read-only."""
    digest: str
    """Of images, ids and labels: what predictions were made from."""
    test_digest: str
    """Of the test images alone: ids, channels, pixels."""
    warnings: tuple[Caution, ...]
    """Findings that are no problems, but may be mistakes."""


def load_competition(
    input_dir: Path,
    cache_dir: Path,
    channels: Sequence[str] = ("blue", "red", "yellow"),
) -> Competition:
    """Check the input folder as a whole and open its images, decoded on the first start.

    `input_dir` holds `images_train` and `images_test` (each a folder, `.tar`, `.tar.gz`, `.tgz` or
    `.zip`) with 8-bit grayscale PNG images `<id>_<channel>.png` of one size (for the channel ""
    `<id>.png`), `y_train.csv` and `sample_submission.csv`. If all ids of the latter are whole
    numbers, ids match by value, `17` being `00017`; else they are text and match by letter. It is
    only read. The decoded arrays are kept in `cache_dir`.

    Raises UserError with every problem found, one line each, and leaves nothing in `cache_dir`.
    """
    channels = tuple(channels)
    if not channels or len(set(channels)) < len(channels):
        raise UserError(f"--channels must name one channel or more, each once: {channels}")
    problems = Problems(input_dir)
    _check_folder(input_dir, problems)
    template = read_template(input_dir / TEMPLATE, problems)
    labels = read_labels(input_dir / LABELS, template, problems)
    advice = _why_text(template)
    sources = [
        Source(split, path, table, advice)
        for split, table in zip(SPLITS, (labels, template), strict=True)
        if (path := _find(input_dir, f"images_{split}", problems)) is not None
    ]
    if labels is not None and template is not None:
        both = Fault(ID_IS, f"in {LABELS} as well")
        problems.count(TEMPLATE, both, np.intersect1d(labels.ids, template.ids).tolist())
    # Without ids in the template, those of the labels tell what kind the images' are.
    known = next((table.ids for table in (template, labels) if table and len(table.ids)), None)
    names = ImageNames(channels, numeric=known is None or are_numbers(known))
    key = cache_key(sources, names)
    images = open_images(cache_dir, key) if len(sources) == len(SPLITS) else None
    if images is None:
        images = decode_images(cache_dir, key, sources, names, problems)
    else:
        for source in sources:
            source.match(images[source.split].ids, problems)
    problems.check()
    assert labels is not None and template is not None  # or there was a problem
    return _competition(channels, images, labels, template)


def _check_folder(input_dir: Path, problems: Problems) -> None:
    """Raise UserError unless `input_dir` is a folder that may be looked into."""
    try:
        os.stat(f"{input_dir}/.")  # noqa: PTH116  # pathlib drops the dot
    except (FileNotFoundError, NotADirectoryError):
        problems.note(str(input_dir), "no such folder", _EXPECTED)
    except OSError as error:
        problems.note(str(input_dir), f"can't be read: {error.strerror}")
    problems.check()


def _find(input_dir: Path, stem: str, problems: Problems) -> Path | None:
    """Return the folder or archive of a split's images; None with a note if there isn't one."""
    try:
        there = [path for form in FORMS if (path := input_dir / f"{stem}{form}").exists()]
        if not there:
            problems.note(stem, "missing", _EXPECTED)
        elif len(there) > 1:
            names = " and ".join(path.name for path in there)
            problems.note(stem, f"there {len(there)} times: {names}", "Keep one of them.")
        elif not there[0].is_dir() and (there[0].name == stem or not there[0].is_file()):
            problems.note(stem, "neither a folder nor an archive", _EXPECTED)
        else:
            return there[0]
    except OSError as error:  # a link to where one may not look
        problems.note(stem, f"can't be read: {error.strerror}")
    return None


def _why_text(template: LabelTable | None) -> str:
    """Return what to know if ids that are text don't match; nothing if they are numbers."""
    if template is None or are_numbers(template.ids):
        return ""
    reason = next(text for text in template.written if parse_number(text) is None)
    return (
        f"Ids are text, as not all in {TEMPLATE} are whole numbers ({printable(brief(reason))}): "
        "they match letter by letter, including case and leading zeros."
    )


def _competition(
    channels: tuple[str, ...],
    images: Mapping[str, DecodedSplit],
    labels: LabelTable,
    template: LabelTable,
) -> Competition:
    train, test = (images[split] for split in SPLITS)
    given = [labels.labels[row] for row in np.argsort(labels.ids).tolist()]  # as train.ids
    classes = tuple(sorted(set(given)))
    index = {label: at for at, label in enumerate(classes)}
    blank = [
        Caution(f"images_{split}: {describe_fault(_blank(channel), ids)}")
        for split in SPLITS
        for channel, ids in images[split].blank.items()
    ]
    doubtful = [label for label in classes if label.lower() in _LIKE_MISSING]
    return Competition(
        id_column=template.id_column,
        label_column=template.label_column,
        classes=classes,
        channels=channels,
        train_ids=train.ids,
        labels=np.array([index[label] for label in given], dtype=np.int64),
        test_ids=test.ids,
        template=tuple(template.written),
        train_images=train.pixels,
        test_images=test.pixels,
        digest=digest_text(train.digest, test.digest, json.dumps(given)),
        test_digest=test.digest,
        warnings=(*blank, *(_doubt(label, given.count(label)) for label in doubtful)),
    )


def _blank(channel: str) -> Fault:
    image = f"{channel} image".lstrip()
    return Fault((f"{image} is", f"{image}s are"), "all zero")


def _doubt(label: str, count: int) -> Caution:
    samples = "sample is" if count == 1 else "samples are"
    return Caution(
        f"{LABELS}: {count} {samples} of a class {label!r}; if that stands for a missing label, "
        "remove them together with their images"
    )
