"""The competition's input folder: its four files, matched by id, checked, decoded once."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellline.data.archives import FORMS
from cellline.data.cache import SPLITS, Images, cache_key, open_images
from cellline.data.ids import are_numbers, parse_number
from cellline.data.images import decode_images
from cellline.data.listing import list_images, settle_size
from cellline.data.problems import Fault, Problems, brief, counted
from cellline.data.tables import LABELS, TEMPLATE, Table, read_labels, read_template
from cellline.errors import UserError
from cellline.host.files import digest_text
from cellline.host.names import printable

_EXPECTED = (
    f"Expected there, as the competition offers them: images_train and images_test (each a folder, "
    f".tar, .tar.gz or .zip), {LABELS} and {TEMPLATE}."
)
# Words that a class may be called, and that programs write where a label is missing.
_LIKE_MISSING = ("na", "n/a", "none", "null")
_ONE_FORM = "Keep one form of the images."


@dataclass(frozen=True, eq=False)
class Competition:
    """The labelled and the unlabelled samples of one competition."""

    id_column: str
    label_column: str
    classes: tuple[str, ...]  # sorted as text
    channels: tuple[str, ...]  # in the images' order
    train_ids: np.ndarray  # int64 or text [n], ascending
    labels: np.ndarray  # int64 [n], index into classes
    test_ids: np.ndarray  # of the same kind [m], ascending
    template: tuple[str, ...]  # the ids of sample_submission.csv as written there, in its order
    train_images: np.ndarray  # uint8 memory map [n, channel, height, width], read-only
    test_images: np.ndarray  # uint8 memory map [m, channel, height, width], read-only
    digest: str  # of images, ids and labels: what predictions were made from
    test_digest: str  # of the test images alone: ids, channels, pixels
    warnings: tuple[str, ...]  # a line each, for a verb to print


def load_competition(
    input_dir: Path,
    cache_dir: Path,
    channels: Sequence[str] = ("blue", "red", "yellow"),
    *,
    workers: int | None = None,
) -> Competition:
    """Check the input folder as a whole and open its images, decoded on the first start.

    `input_dir` holds `images_train` and `images_test` (each a folder, `.tar`, `.tar.gz`, `.tgz` or
    `.zip`) with 8-bit grayscale PNG images `<id>_<channel>.png` of one size (for the channel ""
    `<id>.png`), `y_train.csv` and `sample_submission.csv`. Where all ids of the latter are whole
    numbers, ids match by value, `17` being `00017`; else they are text and match by letter. It is
    only read. The decoded arrays are kept in `cache_dir`; `workers` threads decode, by default one
    a processor.

    Raises UserError with every problem found, one line each, and leaves nothing in `cache_dir`.
    """
    channels = tuple(channels)
    if not channels or len(set(channels)) < len(channels):
        raise UserError(f"--channels must name one channel or more, each once: {channels}")
    problems = Problems(input_dir)
    _check_folder(input_dir, problems)
    found = {split: _find(input_dir, f"images_{split}", problems) for split in SPLITS}
    sources = {split: source for split, source in found.items() if source}
    template = read_template(input_dir / TEMPLATE, problems)
    labels = read_labels(input_dir / LABELS, template, problems)

    # Without ids in the template, those of the labels tell what kind the images' are.
    known = next((table.ids for table in (template, labels) if table and len(table.ids)), None)
    numeric = known is None or are_numbers(known)
    key = cache_key(list(sources.values()), channels, numeric=numeric)
    images = open_images(cache_dir, key) if len(sources) == len(SPLITS) else None
    if images is None:
        listings = [
            list_images(split, at, channels, problems, numeric=numeric)
            for split, at in sources.items()
        ]
        size = settle_size(listings, problems)
        ids = {part.split: part.ids for part in listings if part.whole}
        _match(ids, labels, template, found, problems)
        images = decode_images(cache_dir, key, listings, size, problems, workers)
    else:
        ids = {split: images[split].ids for split in SPLITS}
        _match(ids, labels, template, found, problems)
    problems.check()
    assert labels is not None and template is not None  # or there was a problem
    return _competition(channels, images, labels, template)


def _check_folder(input_dir: Path, problems: Problems) -> None:
    """Make sure that `input_dir` is a folder that may be looked into."""
    try:
        os.stat(f"{input_dir}/.")  # noqa: PTH116  # pathlib drops the dot
    except (FileNotFoundError, NotADirectoryError):
        problems.note(str(input_dir), "no such folder", _EXPECTED)
    except OSError as error:
        problems.note(str(input_dir), f"can't be read: {error.strerror}")
    problems.check()


def _competition(
    channels: tuple[str, ...], images: Mapping[str, Images], labels: Table, template: Table
) -> Competition:
    train, test = (images[split] for split in SPLITS)
    given = [labels.labels[row] for row in np.argsort(labels.ids).tolist()]  # as train.ids
    classes = tuple(sorted(set(given)))
    index = {label: at for at, label in enumerate(classes)}
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
        warnings=(
            *(
                f"images_{split}: {counted(_blank(channel), ids)}"
                for split in SPLITS
                for channel, ids in images[split].blank.items()
            ),
            *(
                _doubt(label, given.count(label))
                for label in classes
                if label.lower() in _LIKE_MISSING
            ),
        ),
    )


def _doubt(label: str, count: int) -> str:
    samples = "sample is" if count == 1 else "samples are"
    return (
        f"{LABELS}: {count} {samples} of a class {label!r}; if that stands for a missing label, "
        "remove them together with their images"
    )


def _blank(channel: str) -> Fault:
    shown = f"{channel} " if channel else ""
    return Fault(f"{shown}image is all zero", f"{shown}images are all zero")


def _find(input_dir: Path, stem: str, problems: Problems) -> Path | None:
    """Return the one form in which a split's images are there."""
    try:
        there = [path for form in FORMS if (path := input_dir / f"{stem}{form}").exists()]
        if not there:
            problems.note(stem, "missing", _EXPECTED)
        elif len(there) > 1:
            names = " and ".join(path.name for path in there)
            problems.note(stem, f"there {len(there)} times: {names}", _ONE_FORM)
        elif not there[0].is_dir() and (there[0].name == stem or not there[0].is_file()):
            problems.note(stem, "neither a folder nor an archive", _EXPECTED)
        else:
            return there[0]
    except OSError as error:  # a link to where one may not look
        problems.note(stem, f"can't be read: {error.strerror}")
    return None


def _match(
    images: Mapping[str, np.ndarray],
    labels: Table | None,
    template: Table | None,
    sources: Mapping[str, Path | None],
    problems: Problems,
) -> None:
    """Note samples and rows without their counterpart, and ids both in training and test."""
    tables = {"train": (LABELS, labels), "test": (TEMPLATE, template)}
    advice = _why_text(template)
    for split, (name, table) in tables.items():
        source = sources[split]
        if table is not None and source is not None and split in images:
            rowless = Fault(
                f"sample has no row in {name}", f"samples have no row in {name}", advice
            )
            imageless = Fault(
                f"row has no images in {source.name}",
                f"rows have no images in {source.name}",
                advice,
            )
            problems.count(source.name, rowless, np.setdiff1d(images[split], table.ids).tolist())
            problems.count(name, imageless, np.setdiff1d(table.ids, images[split]).tolist())
    train, test = (sources[split] for split in SPLITS)
    if train is not None and test is not None and len(images) == len(SPLITS):
        both = _also_in(train.name)
        problems.count(test.name, both, np.intersect1d(images["train"], images["test"]).tolist())
    if labels is not None and template is not None:
        both = _also_in(LABELS)
        problems.count(TEMPLATE, both, np.intersect1d(labels.ids, template.ids).tolist())


def _why_text(template: Table | None) -> str:
    """What to know where ids that are text don't match; nothing where they are numbers."""
    if template is None or are_numbers(template.ids):
        return ""
    reason = next(text for text in template.written if parse_number(text) is None)
    return (
        f"Ids are text, as not all in {TEMPLATE} are whole numbers ({printable(brief(reason))}): "
        "they match letter by letter, case and leading zeros and all."
    )


def _also_in(name: str) -> Fault:
    return Fault(f"id is in {name} as well", f"ids are in {name} as well")
