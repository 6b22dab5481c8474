"""The whole pipeline on a drawn competition whose truth is known."""

from dataclasses import replace

import pandas

from cellline.audit.dealing import Plan, make_folds
from cellline.audit.words import describe_dealt
from cellline.config import Config
from cellline.demo.cells import CELL_LINES
from cellline.demo.drawing import HEADER, Drawing, draw_competition
from cellline.host.files import write_csv
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.report.page import write_report
from cellline.scoring.recalls import balanced_accuracy
from cellline.scoring.words import percent
from cellline.submitting.submit import submit
from cellline.training.run import train_run
from cellline.tuning.tune import tune_run

# Two cores train on these in five minutes.
SAMPLES_TRAIN, SAMPLES_TEST = 240, 72
TRIALS, TUNE_EPOCHS = 2, 2
# For the first trial: with 160 training samples, batches of 64 would make three steps an epoch.
FIRST_LR, FIRST_BATCH_SIZE = 1e-3, 16


def demo(config: Config, n_folds: int) -> None:
    """Draw the competition into `config.folders`, run every verb, and print the test set's BAC.

    Existing results are kept, as by the verbs themselves.
    """
    folder = config.folders.input_dir.parent
    truth = folder / "truth.csv"
    with one_writer(folder, "drawing a competition"):
        if not truth.exists():  # written last, so that an interrupted demo can be rerun
            say(f"== drawing a competition into {config.folders.input_dir}")
            drawing = Drawing(SAMPLES_TRAIN, SAMPLES_TEST, seed=config.training.seed)
            labels = draw_competition(config.folders.input_dir, drawing)
            write_csv(truth, HEADER, list(labels.items()))
    say("== folds")
    folds = make_folds(config.folders, Plan(n_folds=n_folds, seed=config.training.seed))
    for line in describe_dealt(folds):
        say(line)
    say("== tune")
    first = replace(config.training, epochs=TUNE_EPOCHS, lr=FIRST_LR, batch_size=FIRST_BATCH_SIZE)
    tune_run(replace(config, training=first), TRIALS)
    say("== train")
    train_run(config)
    say("== submit")
    path = submit(config, (config.run,))
    say("== report")
    write_report(config)
    predicted, true = (pandas.read_csv(file, index_col=0) for file in (path, truth))
    both = true.join(predicted, rsuffix=" predicted", validate="1:1")
    score = balanced_accuracy(*both.to_numpy().T)
    say(f"== test BAC {percent(score)}; guessing gives {percent(1 / len(CELL_LINES))}")
