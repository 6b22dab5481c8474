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

# Bytes of the joined names of runs. A file name has at most 255; `-partial`, the digest, the
# suffix and the additions of a temporary file take about 50.
LONGEST_STEM = 150


def join_names(runs: Sequence[str]) -> str:
    """Join the runs' names into the stem of a file name; if too long, the first and a digest."""
    joined = "+".join(runs)
    if len(joined.encode()) <= LONGEST_STEM:
        return joined
    return f"{runs[0]}+{len(runs) - 1}-more-{digest_text(*runs)[:8]}"


def render_submission(competition: Competition, predicted: np.ndarray) -> bytes:
    """The CSV for predicted classes int [m] of the test samples in ascending order of ids.

    The ids are spelled and ordered as in the template.
    """
    rows = find_rows(competition.template, competition.test_ids)
    labels = [competition.classes[label] for label in predicted[rows].tolist()]
    return render_csv(competition.template_columns, zip(competition.template, labels, strict=True))


def validate_submission(data: bytes, competition: Competition) -> None:
    """Raise ValueError unless a CSV matches the competition's template."""
    rows = parse_csv(data)
    if list(rows) != list(competition.template_columns):
        raise ValueError(f"header {list(rows)} is not the template's")
    if rows.iloc[:, 0].tolist() != list(competition.template):
        raise ValueError("the ids are not the template's, in its order")
    unknown = set(rows.iloc[:, 1]) - set(competition.classes)
    if unknown:
        raise ValueError(f"unknown labels {sorted(unknown)}")


def write_submission(folder: Path, name: str, data: bytes, record: dict[str, Any]) -> Path:
    """Write `<name>-<digest>.csv` and its record beside it; return the CSV's path.

    The name includes the beginning of the CSV's digest, so no other submission is overwritten and
    the same predictions give the same file.
    """
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{name}-{digest[:8]}.csv"
    made_with = {"csv_digest": digest, "code": code_version(), "versions": package_versions()}
    with one_writer(folder, "writing a submission", wait=10):
        # The record first, so that no CSV is ever without one.
        write_json(path.with_suffix(".json"), {**record, **made_with})
        write_bytes(path, data)
    return path


def read_submissions(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The CSVs with their records, in order of name.

    CSVs without a record, and records without a CSV (their process was killed between the two), are
    skipped. Raises UserError for a record that was damaged or edited.
    """
    for path in sorted(folder.glob("*.csv")):
        record_path = path.with_suffix(".json")
        if record_path.exists():
            yield path, read_json(record_path)
