"""The pipeline on a competition whose truth is known."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from cellline.audit.dealing import Plan, describe_dealt, make_folds
from cellline.config import Config
from cellline.demo.cells import contact_sheet
from cellline.demo.drawing import draw_competition
from cellline.host.files import read_csv, write_csv
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.report.page import write_report
from cellline.scoring.metrics import balanced_accuracy, percent
from cellline.submitting.submit import submit
from cellline.training.run import train_run
from cellline.tuning.tune import tune_run

# As much as two cores train on in five minutes.
SAMPLES_TRAIN, SAMPLES_TEST = 240, 72
TRIALS = 2
TUNE_EPOCHS = 2
# The first trial's: with 160 training samples, 64 a step would make three steps an epoch.
FIRST_LR, FIRST_BATCH_SIZE = 1e-3, 16


def demo(config: Config, n_folds: int) -> float:
    """Draw the competition into `config.folders`, run every verb on it; the test set's BAC.

    What is there already is not made again, as with the verbs themselves.
    """
    folder = config.folders.input_dir.parent
    truth = folder / "truth.csv"
    with one_writer(folder, "drawing a competition"):
        if not config.folders.input_dir.exists():
            say(f"== drawing a competition into {config.folders.input_dir}")
            contact_sheet(8).save(folder / "cells.png")
            # Renamed when it is whole, so that an interrupted demo can be started again.
            drawn = folder / ".drawing"
            shutil.rmtree(drawn, ignore_errors=True)
            labels = draw_competition(
                drawn,
                samples_train=SAMPLES_TRAIN,
                samples_test=SAMPLES_TEST,
                seed=config.training.seed,
            )
            write_csv(truth, ("file_id", "cell_line"), list(labels.items()))
            drawn.rename(config.folders.input_dir)
    say("== make folds")
    folds = make_folds(config.folders, Plan(n_folds=n_folds, seed=config.training.seed))
    for line in describe_dealt(folds):
        say(line)
    say("== make tune")
    first = replace(config.training, epochs=TUNE_EPOCHS, lr=FIRST_LR, batch_size=FIRST_BATCH_SIZE)
    tune_run(replace(config, training=first), TRIALS)
    say("== make train")
    train_run(config)
    say("== make submit")
    path = submit(config, (config.run,))
    say("== make report")
    write_report(config)
    score = score_submission(path, truth)
    say(f"== test BAC {percent(score)}, where guessing gives {percent(1 / 9)}")
    return score


def score_submission(submission: Path, truth: Path) -> float:
    """The balanced accuracy of a submission against a CSV of true labels."""
    predicted, true = (dict(read_rows(path)) for path in (submission, truth))
    ids = sorted(true)
    return balanced_accuracy(
        np.array([true[key] for key in ids]), np.array([predicted[key] for key in ids])
    )


def read_rows(path: Path) -> list[tuple[int, str]]:
    """Ids and labels of a CSV with a header."""
    rows = read_csv(path)
    return list(zip(rows.iloc[:, 0].astype(int), rows.iloc[:, 1], strict=True))
