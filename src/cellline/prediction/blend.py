"""Blending: the average of predictions, of folds and of runs."""

from collections.abc import Sequence

import numpy as np

from cellline.prediction.run_folder import OutOfFold


def blend(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of several predictions [sample, class] of the same samples, float32."""
    mean: np.ndarray = np.stack(probabilities).mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def blend_out_of_fold(runs: Sequence[OutOfFold]) -> OutOfFold:
    """The blend of several runs' out-of-fold predictions, on the samples that all have."""
    common = runs[0].ids
    for run in runs[1:]:
        common = np.intersect1d(common, run.ids)
    kept = [np.isin(run.ids, common) for run in runs]
    return OutOfFold(
        common,
        runs[0].labels[kept[0]],
        blend([run.prob[rows] for run, rows in zip(runs, kept, strict=True)]),
        blend([run.prob_plain[rows] for run, rows in zip(runs, kept, strict=True)]),
    )
