"""The audit that folds.json records: what belongs together, what that flatters, and shift."""

import numpy as np

from cellline.audit.findings import read_findings
from cellline.audit.words import (
    describe_reference,
    describe_related,
    describe_shift,
)
from cellline.report.content import Block, Figure, Grid, Section
from cellline.report.figures import draw_intervals
from cellline.report.tiles import make_tile
from cellline.report.words import sentence, split_cautions
from cellline.runs.run import Run

# Groups of related pictures to show, and pictures of each.
GROUPS, MEMBERS = 8, 4
# Statistics in the figure of the shift.
SHOWN = 8


def audit_section(run: Run) -> Section:
    """The counts, what they would flatter, and some groups to look at."""
    findings = read_findings(run.folds.record)
    lines, cautions = split_cautions(describe_related(findings, run.folds))
    lines += map(sentence, describe_reference(findings.reference))
    cautions += [f"In the input, {line}." for line in run.competition.warnings]
    return Section("audit", "Leak audit", [lines, *show_groups(run)], cautions)


def show_groups(run: Run) -> list[Block]:
    """Some groups of related pictures: the smallest, which a glance can check."""
    ids = run.competition.train_ids
    picture = run.folds.picture[: len(ids)]
    first, group, sizes = np.unique(picture, return_inverse=True, return_counts=True)
    order = np.argsort(sizes, kind="stable")
    smallest = order[sizes[order] > 1][:GROUPS]
    if not len(smallest):
        return []
    tiles = []
    for one in smallest:
        for row in np.flatnonzero(group == one)[:MEMBERS]:
            label = run.class_names[run.competition.labels[row]]
            tiles.append(make_tile(run, row, f"group {ids[first[one]]}", label))
    note = "Look for the same cell shifted, turned or mirrored, and for the same stains."
    return [Grid("The smallest groups", note, tiles)]


def likeness_section(run: Run) -> Section:
    """Adversarial validation: how well a classifier tells test from training samples.

    Empty if the test set is too small for it.
    """
    name, title = "test", "Training against test"
    shift = read_findings(run.folds.record).shift
    if shift is None:
        return Section(name, title, [])
    lines, cautions = split_cautions(describe_shift(shift))
    largest = sorted(shift.differences.items(), key=lambda item: -abs(item[1].value))[:SHOWN]
    figure = Figure(
        "Statistics that differ most",
        "Test mean minus training mean, in standard deviations of the training samples. An "
        "interval that includes 0 shows no difference; among so many, a few exclude it by chance.",
        draw_intervals("shift", dict(largest), "difference, standard deviations", 0, factor=1),
        "; ".join(f"{key} {one.value:+.2f}" for key, one in largest) + ".",
    )
    return Section(name, title, [[*cautions, *lines], figure], cautions)
