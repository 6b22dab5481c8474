"""What a run leaves on disk: its configuration, and the out-of-fold predictions of its folds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from cellline.config import (
    Folders,
    Machine,
    Training,
    describe_differences,
    flatten,
    list_differences,
)
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.files import read_arrays, read_json, write_arrays, write_json
from cellline.host.locking import one_writer
from cellline.host.names import shorten_name
from cellline.runs.folds import Folds
from cellline.scoring.metrics import Bootstrap, Estimate, bac_of, tally

# The rows of a fold's history.csv.
History = list[dict[str, float]]

# What else is in the OOF folder.
RESERVED = ("tuning", "folds.csv", "folds.json")
# Bytes of a run's name, which is a part of other files' names.
LONGEST_NAME = 100


@dataclass(frozen=True)
class Chosen:
    """The tuning that a run's learning rate or batch size came from: the content of tuned.json."""

    fold: int
    """Whose held-out part was looked at."""
    trials: int
    """How many times."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of held-out samples by networks that never saw them."""

    ids: np.ndarray
    """int64 or text [n]"""
    labels: np.ndarray
    """int64 [n], index into the competition's classes"""
    prob: np.ndarray
    """float32 [n, class], averaged over the eight views"""
    prob_plain: np.ndarray
    """float32 [n, class], of the images as they are"""


def run_folder(oof_dir: Path, run: str) -> Path:
    """The folder of a run, which need not be there yet.

    Raises UserError for a name that isn't a plain folder name, and for something else in its place.
    """
    plain = all(character.isalnum() or character in "._-" for character in run)
    if (
        not (run and plain)
        or run[0] in ".-"
        or run[-1] == "."
        or run.lower() in RESERVED
        or len(run.encode()) > LONGEST_NAME
    ):
        raise UserError(
            f"--run {shorten_name(run)!r}: a run's name may have letters, digits, '.', '_' and "
            "'-', can't begin with '.' or '-' nor end with '.', has at most "
            f"{LONGEST_NAME} bytes, and {', '.join(RESERVED)} are taken"
        )
    folder = oof_dir / run
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        kind = "a link" if folder.is_symlink() else "a file"
        raise UserError(
            f"{folder} is {kind}, where the run's own folder should be: move it away, or give the "
            "run another name (RUN=...)"
        )
    return folder


def describe_run(training: Training, competition: Competition, folds: Folds) -> dict[str, Any]:
    """What config.json says, and what all that belongs to the run must agree with."""
    return {
        "settings": asdict(training),
        "classes": list(competition.classes),
        "channels": list(competition.channels),
        "input_digest": competition.digest,
        "folds_digest": folds.digest,
    }


def read_config(folder: Path) -> dict[str, Any] | None:
    """The run's config.json; None when the run has not begun."""
    path = folder / "config.json"
    config: dict[str, Any] | None = read_json(path) if path.exists() else None
    return config


def claim_run(folder: Path, config: dict[str, Any], chosen: Chosen | None = None) -> None:
    """Write the run's config.json unless it is there; before it tuned.json, if it was tuned.

    Raises UserError when the run was begun with another config, be it by another process now.
    """
    # Folds of one run may be started at once: whoever is at it is done in a moment.
    with one_writer(folder, "beginning a run", wait=10):
        check_same_run(folder, config)
        if read_config(folder) is None:
            if chosen is not None:
                write_json(folder / "tuned.json", asdict(chosen))
            write_json(folder / "config.json", config)


def read_chosen(folder: Path) -> Chosen | None:
    """The tuning that the run's settings came from; None where they didn't."""
    path = folder / "tuned.json"
    return Chosen(**read_json(path)) if path.exists() else None


def train_command(
    folders: Folders,
    run: str,
    fold: int | None = None,
    machine: Machine | None = None,
    processes: int = 1,
) -> str:
    """The command that trains a fold of a run, or all that are missing, with the run's settings."""
    words = ["make train"]
    for name, path, usual in (
        ("INPUT", folders.input_dir, Folders.input_dir),
        ("OOF", folders.oof_dir, Folders.oof_dir),
    ):
        if path != usual:
            words.append(f"{name}={quote(in_make(str(path)))}")
    words.append(f"RUN={run}")
    if fold is not None:
        words.append(f"FOLD={fold}")
    if processes > 1:
        words.append(f"GPUS={processes}")
    config = read_config(folders.oof_dir / run)
    usual_settings = flatten(asdict(Training()) | asdict(Machine()))
    settings = flatten(config["settings"] if config else {})
    settings |= asdict(machine) if machine else {}
    settings["cache_dir"], usual_settings["cache_dir"] = folders.cache_dir, Folders.cache_dir
    # Those of the run itself are taken for a learning rate and batch size that are not given.
    changed = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {quote(str(value))}")
        for name, value in settings.items()
        if value != usual_settings[name] and name not in ("lr", "batch_size")
    ]
    if changed:
        joined = in_make(" ".join(changed))
        # Double quotes read better, where nothing in them means something to the shell.
        words.append(
            f'ARGS="{joined}"' if not set(joined) & set('"$`\\!') else f"ARGS={quote(joined)}"
        )
    return " ".join(words)


def in_make(value: str) -> str:
    """As it must be written in a variable of make."""
    return value.replace("$", "$$")


def check_same_run(folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError that names what differs when the run was begun with another config."""
    recorded = read_config(folder)
    differences = "" if recorded is None else describe_differences(recorded, config)
    if differences:
        raise UserError(
            f"{folder} was begun with other settings: {differences}. "
            "Give those again, or another name (RUN=...)"
        )


def check_run(folder: Path, competition: Competition, folds: Folds) -> dict[str, Any]:
    """The run's config.json. Raises UserError when there is none or it is of other data."""
    config = read_config(folder)
    if config is None:
        raise UserError(f"no run in {folder}: train it first, `make train RUN={folder.name}`")
    for key, now, what in (
        ("input_digest", competition.digest, "input"),
        ("folds_digest", folds.digest, "folds"),
    ):
        if config[key] != now:
            raise UserError(
                f"{folder} was trained on other {what} ({config[key][:12]}) than there is now "
                f"({now[:12]}); train it again under another name (RUN=...)"
            )
    return config


def check_belongs(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise UserError that names both sides unless what a file says of itself is what it must be.

    `there` is its provenance, of which only what `here` has is compared.
    """
    differences = list_differences({key: there.get(key) for key in here}, here)
    if differences:
        named = "; ".join(f"its {key} is {own}, not {wanted}" for key, own, wanted in differences)
        raise UserError(
            f"{path} does not belong to the run in {path.parent.parent}: {named}. Put the run's "
            "own file back, or move this one away and make it anew"
        )


def write_out_of_fold(path: Path, predictions: OutOfFold, provenance: dict[str, Any]) -> None:
    """Write a fold's oof.npz; `provenance` says what made it, and names at least fold and model."""
    write_arrays(
        path,
        file_id=predictions.ids,
        label=predictions.labels,
        prob=predictions.prob,
        prob_plain=predictions.prob_plain,
        provenance=render_provenance(provenance),
    )


def read_out_of_fold(folder: Path, folds: Sequence[int]) -> OutOfFold:
    """The predictions of several folds of a run, in ascending order of ids.

    Raises UserError for a file that is damaged, or of another run, fold or data.
    """
    config = read_config(folder) or {}
    parts = []
    for fold in folds:
        path = folder / f"fold{fold}" / "oof.npz"
        arrays = read_arrays(path, "provenance", "file_id", "label", "prob", "prob_plain")
        check_belongs(path, parse_provenance(arrays.pop("provenance")), {**config, "fold": fold})
        parts.append(list(arrays.values()))
    ids, labels, prob, plain = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(ids)
    return OutOfFold(ids[order], labels[order], prob[order], plain[order])


def check_scored(path: Path, made_from: dict[str, Any]) -> None:
    """Raise UserError unless an `.npz` of predictions says that it was made from this."""
    check_belongs(path, read_provenance(path), made_from)


def read_provenance(path: Path) -> dict[str, Any]:
    """What an `.npz` of predictions says that it was made from."""
    return parse_provenance(read_arrays(path, "provenance")["provenance"])


def render_provenance(provenance: dict[str, Any]) -> np.ndarray:
    """What predictions were made from, as it lies in their `.npz`: JSON."""
    return np.array(json.dumps(provenance, ensure_ascii=False))


def parse_provenance(array: np.ndarray) -> dict[str, Any]:
    """The inverse of `render_provenance`."""
    provenance: dict[str, Any] = json.loads(str(array))
    return provenance


def write_test_predictions(
    path: Path, ids: np.ndarray, prob: np.ndarray, provenance: dict[str, Any]
) -> None:
    """Write a fold's test.npz: probabilities [m, class] of the test samples `ids` [m]."""
    write_arrays(path, file_id=ids, prob=prob, provenance=render_provenance(provenance))


def read_test_predictions(path: Path, provenance: dict[str, Any]) -> np.ndarray | None:
    """Probabilities [m, class] from test.npz; None where it was made from something else.

    Of its provenance, what is named here must agree. Raises UserError when it is damaged.
    """
    if not path.exists():
        return None
    arrays = read_arrays(path, "prob", "provenance")
    recorded = parse_provenance(arrays["provenance"])
    return arrays["prob"] if provenance.items() <= recorded.items() else None


def rows_of(predictions: OutOfFold, competition: Competition) -> np.ndarray:
    """The competition's row of each predicted sample, int64 [n]."""
    rows: np.ndarray = np.searchsorted(competition.train_ids, predictions.ids)
    return rows


def groups_of(predictions: OutOfFold, competition: Competition, folds: Folds) -> np.ndarray:
    """The group of each predicted sample [n]: what a bootstrap draws."""
    groups: np.ndarray = folds.group[rows_of(predictions, competition)]
    return groups


def score_out_of_fold(predictions: OutOfFold, competition: Competition, folds: Folds) -> Estimate:
    """The balanced accuracy with eight views."""
    predicted = predictions.prob.argmax(1)
    cells = tally(predictions.labels, predicted, len(competition.classes))
    return Bootstrap(groups_of(predictions, competition, folds)).estimate(bac_of, cells)


def finished_folds(folder: Path, n_folds: int) -> list[int]:
    """The folds whose out-of-fold predictions are there: written last, they mean 'finished'."""
    return [fold for fold in range(n_folds) if (folder / f"fold{fold}" / "oof.npz").exists()]


def best_epoch(history: History) -> dict[str, float]:
    """The epoch with the best held-out BAC, the first of several."""
    return max(history, key=lambda row: row["held_out_bac"])
