"""Whether the test set looks like the training set: its images, and its mix of classes."""

import math

import numpy as np

from cellline.audit.shift import Shift
from cellline.report.class_mix import ClassMix, estimate_mix
from cellline.report.content import Block, Bullets, Columns, Figure, Section, Table, Text
from cellline.report.figures import draw_intervals
from cellline.report.run import Run
from cellline.report.words import name_folds, split_warnings
from cellline.scoring.metrics import Estimate, percent

# Statistics in the figure.
SHOWN = 8


def likeness_section(run: Run) -> Section:
    """Adversarial validation, and the class mix behind the test predictions."""
    blocks, warnings = show_shift(run)
    mix = measure_mix(run)
    if mix is None and run.test:
        blocks.append(
            Text(
                "The test set's class mix can't be told: what is predicted of it is of folds that "
                "lack a class. Train more folds, then make submit."
            )
        )
    elif mix is None:
        blocks.append(
            Text(
                "The test set's class mix is not known yet: make submit predicts the test set, and "
                "this page then says whether the predictions fit the training mix."
            )
        )
    else:
        _, odd = split_warnings(mix.describe(run.classes))
        blocks += show_mix(run, mix, odd)
        warnings += odd
    return Section("test", "Training against test", blocks, warnings)


def show_shift(run: Run) -> tuple[list[Block], list[str]]:
    """Whether a classifier tells test from training samples, and by what; warnings beside."""
    record = run.record["audit"]["shift"]
    if record is None:
        return [Text("The test set is too small to tell whether its images look different.")], []
    shift = Shift.from_record(record)
    lines, warnings = split_warnings(shift.describe())
    shown = sorted(shift.differences, key=lambda name: -abs(shift.differences[name].value))[:SHOWN]
    return [
        Bullets([*warnings, *lines]),
        Figure(
            "Statistics that differ most",
            "Test mean less training mean, in standard deviations of the training samples: a line "
            "that crosses 0 is no difference; of so many statistics a few miss it by chance.",
            draw_intervals(
                "shift",
                shown,
                "difference",
                [shift.differences[name] for name in shown],
                "difference, standard deviations",
                line=(0, "no difference"),
                factor=1,
            ),
        ),
    ], warnings


def measure_mix(run: Run) -> ClassMix | None:
    """The mix behind the test predictions of the folds that have any; None when none has.

    Nor is it known when those folds lack a class: what is taken for what can't be told then.
    """
    seen = np.isin(run.fold, list(run.test))
    if len(np.unique(run.oof.labels[seen])) < len(run.classes):
        return None
    return estimate_mix(
        run.oof.labels[seen],
        run.predicted[seen],
        run.groups[seen],
        [prob.argmax(1) for prob in run.test.values()],
        len(run.classes),
    )


def show_mix(run: Run, mix: ClassMix, warnings: list[str]) -> list[Block]:
    """Predicted shares beside what explains them, and the estimate by class."""
    ends = zip(mix.predicted, mix.low, mix.high, strict=True)
    explained = [Estimate(value, low, high, math.nan) for value, low, high in ends]
    verdict = " ".join(warnings) if warnings else "Every class is within its range."
    return [
        Text(
            f"Class mix of the {len(run.competition.test_ids):,} test samples, from the test "
            f"predictions of {name_folds(list(run.test))} and what their networks confuse. "
            f"{verdict} BAC does not depend on the mix."
        ),
        Columns(
            [
                Figure(
                    "Predicted share of the test set",
                    "A dot off its line is what confusion can't explain if the test set has the "
                    "mix of the training set.",
                    draw_intervals(
                        "mix", run.classes, "predicted", explained, "share of samples, %"
                    ),
                ),
                Table(
                    "The estimated mix is the predicted one with the confusion taken out, with its "
                    "95 % interval.",
                    ("class", "training", "predicted", "estimated"),
                    [
                        (
                            name,
                            percent(mix.training[k]),
                            percent(mix.predicted[k]),
                            percent(mix.mix[k], (mix.mix_low[k], mix.mix_high[k])),
                        )
                        for k, name in enumerate(run.classes)
                    ],
                    title="Shares by class",
                ),
            ]
        ),
    ]
