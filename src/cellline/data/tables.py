"""The competition's two CSV files: labels, and the template of a submission.

Labels stay as written, except for surrounding spaces: markup and formulas are labels like others.
Empty labels, nan, and characters that control a terminal or a CSV are refused.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

from cellline.data.files import MAX_ENTRIES, open_file
from cellline.data.ids import LONGEST_ID, Id, parse_id, parse_number, parse_text
from cellline.data.problems import Fault, Problems, brief
from cellline.errors import first_line
from cellline.host.names import has_control

LABELS = "y_train.csv"
TEMPLATE = "sample_submission.csv"
EXAMPLE = "file_id,cell_line"

MAX_BYTES = 64 << 20  # for MAX_ENTRIES rows; in memory they take several times as much
MAX_HEADER = 16 << 10  # characters

# Spellings of a missing value, which no class has as its name. Words such as NA, None and null may
# name a class; Competition warns of them.
_MISSING = ("", "nan", "<na>")

_NOT_A_NUMBER = Fault(
    "id",
    "not whole and non-negative",
    f"Ids are whole numbers if all in {TEMPLATE} are, else text.",
)
_NOT_A_NAME = Fault(
    "id",
    "not usable in a file's name",
    f"An id has 1 to {LONGEST_ID} characters, no dot first, and no slash, control character "
    "or invisible character.",
)
_REPEATED = Fault("id", "duplicate")
_UNLABELLED = Fault(
    "id",
    "without a label (empty or nan)",
    "Give every sample a label, or remove it together with its images.",
)
_CONTROL = Fault("id", "with control or invisible characters in the label")


@dataclass(frozen=True)
class LabelTable:
    """A CSV of ids and labels."""

    name: str
    """The file's name."""
    columns: Sequence[str]
    """The header's names of the ids and of the labels."""
    numeric: bool
    """True if the ids are whole numbers, False if they are text."""
    rows: dict[Id, tuple[str, str]]
    """Id -> the id and the label as in the file; its first row of each valid id, in its order."""

    @property
    def labels(self) -> set[str]:
        """Every label or placeholder that is not empty or nan."""
        return {label for _, label in self.rows.values() if label.lower() not in _MISSING}


def read_template(path: Path, problems: Problems) -> LabelTable | None:
    """Read `sample_submission.csv`: a column of ids, then one of labels, which are placeholders.

    Ids are whole numbers if all of these are, else text. None if the file is unusable.
    """
    if (rows := _read_rows(path, problems)) is None:
        return None
    header = rows[0]
    named = len(set(header) - {""}) == len(header) == 2 and not any(map(has_control, header))
    if not named or parse_number(header[0]) is not None:
        what = (
            f"wrong header: found {_quote(','.join(header))}, expected the names of two columns, "
            f"first the ids', then the labels', such as {EXAMPLE!r}"
        )
        problems.note(path.name, what)
        return None
    return _make_table(path.name, rows, header, None, problems)


def read_labels(path: Path, template: LabelTable | None, problems: Problems) -> LabelTable | None:
    """Read `y_train.csv`, whose two columns are named like the template's, in any order.

    Its ids are of the template's kind. Without a template the first column holds the ids, and they
    determine their kind, so that the rest is still checked. None if the file is unusable.
    """
    if (rows := _read_rows(path, problems)) is None:
        return None
    header = rows[0]
    columns = template.columns if template else header
    if len(columns) != 2 or sorted(header) != sorted(columns):
        named = f"{_quote(','.join(columns))} as in {TEMPLATE}" if template else repr(EXAMPLE)
        what = f"wrong header: found {_quote(','.join(header))}, expected {named}"
        problems.note(path.name, what)
        return None
    numeric = template.numeric if template and template.rows else None
    table = _make_table(path.name, rows, columns, numeric, problems)
    labels = {sample: label for sample, (_, label) in table.rows.items()}
    unlabelled = [sample for sample, label in labels.items() if label.lower() in _MISSING]
    problems.count(path.name, _UNLABELLED, unlabelled)
    controlling = [sample for sample, label in labels.items() if has_control(label)]
    problems.count(path.name, _CONTROL, controlling)
    classes = sorted(set(labels.values()) - {""})
    if labels and len(classes) < 2:
        found = ", ".join(map(_quote, classes)) or "none"
        problems.note(path.name, f"fewer than two classes: found {found}")
    return table


def _read_rows(path: Path, problems: Problems) -> list[list[str]] | None:
    """Return the rows of a CSV that are not blank, the header first; None if it is unusable."""
    advice = ""
    try:
        with open_file(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
            return _parse(file.read(size).decode("utf-8-sig"))
    except FileNotFoundError:
        what = "missing"
    except OSError as error:
        what = f"can't be read: {error.strerror}"
    except UnicodeDecodeError:
        what, advice = "not UTF-8 text", "Save it as CSV in the encoding UTF-8."
    except ValueError as error:  # pandas' errors are of this kind
        why = first_line(error).removeprefix("Error tokenizing data. C error: ")
        what = f"not a table: {brief(why)}"
    problems.note(path.name, what, advice)
    return None


def _parse(text: str) -> list[list[str]]:
    """Return the rows of a CSV, without padding and blank ones. Raises ValueError."""
    # Imported where it is used: it takes 0.4 s, and not every verb reads a table.
    import pandas as pd

    read = partial(pd.read_csv, header=None, dtype=str, na_filter=False, skipinitialspace=True)
    try:
        # The first row determines the number of columns: two, or the header is wrong.
        frame = read(StringIO(text[:MAX_HEADER]), nrows=1)
        if frame.shape[1] == 2:
            frame = read(StringIO(text), nrows=MAX_ENTRIES + 2)
    except pd.errors.EmptyDataError:
        raise ValueError(f"empty, expected a header such as {EXAMPLE!r}") from None
    if len(frame) > MAX_ENTRIES + 1:
        raise ValueError(f"it has more than {MAX_ENTRIES:,} rows")
    header, *rows = ([field.strip() for field in row] for row in frame.to_numpy().tolist())
    return [header, *filter(any, rows)]


def _make_table(
    name: str,
    rows: Sequence[Sequence[str]],
    columns: Sequence[str],
    numeric: bool | None,
    problems: Problems,
) -> LabelTable:
    """Make a table of rows, the header first; `columns` are the names of its ids and labels."""
    id_at, label_at = map(rows[0].index, columns)
    written = [row[id_at] for row in rows[1:]]
    if numeric is None:
        # A text that is an id of neither kind doesn't determine the kind.
        numeric = all(
            parse_number(text) is not None or parse_text(text) is None for text in written
        )
    table: dict[Id, tuple[str, str]] = {}
    not_ids, repeated = [], set()
    for row in rows[1:]:
        sample = parse_id(row[id_at], numeric=numeric)
        if sample is None:
            not_ids.append(_quote(row[id_at]))
        elif sample in table:
            repeated.add(sample)
        else:
            table[sample] = row[id_at], row[label_at]
    if len(rows) == 1:
        problems.note(name, "no rows below the header")
    problems.count(name, _NOT_A_NUMBER if numeric else _NOT_A_NAME, not_ids)
    problems.count(name, _REPEATED, repeated)
    return LabelTable(name, columns, numeric, table)


def _quote(text: str) -> str:
    """Quote an untrusted text, escaped and on one line."""
    return brief(repr(text))
