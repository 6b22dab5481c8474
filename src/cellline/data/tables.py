"""The competition's two CSV files: labels, and the template of a submission.

Labels stay as written, without padding: markup and formulas are labels like others. Refused are
empty ones, nan, and characters that control a terminal or a CSV.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from cellline.data.files import MAX_ENTRIES, open_file
from cellline.data.ids import LONGEST_ID, are_numbers, parse_id, parse_number, parse_text, to_array
from cellline.data.problems import ID_HAS, ID_IS, Fault, Problems, brief
from cellline.errors import first_line
from cellline.host.names import has_control

LABELS = "y_train.csv"
TEMPLATE = "sample_submission.csv"
EXAMPLE = "file_id,cell_line"

MAX_BYTES = 128 << 20  # pandas takes some times as much
MAX_FIELDS = 4 * MAX_ENTRIES  # each sample has an image
MAX_HEADER = 16 << 10  # characters of the first two lines: they may not have any number of fields

# How programs write a missing number, here in place of a text; no class has such a name. Words
# such as NA, None and null may name a class; Competition warns of them.
_MISSING = ("nan", "<na>")
_UTF8 = "Save it as CSV in the encoding UTF-8."
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

_NOT_A_NUMBER = Fault(
    ID_IS,
    "not whole and non-negative",
    f"Ids are whole numbers if all in {TEMPLATE} are, else text.",
)
_NOT_A_NAME = Fault(
    ID_IS,
    "not usable in a file's name",
    f"An id has 1 to {LONGEST_ID} characters, no dot first, and no slash, control character "
    "or invisible character.",
)
_REPEATED = Fault(ID_IS, "duplicate")
_LABEL_THEM = "Give every sample a label, or remove it together with its images."
_UNLABELLED = Fault(ID_HAS, "an empty label", _LABEL_THEM)
_NAN = Fault(ID_HAS, "a label that stands for a missing one (nan)", _LABEL_THEM)
_CONTROL = Fault(ID_HAS, "a label with control or invisible characters")


@dataclass(frozen=True, eq=False)
class LabelTable:
    """A CSV of ids and labels, in the file's order, without rows of bad or repeated ids."""

    name: str
    """The file's name."""
    id_column: str
    """The header's name of the ids."""
    label_column: str
    """The header's name of the labels."""
    ids: np.ndarray
    """int64 or text [n]."""
    written: Sequence[str]
    """The ids as in the file."""
    labels: Sequence[str]
    """The labels as in the file, without padding."""


def read_template(path: Path, problems: Problems) -> LabelTable | None:
    """Read `sample_submission.csv`: a column of ids, then one of labels, which are placeholders.

    Ids are whole numbers if all of these are, else text. None if the file is unusable.
    """
    if (rows := _read_rows(path, problems)) is None:
        return None
    header = rows[0]
    named = len(set(header)) == len(header) == 2 and "" not in header
    if not named or parse_number(header[0]) is not None or any(map(has_control, header)):
        problems.note(
            path.name,
            f"wrong header: found {_quote(','.join(header))}, expected the names of two columns, "
            f"first the ids', then the labels', such as {EXAMPLE!r}",
        )
        return None
    return _make_table(path.name, rows, header, None, problems)


def read_labels(path: Path, template: LabelTable | None, problems: Problems) -> LabelTable | None:
    """Read `y_train.csv`, whose two columns are named like the template's, in any order.

    Its ids are of the template's kind. Without a template the first column holds the ids, and they
    decide on their kind, so that the rest is still checked. None if the file is unusable.
    """
    if (rows := _read_rows(path, problems)) is None:
        return None
    header = rows[0]
    columns = [template.id_column, template.label_column] if template else header
    if len(columns) != 2 or sorted(header) != sorted(columns):
        named = f"{_quote(','.join(columns))} as in {TEMPLATE}" if template else repr(EXAMPLE)
        what = f"wrong header: found {_quote(','.join(header))}, expected {named}"
        problems.note(path.name, what)
        return None
    numeric = are_numbers(template.ids) if template and len(template.ids) else None
    table = _make_table(path.name, rows, columns, numeric, problems)
    classes = sorted(set(table.labels) - {""})
    missing = {label for label in classes if label.lower() in _MISSING}
    controlling = set(filter(has_control, classes))
    for fault, wrong in ((_UNLABELLED, {""}), (_NAN, missing), (_CONTROL, controlling)):
        at = [row for row, label in enumerate(table.labels) if label in wrong]
        problems.count(path.name, fault, table.ids[at].tolist())
    if len(table.ids) and len(classes) < 2:
        found = ", ".join(map(_quote, classes)) or "none"
        problems.note(path.name, f"fewer than two classes: found {found}")
    return table


def _read_rows(path: Path, problems: Problems) -> list[list[str]] | None:
    """Return the rows of a CSV that are not blank, the header first; None if it is unusable."""
    advice = ""
    try:
        with open_file(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise OSError(0, f"it has more than {MAX_BYTES >> 20} MiB")
            text = file.read(size).decode("utf-8-sig")
        head = _parse(text[:MAX_HEADER], 2)
        fields = head[0] if head else [""]
        separator = next((one for one in _SEPARATORS if one in fields[0]), "")
        if len(fields) * (text.count("\n") + text.count("\r")) > MAX_FIELDS:
            what = f"more than {MAX_FIELDS:,} fields"
        elif len(text) > MAX_HEADER and len(head) < 2:
            what = f"its first lines have more than {MAX_HEADER:,} characters"
        elif not head:
            what = f"empty, expected a header such as {EXAMPLE!r}"
        elif separator and len(fields) == 1:
            what = f"its fields are separated by {_SEPARATORS[separator]}, expected commas"
            advice = f"Save {path.name} as CSV with commas between the fields."
        elif "\0" in text:  # where pandas ends a field
            what, advice = "zero bytes in it: not UTF-8 text", _UTF8
        else:
            return _parse(text, None)
    except FileNotFoundError:
        what = "missing"
    except OSError as error:
        what = f"can't be read: {error.strerror}"
    except UnicodeDecodeError:
        what, advice = "not UTF-8 text", _UTF8
    except ValueError as error:  # pandas' errors are kinds of it
        why = first_line(error).removeprefix("Error tokenizing data. C error: ")
        what = f"not a CSV: {brief(why)}"
    problems.note(path.name, what, advice)
    return None


def _parse(text: str, most: int | None) -> list[list[str]]:
    """Return the first `most` rows of a CSV, or all; without padding and blank rows."""
    # Imported where it is used: it takes 0.4 s, and not every verb reads a table.
    import pandas as pd

    try:
        frame = pd.read_csv(
            StringIO(text),
            header=None,
            dtype=str,
            na_filter=False,
            skipinitialspace=True,
            nrows=most,
        )
    except pd.errors.EmptyDataError:
        return []
    rows = ([field.strip() for field in row] for row in frame.to_numpy().tolist())
    return [row for row in rows if any(row)]


def _make_table(
    name: str,
    rows: Sequence[Sequence[str]],
    columns: Sequence[str],
    numeric: bool | None,
    problems: Problems,
) -> LabelTable:
    """Make a table of rows, the header first; `columns` are the names of its ids and labels."""
    header, *rows = rows
    id_at, label_at = map(header.index, columns)
    written = [row[id_at] for row in rows]
    if numeric is None:
        # A text that is an id of neither kind doesn't decide on the kind.
        numeric = all(
            parse_number(text) is not None or parse_text(text) is None for text in written
        )
    parsed = [parse_id(text, numeric=numeric) for text in written]
    are_ids = [row for row, value in enumerate(parsed) if value is not None]
    values = to_array([value for value in parsed if value is not None], numeric=numeric)
    known, first, times = np.unique(values, return_index=True, return_counts=True)
    if not rows:
        problems.note(name, "no rows below the header")
    not_ids = [_quote(text) for text, value in zip(written, parsed, strict=True) if value is None]
    problems.count(name, _NOT_A_NUMBER if numeric else _NOT_A_NAME, not_ids)
    problems.count(name, _REPEATED, known[times > 1].tolist())
    used = [are_ids[at] for at in np.sort(first).tolist()]  # the first row of a repeated id
    return LabelTable(
        name,
        columns[0],
        columns[1],
        values[np.sort(first)],
        [written[row] for row in used],
        [rows[row][label_at] for row in used],
    )


def _quote(text: str) -> str:
    """Quote a stranger's text, escaped and on one line."""
    return brief(repr(text))
