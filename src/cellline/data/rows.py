"""Ids and labels from a table, folders or file names, and their faults."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from cellline.data.ids import Id, cut_path, drop_suffix, parse_id, parse_number, parse_text
from cellline.data.problems import Fault, Problems, name_first
from cellline.data.tables import MISSING, quote
from cellline.host.names import has_control

# A column holds the ids if so many of its fields name an image; a folder holds a split's images if
# it has so many of those found; and so on, where a few exceptions are mistakes to report.
MOST = 0.5
# Share of the images whose names must tell a label, of the ids that copies have in common.
NEARLY_ALL = 0.95

_NOT_A_NUMBER = Fault(
    "id",
    "not whole and non-negative",
    "Ids are whole numbers if all of the template are, else text.",
)
_NOT_A_NAME = Fault(
    "id",
    "not usable in a file's name",
    "An id's parts between slashes have no dot first, and no control or invisible character.",
)
# Names of folders that hold a part of the data, or images of all classes.
_PART = re.compile(
    r"(.*[^a-z])?((train|test)(ing)?(set)?|val(id(ation)?)?|images?|imgs?)([^a-z].*)?",
    re.IGNORECASE,
)
# Endings of names of files that go with another one: where something is, or how it looks small.
_ENDING = re.compile(
    r"_(mask|seg(mentation)?|gt|annotation|label|thumb(nail)?)s?(_?\d+)?$", re.IGNORECASE
)
_REPEATED = Fault("id", "in several rows with different labels")
_UNLABELLED = Fault(
    "id",
    "without a label (empty or nan)",
    "Give every sample a label, or remove it together with its images.",
)
_CONTROL = Fault("id", "with control or invisible characters in the label")
ONE_LABEL = "Only one label a sample is supported: no several labels, no regression."
NOT_ONE = Fault("id", "not of exactly one class", ONE_LABEL)
_DECIMAL = re.compile(r"[+-]?\d*\.\d*[1-9]\d*(e[+-]?\d+)?|[+-]?\d[\d.]*e[+-]?\d+", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Rows:
    """The samples of a table, or of a folder of labelled images."""

    name: str
    """Path of the table or folder within the input folder."""
    numeric: bool
    """True if the ids are whole numbers, False if they are text."""
    depth: int = 1
    """Parts, from the end, of ids that may be paths."""
    ids: dict[Id, str] = field(default_factory=dict)
    """Id -> the id as written, in the table's order."""
    labels: dict[Id, str] = field(default_factory=dict)
    """Id -> label, or the template's placeholder."""

    def parse(self, text: str) -> Id | None:
        """Return an id as it is compared with others; None if the text is not an id."""
        return parse_id(cut_path(text, self.depth), numeric=self.numeric)

    @property
    def placeholders(self) -> set[str]:
        """The different labels that are not missing."""
        return {label for label in self.labels.values() if label.lower() not in MISSING}


def are_numbers(ids: Collection[str], others: Collection[str]) -> bool:
    """Tell if ids are whole numbers: all of them, or most if all of the other part's are.

    A text that is an id of neither kind doesn't count.
    """

    def count(texts: Collection[str]) -> tuple[int, int]:
        stems = [drop_suffix(text) for text in texts]
        numbers = sum(parse_number(text) is not None for text in stems)
        return numbers, sum(parse_text(text) is not None for text in stems) - numbers

    numbers, texts = count(ids)
    return texts == 0 or (numbers > texts and len(others) > 0 and count(others)[1] == 0)


def make_rows(
    rows: Rows, samples: Sequence[tuple[str, str]], problems: Problems
) -> tuple[Rows, list[Id]]:
    """Return the rows, filled with ids and labels as written, and the ids of repeated rows."""
    ids: dict[Id, str] = {}
    labels: dict[Id, str] = {}
    not_ids, different, repeated = [], set(), []
    for written, label in samples:
        sample = rows.parse(written)
        if sample is None:
            not_ids.append(quote(written))
        elif sample not in ids:
            ids[sample], labels[sample] = written, label
        elif labels[sample] == label:
            repeated.append(sample)
        else:
            different.add(sample)
    if not samples:
        problems.note(rows.name, "no rows below the header")
    problems.count(rows.name, _NOT_A_NUMBER if rows.numeric else _NOT_A_NAME, not_ids)
    problems.count(rows.name, _REPEATED, different)
    return replace(rows, ids=ids, labels=labels), repeated


def note_labels(train: Rows, problems: Problems) -> None:
    """Note labels that no classification of one label a sample can have."""
    labels = train.labels
    unlabelled = [sample for sample, label in labels.items() if label.lower() in MISSING]
    problems.count(train.name, _UNLABELLED, unlabelled)
    controlling = [sample for sample, label in labels.items() if has_control(label)]
    problems.count(train.name, _CONTROL, controlling)
    classes = {label for label in labels.values() if label.lower() not in MISSING}
    if len(classes) == 1:
        problems.note(train.name, f"fewer than two classes: found {quote(*classes)}")
    decimals = sorted(name for name in classes if _DECIMAL.fullmatch(name))
    several = sorted(
        name
        for name in classes
        if len(parts := re.split(r"[\s,;|]+", name)) > 1 and classes.issuperset(parts)
    )
    for names, what in ((decimals, "numbers with decimals"), (several, "several classes at once")):
        if names:
            shown = name_first(list(map(quote, names)))
            problems.note(train.name, f"labels are {what}: {shown}", ONE_LABEL)
    if len(labels) > 2 and len(classes) == len(labels):
        advice = "If another column holds the labels, name it with --label-column."
        problems.note(train.name, "every sample has a label of its own", advice)


def find_class(columns: Sequence[str], values: Sequence[str]) -> str | None:
    """Return the column whose value is one while the others are zero; None if there is none."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return columns[numbers.index(1)] if sorted(numbers)[-2:] == [0, 1] else None


def label_by_name(images: Sequence[str]) -> list[tuple[str, str]]:
    """Derive ids and labels from image paths: the label is the folder, else the file's prefix.

    An id is the file's name, or its path if names are repeated. Files named like another with an
    ending, such as `17_mask.png`, are left out.
    """
    known = {drop_suffix(path) for path in images}
    images = [path for path in images if not goes_with(drop_suffix(path), known)]
    stems = [drop_suffix(path).rpartition("/")[2] for path in images]
    ids = stems if len(set(stems)) == len(stems) else [drop_suffix(path) for path in images]
    if any("/" in path for path in images):
        labels = [path.split("/")[0] if "/" in path else "" for path in images]
    else:
        labels = [find_prefix(path) or "" for path in images]
    return list(zip(ids, labels, strict=True))


def goes_with(name: str, known: Collection[str]) -> bool:
    """Tell if a name is a known one with an ending, such as `17_mask`."""
    found = _ENDING.search(name)
    return found is not None and name[: found.start()] in known


def is_part(name: str) -> bool:
    """Tell if a folder's name is that of a part of the data, or of images of all classes."""
    return _PART.fullmatch(name) is not None


def tells_labels(names: Collection[str]) -> bool:
    """Tell if nearly all names of files begin with one of a few labels, such as `cat.17.jpg`."""
    prefixes = Counter(name for name in map(find_prefix, names) if name and not is_part(name))
    repeated = [count for count in prefixes.values() if count > 1]
    return len(repeated) > 1 and sum(repeated) >= NEARLY_ALL * len(names)


def find_prefix(name: str) -> str | None:
    """Return the label in a name such as `cat.17.jpg`: what stands before the last number."""
    stem = drop_suffix(name)
    found = re.fullmatch(r"(.+?)[ ._-]*\(?\d+\)?", stem)
    return found[1] if found and not stem.isdigit() else None
