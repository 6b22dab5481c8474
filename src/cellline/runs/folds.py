"""The folds that samples were dealt into, and the two files that record them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Folders
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError
from cellline.host.files import (
    digest_file,
    parse_csv,
    read_json,
    render_csv,
    write_bytes,
    write_json,
)


@dataclass(frozen=True, eq=False)
class Folds:
    """The fold of each training sample; rows as in the competition (ascending ids)."""

    competition: Competition
    fold: np.ndarray
    """int64 [n], 0 to n_folds - 1."""
    group: np.ndarray
    """int64 or text [n]: the first id among the samples that belong together with this one."""
    n_folds: int
    digest: str
    """SHA-256 of folds.csv, by which runs and predictions name their folds."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The content of folds.json."""

    @property
    def numbers(self) -> range:
        """The numbers of the folds."""
        return range(self.n_folds)

    def training_rows(self, fold: int) -> np.ndarray:
        """Rows that fold `fold` trains on."""
        return np.flatnonzero(self.fold != fold)

    def held_out_rows(self, fold: int) -> np.ndarray:
        """Rows that fold `fold` predicts."""
        return np.flatnonzero(self.fold == fold)


def write_folds(
    oof_dir: Path,
    competition: Competition,
    fold: np.ndarray,
    group: np.ndarray,
    record: dict[str, Any],
) -> None:
    """Write folds.csv and, last, folds.json: a record of what they were made from, and a digest.

    Raises UserError if runs or a tuning depend on other folds.
    """
    header = (competition.id_column, competition.label_column, "group", "fold")
    labels = [competition.classes[label] for label in competition.labels]
    rows = zip(competition.train_ids, labels, group, fold, strict=True)
    data = render_csv(header, rows)
    digest = hashlib.sha256(data).hexdigest()
    path = oof_dir / "folds.csv"
    if not path.exists() or digest_file(path) != digest:
        if others := find_dependents(oof_dir, digest):
            raise would_change(oof_dir, others)
        write_bytes(path, data)
    write_json(oof_dir / "folds.json", {**record, "folds_digest": digest})


def read_folds_record(oof_dir: Path) -> dict[str, Any]:
    """The content of folds.json. Raises UserError if nothing has been dealt."""
    path = oof_dir / "folds.json"
    if not path.exists():
        raise UserError(f"no folds in {oof_dir}: run `folds` first")
    return read_json(path)


def open_folds(folders: Folders) -> Folds:
    """The competition's folds. Raises UserError for bad input and for missing or old folds."""
    channels = read_folds_record(folders.oof_dir)["channels"]
    competition = load_competition(folders.input_dir, folders.cache_dir, channels)
    return read_folds(folders.oof_dir, competition)


def read_folds(oof_dir: Path, competition: Competition) -> Folds:
    """The folds of a competition. Raises UserError if they were made from other input."""
    record = read_folds_record(oof_dir)
    path = oof_dir / "folds.csv"
    if record["input_digest"] != competition.digest:
        raise UserError(
            f"{path} was made from other input ({record['input_digest'][:12]}) than the present "
            f"input ({competition.digest[:12]}); put the old input back, or deal new folds into "
            "another folder (--oof-dir)"
        )
    if record.get("ignore_groups"):  # an option of earlier versions
        raise UserError(f"{path} tears copies and overlaps apart: deal other folds (--oof-dir)")
    digest = record["folds_digest"]
    if not path.exists() or digest_file(path) != digest:
        raise UserError(f"{path} is not the file that was dealt: run `folds` to restore it")
    rows = parse_csv(path.read_bytes())
    group = np.array(rows.iloc[:, 2].tolist(), dtype=competition.train_ids.dtype)
    fold = np.array(rows.iloc[:, 3].tolist(), dtype=np.int64)
    return Folds(competition, fold, group, record["n_folds"], digest, record)


def check_data(folds: Folds, record: Mapping[str, Any], made: str, advice: str) -> None:
    """Raise UserError that names both sides if a record has other digests of input or folds."""
    for what, now in (("input", folds.competition.digest), ("folds", folds.digest)):
        then = record[f"{what}_digest"]
        if then != now:
            raise UserError(
                f"{made} on other {what} ({then[:12]}) than the present {what} ({now[:12]}); "
                f"{advice}"
            )


def find_dependents(oof_dir: Path, folds_digest: str | None = None) -> list[str]:
    """Names of the folders in `oof_dir` that depend on its folds: those with a config.json.

    Of these only the ones that depend on other folds than `folds_digest`, if that is given.
    """
    return sorted(
        path.parent.name
        for path in oof_dir.glob("*/config.json")
        if folds_digest is None or read_json(path)["folds_digest"] != folds_digest
    )


def would_change(oof_dir: Path, dependents: list[str]) -> UserError:
    """The error for folds that something depends on."""
    return UserError(
        f"{oof_dir / 'folds.csv'} would change, and {', '.join(dependents)} in {oof_dir} depend on "
        "it; keep it, move them away, or deal into another folder (--oof-dir)"
    )
