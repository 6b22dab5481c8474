"""The competition's CSV files, as they are written.

Fields stay as they are, except for surrounding spaces: markup and formulas are labels like others.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path

from cellline.data.files import GZIP, MAX_ENTRIES, ZIP, Member, UnreadableError, explained
from cellline.data.ids import parse_number
from cellline.data.problems import brief
from cellline.errors import first_line
from cellline.host.files import open_regular
from cellline.host.names import has_control

MAX_BYTES = 64 << 20  # for MAX_ENTRIES rows; in memory they take several times as much
MAX_HEADER = 256 << 10  # characters; some competitions have a column for each of 5,000 classes
SEPARATORS = ",;\t"

# Spellings of a missing value, which no class has as its name. Words such as NA, None and null may
# name a class; Competition warns of them.
MISSING = ("", "nan", "<na>")


class TableError(Exception):
    """A table can't be used; the text says why, `advice` what to do."""

    def __init__(self, why: str, advice: str = "") -> None:
        super().__init__(why)
        self.advice = advice


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV with a header."""

    name: str
    """Path within the input folder."""
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    def column(self, name: str) -> list[str]:
        """The fields of a column, by row."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    @cached_property
    def distinct(self) -> dict[str, set[str]]:
        """The different fields of each column that are not missing."""
        return {
            name: {field for field in self.column(name) if field.lower() not in MISSING}
            for name in self.columns
        }


def read_table(path: Path, name: str) -> Table:
    """Read a CSV in UTF-8, separated by commas, semicolons or tabs. Raises TableError."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            return parse_table(file.read(check_size(os.fstat(file.fileno()).st_size)), name)
    except FileNotFoundError:
        raise TableError("missing") from None
    except OSError as error:
        raise TableError(f"can't be read: {error.strerror}") from error


def read_packed(member: Member, name: str) -> Table:
    """Read a CSV in an archive, as `read_table` does."""
    try:
        with explained():
            return parse_table(member.read(check_size(member.size)), name)
    except UnreadableError as error:
        raise TableError(f"can't be read: {error}") from error


def check_size(size: int) -> int:
    """Return the size of a table in bytes. Raises TableError if it is too large."""
    if size > MAX_BYTES:
        raise TableError(f"not a table: it has more than {MAX_BYTES >> 20} MiB")
    return size


def parse_table(data: bytes, name: str) -> Table:
    """Parse a CSV; rows that are blank are left out. Raises TableError."""
    # Imported where it is used: it takes 0.4 s, and not every verb reads a table.
    import pandas as pd

    if data.startswith(ZIP):
        raise TableError("a zip archive by its content", f"Rename it to {name}.zip.")
    if data.startswith(GZIP):
        raise TableError("packed by gzip", "Unpack it.")
    try:
        text = data.decode("utf-8-sig")
        head, end, _ = text.lstrip()[:MAX_HEADER].partition("\n")
        if not end and len(head) == MAX_HEADER:
            raise TableError(f"not a table: its first line has more than {MAX_HEADER:,} characters")
        frame = pd.read_csv(
            StringIO(text),
            sep=max(SEPARATORS, key=head.count),
            header=None,
            dtype=str,
            na_filter=False,
            skipinitialspace=True,
            nrows=MAX_ENTRIES + 2,
        )
    except UnicodeDecodeError:
        raise TableError("not UTF-8 text", "Save it as CSV in the encoding UTF-8.") from None
    except pd.errors.EmptyDataError:
        raise TableError("not a table: empty, expected a header and rows") from None
    except ValueError as error:  # pandas' errors are of this kind
        why = first_line(error).removeprefix("Error tokenizing data. C error: ")
        raise TableError(f"not a table: {brief(why)}") from error
    if len(frame) > MAX_ENTRIES + 1:
        raise TableError(f"not a table: it has more than {MAX_ENTRIES:,} rows")
    header, *rows = ([field.strip() for field in row] for row in frame.to_numpy().tolist())
    # pandas writes rows' numbers into a first column without a name.
    different = len(set(header)) == len(header) and "" not in header[1:]
    if not different or any(map(has_control, header)) or parse_number(header[0]) is not None:
        found = quote(",".join(header))
        raise TableError(f"wrong header: found {found}, expected a different name for each column")
    return Table(name, tuple(header), [row for row in rows if any(row)])


def quote(text: str) -> str:
    """Quote an untrusted text, escaped and on one line."""
    return brief(repr(text))
