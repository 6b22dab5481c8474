"""The layout of an input folder: which files hold labels, images and the template.

Competitions name and arrange their files in many ways. Anything unambiguous is inferred; otherwise
a problem lists the candidates and the setting that decides.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import normpath
from pathlib import Path

from cellline.config import Reading
from cellline.data.ids import Id, cut_path, find_depth
from cellline.data.labels import LabelFinder
from cellline.data.naming import find_channels
from cellline.data.places import Places
from cellline.data.problems import NAMED, Fault, Problems
from cellline.data.rows import Rows, are_numbers, make_rows, note_labels
from cellline.data.tables import MISSING, Table, quote
from cellline.data.template import InputTables, Template

# Columns that part a table's rows.
_PARTING = re.compile(r"(data ?_?)?(sub)?(set|split)|partition|is_(train|test|valid)|usage", re.I)


@dataclass(frozen=True, eq=False)
class Layout:
    """Roles of the files in an input folder."""

    reading: Reading
    """The settings, with what was worked out."""
    train: Rows
    test: Rows | None
    """None without a template."""
    template_columns: tuple[str, ...]
    """Empty without a template."""
    repeated: Sequence[Id]
    """Training samples with another row of the same label."""
    groups: Sequence[tuple[str, Id, str]]
    """Members of the user's groups: part (train or test), id, and column=value."""
    folds: Mapping[Id, str]
    """Id -> the user's fold; empty without their column."""
    notes: Sequence[str] = ()
    """Lines on images that are not used as one may expect."""


def read_column(
    places: Places, column: str, setting: str, parts: Mapping[str, Rows]
) -> Iterator[tuple[str, Id, str]]:
    """Yield part, id and field of a column in all tables that have it, where there is a field.

    A table's ids are in the column that has the most of them.
    """
    tables = [table for table in places.listing.tables.values() if column in table.columns]
    if not tables:
        places.problems.note(column, "not a column of any table", f"{setting} names it.")
    for table in tables:
        found: dict[str, list[Id | None]] = {}
        for part, rows in parts.items():
            parsed = (
                [rows.parse(text) for text in table.column(name)]
                for name in table.columns
                if name != column
            )
            found[part] = max(parsed, key=lambda ids: len(rows.ids.keys() & ids), default=[])
        counts = {part: len(rows.ids.keys() & found[part]) for part, rows in parts.items()}
        if not any(counts.values()):
            places.problems.note(table.name, f"no column of ids beside {quote(column)}")
        # Training and test ids may be alike: a table is about those that it has more of.
        alike = len(set.union(*({*rows.ids} for rows in parts.values()))) < sum(
            len(rows.ids) for rows in parts.values()
        )
        for part in [max(counts, key=counts.__getitem__)] if alike else list(parts):
            for sample, value in zip(found[part], table.column(column), strict=False):
                if sample in parts[part].ids and value.lower() not in MISSING:
                    yield part, sample, value


def describe_parts(table: Table) -> Iterator[str]:
    """Yield a line on a column that seems to part the rows, all of which are taken for training."""
    for name in table.columns:
        if _PARTING.fullmatch(name) and len(table.distinct[name]) > 1:
            counts = Counter(table.column(name)).most_common(NAMED)
            shown = ", ".join(f"{quote(value)} {count}" for value, count in counts)
            yield (
                f"{table.name} has a column {quote(name)} ({shown}); all its rows are taken as "
                "training samples: remove those that are not to be learned from"
            )


def make_parts(
    reading: Reading,
    samples: Sequence[tuple[str, str]],
    template: Template | None,
    problems: Problems,
) -> tuple[Rows, Rows | None, Sequence[Id]]:
    """Return the training samples, the test samples, and the training ids that are repeated.

    `samples` are training ids and labels as written. Without a template there are no test samples:
    None. Notes problems.
    """
    written, test_written = [name for name, _ in samples], template.ids if template else []
    depth = find_depth([*written, *test_written])
    kinds = [[cut_path(text, depth) for text in of] for of in (written, test_written)]
    rows = Rows(reading.labels or "", are_numbers(*kinds), depth)
    train, repeated = make_rows(rows, samples, problems)
    note_labels(train, problems)
    if template is None:
        return train, None, repeated
    name, outputs = template.table.name, template.outputs
    empty = [""] * len(test_written)
    values = template.table.column(outputs[0]) if len(outputs) == 1 else empty
    rows = Rows(name, are_numbers(*reversed(kinds)), depth)
    test, again = make_rows(rows, list(zip(test_written, values, strict=True)), problems)
    problems.count(name, Fault("id", "in several rows"), again)
    return train, test, repeated


def find_layout(input_dir: Path, reading: Reading, problems: Problems) -> Layout | None:
    """Work out the layout of an input folder. Notes problems; None if it can't be told."""
    paths = ("labels", "template", "train_images", "test_images")
    given = {name: getattr(reading, name) for name in paths}
    reading = replace(reading, **{name: normpath(path) for name, path in given.items() if path})
    places = Places(input_dir, reading, problems)
    tables = InputTables(places)
    template, finder = tables.template, LabelFinder(tables)
    labelled = finder.read_labels()
    if labelled is None:
        finder.note_nothing()
        return None
    reading, samples = labelled
    train, test, repeated = make_parts(reading, samples, template, problems)
    if template is None:
        reading = replace(reading, template="")
    else:
        name = template.table.name
        reading = replace(reading, template=name, template_id_column=template.id_column)
    reading = replace(
        reading,
        train_images=places.find_images("train", train),
        test_images=places.find_images("test", test) if test is not None else "",
    )
    if test is not None and reading.train_images == reading.test_images:
        both = train.ids.keys() & test.ids.keys()
        if len(both) == len(test.ids):
            what = f"not found: all ids of {test.name} are training ids, and name training images"
            problems.note("test images", what, "Name their folder with --test-images.")
        else:
            problems.count(test.name, Fault("id", f"in {train.name} as well"), both)
    if not reading.channels and reading.train_images is not None:
        names = places.listing.below(reading.train_images)
        reading = replace(reading, channels=find_channels(names, train))
    parts = {"train": train} if test is None else {"train": train, "test": test}
    groups = [
        (part, sample, f"{column}={value}")
        for column in reading.group_column
        for part, sample, value in read_column(places, column, "--group-column", parts)
    ]
    folds = {}
    if reading.folds_column is not None:
        found = read_column(places, reading.folds_column, "--folds-column", {"train": train})
        folds = {sample: value for _, sample, value in found}
    columns = template.table.columns if template is not None else ()
    if len(columns) == 1:  # ids alone: the labels go beside them
        columns = (*columns, reading.label_column or "label")
    notes = list(places.describe_unused(reading))
    if reading.labels in places.listed.tables:
        notes += describe_parts(places.listed.tables[reading.labels])
    return Layout(reading, train, test, columns, repeated, groups, folds, notes)
