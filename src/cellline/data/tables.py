"""The competition's two CSV files: labels and the template of a submission.

Labels are text and stay as they are written, but for padding: markup and formulas are labels like
others. What can't be one is refused: nothing, nan, and what a terminal or a CSV takes for control.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cellline.data.ids import LONGEST_ID, are_numbers, parse_id, parse_number, parse_text, to_array
from cellline.data.problems import Fault, Problems, brief
from cellline.data.rows import NotATableError, Row, read_rows
from cellline.host.names import has_control

LABELS = "y_train.csv"
TEMPLATE = "sample_submission.csv"
EXAMPLE = "file_id,cell_line"

# How programs write a missing number, here of a text; no class is called so. Others that they
# write (NA, None, null) are words that a class may be called; Competition warns of them.
_MISSING = ("nan", "<na>")

_RAGGED = Fault("line has not two fields", "lines have not two fields")
_NOT_A_NUMBER = Fault(
    "id is not a non-negative integer",
    "ids are not non-negative integers",
    f"Ids are whole numbers if all in {TEMPLATE} are, else text.",
)
_NOT_A_NAME = Fault(
    "id can't be in a file's name",
    "ids can't be in files' names",
    f"An id has 1 to {LONGEST_ID} characters, no dot first, none of them a slash, control "
    "or invisible.",
)
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
    ids: np.ndarray  # int64 or text [n]
    written: Sequence[str]  # the ids as in the file
    labels: Sequence[str]


def read_template(path: Path, problems: Problems) -> Table | None:
    """Read `sample_submission.csv`: first the id's column, then the label's, a placeholder.

    Ids are whole numbers where all of these are, and text where one isn't.
    """
    return _read(path, _template_columns, None, problems)


def read_labels(path: Path, template: Table | None, problems: Problems) -> Table | None:
    """Read `y_train.csv`, whose two columns are named like the template's, in any order.

    Its ids are of the template's kind. Without a template the first column is taken for the id, and
    the kind is its own, so that the rest is still checked.
    """
    numeric = are_numbers(template.ids) if template and len(template.ids) else None
    table = _read(path, partial(_label_columns, template), numeric, problems)
    if table is None:
        return None
    classes = sorted(set(table.labels) - {""})
    missing = {label for label in classes if label.lower() in _MISSING}
    controlling = set(filter(has_control, classes))
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
        or parse_number(header[0]) is not None
        or any(map(has_control, header))
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
    path: Path,
    columns_of: Callable[[list[str]], tuple[str, ...]],
    numeric: bool | None,
    problems: Problems,
) -> Table | None:
    """Read a table row by row and note what is wrong with it; None if it is none."""
    try:
        rows = read_rows(path)
        _, header = next(rows, (0, None))
        if header is None:
            raise NotATableError(f"empty, expected a header such as {EXAMPLE!r}")
        return _table(path, rows, header, columns_of(header), numeric, problems)
    except NotATableError as error:
        problems.note(path.name, error.what, error.advice)
        return None


def _table(
    path: Path,
    rows: Iterator[Row],
    header: list[str],
    columns: tuple[str, ...],
    numeric: bool | None,
    problems: Problems,
) -> Table:
    id_at, label_at = (header.index(column) for column in columns)
    lines = array("q")
    written: list[str] = []
    labels: list[str] = []
    classes: dict[str, str] = {}  # each label once in memory
    ragged, line = [], 0
    for line, fields in rows:
        if len(fields) != len(header):
            ragged.append(line)
        else:
            lines.append(line)
            written.append(fields[id_at])
            labels.append(classes.setdefault(fields[label_at], fields[label_at]))
    if numeric is None:
        # What can't be an id of either kind doesn't decide which.
        numeric = all(
            parse_number(text) is not None or parse_text(text) is None for text in written
        )
    parsed = [parse_id(text, numeric=numeric) for text in written]
    are_ids = np.array([value is not None for value in parsed], dtype=bool)
    values = to_array([value for value in parsed if value is not None], numeric=numeric)
    not_ids = [
        f"{_quote(written[row])} in line {lines[row]}" for row in np.flatnonzero(~are_ids).tolist()
    ]
    known, first, times = np.unique(values, return_index=True, return_counts=True)
    if not line:
        problems.note(path.name, "no rows below the header")
    problems.count(path.name, _RAGGED, ragged)
    problems.count(path.name, _NOT_A_NUMBER if numeric else _NOT_A_NAME, not_ids)
    problems.count(path.name, _REPEATED, known[times > 1].tolist())
    kept = np.sort(first)  # of an id that is repeated the first row
    rows_kept = np.flatnonzero(are_ids)[kept].tolist()
    return Table(
        columns[0],
        columns[1],
        values[kept],
        [written[row] for row in rows_kept],
        [labels[row] for row in rows_kept],
    )


def _quote(text: str) -> str:
    """Quote what a stranger wrote, escaped and on one line."""
    return brief(repr(text))
