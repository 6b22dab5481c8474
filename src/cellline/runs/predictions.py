"""Predictions on disk: a fold's out-of-fold and test probabilities, each with its provenance.

The provenance is JSON inside the `.npz`. It says what the predictions were made from, so that a
file of another run, fold or model is refused and never blended.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import flatten, list_differences
from cellline.data.competition import Competition
from cellline.data.problems import brief, name_first
from cellline.errors import UserError, first_line
from cellline.host.files import damaged, read_arrays, write_arrays
from cellline.runs.folds import Folds
from cellline.scoring.bootstrap import Bootstrap, Estimate
from cellline.scoring.decisions import Decided, likeliest
from cellline.scoring.recalls import Recall, score_recalls

# Of each row of a history, what a report needs.
HISTORY = ("epoch", "train_loss", "train_score", "held_out_loss", "held_out_score")

# Rounding in float32 leaves less, even with thousands of classes.
SUM_ERROR = 1e-3


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions of held-out samples by networks that never saw them."""

    folds: Folds
    rows: np.ndarray
    """int64 [n], ascending: rows of the competition's training samples"""
    prob: np.ndarray
    """float32 [n, class], averaged over the views"""
    prob_plain: np.ndarray
    """float32 [n, class], of the images as they are"""

    @property
    def ids(self) -> np.ndarray:
        """int64 or text [n]"""
        ids: np.ndarray = self.folds.competition.train_ids[self.rows]
        return ids

    @property
    def labels(self) -> np.ndarray:
        """int64 [n], index into the competition's classes"""
        labels: np.ndarray = self.folds.competition.labels[self.rows]
        return labels

    @property
    def fold(self) -> np.ndarray:
        """int64 [n]: the fold of each sample"""
        fold: np.ndarray = self.folds.fold[self.rows]
        return fold

    @property
    def group(self) -> np.ndarray:
        """[n], see `Folds.group`: the unit that a bootstrap draws"""
        group: np.ndarray = self.folds.group[self.rows]
        return group

    @cached_property
    def decided(self) -> Decided:
        """The likeliest class of each sample."""
        return likeliest(self.prob)

    @property
    def picture(self) -> np.ndarray:
        """int64 [n], see `Folds.picture`: a group without the user's groups"""
        picture: np.ndarray = self.folds.picture[self.rows]
        return picture

    @property
    def predicted(self) -> np.ndarray:
        """int64 [n]: the likeliest class"""
        return self.decided.predicted

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """Draws of these samples by group, the same for every score of them."""
        return Bootstrap(self.group)

    def at(self, kept: np.ndarray) -> "OutOfFold":
        """The predictions of some of the samples, bool [n]."""
        return OutOfFold(self.folds, self.rows[kept], self.prob[kept], self.prob_plain[kept])

    def score(self, kept: np.ndarray | None = None) -> Estimate:
        """Score by the competition's metric on all samples, or on those of bool [n]."""
        return self.folds.metric.estimate(self.labels, self.decided, self.bootstrap, kept)

    def score_recalls(self, weights: np.ndarray | None = None) -> tuple[Recall, ...]:
        """Recall of each class; samples may have weights [n]."""
        return score_recalls(self.labels, self.predicted, self.group, self.prob.shape[1], weights)


def common_samples(runs: Sequence[OutOfFold]) -> list[OutOfFold]:
    """Each run's predictions of the samples that all runs have predicted."""
    common = runs[0].rows
    for run in runs[1:]:
        common = np.intersect1d(common, run.rows)
    return [run.at(np.isin(run.rows, common)) for run in runs]


def write_out_of_fold(path: Path, predictions: OutOfFold, provenance: dict[str, Any]) -> None:
    """Write a fold's `oof.npz`; the provenance names at least fold and model."""
    write_arrays(
        path,
        file_id=predictions.ids,
        label=predictions.labels,
        prob=predictions.prob,
        prob_plain=predictions.prob_plain,
        provenance=render_provenance(provenance),
    )


def read_out_of_fold(
    paths: Sequence[Path], made_from: Sequence[Mapping[str, Any]], folds: Folds
) -> OutOfFold:
    """Predictions of several folds, samples in ascending order of ids.

    Raises UserError for a file that is damaged or was not made from what `made_from` says.
    """
    competition, parts = folds.competition, []
    for path, wanted in zip(paths, made_from, strict=True):
        check_belongs(path, read_provenance(path), wanted)
        rows = folds.held_out_rows(wanted["fold"])
        samples = {"file_id": competition.train_ids[rows], "label": competition.labels[rows]}
        parts.append((rows, *read_prob(path, competition, samples, "prob", "prob_plain")))
    rows, prob, plain = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(rows)
    return OutOfFold(folds, rows[order], prob[order], plain[order])


def write_test(path: Path, ids: np.ndarray, prob: np.ndarray, provenance: dict[str, Any]) -> None:
    """Write a fold's `test.npz`: probabilities [m, class] of the test samples `ids` [m]."""
    write_arrays(path, file_id=ids, prob=prob, provenance=render_provenance(provenance))


def read_test(path: Path, made_from: dict[str, Any], competition: Competition) -> np.ndarray | None:
    """Probabilities [m, class] from `test.npz`; None if it is absent or made from something else.

    Raises UserError when it is damaged.
    """
    if not is_made_from(path, made_from):
        return None
    [prob] = read_prob(path, competition, {"file_id": competition.test_ids}, "prob")
    return prob


def read_provenance(path: Path) -> dict[str, Any]:
    """Read what a file of predictions was made from. Raises UserError when it is damaged."""
    text = str(read_arrays(path, "provenance")["provenance"])
    try:
        provenance = json.loads(text)
        if not isinstance(provenance, dict):
            raise ValueError("its provenance is not an object of JSON")
        flatten(provenance)  # fails where it is nested too deeply to be compared
    except (ValueError, RecursionError) as error:
        raise damaged(path, first_line(error)) from error
    return provenance


def is_made_from(path: Path, made_from: Mapping[str, Any]) -> bool:
    """Tell if a file is there and its provenance has these values; damage is a UserError."""
    return path.exists() and made_from.items() <= read_provenance(path).items()


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the history that a fold's `oof.npz` recorded. Raises UserError when it is damaged."""
    history: Any = read_provenance(path).get("history")
    try:
        sound = bool([row[key] + 0.0 for row in history for key in HISTORY])
    except (TypeError, LookupError):
        sound = False
    if not sound:
        raise damaged(path, "its history is not a row of numbers for each epoch")
    return list(history)


def read_prob(
    path: Path, competition: Competition, samples: Mapping[str, np.ndarray], *names: str
) -> list[np.ndarray]:
    """Read the probabilities `names`, float32 [n, class]; `samples` is what else the file has.

    Raises UserError if it is of other samples, or has anything but probabilities.
    """
    arrays = read_arrays(path, *samples, *names)
    for name, wanted in samples.items():
        if not np.array_equal(arrays[name], wanted):
            raise damaged(path, f"its {name} is not that of the samples")
    shape = len(samples["file_id"]), len(competition.classes)
    for name in names:
        prob = arrays[name]
        # Each condition is False for NaN.
        if not (
            (prob.shape == shape and prob.dtype == np.float32)
            and np.all(prob >= 0)
            and np.all(np.abs(prob.sum(axis=1) - 1) < SUM_ERROR)
        ):
            raise damaged(path, f"its {name} is not a probability of each sample and class")
    return [arrays[name] for name in names]


def check_belongs(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise UserError that names both sides unless a file's provenance has every wanted value."""
    differences = list_differences({key: there.get(key) for key in wanted}, wanted)
    if differences:
        all_named = [f"its {brief(key)} is {own}, not {other}" for key, own, other in differences]
        raise UserError(
            f"{path} does not belong to the run in {path.parent.parent}: "
            f"{name_first(all_named, '; ')}. Put the run's own file back, or move this one away "
            "and make it again"
        )


def render_provenance(provenance: dict[str, Any]) -> np.ndarray:
    """A file's provenance as an array of text, as `read_provenance` reads it."""
    return np.array(json.dumps(provenance, ensure_ascii=False))
