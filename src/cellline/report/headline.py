"""What a person sees first: the run, its balanced accuracy, and how to read it."""

from dataclasses import dataclass

from cellline.report.words import count, name_folds
from cellline.runs.run import Run
from cellline.scoring.metrics import Scores, percent, with_interval
from cellline.submitting.decision import expect_bac, hold_out


@dataclass(frozen=True)
class Headline:
    """What a person sees first."""

    title: str
    what: str
    """What was trained, on what."""
    bac: str
    interval: str
    scored_on: str
    decided: str
    """The same of what the decision rule makes of it; empty where too few folds can judge it."""
    missing: str
    """The folds that are missing, and how to train them; empty when none is."""
    reading: str
    """How to read the interval."""
    alarm: str
    """What makes the figure false; empty when nothing does."""


def write_headline(run: Run, scores: Scores) -> Headline:
    """The run, its balanced accuracy, and what that was measured on."""
    settings = run.settings
    start = {"none": "from scratch", "imagenet": "from ImageNet weights"}.get(
        settings["weights"], f"from {settings['weights']}"
    )
    height, width = run.competition.train_images.shape[2:]
    bac = scores.bac
    decided = expect_bac(hold_out([run.oof]), run.oof.bootstrap)
    return Headline(
        title=run.name,
        what=(
            f"{settings['network']}, trained {start} for {count(settings['epochs'], 'epoch')} a "
            f"fold on {count(len(run.competition.train_ids), 'sample')} of {len(run.class_names)} "
            f"classes, {count(len(run.competition.channels), 'channel')} of {width} by {height} "
            "pixels"
        ),
        bac=percent(bac.value),
        interval=f"{100 * bac.low:.1f} to {100 * bac.high:.1f}",
        scored_on=(
            f"Balanced accuracy (BAC) on the {len(run.oof.ids):,} held-out samples of "
            f"{name_folds(run.finished)} of {run.folds.n_folds}, by networks that "
            + ("saw copies and overlaps of them" if run.folds.ignore_groups else "never saw them")
        ),
        decided=(
            "As make submit would decide by this run alone, each fold by what was fitted on the "
            f"others: {with_interval(decided)}"
            if decided
            else ""
        ),
        missing=(
            f"{name_folds(run.missing).capitalize()} {'is' if len(run.missing) == 1 else 'are'} "
            f"not trained yet: {run.command()}"
            if run.missing
            else ""
        ),
        reading=(
            "How to read the interval: had other pictures of the same kind been collected, the "
            "score would have come out otherwise; an interval made like this one holds the true "
            "value about 19 times out of 20, where each class has some dozen groups of related "
            "pictures. It says nothing of what another seed would change."
        ),
        alarm=(
            "LEAKY FOLDS: these folds ignore groups, so the networks were trained on pictures that "
            "belong together with those that score them. This score flatters; it is for measuring "
            "the leak only."
            if run.folds.ignore_groups
            else ""
        ),
    )
