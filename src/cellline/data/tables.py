"""The competition's two CSV files: labels and the template of a submission."""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cellline.data.problems import Fault, Problems

_DIGITS = re.compile(r"0*[0-9]{1,18}", re.ASCII)  # what an int64 surely holds

LABELS = "y_train.csv"
TEMPLATE = "sample_submission.csv"
EXAMPLE = "file_id,cell_line"

_RAGGED = Fault("line has not two fields", "lines have not two fields")
_NOT_AN_ID = Fault("id is not a non-negative integer", "ids are not non-negative integers")
_REPEATED = Fault("id is duplicate", "ids are duplicate")
_UNLABELLED = Fault("id has an empty label", "ids have empty labels")


@dataclass(frozen=True)
class Table:
    """A CSV of ids and labels, in the file's order; rows with a bad id are left out."""

    id_column: str
    label_column: str
    ids: dict[int, str]  # id -> as written in the file
    labels: dict[int, str]


def parse_id(text: str) -> int | None:
    """Return the value of a non-negative integer, zero-padded or not; None if it isn't one."""
    return int(text) if _DIGITS.fullmatch(text) else None


def read_template(path: Path, problems: Problems) -> Table | None:
    """Read `sample_submission.csv`: first the id's column, then the label's, a placeholder."""
    rows = _read_rows(path, problems)
    if rows is None:
        return None
    header = rows.pop(0)[1]
    if len(set(header)) != 2 or len(header) != 2 or "" in header or parse_id(header[0]) is not None:
        problems.note(
            path.name,
            f"wrong header: found {','.join(header)!r}, expected the names of two columns, "
            f"first the id, then the label, such as {EXAMPLE!r}",
        )
        return None
    return _table(path, rows, header, (header[0], header[1]), problems)


def read_labels(path: Path, template: Table | None, problems: Problems) -> Table | None:
    """Read `y_train.csv`, whose two columns are named like the template's, in any order.

    Without a template the first column is taken for the id, so that the rest is still checked.
    """
    rows = _read_rows(path, problems)
    if rows is None:
        return None
    header = rows.pop(0)[1]
    columns = (template.id_column, template.label_column) if template else tuple(header)
    if len(columns) != 2 or sorted(header) != sorted(columns):
        expected = f"{','.join(columns)!r} as in {TEMPLATE}" if template else f"{EXAMPLE!r}"
        problems.note(path.name, f"wrong header: found {','.join(header)!r}, expected {expected}")
        return None
    table = _table(path, rows, header, columns, problems)
    unlabelled = [i for i, label in table.labels.items() if not label]
    problems.count(path.name, _UNLABELLED, unlabelled)
    classes = sorted({label for label in table.labels.values() if label})
    if table.ids and len(classes) < 2:
        problems.note(
            path.name,
            f"fewer than two classes: found {', '.join(map(repr, classes)) or 'none'}",
        )
    return table


_Row = tuple[int, list[str]]  # line number, fields


def _read_rows(path: Path, problems: Problems) -> list[_Row] | None:
    """Read the rows that are not blank, the header first."""
    if not path.exists():
        problems.note(path.name, "missing")
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.note(
            path.name, "not UTF-8 text", f"Save {path.name} as CSV in the encoding UTF-8."
        )
        return None
    except OSError as error:
        problems.note(path.name, f"can't be read: {error.strerror}")
        return None
    rows: list[_Row] = []
    # csv and not pandas, which pads short rows and takes a surplus first field for an index.
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any("\n" in field or "\r" in field or "\0" in field for field in fields):
                raise csv.Error("a line break or zero byte within a field")
            if any(fields):
                rows.append((reader.line_num, fields))
    except csv.Error as error:
        problems.note(path.name, f"not a CSV: line {reader.line_num}: {error}")
        return None
    if not rows:
        problems.note(path.name, f"empty, expected a header such as {EXAMPLE!r}")
        return None
    return rows


def _table(
    path: Path, rows: list[_Row], header: list[str], columns: tuple[str, ...], problems: Problems
) -> Table:
    if not rows:
        problems.note(path.name, "no rows below the header")
    id_at, label_at = (header.index(column) for column in columns)
    ids: dict[int, str] = {}
    labels: dict[int, str] = {}
    counts: Counter[int] = Counter()
    ragged, not_ids = [], []
    for line, fields in rows:
        if len(fields) != len(header):
            ragged.append(line)
        elif (value := parse_id(fields[id_at])) is None:
            not_ids.append(f"{fields[id_at]!r} in line {line}")
        else:
            counts[value] += 1
            ids.setdefault(value, fields[id_at])
            labels.setdefault(value, fields[label_at])
    repeated = [value for value, count in counts.items() if count > 1]
    problems.count(path.name, _RAGGED, ragged)
    problems.count(path.name, _NOT_AN_ID, not_ids)
    problems.count(path.name, _REPEATED, repeated)
    return Table(columns[0], columns[1], ids, labels)
