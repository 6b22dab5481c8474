"""The tables of an input folder, and which of them is the template."""

import re
from dataclasses import dataclass
from functools import cached_property

from cellline.data.ids import is_image
from cellline.data.listing import Listing
from cellline.data.places import WORDS, Places
from cellline.data.rows import MOST
from cellline.data.tables import Table, TableError, quote, read_table

TEMPLATE_NAME = re.compile(r"submi|template", re.IGNORECASE)


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


class InputTables:
    """The tables in an input folder. Its methods note problems."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.reading = places.reading
        self.problems = places.problems

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
        named = [name for name in there if TEMPLATE_NAME.search(name.rpartition("/")[2])]
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
            return read_table(self.places.input_dir / name, name)
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


def is_unfilled(table: Table) -> bool:
    """Tell if a table looks like a template: ids, and columns of one value each."""
    several = [name for name, fields in table.distinct.items() if len(fields) > 1]
    return len(table.rows) > 1 and len(table.columns) > 1 and len(several) == 1
