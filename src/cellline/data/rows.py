"""Reading a CSV file row by row, in bounded time and memory."""

import csv
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from cellline.data.archives import MAX_ENTRIES, open_file

MAX_LINES = MAX_ENTRIES + 1  # the header, and each sample has an image
MAX_BYTES = 128 << 20
MAX_LINE = 1 << 20  # characters

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

Row = tuple[int, list[str]]  # line number, fields without padding


class NotATableError(Exception):
    """The file as a whole can't be used: what is wrong, what to do."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows that are not blank, the header first.

    Raises NotATableError where the file is none, or goes beyond the limits.
    """
    try:
        with open_file(path) as file:
            if (size := path.stat().st_size) > MAX_BYTES:
                raise NotATableError(
                    f"it has {size >> 20} MiB, more than {MAX_BYTES >> 20}, which is enough for "
                    f"{MAX_LINES:,} lines"
                )
            yield from _rows(path.name, TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    except FileNotFoundError:
        raise NotATableError("missing") from None
    except UnicodeDecodeError as error:
        raise NotATableError("not UTF-8 text", _encoding(path.name)) from error
    except OSError as error:
        raise NotATableError(f"can't be read: {error.strerror}") from error


def _rows(name: str, file: TextIO) -> Iterator[Row]:
    # csv and not pandas, which pads short rows and takes a surplus first field for an index.
    reader = csv.reader(_lines(file), skipinitialspace=True)
    header = True
    try:
        for fields in reader:
            if reader.line_num > MAX_LINES:
                raise NotATableError(f"more than {MAX_LINES:,} lines")
            fields = [field.strip() for field in fields]
            if not any(fields):
                continue
            for field in fields:
                if "\n" in field or "\r" in field:
                    raise csv.Error("a line break within a field, or a quote that isn't closed")
                if "\0" in field:
                    raise NotATableError("zero bytes in it: not UTF-8 text", _encoding(name))
            if header:
                _check_separator(name, fields)
                header = False
            yield reader.line_num, fields
    except csv.Error as error:
        raise NotATableError(f"not a CSV: line {reader.line_num}: {error}") from error


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE and line[-1] not in "\r\n":
            raise csv.Error(f"more than {MAX_LINE:,} characters")
        yield line


def _check_separator(name: str, header: list[str]) -> None:
    for separator, kind in _SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise NotATableError(
                f"its fields are separated by {kind}, expected commas",
                f"Save {name} as CSV with commas between the fields.",
            )


def _encoding(name: str) -> str:
    return f"Save {name} as CSV in the encoding UTF-8."
