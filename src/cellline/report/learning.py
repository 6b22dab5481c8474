"""Learning curves, and the trials of the tuning."""

from cellline.report.content import Block, Columns, Figure, Section, Table
from cellline.report.figures import axis_of, draw_curves, draw_trials
from cellline.report.trials import TuningHistory
from cellline.report.words import count
from cellline.runs.run import Run, best_epoch


def learning_section(run: Run) -> Section:
    """Learning curves, and how much the choice of the best epoch would have flattered."""
    metric = run.metric
    weighted = ", class-weighted" * (run.settings["class_weights"] != "none")
    better, worse = ("rises", "falling") if metric.higher_is_better else ("falls", "rising")
    figures = [
        Figure(
            "Score by epoch",
            f"A curve that still {better} at its end asks for more epochs. Held out {worse} while "
            f"training {better} is overfitting.",
            draw_curves(run, "score", *axis_of(metric)),
            describe_curves(run),
        ),
        Figure(
            "Loss by epoch",
            "Loss is minus the logarithm of the probability given to the true class: 0 is perfect. "
            "If held-out loss turns upward while the score does not get worse, the network grows "
            "too sure of itself.",
            draw_curves(run, "loss", f"loss{weighted}"),
            describe_curves(run, "loss"),
        ),
    ]
    rows = []
    for fold, history in run.histories.items():
        best, last = best_epoch(history, metric), history[-1]
        scored = [f"{of['epoch']:.0f}, {metric.show(of['held_out_score'])}" for of in (last, best)]
        kept = metric.utility(last["held_out_score"])
        gains = [
            metric.show_gain(metric.utility(score) - kept)
            for score in (best["held_out_score"], last["train_score"])
        ]
        rows.append((f"fold {fold}", *scored, *gains))
    table = Table(
        "No epoch is chosen: the model is the last one's averaged weights, whatever the held-out "
        f"{metric.title} did. Scores are of one view; 'ahead' is how much better training images "
        "score, though they are augmented, which makes them harder.",
        ("", "kept epoch", "best epoch", "would flatter by", "training ahead by"),
        rows,
    )
    return Section("learning", "Learning curves", [Columns(figures), table])


def describe_curves(run: Run, what: str = "score") -> str:
    """The curves in words, for a reader who can't see them."""
    ends = (
        f"fold {fold} from {history[0][f'held_out_{what}']:.3f} to "
        f"{history[-1][f'held_out_{what}']:.3f}"
        for fold, history in run.histories.items()
    )
    return f"Held out, first to last epoch: {'; '.join(ends)}."


def tuning_section(run: Run, study: TuningHistory | None) -> Section:
    """The trials of the tuning, and a caution if they chose the run's settings on its folds.

    Empty without a tuning.
    """
    tuned: list[Block] = []
    cautions = []
    if run.tuning is not None:
        fold, trials = run.tuning.fold, count(run.tuning.trials, "trial")
        told = (
            f"{trials} of a tuning looked at fold {fold} and chose this run's learning rate or "
            f"batch size: the score of fold {fold} is the best of {trials}."
        )
        if fold in run.finished:
            if len(run.finished) > 1:
                rest = run.oof.score(run.oof.fold != fold)
                metric = run.folds.metric
                told += f" Without that fold the {metric.title} is {metric.show(rest)}."
            cautions.append(told)
        tuned = [told]
    elif study is not None:
        tuned = ["These trials did not choose this run's settings."]
    trials_shown = show_trials(study) if study is not None else []
    return Section("tuning", "Tuning", [*tuned, *trials_shown], cautions)


def show_trials(study: TuningHistory) -> list[Block]:
    """A figure and a table of the trials."""
    blocks: list[Block] = []
    metric = study.metric
    if any(trial.value is not None for trial in study.trials):
        note = (
            "A clear peak says that the range is right; a best trial at the edge asks for a wider "
            "one. Hollow marks were pruned: stopped early, because they did worse than most."
        )
        blocks.append(Figure("Trials", note, draw_trials("trials", study)))
    rows = [
        (
            str(trial.number),
            trial.state.name.lower(),
            f"{trial.params['lr']:.3g}",
            str(trial.params["batch_size"]),
            str(len(trial.intermediate_values)),
            "none" if trial.value is None else metric.show(trial.value),
        )
        for trial in study.trials
    ]
    table = Table(
        f"Every trial in order, scored on fold {study.fold}. Small differences are chance.",
        ("trial", "state", "learning rate", "batch size", "epochs", f"held-out {metric.title}"),
        rows,
        text_columns=frozenset({0, 1}),
    )
    return [*blocks, table]
