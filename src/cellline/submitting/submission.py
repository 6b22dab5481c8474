"""The submission file: rendered from probabilities, checked against the template, recorded."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.competition import Competition
from cellline.data.ids import find_rows
from cellline.host.files import (
    digest_text,
    parse_csv,
    read_json,
    render_csv,
    write_bytes,
    write_json,
)
from cellline.host.locking import one_writer
from cellline.host.versions import code_version, package_versions

# Bytes of runs' names joined. A file's name has at most 255, and `-partial-leaky`, the digest, the
# suffix and what a temporary file adds to it take about 50.
LONGEST_STEM = 150


def join_names(runs: Sequence[str]) -> str:
    """The runs' names as the beginning of a file's; of many the first, and a digest of all."""
    joined = "+".join(runs)
    if len(joined.encode()) <= LONGEST_STEM:
        return joined
    return f"{runs[0]}+{len(runs) - 1}-more-{digest_text(*runs)[:8]}"


def render_submission(competition: Competition, predicted: np.ndarray) -> bytes:
    """The CSV for predicted classes int [m] of the test samples in ascending order of ids.

    Ids, as they are written there, and their order are the template's.
    """
    rows = find_rows(competition.template, competition.test_ids)
    labels = [competition.classes[label] for label in predicted[rows].tolist()]
    header = (competition.id_column, competition.label_column)
    return render_csv(header, zip(competition.template, labels, strict=True))


def validate_submission(data: bytes, competition: Competition) -> None:
    """Raise ValueError unless a CSV is what the competition's template asks for."""
    rows = parse_csv(data)
    if list(rows) != [competition.id_column, competition.label_column]:
        raise ValueError(f"header {list(rows)} is not the template's")
    if rows.iloc[:, 0].tolist() != list(competition.template):
        raise ValueError("the ids are not the template's, in its order")
    unknown = set(rows.iloc[:, 1]) - set(competition.classes)
    if unknown:
        raise ValueError(f"unknown labels {sorted(unknown)}")


def write_submission(folder: Path, name: str, data: bytes, record: dict[str, Any]) -> Path:
    """Write `<name>-<digest>.csv` and its record beside it; the CSV's path.

    The name holds the beginning of the CSV's digest, so no earlier submission is overwritten, and
    the same predictions give the same file.
    """
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{name}-{digest[:8]}.csv"
    made_with = {"csv_digest": digest, "code": code_version(), "versions": package_versions()}
    with one_writer(folder, "writing a submission", wait=10):
        # The record first: a CSV is never without what made it.
        write_json(path.with_suffix(".json"), {**record, **made_with})
        write_bytes(path, data)
    return path


def read_submissions(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The CSVs with their records, in the order of their names.

    Someone else's CSV has no record; and a record is written before its CSV, so that a process may
    have ended between them. Raises UserError for a record that is not as it was written.
    """
    for path in sorted(folder.glob("*.csv")):
        record_path = path.with_suffix(".json")
        if record_path.exists():
            yield path, read_json(record_path)
