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

from cellline.config import list_differences
from cellline.errors import UserError
from cellline.host.files import read_arrays, write_arrays
from cellline.runs.folds import Folds
from cellline.scoring.bootstrap import Bootstrap, Estimate
from cellline.scoring.decisions import Decided, likeliest
from cellline.scoring.recalls import Recall, score_recalls


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
        provenance=_render(provenance),
    )


def read_out_of_fold(
    paths: Sequence[Path], made_from: Sequence[Mapping[str, Any]], folds: Folds
) -> OutOfFold:
    """Predictions of several folds, samples in ascending order of ids.

    Raises UserError for a file that is damaged or was not made from what `made_from` says.
    """
    parts = []
    for path, wanted in zip(paths, made_from, strict=True):
        arrays = read_arrays(path, "provenance", "file_id", "prob", "prob_plain")
        check_belongs(path, _parse(arrays.pop("provenance")), wanted)
        parts.append(list(arrays.values()))
    ids, prob, plain = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(ids)
    rows = np.searchsorted(folds.competition.train_ids, ids[order])
    return OutOfFold(folds, rows, prob[order], plain[order])


def write_test(path: Path, ids: np.ndarray, prob: np.ndarray, provenance: dict[str, Any]) -> None:
    """Write a fold's `test.npz`: probabilities [m, class] of the test samples `ids` [m]."""
    write_arrays(path, file_id=ids, prob=prob, provenance=_render(provenance))


def read_test(path: Path, made_from: dict[str, Any]) -> np.ndarray | None:
    """Probabilities [m, class] from `test.npz`; None if it is absent or made from something else.

    Raises UserError when it is damaged.
    """
    if not path.exists():
        return None
    arrays = read_arrays(path, "prob", "provenance")
    return arrays["prob"] if made_from.items() <= _parse(arrays["provenance"]).items() else None


def read_provenance(path: Path) -> dict[str, Any]:
    """Read what a file of predictions was made from."""
    return _parse(read_arrays(path, "provenance")["provenance"])


def check_belongs(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise UserError that names both sides unless a file's provenance has every wanted value."""
    differences = list_differences({key: there.get(key) for key in wanted}, wanted)
    if differences:
        named = "; ".join(f"its {key} is {own}, not {other}" for key, own, other in differences)
        raise UserError(
            f"{path} does not belong to the run in {path.parent.parent}: {named}. Put the run's "
            "own file back, or move this one away and make it again"
        )


def _render(provenance: dict[str, Any]) -> np.ndarray:
    return np.array(json.dumps(provenance, ensure_ascii=False))


def _parse(array: np.ndarray) -> dict[str, Any]:
    provenance: dict[str, Any] = json.loads(str(array))
    return provenance
