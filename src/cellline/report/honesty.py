"""Choices that held-out samples could have made: the epoch, and the settings by tuning."""

import numpy as np

from cellline.report.content import Block, Columns, Figure, Section, Table
from cellline.report.figures import draw_curves, draw_trials
from cellline.report.trials import TuningHistory
from cellline.report.words import count
from cellline.runs.run import Run, best_epoch
from cellline.scoring.metrics import percent, with_interval


def flattery(run: Run) -> float:
    """The best epoch's BAC minus the last one's, mean over folds."""
    ends = [(best_epoch(history), history[-1]) for history in run.histories.values()]
    return float(np.mean([best["held_out_bac"] - last["held_out_bac"] for best, last in ends]))


def learning_section(run: Run) -> Section:
    """Learning curves, and how much the choice of the best epoch would have flattered."""
    figures = [
        Figure(
            "Balanced accuracy by epoch",
            "A curve that still rises at its end asks for more epochs. Held out falling while "
            "training rises is overfitting.",
            draw_curves("bac", run.histories, "BAC, %", factor=100),
        ),
        Figure(
            "Loss by epoch",
            "If held-out loss turns upward while BAC does not fall, the network grows too sure of "
            "itself.",
            draw_curves("loss", run.histories, "loss, class-weighted"),
        ),
    ]
    rows = []
    for fold, history in run.histories.items():
        best, last = best_epoch(history), history[-1]
        gain, ahead = (
            one - last["held_out_bac"] for one in (best["held_out_bac"], last["train_bac"])
        )
        scored = [f"{of['epoch']:.0f}, {percent(of['held_out_bac'])}" for of in (last, best)]
        rows.append((f"fold {fold}", *scored, f"{100 * gain:+.1f}", f"{100 * ahead:+.1f}"))
    table = Table(
        "The model is the last epoch's averaged weights, whatever the held-out BAC did. BAC is of "
        "one view; 'ahead' is training minus held-out BAC, in points: training images are "
        "augmented, which makes them harder.",
        ("", "kept epoch", "best epoch", "would flatter by", "training ahead by"),
        rows,
    )
    return Section("learning", "Learning curves", [Columns(figures), table])


def tuning_section(study: TuningHistory | None) -> Section:
    """The trials of the tuning."""
    if study is None:
        text = "Nothing was tuned in this OOF folder: no tuning has run."
        return Section("tuning", "Tuning", [text])
    blocks: list[Block] = []
    if any(trial.bac is not None for trial in study.trials):
        note = (
            "A clear peak says that the range is right; a best trial at the edge asks for a wider "
            "one. Hollow marks were pruned: stopped early, because they did worse than most."
        )
        blocks.append(Figure("Trials", note, draw_trials("trials", study.trials)))
    rows = []
    for trial in study.trials:
        bac = "none" if trial.bac is None else percent(trial.bac)
        drawn = f"{trial.lr:.3g}", str(trial.batch_size)
        rows.append((str(trial.number), trial.state, *drawn, str(trial.epochs), bac))
    table = Table(
        f"Every trial in order, scored on fold {study.fold}. A point or two is chance.",
        ("trial", "state", "learning rate", "batch size", "epochs", "held-out BAC"),
        rows,
        text_columns=frozenset({0, 1}),
    )
    return Section("tuning", "Tuning", [*blocks, table])


def honesty_section(run: Run, study: TuningHistory | None) -> Section:
    """All that was chosen by looking at held-out samples."""
    cautions = []
    if run.tuning is not None:
        fold, trials = run.tuning.fold, count(run.tuning.trials, "trial")
        tuned = (
            f"{trials} of a tuning looked at fold {fold} and chose this run's learning rate or "
            f"batch size: the score of fold {fold} is the best of {trials}."
        )
        if fold in run.finished:
            if len(run.finished) > 1:
                rest = run.oof.score(run.oof.fold != fold)
                tuned += f" Without that fold the BAC is {with_interval(rest)}."
            cautions.append(tuned)
    elif study is not None:
        tuned = (
            f"{count(study.looks, 'trial')} of a tuning looked at fold {study.fold}; this run took "
            "nothing from them."
        )
    else:
        tuned = "Learning rate and batch size: nothing was tuned on these folds."
    items = [
        "Epoch: none was chosen. The model is the last epoch's averaged weights; the best epoch "
        f"would have flattered by {100 * flattery(run):+.1f} points.",
        "Normalization, class weights and the average of the weights come from the training rows "
        "of each fold alone.",
        tuned,
        "Calibration and the decision rule: fitted for each fold on the other folds. The large "
        "score at the head of this page is without them.",
        "Folds: related pictures are in one fold; no network has seen a relative of what scores "
        "it.",
    ]
    text = "A score is honest if nothing was chosen on the samples that give it."
    return Section("honesty", "What has seen what", [text, items], cautions)
