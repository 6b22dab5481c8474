"""The layout of an input folder: which files hold labels, images and the template.

Competitions name and arrange their files in many ways. What the files leave no doubt about is
worked out; in doubt, a problem names the candidates and the setting that decides.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import commonpath
from pathlib import Path

from cellline.config import Reading
from cellline.data.ids import Id, drop_suffix, parse_id
from cellline.data.listing import Listing, list_input
from cellline.data.naming import find_channels
from cellline.data.problems import NAMED, Fault, Problems, brief
from cellline.data.rows import (
    NEARLY_ALL,
    NOT_ONE,
    Rows,
    are_numbers,
    count_numbers,
    find_class,
    label_by_name,
    make_rows,
    note_labels,
    tells_labels,
)
from cellline.data.tables import MISSING, Table, TableError, quote, read_table

_TEMPLATE_NAME = re.compile(r"submi|template", re.IGNORECASE)
# Words in the paths of a split's files.
_WORDS = {split: re.compile(rf"(?<![a-z]){split}", re.IGNORECASE) for split in ("train", "test")}
# Names of folders that hold a split, or images of all classes.
_NOT_A_CLASS = re.compile(
    r"(.*[^a-z])?((train|test)(ing)?(set)?|val(id(ation)?)?|images?|imgs?)([^a-z].*)?",
    re.IGNORECASE,
)
_LABEL_NAMES = ("label", "labels", "class", "target", "category")
# A column holds the ids if so many of its fields name an image; a folder holds a split's images if
# it has so many of those found; and so on, where a few exceptions are mistakes to report.
MOST = 0.5


EXPECTED = (
    "Expected there: images (folders or archives), and their labels: a CSV with a column of ids "
    "or file names and one of labels, a folder for each class, or labels in the file names. A "
    "template such as sample_submission.csv names the test samples."
)


@dataclass(frozen=True, eq=False)
class Layout:
    """What the files of an input folder are."""

    reading: Reading
    """The settings, with what was worked out."""
    numeric: bool
    """True if the ids are whole numbers, False if they are text."""
    train: Rows
    test: Rows | None
    """None without a template."""
    template_columns: tuple[str, ...]
    template_ids: str
    """The template's column of ids."""
    repeated: int
    """Rows of training samples that have another row with the same label."""
    groups: Sequence[tuple[Id, str, str]]
    """Members of the user's groups: id, column, value."""
    folds: Mapping[Id, str]
    """Id -> the user's fold; empty without their column."""


class Finder:
    """Works out a layout, and notes problems."""

    def __init__(self, input_dir: Path, reading: Reading, problems: Problems) -> None:
        self.input_dir = input_dir
        self.reading = reading
        self.problems = problems

    @cached_property
    def listing(self) -> Listing:
        """The files, listed when they are needed."""
        return list_input(self.input_dir)

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

    def find_template(self) -> Table | None:
        """Return the template, by its setting or name."""
        if self.reading.template is not None:
            return self.read(self.reading.template) if self.reading.template else None
        there = [*self.listing.tables, *self.listing.broken]
        named = [name for name in there if _TEMPLATE_NAME.search(name.rpartition("/")[2])]
        named = [name for name in named if "/" not in name] or named
        if len(named) > 1:
            self.doubt("template", named, "--template")
            return None
        if named and named[0] in self.listing.broken:
            self.note_broken(named[0], self.listing.broken[named[0]])
            return None
        return self.listing.tables[named[0]] if named else None

    def doubt(self, what: str, candidates: Collection[str], setting: str) -> None:
        """Note that one of several candidates must be chosen."""
        shown = sorted(candidates)
        more = f" or {len(shown) - NAMED} more" if len(shown) > NAMED else ""
        named = " or ".join(brief(name) for name in shown[:NAMED])
        self.problems.note(what, f"could be {named}{more}", f"Say which with {setting}.")

    def find_id_column(self, table: Table, template: Table | None) -> str | None:
        """Return the column of ids; None if there is none."""
        wanted = self.reading.id_column
        if wanted is not None:
            return wanted if wanted in table.columns else None
        if template is not None and template is not table:
            name = self.find_template_ids(template)
            if name in table.columns:
                return name
        shares = {
            name: self.listing.count_known(fields) / len(fields)
            for name, fields in table.distinct.items()
            if fields
        }
        best = max(shares, key=shares.__getitem__, default=None)
        return best if best is not None and shares[best] >= MOST else None

    def find_template_ids(self, template: Table) -> str:
        """Return the template's column of ids: the first, unless another one names images."""
        return self.find_id_column(template, None) or template.columns[0]

    def find_outputs(self, template: Table) -> tuple[str, ...]:
        """Return the template's columns to fill in."""
        ids = self.find_template_ids(template)
        return tuple(name for name in template.columns if name != ids)

    def find_label_columns(
        self, table: Table, id_column: str, template: Table | None
    ) -> list[tuple[str, ...]]:
        """Return the candidates: a column of labels, or a column for each class."""
        if self.reading.label_column is not None:
            wanted = self.reading.label_column
            return [(wanted,)] if wanted in table.columns else []
        of_groups = (*self.reading.group_column, self.reading.folds_column)
        others = [name for name in table.columns if name not in (id_column, *of_groups, "")]
        if template is not None:
            outputs = self.find_outputs(template)
            if outputs and set(outputs) <= set(others):
                return [outputs]
            of_classes: list[tuple[str, ...]] = [
                (name,)
                for name in others
                if len(outputs) > 1
                and len(table.distinct[name] & set(outputs)) >= MOST * len(table.distinct[name]) > 0
            ]
            if of_classes:
                return of_classes
            # The column that has the template's placeholders among its labels.
            for output in outputs:
                words = {word for text in template.distinct[output] for word in text.split()}
                words |= template.distinct[output]
                likely = [name for name in others if words & table.distinct[name]]
                if len(likely) == 1:
                    return [(likely[0],)]
        binary = [name for name in others if table.distinct[name] == {"0", "1"}]
        if len(binary) == len(others) > 1:
            return [tuple(others)]
        named = [name for name in others if name.lower() in _LABEL_NAMES]
        return [(name,) for name in (named if len(named) == 1 else others)]

    def find_labels(self, template: Table | None) -> tuple[Table, str, tuple[str, ...]] | None:
        """Return the table of labels, its column of ids and its columns of labels.

        None if there is no such table, or none that is sure; the latter is a problem.
        """
        if self.reading.labels is not None:
            table = self.read(self.reading.labels)
            tables = [table] if table is not None else []
        else:
            tables = [table for table in self.listing.tables.values() if table is not template]
        known = set(template.column(self.find_template_ids(template))) if template else set()
        found = []
        for table in tables:
            id_column = self.find_id_column(table, template)
            if id_column is None:
                continue
            ids = table.distinct[id_column]
            if self.reading.labels is None and ids and len(ids & known) > MOST * len(ids):
                continue  # about the test samples
            columns = self.find_label_columns(table, id_column, template)
            if columns:
                found.append((table, id_column, columns))
        if len(found) > 1:  # where only one has images, there is no doubt
            with_images = [
                each
                for each in found
                if self.listing.count_known(each[0].distinct[each[1]])
                > MOST * len(each[0].distinct[each[1]])
            ]
            found = with_images or found
        if len(found) > 1:
            self.doubt("labels", [table.name for table, *_ in found], "--labels")
        elif found and len(found[0][2]) > 1:
            names = [f"column {quote(name)}" for (name,) in found[0][2]]
            self.doubt(f"{found[0][0].name}: labels", names, "--label-column")
        elif found:
            table, id_column, [only] = found[0]
            return table, id_column, only
        return None

    def read_labels(self, template: Table | None) -> tuple[Reading, list[tuple[str, str]]] | None:
        """Return the settings, with the labels' place, and the ids and labels as written."""
        known = self.problems.count_noted()
        wanted = self.reading.labels
        found = None
        if wanted is None or wanted.lower().endswith(".csv"):
            found = self.find_labels(template)
        if found is not None:
            table, id_column, columns = found
            label_column = columns[0] if len(columns) == 1 else None
            reading = replace(
                self.reading, labels=table.name, id_column=id_column, label_column=label_column
            )
            ids = table.column(id_column)
            if label_column is not None:
                return reading, list(zip(ids, table.column(label_column), strict=True))
            values = zip(*map(table.column, columns), strict=True)
            labels = [find_class(columns, of_row) for of_row in values]
            several = [quote(name) for name, of in zip(ids, labels, strict=True) if of is None]
            self.problems.count(table.name, NOT_ONE, several)
            return reading, [(name, of or "") for name, of in zip(ids, labels, strict=True) if of]
        folder = None
        if self.problems.count_noted() == known:
            folder = self.find_labelled_folder()
        if folder is None:
            return None
        reading = replace(self.reading, labels=folder, train_images=folder)
        return reading, label_by_name(self.listing.below(folder))

    def note_nothing(self, template: Table | None) -> None:
        """Note what may be the reason that no labels were found."""
        listing = self.listing
        for name, error in listing.broken.items():
            self.note_broken(name, error)
        if self.problems.count_noted():
            return
        for name in listing.unread:
            self.problems.note(name, "an archive of a kind that can't be read", "Unpack it.")
        for name, table in listing.tables.items():
            if table is not template:
                columns = brief(", ".join(table.columns))
                self.problems.note(
                    name,
                    f"not the labels: no column of ids that name images, and of labels ({columns})",
                    "Name the columns with --id-column and --label-column.",
                )
        self.problems.note("labels", "not found", EXPECTED)

    def read_column(self, column: str, setting: str, *, numeric: bool) -> Iterator[tuple[Id, str]]:
        """Yield id and field, where there is one, of a column in the tables that have it."""
        tables = [table for table in self.listing.tables.values() if column in table.columns]
        if not tables:
            self.problems.note(column, "not a column of any table", f"It is named by {setting}.")
        for table in tables:
            id_column = self.find_id_column(table, None)
            if id_column is not None:
                for text, value in zip(table.column(id_column), table.column(column), strict=True):
                    sample = parse_id(text, numeric=numeric)
                    if sample is not None and value.lower() not in MISSING:
                        yield sample, value

    def find_labelled_folder(self) -> str | None:
        """Return the path below which each class has a folder, or file names begin with the class.

        None if there is none, or none that is sure; the latter is a problem.
        """
        wanted = self.reading.labels or self.reading.train_images
        below: dict[str, set[str]] = defaultdict(set)  # path -> its folders with images
        flat: dict[str, list[str]] = defaultdict(list)  # path -> names of the images in it
        for path in self.listing.images:
            parts = path.split("/")
            flat["/".join(parts[:-1]) or "."].append(parts[-1])
            for depth in range(len(parts) - 1):
                below["/".join(parts[:depth]) or "."].add(parts[depth])
        folders = [
            path
            for path, names in below.items()
            if len(names) > 1 and (path == wanted or not any(map(_NOT_A_CLASS.fullmatch, names)))
        ]
        named = [path for path, names in flat.items() if tells_labels(names)]
        for found in (folders, named):
            found = [path for path in found if path == wanted or wanted is None]
            found = [path for path in found if _WORDS["train"].search(path)] or [
                path for path in found if not _WORDS["test"].search(path)
            ]
            top = [path for path in found if all(is_below(path, other) for other in found)]
            if found and not top:
                self.doubt("labels", found, "--labels")
            if found:
                return top[0] if top else None
        return None

    def match(self, ids: Collection[Id], *, numeric: bool) -> dict[str, set[Id]]:
        """Folders with images of these ids, and which."""
        found: dict[str, set[Id]] = defaultdict(set)
        for path in self.listing.images:
            parts = drop_suffix(path).split("/")
            for start in range(len(parts)):
                sample = parse_id("/".join(parts[start:]), numeric=numeric)
                if sample in ids:
                    break
            else:
                start, stem = len(parts) - 1, parts[-1]
                heads = (stem[: at.start()] for at in re.finditer("_", stem))
                sample = next(
                    (one for head in heads if (one := parse_id(head, numeric=numeric)) in ids), None
                )
            if sample is not None:
                found["/".join(parts[:start]) or "."].add(sample)
        return found

    def find_images(self, split: str, ids: Collection[Id], *, numeric: bool) -> str | None:
        """Return the path with the images of a split; None, and a problem, if it isn't sure."""
        setting = f"{split}_images"
        wanted: str | None = getattr(self.reading, setting)
        if wanted:
            if not (self.input_dir / wanted).exists() and not self.listing.below(wanted):
                self.problems.note(wanted, "missing", f"It is named by --{split}-images.")
                return None
            return wanted
        other = "test" if split == "train" else "train"

        def prefer(names: Collection[str], enough: Callable[[list[str]], bool]) -> list[str]:
            """Those named after the split, if enough; else those not named after another."""
            own = [name for name in names if _WORDS[split].search(name)]
            rest = [name for name in names if not _WORDS[other].search(name)]
            return next((found for found in (own, rest) if found and enough(found)), list(names))

        found = self.match(ids, numeric=numeric)
        there = set().union(*found.values())
        chosen = prefer(
            found,
            lambda names: len(set().union(*(found[name] for name in names))) > MOST * len(there),
        )
        # Several that have each nearly all are copies, perhaps of another size.
        whole = [name for name in chosen if len(found[name]) > NEARLY_ALL * len(there)]
        if len(whole) > 1:
            self.doubt(f"{split} images", whole, f"--{setting.replace('_', '-')}")
            return None
        if not chosen:
            own = [name for name in self.listing.places if _WORDS[split].search(name)]
            rest = [name for name in self.listing.places if not _WORDS[other].search(name)]
            chosen = own or rest
            chosen = chosen if len(chosen) == 1 else []
        if not chosen:
            self.problems.note(
                f"{split} images",
                "not found" + (": no image is named like an id" if self.listing.images else ""),
                f"Name their folder or archive with --{split}-images.",
            )
            return None
        return whole[0] if whole else commonpath(chosen) or "."


def is_below(top: str, path: str) -> bool:
    """Tell if a path is another one or below it."""
    return top in (".", path) or path.startswith(f"{top}/")


def find_layout(input_dir: Path, reading: Reading, problems: Problems) -> Layout | None:
    """Work out the layout of an input folder. Notes problems; None if it can't be told."""
    finder = Finder(input_dir, reading, problems)
    template = finder.find_template()
    labelled = finder.read_labels(template)
    if labelled is None:
        finder.note_nothing(template)
        return None
    reading, samples = labelled
    ids = template.column(finder.find_template_ids(template)) if template is not None else []
    written = [sample for sample, _ in samples]
    numeric = are_numbers(ids or written) and count_numbers(written) >= MOST * len(written)
    name = reading.labels or ""
    train, repeated = make_rows(name, samples, problems, numeric=numeric)
    note_labels(train, problems)
    test = None
    if template is not None:
        outputs = finder.find_outputs(template)
        if not outputs:
            problems.note(template.name, "no column to fill in, only ids")
        placeholders = template.column(outputs[0]) if len(outputs) == 1 else [""] * len(ids)
        pairs = list(zip(ids, placeholders, strict=True))
        test, _ = make_rows(template.name, pairs, problems, numeric=numeric)
        if reading.label_column is None and len(outputs) == 1:
            reading = replace(reading, label_column=outputs[0])
    reading = replace(
        reading,
        template=template.name if template is not None else "",
        train_images=finder.find_images("train", train.ids.keys(), numeric=numeric),
        test_images=finder.find_images("test", test.ids.keys(), numeric=numeric) if test else "",
    )
    if test is not None and reading.train_images == reading.test_images:
        both = train.ids.keys() & test.ids.keys()
        problems.count(test.name, Fault("id", f"in {name} as well"), both)
    if not reading.channels and reading.train_images is not None:
        names = finder.listing.below(reading.train_images)
        channels = find_channels(names, train.ids.keys(), numeric=numeric)
        reading = replace(reading, channels=channels)
    return Layout(
        reading,
        numeric,
        train,
        test,
        template.columns if template is not None else (),
        finder.find_template_ids(template) if template is not None else "",
        repeated,
        [
            (sample, column, value)
            for column in reading.group_column
            for sample, value in finder.read_column(column, "--group-column", numeric=numeric)
        ],
        dict(finder.read_column(reading.folds_column, "--folds-column", numeric=numeric))
        if reading.folds_column is not None
        else {},
    )
