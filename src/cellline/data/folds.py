"""Dealing samples into folds, and the two files that say how they were dealt."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Folders
from cellline.data.audit import audit_copies
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError
from cellline.files import digest_file, read_json, write_csv, write_json


@dataclass(frozen=True)
class Folds:
    """Which fold each training sample is in; rows as in the competition (ascending ids)."""

    fold: np.ndarray
    """int64 [n], 0 to n_folds - 1."""
    group: np.ndarray
    """int64 [n]: the smallest id among the samples that are one picture with this one."""
    n_folds: int
    digest: str
    """Of folds.csv: what runs and predictions say they belong to."""

    def training_rows(self, fold: int) -> np.ndarray:
        """Rows that training fold `fold` learns from."""
        return np.flatnonzero(self.fold != fold)

    def held_out_rows(self, fold: int) -> np.ndarray:
        """Rows that training fold `fold` predicts."""
        return np.flatnonzero(self.fold == fold)


def check_groups(
    labels: np.ndarray, group: np.ndarray, classes: tuple[str, ...], n_folds: int
) -> None:
    """Raise UserError when there are classes with fewer groups than folds."""
    groups = {name: len(np.unique(group[labels == index])) for index, name in enumerate(classes)}
    few = [f"{name} has {count}" for name, count in groups.items() if count < n_folds]
    if few:
        enough = min(groups.values())
        advice = "add samples" if enough < 2 else f"deal fewer folds (FOLDS={enough})"
        raise UserError(
            f"{n_folds} folds need {n_folds} different pictures of every class (copies count "
            f"once), but {', '.join(few)}; {advice}"
        )


def deal_folds(labels: np.ndarray, group: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Stratified folds, int64 [n], of labels and groups int [n]; no group is in two folds."""
    # Imported where it is used: it takes a second, which the other verbs need not spend.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    fold = np.empty(len(labels), dtype=np.int64)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, group)):
        fold[held_out] = number
    return fold


def write_folds(
    oof_dir: Path,
    competition: Competition,
    fold: np.ndarray,
    group: np.ndarray,
    record: dict[str, Any],
) -> None:
    """Write folds.csv and, last, folds.json: `record` of what they were made from, and a digest."""
    header = (competition.id_column, competition.label_column, "group", "fold")
    labels = [competition.classes[label] for label in competition.labels]
    rows = zip(competition.train_ids, labels, group, fold, strict=True)
    write_csv(oof_dir / "folds.csv", header, list(rows))
    digest = digest_file(oof_dir / "folds.csv")
    write_json(oof_dir / "folds.json", {**record, "folds_digest": digest})


def read_record(oof_dir: Path) -> dict[str, Any]:
    """What folds.json holds. Raises UserError when there are no folds yet."""
    path = oof_dir / "folds.json"
    if not path.exists() or not (oof_dir / "folds.csv").exists():
        raise UserError(f"no folds in {oof_dir}: run `make folds` first")
    record: dict[str, Any] = read_json(path)
    return record


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
    digest = digest_file(path)
    if digest != record["folds_digest"]:
        raise UserError(f"{path} is not what was dealt: run `make folds`, which restores it")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    group, fold = np.array([row[2:] for row in rows], dtype=np.int64).T
    return Folds(fold, group, record["n_folds"], digest)


def make_folds(
    folders: Folders, channels: tuple[str, ...], n_folds: int, seed: int
) -> Iterator[str]:
    """Check the input, audit it and write its folds; yields lines to show.

    Does nothing when the folds there were made from the same input with the same settings.
    Raises UserError for bad input, and when folds that runs or tuning depend on would change.
    """
    if n_folds < 2:
        raise UserError(f"--folds {n_folds}: at least 2 are needed")
    competition = load_competition(folders.input_dir, folders.cache_dir, channels)
    yield from (f"warning: {line}" for line in competition.warnings)
    record = {
        "n_folds": n_folds,
        "seed": seed,
        "classes": list(competition.classes),
        "channels": list(channels),
        "input_digest": competition.digest,
    }
    path = folders.oof_dir / "folds.json"
    recorded: dict[str, Any] = read_json(path) if path.exists() else {}
    csv_path = folders.oof_dir / "folds.csv"
    same = record.items() <= recorded.items()
    if same and csv_path.exists() and digest_file(csv_path) == recorded["folds_digest"]:
        yield f"{csv_path} is up to date"
        yield from describe_folds(competition, read_folds(folders.oof_dir, competition))
        return
    dependents = find_dependents(folders.oof_dir)
    if dependents and not same:
        raise UserError(
            f"{csv_path} would change, and {', '.join(dependents)} in {folders.oof_dir} depend on "
            "it; keep it, move them away, or deal into another folder (OOF=another-folder)"
        )
    yield "looking for copies and overlaps"
    audit = audit_copies(competition)
    check_groups(competition.labels, audit.group, competition.classes, n_folds)
    fold = deal_folds(competition.labels, audit.group, n_folds, seed)
    write_folds(
        folders.oof_dir, competition, fold, audit.group, {**record, "audit": audit.record()}
    )
    yield from audit.describe(len(fold), len(competition.test_ids))
    yield from describe_folds(competition, read_folds(folders.oof_dir, competition))


def find_dependents(oof_dir: Path) -> list[str]:
    """Names of the runs and studies that were made with the folds in `oof_dir`."""
    return sorted(
        path.parent.name
        for name in ("config.json", "journal.log")
        for path in oof_dir.glob(f"*/{name}")
    )


def describe_folds(competition: Competition, folds: Folds) -> list[str]:
    """A table of classes by folds, a line each; groups count copies and overlaps once."""
    width = max(map(len, competition.classes))
    heads = [*(f"fold {k}" for k in range(folds.n_folds)), "samples", "groups"]
    lines = [" " * width + "".join(f"{head:>9}" for head in heads)]
    for index, name in enumerate(competition.classes):
        rows = competition.labels == index
        counts = np.bincount(folds.fold[rows], minlength=folds.n_folds)
        cells = [*counts, counts.sum(), len(np.unique(folds.group[rows]))]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:9d}" for cell in cells))
    return lines
