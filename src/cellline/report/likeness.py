"""The comparison of training and test images."""

from cellline.audit.findings import read_findings
from cellline.audit.words import describe_shift
from cellline.report.content import Block, Bullets, Figure, Section, Text
from cellline.report.figures import draw_intervals
from cellline.report.words import split_warnings
from cellline.runs.run import Run

# Statistics in the figure.
SHOWN = 8


def likeness_section(run: Run) -> Section:
    """Adversarial validation: can a classifier tell test from training samples, and by what?"""
    name, title = "test", "Training against test"
    shift = read_findings(run.folds.record).shift
    lines, warnings = split_warnings(describe_shift(shift))
    if shift is None:
        return Section(name, title, [Text(line) for line in lines])
    shown = sorted(shift.differences, key=lambda name: -abs(shift.differences[name].value))[:SHOWN]
    blocks: list[Block] = [
        Bullets([*warnings, *lines]),
        Figure(
            "Statistics that differ most",
            "Test mean less training mean, in standard deviations of the training samples. A line "
            "that crosses 0 is no difference; among so many statistics a few miss it by chance.",
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
    ]
    return Section(name, title, blocks, warnings)
