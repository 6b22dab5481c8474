"""Blending: the average of predictions, of folds and of runs."""

from collections.abc import Sequence

import numpy as np

from cellline.runs.run_folder import OutOfFold


def blend(
    probabilities: Sequence[np.ndarray] | np.ndarray, weights: Sequence[float] | None = None
) -> np.ndarray:
    """The mean of several predictions [sample, class] of the same samples, float32.

    `weights`, one a prediction, need not sum to 1; by default they are equal.
    """
    mean: np.ndarray = np.average(np.asarray(probabilities, dtype=np.float64), 0, weights)
    return mean.astype(np.float32)


def common_samples(runs: Sequence[OutOfFold]) -> list[OutOfFold]:
    """Each run's out-of-fold predictions of the samples that all have, in the same order."""
    common = runs[0].ids
    for run in runs[1:]:
        common = np.intersect1d(common, run.ids)
    kept = [np.isin(run.ids, common) for run in runs]
    return [
        OutOfFold(run.ids[rows], run.labels[rows], run.prob[rows], run.prob_plain[rows])
        for run, rows in zip(runs, kept, strict=True)
    ]
