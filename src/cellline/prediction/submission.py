"""The submission file: rendered from probabilities, checked against the template, recorded."""

import csv
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.competition import Competition
from cellline.files import write_bytes, write_json
from cellline.locking import one_writer
from cellline.versions import code_version, package_versions


def render_submission(competition: Competition, predicted: np.ndarray) -> bytes:
    """The CSV for predicted classes int [m] of the test samples in ascending order of ids.

    Ids, as they are written there, and their order are the template's.
    """
    label_of = dict(zip(competition.test_ids.tolist(), predicted.tolist(), strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((competition.id_column, competition.label_column))
    for written in competition.template:
        writer.writerow((written, competition.classes[label_of[int(written)]]))
    return text.getvalue().encode()


def validate_submission(data: bytes, competition: Competition) -> None:
    """Raise ValueError unless a CSV is what the competition's template asks for."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    if rows[0] != [competition.id_column, competition.label_column]:
        raise ValueError(f"header {rows[0]} is not the template's")
    if [row[0] for row in rows[1:]] != list(competition.template):
        raise ValueError("the ids are not the template's, in its order")
    unknown = {row[1] for row in rows[1:]} - set(competition.classes)
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
