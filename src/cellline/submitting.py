"""From trained runs to a submission file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Config
from cellline.data.competition import Competition
from cellline.data.folds import open_folds
from cellline.device import choose_device
from cellline.errors import UserError
from cellline.prediction.blend import blend, blend_out_of_fold
from cellline.prediction.metrics import percent
from cellline.prediction.run_folder import (
    check_run,
    finished_folds,
    read_out_of_fold,
    run_folder,
    score_out_of_fold,
)
from cellline.prediction.submission import (
    render_submission,
    validate_submission,
    write_submission,
)
from cellline.training.inference import predict_test


def submit(
    config: Config, runs: Sequence[str], partial: bool, report: Callable[[str], None]
) -> Path:
    """Blend the test predictions of `runs`, all their folds, and write the submission; its path.

    Raises UserError when a run is missing or of other data, and, unless `partial`, when a fold of
    it has not been trained.
    """
    competition, folds = open_folds(config.folders)
    folders = [run_folder(config.folders.oof_dir, run) for run in dict.fromkeys(runs)]
    configs = [check_run(folder, competition, folds) for folder in folders]
    finished = [finished_folds(folder, folds.n_folds) for folder in folders]
    missing = [
        f"make train RUN={folder.name} FOLD={fold}"
        for folder, there in zip(folders, finished, strict=True)
        for fold in range(folds.n_folds)
        if fold not in there
    ]
    if missing and not partial:
        raise UserError(
            "these folds have not been trained:\n  " + "\n  ".join(missing) + "\n"
            'Train them, or blend what there is: make submit ARGS="--partial"'
        )
    untrained = [folder.name for folder, there in zip(folders, finished, strict=True) if not there]
    if untrained:
        raise UserError(f"no fold of {', '.join(untrained)} is finished: there is nothing to blend")

    if not set.intersection(*map(set, finished)):
        raise UserError("the runs have no finished fold in common; train one with all of them")

    device = choose_device(config.machine)
    of_runs, described = [], []
    for folder, run_config, there in zip(folders, configs, finished, strict=True):
        predictions, models = zip(
            *(predict_test(folder / f"fold{k}", run_config, competition, device) for k in there),
            strict=True,
        )
        of_runs.append(blend(predictions))
        described.append(
            {
                "run": folder.name,
                "settings": run_config["settings"],
                "models": {str(k): digest for k, digest in zip(there, models, strict=True)},
            }
        )
    prob = blend(of_runs)
    predicted = prob.argmax(1)

    held_out = blend_out_of_fold(
        [read_out_of_fold(folder, there) for folder, there in zip(folders, finished, strict=True)]
    )
    oof = score_out_of_fold(held_out, competition, folds)
    data = render_submission(competition, predicted)
    validate_submission(data, competition)
    record: dict[str, Any] = {
        "runs": described,
        "input_digest": competition.digest,
        "folds_digest": folds.digest,
        "oof": {"bac": oof.value, "interval": oof.interval, "samples": len(held_out.ids)},
        "precision": device.precision,
    }
    name = "+".join(folder.name for folder in folders) + ("-partial" if missing else "")
    path = write_submission(config.folders.submissions_dir, name, data, record)
    for line in describe_counts(competition, predicted):
        report(line)
    report(
        f"OOF BAC of what was blended, on {len(held_out.ids)} of {len(competition.train_ids)} "
        f"training samples: {percent(oof.value, oof.interval)} (95 % interval)"
    )
    report(f"wrote {path} ({len(predicted)} rows)")
    return path


def describe_counts(competition: Competition, predicted: np.ndarray) -> list[str]:
    """Predicted class counts beside the training ones, a line each."""
    n_classes = len(competition.classes)
    train = np.bincount(competition.labels, minlength=n_classes)
    test = np.bincount(predicted, minlength=n_classes)
    width = max(map(len, competition.classes))
    lines = [" " * width + "        training       predicted"]
    for index, name in enumerate(competition.classes):
        shares = [f"{c[index]:7d} {c[index] / c.sum():7.1%}" for c in (train, test)]
        lines.append(f"{name:<{width}} {'  '.join(shares)}")
    return lines
