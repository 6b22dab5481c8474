"""The labels in an input folder: in a table, in the names of folders, or in those of files."""

from collections.abc import Collection
from dataclasses import replace

from cellline.config import Reading
from cellline.data.ids import cut_path, drop_suffix, find_depth
from cellline.data.listing import TABLE
from cellline.data.problems import brief, name_first
from cellline.data.rows import MOST, NEARLY_ALL, NOT_ONE, find_class, label_by_name
from cellline.data.tables import Table, quote
from cellline.data.template import TEMPLATE_NAME, InputTables, is_unfilled

_LABEL_NAMES = ("label", "labels", "class", "target", "category")

EXPECTED = (
    "Expected there: images (folders or archives), and their labels: a CSV with a column of ids "
    "or file names and one of labels, a folder for each class, or labels in the file names. A "
    "template such as sample_submission.csv names the test samples."
)


class LabelFinder:
    """Works out where the labels are. Its methods note problems."""

    def __init__(self, tables: InputTables) -> None:
        self.tables = tables
        self.template = tables.template
        self.places = tables.places
        self.reading = tables.reading
        self.problems = tables.problems

    def find_id_column(self, table: Table) -> str | None:
        """Return the column of ids in a table of labels; None if there is none."""
        wanted = self.reading.id_column
        if wanted is not None:
            return wanted if wanted in table.columns else None
        if self.template is not None and self.template.id_column in table.columns:
            return self.template.id_column
        return self.tables.find_ids(table)

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
            table = self.tables.read(self.reading.labels)
            tables = [table] if table is not None else []
        else:
            tables = [
                one
                for one in self.places.listing.tables.values()
                if not self.is_about_test(one) and not TEMPLATE_NAME.search(one.name)
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
            known = [self.places.listing.count_known(of) > MOST * len(of) for of in fields]
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
        folder = self.places.find_labelled_folder(self.tables.test_ids)
        if folder is None:
            return None
        start = "" if folder == "." else f"{folder}/"
        paths = [
            path
            for path in self.places.list_training_images(self.tables.test_ids)
            if path.startswith(start)
        ]
        images = [path.removeprefix(start) for path in paths]
        large = [
            table.name
            for table in self.places.listing.tables.values()
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
        folders, _ = self.places.list_labelled_folders(self.tables.test_ids)
        if len(folders) != 1:
            return False
        ids = table.column(id_column)
        depth = find_depth(ids)
        told = {
            cut_path(drop_suffix(f"{folders[0]}/{path}"), depth): path.split("/")[0]
            for path in self.places.listing.below(folders[0])
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
        listing = self.places.listing
        for name, error in listing.broken.items():
            self.tables.note_broken(name, error)
        if self.problems.count_noted():
            return
        self.places.note_unread()
        wanted = self.reading.labels
        if wanted is not None and not (self.places.input_dir / wanted).exists():
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


def names_most(labels: Collection[str], outputs: Collection[str]) -> bool:
    """Tell if most of the different labels are among a template's columns."""
    return len(set(labels) & set(outputs)) >= MOST * len(labels) > 0
