"""Out-of-fold and test probabilities as tables, for a model that is stacked on them elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Config
from cellline.host.device import choose_device
from cellline.host.progress import say
from cellline.runs.folds import Folds, open_folds
from cellline.runs.predictions import OutOfFold, common_samples, read_provenance
from cellline.runs.run import Run, check_trained, open_runs
from cellline.submitting.blend import blend
from cellline.submitting.inference import describe_models, predict_run
from cellline.submitting.submission import (
    join_names,
    list_probabilities,
    render_columns,
    write_submission,
)


def export_tables(config: Config, names: Sequence[str], output: Path) -> list[Path]:
    """Write `<runs>-oof` and, if there is a test set, `<runs>-test`; return the CSVs' paths.

    Probabilities are the mean over the runs, not calibrated. Raises UserError as `submit` does.
    """
    folds = open_folds(config.folders, config.reading)
    runs = open_runs(config, names, folds)
    check_trained(runs)
    name = join_names([run.name for run in runs])
    oof = common_samples([run.oof for run in runs])
    record: dict[str, Any] = {
        "runs": [describe(run) for run in runs],
        "input_digest": folds.competition.digest,
        "folds_digest": folds.digest,
        "calibrated": False,
    }
    data = render_oof(oof[0], blend([run.prob for run in oof]))
    paths = [write_submission(output, f"{name}-oof", data, record)]
    if len(folds.competition.test_ids):
        device = choose_device(config.machine)
        data = render_test(folds, blend([predict_run(run, device)[0] for run in runs]))
        of_test = {
            "test_digest": folds.competition.test_digest,
            "precision": device.precision,
        }
        paths.append(write_submission(output, f"{name}-test", data, {**record, **of_test}))
    for path in paths:
        say(f"wrote {path}")
    say("probabilities are not calibrated: a mean over runs, views and, of test samples, folds")
    return paths


def describe(run: Run) -> dict[str, Any]:
    """A run, and the models that its out-of-fold predictions are of."""
    made_from = {str(fold): read_provenance(run.oof_path(fold)) for fold in run.finished}
    return describe_models(run, {fold: of["model_digest"] for fold, of in made_from.items()})


def render_oof(oof: OutOfFold, prob: np.ndarray) -> bytes:
    """The CSV of training samples: id, fold, label and probabilities [n, class]."""
    classes = oof.folds.competition.classes
    labels = [classes[label] for label in oof.labels.tolist()]
    columns = {"id": oof.ids.tolist(), "fold": oof.fold.tolist(), "label": labels}
    return render_columns({**columns, **list_probabilities(classes, prob)})


def render_test(folds: Folds, prob: np.ndarray) -> bytes:
    """The CSV of test samples: id and probabilities [m, class]."""
    columns = {"id": folds.competition.test_ids.tolist()}
    return render_columns({**columns, **list_probabilities(folds.competition.classes, prob)})
