"""What `make submit` has left in a run's folds, and whether it is of them."""

from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.competition import Competition
from cellline.host.files import damaged, read_arrays
from cellline.runs.run_folder import check_scored, read_provenance


def read_test(
    folder: Path, folds: list[int], config: dict[str, Any], competition: Competition
) -> dict[int, np.ndarray]:
    """By fold the test probabilities [m, class] that `make submit` has left of a run.

    `config` is the run's config.json. Raises UserError for a file that is damaged, or isn't of this
    run, fold, model and test set.
    """
    found = {}
    for fold in folds:
        path = folder / f"fold{fold}" / "test.npz"
        if path.exists():
            of_here = {
                **config,
                "fold": fold,
                "model_digest": read_provenance(path.with_name("oof.npz"))["model_digest"],
                "test_digest": competition.test_digest,
            }
            check_scored(path, of_here)
            ids, prob = read_arrays(path, "file_id", "prob").values()
            shape = len(competition.test_ids), len(competition.classes)
            of_samples = np.array_equal(ids, competition.test_ids)
            if not of_samples or prob.shape != shape or prob.dtype != np.float32:
                raise damaged(path, "it is not of these test samples and classes")
            found[fold] = prob
    return found
