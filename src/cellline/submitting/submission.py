"""The submission file: rendered, checked against the template, recorded."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.competition import Competition
from cellline.data.ids import find_rows
from cellline.errors import UserError
from cellline.host.files import (
    digest_file,
    digest_text,
    parse_csv,
    read_json,
    render_csv,
    write_bytes,
    write_json,
)
from cellline.host.locking import one_writer
from cellline.host.versions import code_version, package_versions
from cellline.scoring.decisions import Decided

# Labels a sample, of the output that ranks them.
TOP = 5
DIGITS = "{:.9g}"

# Bytes of the joined names of runs. A file name has at most 255; `-partial`, the digest, the
# suffix and the additions of a temporary file take about 50.
LONGEST_STEM = 150


def join_names(runs: Sequence[str]) -> str:
    """Join the runs' names into the stem of a file name; if too long, the first and a digest."""
    joined = "+".join(runs)
    if len(joined.encode()) <= LONGEST_STEM:
        return joined
    return f"{runs[0]}+{len(runs) - 1}-more-{digest_text(*runs)[:8]}"


def render_submission(competition: Competition, decided: Decided) -> bytes:
    """The CSV of `competition.output` for the test samples in ascending order of ids.

    Header, order of the columns, and the ids' order and spelling are the template's. Probabilities
    sum to 1 over the classes and have the nine digits that tell any two float32 apart. A class that
    training lacks has probability 0.
    """
    classes, wanted = competition.classes, competition.output
    rows = find_rows(competition.template, competition.test_ids)
    prob = decided.prob[rows].astype(np.float64)
    prob /= prob.sum(axis=1, keepdims=True)
    cells: dict[str, Iterable[str]] = {}
    for name in value_columns(competition):
        if wanted == "label":
            cells[name] = [classes[label] for label in decided.predicted[rows].tolist()]
        elif wanted == "top5":
            likeliest = np.argsort(-prob, axis=1, kind="stable")[:, :TOP].tolist()
            cells[name] = [" ".join(classes[label] for label in row) for row in likeliest]
        elif wanted == "probability":
            positive = classes.index(str(competition.reading.positive))
            cells[name] = map(DIGITS.format, prob[:, positive])
        elif name in classes:
            cells[name] = map(DIGITS.format, prob[:, classes.index(name)])
        else:
            cells[name] = repeat("0", len(rows))
    columns = [cells.get(name, competition.template) for name in competition.template_columns]
    return render_csv(competition.template_columns, zip(*columns, strict=True))


def validate_submission(data: bytes, competition: Competition) -> None:
    """Raise ValueError unless a CSV has the template's header and ids, and what it asks for."""
    rows = parse_csv(data)
    if list(rows) != list(competition.template_columns):
        raise ValueError(f"header {list(rows)} is not the template's")
    values = rows[value_columns(competition)]
    if rows.drop(columns=list(values)).iloc[:, 0].tolist() != list(competition.template):
        raise ValueError("the ids are not the template's, in its order")
    if competition.output in ("probability", "probabilities"):
        prob = values.to_numpy(dtype=np.float64)
        if not np.all((prob >= 0) & (prob <= 1)):
            raise ValueError("probabilities that are not in 0 to 1")
        if competition.output == "probabilities" and np.any(np.abs(prob.sum(axis=1) - 1) > 1e-6):
            raise ValueError("probabilities that do not sum to 1")
        return
    given = [[cell] for cell in values.iloc[:, 0]]
    if competition.output == "top5":
        given = [cell.split(" ") for [cell] in given]
        expected = min(TOP, len(competition.classes))
        if any(not len(labels) == len(set(labels)) == expected for labels in given):
            raise ValueError(f"rows without {expected} different labels")
    unknown = {label for labels in given for label in labels} - set(competition.classes)
    if unknown:
        raise ValueError(f"unknown labels {sorted(unknown)}")


def value_columns(competition: Competition) -> list[str]:
    """Columns of the template, except the id column."""
    id_column = competition.reading.template_id_column or competition.template_columns[0]
    return [name for name in competition.template_columns if name != id_column]


def list_probabilities(classes: Sequence[str], prob: np.ndarray) -> dict[str, Iterable[str]]:
    """A column `p(...)` of probabilities [n, class] for each class, with nine digits."""
    of_classes = zip(classes, prob.T.tolist(), strict=True)
    return {f"p({name})": map(DIGITS.format, of_class) for name, of_class in of_classes}


def render_columns(columns: Mapping[str, Iterable[object]]) -> bytes:
    """The CSV of these columns, all of one length."""
    return render_csv(list(columns), zip(*columns.values(), strict=True))


def write_submission(folder: Path, name: str, data: bytes, record: dict[str, Any]) -> Path:
    """Write `<name>-<digest>.csv` and its record; see `write_recorded`."""
    return write_recorded(folder / name, {".csv": data}, record).with_suffix(".csv")


def write_recorded(stem: Path, files: Mapping[str, bytes], record: dict[str, Any]) -> Path:
    """Write `<stem>-<digest><suffix>` for each suffix, and their record beside them.

    Returns the record's path. The names include the beginning of the digest of what is in the
    files, so no others are overwritten and the same content gives the same files. Raises UserError
    if a person has edited one of them.
    """
    whole = hashlib.sha256()
    for data in files.values():
        whole.update(data)
    path = stem.with_name(f"{stem.name}-{whole.hexdigest()[:8]}.json")
    digests = {suffix: hashlib.sha256(data).hexdigest() for suffix, data in files.items()}
    made_with = {f"{suffix[1:]}_digest": digest for suffix, digest in digests.items()}
    with one_writer(stem.parent, f"writing {path.name}", wait=10):
        for suffix, digest in digests.items():
            file = path.with_suffix(suffix)
            check_unedited(file, digest, ", and its .json,")
        if path.exists():
            read_json(path)
        # The record first, so that no file is ever without one.
        versions = {"code": code_version(), "versions": package_versions()}
        write_json(path, {**record, **made_with, **versions})
        for suffix, data in files.items():
            write_bytes(path.with_suffix(suffix), data)
    return path


def check_unedited(path: Path, digest: str, beside: str = "") -> None:
    """Raise UserError if a person has edited a file that is about to be written with this digest.

    `beside` names what belongs to it.
    """
    if path.exists() and digest_file(path) != digest:
        raise UserError(
            f"{path} has changed since it was written: rename or move it{beside} to keep your "
            "changes, then give the same command again"
        )


def read_submissions(folder: Path) -> Iterator[tuple[Path, dict[str, Any] | UserError]]:
    """The CSVs with their records, in order of name.

    CSVs without a record, records without a CSV (their process was killed between the two), and
    files whose names don't end as a submission's are skipped. In place of a record that was
    damaged, edited or somebody else's is the error that says so.
    """
    for path in sorted(folder.glob("*.csv")):
        record_path = path.with_suffix(".json")
        if record_path.exists() and re.search(r"-[0-9a-f]{8}$", path.stem):
            try:
                yield path, read_json(record_path)
            except UserError as error:
                yield path, error
