"""The layout of an input folder: which files hold labels, images and the template.

Competitions name and arrange their files in many ways. Anything unambiguous is inferred; otherwise
a problem lists the candidates and the setting that decides.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import normpath
from pathlib import Path

from cellline.config import Reading
from cellline.data.ids import Id, cut_path, drop_suffix, find_depth, is_image
from cellline.data.listing import TABLE, Listing
from cellline.data.naming import find_channels
from cellline.data.places import WORDS, Places
from cellline.data.problems import NAMED, Fault, Problems, brief, name_first
from cellline.data.rows import (
    MOST,
    NEARLY_ALL,
    NOT_ONE,
    Rows,
    are_numbers,
    find_class,
    label_by_name,
    make_rows,
    note_labels,
)
from cellline.data.tables import MISSING, Table, TableError, quote, read_table

_TEMPLATE_NAME = re.compile(r"submi|template", re.IGNORECASE)
# Columns that part a table's rows.
_PARTING = re.compile(r"(data ?_?)?(sub)?(set|split)|partition|is_(train|test|valid)|usage", re.I)
_LABEL_NAMES = ("label", "labels", "class", "target", "category")


EXPECTED = (
    "Expected there: images (folders or archives), and their labels: a CSV with a column of ids "
    "or file names and one of labels, a folder for each class, or labels in the file names. A "
    "template such as sample_submission.csv names the test samples."
)


@dataclass(frozen=True, eq=False)
class Template:
    """The table that a submission fills in."""

    table: Table
    id_column: str

    @property
    def ids(self) -> list[str]:
        """The test samples' ids as written."""
        return self.table.column(self.id_column)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The columns to fill in; empty if the table has ids alone."""
        return tuple(name for name in self.table.columns if name != self.id_column)


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


class Finder:
    """Works out a layout, and notes problems."""

    def __init__(self, input_dir: Path, reading: Reading, problems: Problems) -> None:
        self.input_dir = input_dir
        self.reading = reading
        self.problems = problems
        self.places = Places(input_dir, reading, problems)

    @property
    def listing(self) -> Listing:
        """The files, listed when they are needed."""
        return self.places.listing

    @cached_property
    def template(self) -> Template | None:
        """The template; None if there is none, or a problem."""
        name = self.reading.template
        table = self.guess_template() if name is None else self.read(name) if name else None
        if table is None:
            return None
        known = (self.reading.template_id_column, self.reading.id_column)
        named = next((column for column in known if column in table.columns), None)
        return Template(table, named or self.find_ids(table) or table.columns[0])

    @property
    def test_ids(self) -> list[str]:
        """The test samples' ids as written; empty without a template."""
        return self.template.ids if self.template is not None else []

    def guess_template(self) -> Table | None:
        """Return the template by its name, or else by its looks."""
        there = [*self.listing.tables, *self.listing.broken]
        named = [name for name in there if _TEMPLATE_NAME.search(name.rpartition("/")[2])]
        named = [name for name in named if "/" not in name] or named
        if not named:
            tables = self.listing.tables.values()
            pairs = (each for each in tables if len(each.columns) == 2 and is_unfilled(each))
            named = [each.name for each in pairs if self.find_ids(each)] or [
                each.name
                for each in tables
                if len(each.columns) == 1
                and WORDS["test"].search(each.name)
                and self.listing.count_known(each.distinct[each.columns[0]])
                >= MOST * len(each.rows)
            ]
        if len(named) > 1:
            self.problems.doubt("template", named, "--template")
        elif named and named[0] in self.listing.broken:
            self.note_broken(named[0], self.listing.broken[named[0]])
        elif named:
            return self.listing.tables[named[0]]
        return None

    def read(self, name: str) -> Table | None:
        """Read the table that a setting names; None, and a problem, if it can't be used."""
        try:
            return read_table(self.input_dir / name, name)
        except TableError as error:
            if name in self.listing.tables:  # in an archive
                return self.listing.tables[name]
            self.note_broken(name, error)
            return None

    def note_broken(self, name: str, error: TableError) -> None:
        """Note a table that can't be used."""
        self.problems.note(name, str(error), error.advice)

    def find_ids(self, table: Table) -> str | None:
        """Return the column whose fields name images; None if there is none."""
        ranks = {}
        for name, fields in table.distinct.items():
            share = self.listing.count_known(fields) / max(len(fields), 1)
            if name and share >= MOST:
                # Row numbers, ages and labels may be names of images as well.
                are_files = sum(map(is_image, fields)) > MOST * len(fields)
                ranks[name] = are_files, round(share, 1), len(fields)
        best = [name for name, rank in ranks.items() if rank == max(ranks.values())]
        if len(best) > 1:
            self.problems.doubt(
                f"{table.name}: ids", [f"column {quote(name)}" for name in best], "--id-column"
            )
        return best[0] if len(best) == 1 else None

    def find_id_column(self, table: Table) -> str | None:
        """Return the column of ids in a table of labels; None if there is none."""
        wanted = self.reading.id_column
        if wanted is not None:
            return wanted if wanted in table.columns else None
        if self.template is not None and self.template.id_column in table.columns:
            return self.template.id_column
        return self.find_ids(table)

    def find_label_columns(self, table: Table, id_column: str) -> list[tuple[str, ...]]:
        """Return the candidates: a column of labels, or a column for each class."""
        wanted = self.reading.label_column
        if wanted is not None:
            return [(wanted,)] if wanted in table.columns else []
        of_groups = (*self.reading.group_column, self.reading.folds_column)
        others = [name for name in table.columns if name not in (id_column, *of_groups, "")]
        if self.template is not None:
            outputs = self.template.outputs
            if outputs and set(outputs) <= set(others):
                return [outputs]
            if len(outputs) > 1:
                named = [name for name in others if names_most(table.distinct[name], outputs)]
                if named:
                    return [(name,) for name in named]
            # The column that has the template's placeholders among its labels.
            for output in outputs:
                placeholders = self.template.table.distinct[output]
                words = placeholders.union(*(text.split() for text in placeholders))
                likely = [name for name in others if words & table.distinct[name]]
                if len(likely) == 1:
                    return [(likely[0],)]
        binary = [name for name in others if table.distinct[name] <= {"0", "1", "0.0", "1.0"}]
        if len(binary) == len(others) > 1:
            return [tuple(others)]
        named = [name for name in others if name.lower() in _LABEL_NAMES]
        repeated = [name for name in others if len(table.distinct[name]) < len(table.rows)]
        return [(name,) for name in (named if len(named) == 1 else repeated or others)]

    def is_about_test(self, table: Table) -> bool:
        """Tell if a table is the template, or has all of its ids and no labels."""
        if self.template is None or table is self.template.table:
            return self.template is not None
        if set(self.template.outputs) <= set(table.columns) and not is_unfilled(table):
            return False
        known = set(self.template.ids)
        return any(
            len(fields & known) > NEARLY_ALL * max(len(fields), len(known))
            for fields in table.distinct.values()
        )

    def find_labels(self) -> tuple[Table, str, tuple[str, ...]] | None:
        """Return the table of labels, its column of ids and its columns of labels.

        None if there is none, or if the choice is ambiguous (noted as a problem).
        """
        if self.reading.labels is not None:
            table = self.read(self.reading.labels)
            tables = [table] if table is not None else []
        else:
            tables = [
                one
                for one in self.listing.tables.values()
                if not self.is_about_test(one) and not _TEMPLATE_NAME.search(one.name)
            ]
        found = []
        for table in tables:
            id_column = self.find_id_column(table)
            if id_column is not None and (columns := self.find_label_columns(table, id_column)):
                found.append((table, id_column, columns))
        outputs = set(self.template.outputs) if self.template is not None else set()
        found = [each for each in found if outputs and outputs <= {*each[0].columns}] or found
        if len(found) > 1:  # where only one has images, there is no doubt
            fields = [table.distinct[id_column] for table, id_column, _ in found]
            known = [self.listing.count_known(of) > MOST * len(of) for of in fields]
            found = [each for each, is_known in zip(found, known, strict=True) if is_known] or found
        if len(found) > 1:
            self.problems.doubt("labels", [table.name for table, *_ in found], "--labels")
        elif found and len(found[0][2]) > 1:
            names = [f"column {quote(name)}" for (name,) in found[0][2]]
            self.problems.doubt(f"{found[0][0].name}: labels", names, "--label-column")
        elif found:
            table, id_column, [only] = found[0]
            if self.places.listed.count_known([id_column]):
                what = f"without a header: {quote(id_column)} in its first row names an image"
                self.problems.note(table.name, what, "Put a row with the columns' names first.")
                return None
            return table, id_column, only
        return None

    def read_labels(self) -> tuple[Reading, list[tuple[str, str]]] | None:
        """Return the settings, with the labels' place, and the ids and labels as written."""
        wanted, before = self.reading.labels, self.problems.count_noted()
        if wanted is None or TABLE.search(wanted):
            found = self.find_labels()
            if found is not None and wanted is None and self.may_be_folders(*found):
                return None
            if found is not None:
                return self.read_table_of_labels(*found)
            if self.problems.count_noted() > before:
                return None
        folder = self.places.find_labelled_folder(self.test_ids)
        if folder is None:
            return None
        start = "" if folder == "." else f"{folder}/"
        paths = [
            path
            for path in self.places.list_training_images(self.test_ids)
            if path.startswith(start)
        ]
        images = [path.removeprefix(start) for path in paths]
        large = [
            table.name
            for table in self.listing.tables.values()
            if wanted is None
            and not self.is_about_test(table)
            and len(table.rows) > MOST * len(images)
        ]
        if large:  # perhaps labels, although its ids name no images
            self.problems.doubt("labels", [*large, f"folders and names in {folder}"], "--labels")
            return None
        reading = replace(self.reading, labels=folder, train_images=folder)
        if self.template is not None and len(self.template.outputs) == 1:
            reading = replace(reading, label_column=self.template.outputs[0])
        return reading, label_by_name(images)

    def may_be_folders(self, table: Table, id_column: str, columns: tuple[str, ...]) -> bool:
        """Note a doubt if folders tell other labels than a column that nothing else points to."""
        pointed = self.reading.label_column is not None or (
            self.template is not None and bool(self.template.outputs)
        )
        if pointed or len(columns) > 1 or columns[0].lower() in _LABEL_NAMES:
            return False
        folders, _ = self.places.list_labelled_folders(self.test_ids)
        if len(folders) != 1:
            return False
        ids = table.column(id_column)
        depth = find_depth(ids)
        told = {
            cut_path(drop_suffix(f"{folders[0]}/{path}"), depth): path.split("/")[0]
            for path in self.listing.below(folders[0])
        }
        labels = zip(ids, table.column(columns[0]), strict=True)
        pairs = [(told.get(cut_path(drop_suffix(text), depth)), label) for text, label in labels]
        both = {pair for pair in pairs if pair[0] is not None}
        one_to_one = len(both) == len({name for name, _ in both}) == len({of for _, of in both})
        if not both or one_to_one:
            return False
        self.problems.doubt("labels", [table.name, f"the folders in {folders[0]}"], "--labels")
        return True

    def read_table_of_labels(
        self, table: Table, id_column: str, columns: tuple[str, ...]
    ) -> tuple[Reading, list[tuple[str, str]]]:
        """See `read_labels`."""
        reading = replace(self.reading, labels=table.name, id_column=id_column)
        ids = table.column(id_column)
        if len(columns) == 1:
            labels = table.column(columns[0])
            return replace(reading, label_column=columns[0]), list(zip(ids, labels, strict=True))
        values = zip(*map(table.column, columns), strict=True)
        found = [(name, find_class(columns, of)) for name, of in zip(ids, values, strict=True)]
        self.problems.count(table.name, NOT_ONE, [quote(name) for name, of in found if of is None])
        # A class of any kind: there is a problem already, which needs no other one.
        return reading, [(name, of or columns[0]) for name, of in found]

    def note_nothing(self) -> None:
        """Note what may be the reason that no labels were found."""
        listing = self.listing
        for name, error in listing.broken.items():
            self.note_broken(name, error)
        if self.problems.count_noted():
            return
        self.places.note_unread()
        wanted = self.reading.labels
        if wanted is not None and not (self.input_dir / wanted).exists():
            self.problems.note(wanted, "missing", "--labels names it.")
            return
        for name, table in listing.tables.items():
            if self.template is not None and table is self.template.table:
                continue
            columns = f"its columns are {brief(', '.join(table.columns))}"
            for setting in ("id_column", "label_column"):
                column = getattr(self.reading, setting)
                if column is not None and column not in table.columns:
                    option = f"--{setting.replace('_', '-')}"
                    self.problems.note(
                        name, f"has no column {quote(column)}; {columns}", f"{option} names it."
                    )
                    break
            else:
                self.problems.note(
                    name,
                    f"no column of ids that name images, or none of labels; {columns}",
                    "Name the columns with --id-column and --label-column.",
                )
        if self.places.not_classes:
            shown = name_first(sorted(self.places.not_classes))
            self.problems.note(
                f"folders {shown}",
                "not taken for classes",
                "If they are classes, name the folder that holds them with --labels.",
            )
        self.problems.note("labels", "not found", EXPECTED)

    def read_column(
        self, column: str, setting: str, parts: Mapping[str, Rows]
    ) -> Iterator[tuple[str, Id, str]]:
        """Yield part, id and field of a column in all tables that have it, where there is a field.

        A table's ids are in the column that has the most of them.
        """
        tables = [table for table in self.listing.tables.values() if column in table.columns]
        if not tables:
            self.problems.note(column, "not a column of any table", f"{setting} names it.")
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
                self.problems.note(table.name, f"no column of ids beside {quote(column)}")
            # Training and test ids may be alike: a table is about those that it has more of.
            alike = len(set.union(*({*rows.ids} for rows in parts.values()))) < sum(
                len(rows.ids) for rows in parts.values()
            )
            for part in [max(counts, key=counts.__getitem__)] if alike else list(parts):
                for sample, value in zip(found[part], table.column(column), strict=False):
                    if sample in parts[part].ids and value.lower() not in MISSING:
                        yield part, sample, value


def names_most(labels: Collection[str], outputs: Collection[str]) -> bool:
    """Tell if most of the different labels are among a template's columns."""
    return len(set(labels) & set(outputs)) >= MOST * len(labels) > 0


def is_unfilled(table: Table) -> bool:
    """Tell if a table looks like a template: ids, and columns of one value each."""
    several = [name for name, fields in table.distinct.items() if len(fields) > 1]
    return len(table.rows) > 1 and len(table.columns) > 1 and len(several) == 1


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


def find_layout(input_dir: Path, reading: Reading, problems: Problems) -> Layout | None:
    """Work out the layout of an input folder. Notes problems; None if it can't be told."""
    paths = ("labels", "template", "train_images", "test_images")
    given = {name: getattr(reading, name) for name in paths}
    reading = replace(reading, **{name: normpath(path) for name, path in given.items() if path})
    finder = Finder(input_dir, reading, problems)
    template = finder.template
    labelled = finder.read_labels()
    if labelled is None:
        finder.note_nothing()
        return None
    reading, samples = labelled
    written, test_written = [name for name, _ in samples], template.ids if template else []
    depth = find_depth([*written, *test_written])
    kinds = [[cut_path(text, depth) for text in of] for of in (written, test_written)]
    rows = Rows(reading.labels or "", are_numbers(*kinds), depth)
    train, repeated = make_rows(rows, samples, problems)
    note_labels(train, problems)
    test = None
    if template is not None:
        name, outputs = template.table.name, template.outputs
        empty = [""] * len(test_written)
        values = template.table.column(outputs[0]) if len(outputs) == 1 else empty
        pairs = list(zip(test_written, values, strict=True))
        rows = Rows(name, are_numbers(*reversed(kinds)), depth)
        test, again = make_rows(rows, pairs, problems)
        problems.count(name, Fault("id", "in several rows"), again)
        reading = replace(reading, template=name, template_id_column=template.id_column)
    else:
        reading = replace(reading, template="")
    reading = replace(
        reading,
        train_images=finder.places.find_images("train", train),
        test_images=finder.places.find_images("test", test) if test is not None else "",
    )
    if test is not None and reading.train_images == reading.test_images:
        both = train.ids.keys() & test.ids.keys()
        if len(both) == len(test.ids):
            what = f"not found: all ids of {test.name} are training ids, and name training images"
            problems.note("test images", what, "Name their folder with --test-images.")
        else:
            problems.count(test.name, Fault("id", f"in {train.name} as well"), both)
    if not reading.channels and reading.train_images is not None:
        names = finder.listing.below(reading.train_images)
        reading = replace(reading, channels=find_channels(names, train))
    parts = {"train": train} if test is None else {"train": train, "test": test}
    groups = [
        (part, sample, f"{column}={value}")
        for column in reading.group_column
        for part, sample, value in finder.read_column(column, "--group-column", parts)
    ]
    folds = {}
    if reading.folds_column is not None:
        found = finder.read_column(reading.folds_column, "--folds-column", {"train": train})
        folds = {sample: value for _, sample, value in found}
    columns = template.table.columns if template is not None else ()
    if len(columns) == 1:  # ids alone: the labels go beside them
        columns = (*columns, reading.label_column or "label")
    notes = list(finder.places.describe_unused(reading))
    if reading.labels in finder.places.listed.tables:
        notes += describe_parts(finder.places.listed.tables[reading.labels])
    return Layout(reading, train, test, columns, repeated, groups, folds, notes)
