"""The competition's two CSV files: labels and the template of a submission.

Labels are text and stay as they are written, but for padding: markup and formulas are labels like
others. What can't be one is refused: nothing, nan, and what a terminal or a CSV takes for control.
"""

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cellline.data.problems import Fault, Problems, brief
from cellline.data.rows import NotATableError, Row, read_rows

LABELS = "y_train.csv"
TEMPLATE = "sample_submission.csv"
EXAMPLE = "file_id,cell_line"

_DIGITS = re.compile(r"0*[0-9]{1,18}", re.ASCII)  # what an int64 surely holds

# How programs write a missing number, here of a text; no class is called so. Others that they
# write (NA, None, null) are words that a class may be called; Competition warns of them.
_MISSING = ("nan", "<na>")

# Of Unicode: control, format (invisible, or turning the direction of writing), line and paragraph
# separators. Scripts and emoji need the two joiners.
_UNWANTED = ("Cc", "Cf", "Zl", "Zp")
_JOINERS = "\u200c\u200d"

_RAGGED = Fault("line has not two fields", "lines have not two fields")
_NOT_AN_ID = Fault("id is not a non-negative integer", "ids are not non-negative integers")
_REPEATED = Fault("id is duplicate", "ids are duplicate")
_LABEL_THEM = "Give every sample a label, or remove it together with its images."
_UNLABELLED = Fault("id has an empty label", "ids have empty labels")
_NAN = Fault(
    "id has a label that stands for a missing one (nan)",
    "ids have a label that stands for a missing one (nan)",
    _LABEL_THEM,
)
_CONTROL = Fault(
    "id has a label with control or invisible characters",
    "ids have labels with control or invisible characters",
)


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV of ids and labels, in the file's order; rows with a bad id are left out."""

    id_column: str
    label_column: str
    ids: np.ndarray  # int64 [n]
    written: Sequence[str]  # the ids as in the file
    labels: Sequence[str]


def parse_id(text: str) -> int | None:
    """Return the value of a non-negative integer, zero-padded or not; None if it isn't one."""
    # Only the digits that count: int() refuses thousands of them, be they zeros.
    return int(text[-18:]) if _DIGITS.fullmatch(text) else None


def read_template(path: Path, problems: Problems) -> Table | None:
    """Read `sample_submission.csv`: first the id's column, then the label's, a placeholder."""
    return _read(path, _template_columns, problems)


def read_labels(path: Path, template: Table | None, problems: Problems) -> Table | None:
    """Read `y_train.csv`, whose two columns are named like the template's, in any order.

    Without a template the first column is taken for the id, so that the rest is still checked.
    """
    table = _read(path, partial(_label_columns, template), problems)
    if table is None:
        return None
    classes = sorted(set(table.labels) - {""})
    missing = {label for label in classes if label.lower() in _MISSING}
    controlling = set(filter(_has_unwanted, classes))
    for fault, wrong in ((_UNLABELLED, {""}), (_NAN, missing), (_CONTROL, controlling)):
        at = [row for row, label in enumerate(table.labels) if label in wrong] if wrong else []
        problems.count(path.name, fault, table.ids[at].tolist())
    if len(table.ids) and len(classes) < 2:
        found = ", ".join(map(_quote, classes)) or "none"
        problems.note(path.name, f"fewer than two classes: found {found}")
    return table


def _template_columns(header: list[str]) -> tuple[str, ...]:
    if (
        len(set(header)) != 2
        or len(header) != 2
        or "" in header
        or parse_id(header[0]) is not None
        or any(map(_has_unwanted, header))
    ):
        raise NotATableError(
            f"wrong header: found {_quote(','.join(header))}, expected the names of two columns, "
            f"first the id, then the label, such as {EXAMPLE!r}",
        )
    return tuple(header)


def _label_columns(template: Table | None, header: list[str]) -> tuple[str, ...]:
    columns = (template.id_column, template.label_column) if template else tuple(header)
    if len(columns) != 2 or sorted(header) != sorted(columns):
        expected = f"{_quote(','.join(columns))} as in {TEMPLATE}" if template else repr(EXAMPLE)
        raise NotATableError(f"wrong header: found {_quote(','.join(header))}, expected {expected}")
    return columns


def _read(
    path: Path, columns_of: Callable[[list[str]], tuple[str, ...]], problems: Problems
) -> Table | None:
    """Read a table row by row and note what is wrong with it; None if it is none."""
    try:
        rows = read_rows(path)
        _, header = next(rows, (0, None))
        if header is None:
            raise NotATableError(f"empty, expected a header such as {EXAMPLE!r}")
        return _table(path, rows, header, columns_of(header), problems)
    except NotATableError as error:
        problems.note(path.name, error.what, error.advice)
        return None


def _table(
    path: Path,
    rows: Iterator[Row],
    header: list[str],
    columns: tuple[str, ...],
    problems: Problems,
) -> Table:
    id_at, label_at = (header.index(column) for column in columns)
    ids = array("q")
    written: list[str] = []
    labels: list[str] = []
    classes: dict[str, str] = {}  # each label once in memory
    ragged, not_ids, line = [], [], 0
    for line, fields in rows:
        if len(fields) != len(header):
            ragged.append(line)
        elif (value := parse_id(fields[id_at])) is None:
            not_ids.append(f"{_quote(fields[id_at])} in line {line}")
        else:
            ids.append(value)
            written.append(fields[id_at])
            labels.append(classes.setdefault(fields[label_at], fields[label_at]))
    values = np.array(ids, dtype=np.int64)
    known, first, times = np.unique(values, return_index=True, return_counts=True)
    if not line:
        problems.note(path.name, "no rows below the header")
    problems.count(path.name, _RAGGED, ragged)
    problems.count(path.name, _NOT_AN_ID, not_ids)
    problems.count(path.name, _REPEATED, known[times > 1].tolist())
    kept = np.sort(first)  # of an id that is repeated the first row
    return Table(
        columns[0],
        columns[1],
        values[kept],
        [written[row] for row in kept],
        [labels[row] for row in kept],
    )


def _has_unwanted(text: str) -> bool:
    # isprintable() is quick, and false for some that are wanted.
    return not text.isprintable() and any(
        unicodedata.category(char) in _UNWANTED and char not in _JOINERS for char in text
    )


def _quote(text: str) -> str:
    """Quote what a stranger wrote, escaped and on one line."""
    return brief(repr(text))
