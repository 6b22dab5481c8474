"""The run that a report shows."""

import numpy as np

from cellline.config import Config
from cellline.errors import UserError
from cellline.runs.folds import open_folds
from cellline.runs.run import Run, open_run


def open_finished(config: Config) -> Run:
    """The run that `config` names, with one fold or more finished.

    Raises UserError for bad input, if folds or run are missing or of other data, if no fold is
    finished, and if the finished folds lack a class.
    """
    run = open_run(config, open_folds(config.folders))
    if not run.finished:
        raise UserError(
            f"no fold of {run.folder} is finished, so there is nothing to report; train the first:"
            f"\n  {run.command(0)}"
        )
    absent = np.setdiff1d(np.arange(len(run.competition.classes)), run.oof.labels)
    if len(absent):
        names = ", ".join(run.class_names[index] for index in absent)
        raise UserError(
            f"the finished folds of {run.folder} hold no sample of {names}, so there is no "
            f"balanced accuracy yet; train the next:\n  {run.command(run.missing[0])}"
        )
    return run
