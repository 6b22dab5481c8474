"""What has been chosen by looking at held-out samples, the trials of `make tune` above all."""

from cellline.report.content import Block, Bullets, Figure, Section, Table, Text
from cellline.report.figures import draw_trials
from cellline.report.learning import flattery
from cellline.report.trials import TuningHistory
from cellline.report.words import count
from cellline.runs.run import Run
from cellline.scoring.metrics import Estimate, percent, with_interval


def tuning_section(study: TuningHistory | None) -> Section:
    """The trials of `make tune`."""
    name, title = "tuning", "Tuning"
    if study is None:
        return Section(
            name, title, [Text("Nothing was tuned in this OOF folder: make tune has not run.")]
        )
    blocks: list[Block] = []
    if any(trial.bac is not None for trial in study.trials):
        drawing = Figure(
            "Trials",
            "A clear peak says that the range is right; a best trial at the edge asks for a wider "
            "one. Hollow marks were pruned: stopped early, for being worse than most.",
            draw_trials("trials", study.trials),
        )
        blocks.append(drawing)
    blocks.append(
        Table(
            f"Every trial in order; all were scored on fold {study.fold}. Differences of a point "
            "or two are chance.",
            ("trial", "state", "learning rate", "batch size", "epochs", "held-out BAC"),
            [
                (
                    str(trial.number),
                    trial.state,
                    f"{trial.lr:.3g}",
                    str(trial.batch_size),
                    str(trial.epochs),
                    "none" if trial.bac is None else percent(trial.bac),
                )
                for trial in study.trials
            ],
            frozenset({0, 1}),
        )
    )
    return Section(name, title, blocks)


def without_fold(run: Run, fold: int) -> Estimate | None:
    """The BAC on the other finished folds; None when there is no other, or `fold` isn't among."""
    if fold not in run.finished or len(run.finished) == 1:
        return None
    return run.oof.score(run.oof.fold != fold)


def honesty_section(run: Run, study: TuningHistory | None) -> Section:
    """What has been chosen by looking at held-out samples."""
    items = [
        "Epoch: none was chosen. The last one's averaged weights are the model; the best would "
        f"have flattered by {100 * flattery(run):+.1f} points.",
        "Normalization, class weights and the weights' average come from the training rows of "
        "each fold alone.",
    ]
    warnings = []
    if run.tuning is not None:
        fold, trials = run.tuning.fold, count(run.tuning.trials, "trial")
        line = (
            f"{trials} of make tune looked at fold {fold}, and this run's learning rate or batch "
            f"size was chosen by them: what fold {fold} scores is the best of {trials}"
        )
        rest = without_fold(run, fold)
        if rest is not None:
            line += f". Without that fold the BAC is {with_interval(rest)}"
        if fold in run.finished:
            warnings.append(f"{line}.")
        items.append(f"{line}.")
    elif study is not None:
        items.append(
            f"{count(study.looks, 'trial')} of make tune looked at fold {study.fold}; nothing of "
            "this run was taken from them."
        )
    else:
        items.append("Learning rate and batch size: nothing was tuned on these folds.")
    items.append(
        "Calibration and the decision rule: fitted for each fold on the other folds. The large "
        "score at the head of this page is without them, what make submit would decide with them."
    )
    if run.folds.ignore_groups:
        items.append(
            "Folds: they ignore groups, so that networks were trained on pictures that belong "
            "together with those that score them."
        )
    else:
        items.append(
            "Folds: pictures that belong together are in one fold; no network was trained on a "
            "relative of what scores it."
        )
    return Section(
        "honesty",
        "What has seen what",
        [
            Text("A score is honest as far as nothing was chosen on the samples that give it."),
            Bullets(items),
        ],
        warnings,
    )
