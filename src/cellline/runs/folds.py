"""Dealing samples into folds, and the two files that say how they were dealt."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Folders
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError
from cellline.host.files import (
    digest_file,
    read_csv,
    read_json,
    render_csv,
    write_bytes,
    write_json,
)
from cellline.host.names import align, name_classes

# Shown wherever such folds are dealt or learned from.
IGNORING_GROUPS = (
    "warning: these folds ignore groups: networks learn from copies and overlaps of what they are "
    "scored on, and scores flatter; for measuring the leak only"
)


@dataclass(frozen=True)
class Folds:
    """Which fold each training sample is in; rows as in the competition (ascending ids)."""

    fold: np.ndarray
    """int64 [n], 0 to n_folds - 1."""
    group: np.ndarray
    """int64 or text [n]: the first id among the samples that are one picture with this one."""
    n_folds: int
    digest: str
    """Of folds.csv: what runs and predictions say they belong to."""
    ignore_groups: bool = False
    """Dealt without regard to groups, to measure what that would flatter: for nothing else."""

    def training_rows(self, fold: int) -> np.ndarray:
        """Rows that training fold `fold` learns from."""
        return np.flatnonzero(self.fold != fold)

    def held_out_rows(self, fold: int) -> np.ndarray:
        """Rows that training fold `fold` predicts."""
        return np.flatnonzero(self.fold == fold)

    def leaked(self) -> np.ndarray:
        """bool [n]: the sample is one picture with a sample of another fold."""
        return find_straddling(self.group, self.fold)


def find_straddling(group: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """bool [n]: the sample's group has samples in several folds; group any, fold int [n]."""
    _, number = np.unique(group, return_inverse=True)
    pairs = np.unique(np.stack([number, fold]), axis=1)
    straddling: np.ndarray = np.bincount(pairs[0])[number] > 1
    return straddling


def check_groups(
    labels: np.ndarray, group: np.ndarray, classes: tuple[str, ...], n_folds: int
) -> None:
    """Raise UserError when there are classes with fewer groups than folds."""
    groups = [len(np.unique(group[labels == index])) for index in range(len(classes))]
    few = [
        f"{name} has {count}"
        for name, count in zip(name_classes(classes), groups, strict=True)
        if count < n_folds
    ]
    if few:
        enough = min(groups)
        advice = "add samples" if enough < 2 else f"deal fewer folds (FOLDS={enough})"
        raise UserError(
            f"{n_folds} folds need {n_folds} different pictures of every class (copies count "
            f"once), but {', '.join(few)}; {advice}"
        )


def deal_folds(labels: np.ndarray, group: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Stratified folds, int64 [n], of labels int [n] and groups [n]; no group is in two folds."""
    # Imported where it is used: it takes a second, which the other verbs need not spend.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    fold = np.empty(len(labels), dtype=np.int64)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, group)):
        fold[held_out] = number
    return fold


def deal_naively(labels: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Stratified folds, int64 [n], as if no sample had a copy: only to measure what that does."""
    # Imported where it is used, as above.
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    fold = np.empty(len(labels), dtype=np.int64)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels)):
        fold[held_out] = number
    return fold


def write_folds(
    oof_dir: Path,
    competition: Competition,
    fold: np.ndarray,
    group: np.ndarray,
    record: dict[str, Any],
) -> None:
    """Write folds.csv and, last, folds.json: `record` of what they were made from, and a digest.

    Raises UserError when runs or tuning depend on other folds.
    """
    header = (competition.id_column, competition.label_column, "group", "fold")
    labels = [competition.classes[label] for label in competition.labels]
    rows = zip(competition.train_ids, labels, group, fold, strict=True)
    data = render_csv(header, rows)
    digest = hashlib.sha256(data).hexdigest()
    path = oof_dir / "folds.csv"
    if not path.exists() or digest_file(path) != digest:
        check_dependents(oof_dir, digest)
        write_bytes(path, data)
    write_json(oof_dir / "folds.json", {**record, "folds_digest": digest})


def read_record(oof_dir: Path) -> dict[str, Any]:
    """What folds.json holds. Raises UserError when there are no folds yet."""
    path = oof_dir / "folds.json"
    if not path.exists():
        raise UserError(f"no folds in {oof_dir}: run `make folds` first")
    return read_json(path)


def open_folds(folders: Folders) -> tuple[Competition, Folds]:
    """The competition and its folds. Raises UserError for bad input and missing or old folds."""
    channels = read_record(folders.oof_dir)["channels"]
    competition = load_competition(folders.input_dir, folders.cache_dir, channels)
    return competition, read_folds(folders.oof_dir, competition)


def read_folds(oof_dir: Path, competition: Competition) -> Folds:
    """The folds of this competition. Raises UserError when they were made from other input."""
    record = read_record(oof_dir)
    path = oof_dir / "folds.csv"
    if record["input_digest"] != competition.digest:
        raise UserError(
            f"{path} was made from other input ({record['input_digest'][:12]}) than what is there "
            f"now ({competition.digest[:12]}); put the old input back, or start over with "
            "`make folds OOF=another-folder`"
        )
    digest = record["folds_digest"]
    if not path.exists() or digest_file(path) != digest:
        raise UserError(f"{path} is not what was dealt: run `make folds`, which restores it")
    rows = read_csv(path)
    group = np.array(rows.iloc[:, 2].tolist(), dtype=competition.train_ids.dtype)
    fold = np.array(rows.iloc[:, 3].tolist(), dtype=np.int64)
    return Folds(fold, group, record["n_folds"], digest, record["ignore_groups"])


def find_dependents(oof_dir: Path) -> list[str]:
    """Names of the runs and studies that were made with the folds in `oof_dir`."""
    return sorted(
        path.parent.name
        for name in ("config.json", "journal.log")
        for path in oof_dir.glob(f"*/{name}")
    )


def check_dependents(oof_dir: Path, folds_digest: str) -> None:
    """Raise UserError when runs were trained on other folds than those of this digest."""
    others = sorted(
        path.parent.name
        for path in oof_dir.glob("*/config.json")
        if read_json(path)["folds_digest"] != folds_digest
    )
    if others:
        raise would_change(oof_dir, others)


def would_change(oof_dir: Path, dependents: list[str]) -> UserError:
    """The error for folds that something depends on."""
    return UserError(
        f"{oof_dir / 'folds.csv'} would change, and {', '.join(dependents)} in {oof_dir} depend on "
        "it; keep it, move them away, or deal into another folder (OOF=another-folder)"
    )


def describe_folds(competition: Competition, folds: Folds) -> list[str]:
    """A table of classes by folds, a line each; groups count copies and overlaps once."""
    heads = [*(f"fold {k}" for k in range(folds.n_folds)), "samples", "groups"]
    margin, *names = align(["", *name_classes(competition.classes)])
    lines = [margin + "".join(f"{head:>9}" for head in heads)]
    for index, name in enumerate(names):
        rows = competition.labels == index
        counts = np.bincount(folds.fold[rows], minlength=folds.n_folds)
        cells = [*counts, counts.sum(), len(np.unique(folds.group[rows]))]
        lines.append(name + "".join(f"{cell:9d}" for cell in cells))
    return lines
