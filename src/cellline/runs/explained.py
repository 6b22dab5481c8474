"""Files that explain a run's networks: predictions with permuted channels, and attributions.

Each fold has its own files, `permuted.npz` and `attributed.npz`. Those of another model or of other
data count as absent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cellline.host.files import damaged, read_arrays, write_arrays
from cellline.host.versions import code_version
from cellline.runs.predictions import (
    OutOfFold,
    is_made_from,
    read_prob,
    read_provenance,
    render_provenance,
)
from cellline.runs.run import Run
from cellline.scoring.comparison import Comparison, compare_predictions


@dataclass(frozen=True, eq=False)
class Permuted:
    """Predictions with each channel permuted between the held-out samples of a fold."""

    oof: OutOfFold
    """The predictions of the untouched images."""
    prob: np.ndarray
    """float32 [channel, n, class], of one view."""

    @cached_property
    def falls(self) -> list[Comparison]:
        """For each channel, how much better the untouched images score, by the same view."""
        oof = self.oof
        return [
            compare_predictions(
                oof.folds.metric, oof.labels, [prob], [oof.prob_plain], oof.bootstrap
            )
            for prob in self.prob
        ]


def write_permuted(run: Run, fold: int, prob: np.ndarray) -> None:
    """Keep a fold's predictions [channel, n, class] with each channel permuted."""
    rows = run.folds.held_out_rows(fold)
    arrays = dict(zip(_name_arrays(run), prob, strict=True))
    _write(run, fold, permuted_path(run, fold), rows, arrays)


def read_permuted(run: Run, fold: int) -> np.ndarray | None:
    """Read what `write_permuted` kept; None if there is nothing of the present model.

    Raises UserError when it is damaged.
    """
    path, competition = permuted_path(run, fold), run.competition
    if not is_made_from(path, _made_from(run, fold)):
        return None
    samples = {"file_id": competition.train_ids[run.folds.held_out_rows(fold)]}
    return np.stack(read_prob(path, competition, samples, *_name_arrays(run)))


def read_all_permuted(run: Run) -> Permuted | None:
    """The predictions of all folds that have them; None if none has."""
    parts = {fold: read_permuted(run, fold) for fold in run.finished}
    there = {fold: prob for fold, prob in parts.items() if prob is not None}
    if not there:
        return None
    rows = np.concatenate([run.folds.held_out_rows(fold) for fold in there])
    prob = np.concatenate(list(there.values()), axis=1)
    return Permuted(run.out_of_fold(list(there)), prob[:, np.argsort(rows)])


def write_attributed(run: Run, fold: int, attributions: Mapping[int, np.ndarray]) -> None:
    """Keep attributions float32 [channel, height, width] of some held-out rows of a fold."""
    rows = np.array(sorted(attributions))
    values = np.stack([attributions[row] for row in rows.tolist()])
    _write(run, fold, attributed_path(run, fold), rows, {"attribution": values})


def read_attributed(run: Run, folds: Iterable[int]) -> dict[int, np.ndarray]:
    """Read the attributions of some folds' present models, by row.

    Raises UserError when it is damaged.
    """
    found: dict[int, np.ndarray] = {}
    for fold in folds:
        path = attributed_path(run, fold)
        if not is_made_from(path, _made_from(run, fold)):
            continue
        arrays = read_arrays(path, "file_id", "attribution")
        values, rows = arrays["attribution"], run.folds.held_out_rows(fold)
        kept = rows[np.isin(run.competition.train_ids[rows], arrays["file_id"])]
        shape = (len(arrays["file_id"]), *run.competition.train_images.shape[1:])
        if len(kept) != shape[0] or values.shape != shape or not np.all(np.isfinite(values)):
            raise damaged(path, "it does not hold a number for each pixel of each sample")
        found.update(zip(kept.tolist(), values, strict=True))
    return found


def permuted_path(run: Run, fold: int) -> Path:
    """The file with a fold's predictions of permuted channels."""
    return run.fold_folder(fold) / "permuted.npz"


def attributed_path(run: Run, fold: int) -> Path:
    """The file with a fold's attributions."""
    return run.fold_folder(fold) / "attributed.npz"


def _made_from(run: Run, fold: int) -> dict[str, Any]:
    model = read_provenance(run.oof_path(fold)).get("model_digest")
    return {**run.provenance(fold), "model_digest": model}


def _name_arrays(run: Run) -> list[str]:
    return [f"prob{k}" for k in range(len(run.competition.channels))]


def _write(
    run: Run, fold: int, path: Path, rows: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> None:
    provenance = {**_made_from(run, fold), "code": code_version()}
    ids = run.competition.train_ids[rows]
    write_arrays(path, file_id=ids, **arrays, provenance=render_provenance(provenance))
