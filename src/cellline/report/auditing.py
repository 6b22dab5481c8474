"""The audit that folds.json records: what belongs together, what that flatters, and shift."""

import numpy as np

from cellline.audit.findings import read_findings
from cellline.audit.reference import Reference
from cellline.audit.words import (
    describe_counts,
    describe_reference,
    describe_shift,
)
from cellline.report.content import Block, Figure, Grid, Section, Table
from cellline.report.figures import draw_intervals
from cellline.report.tiles import make_tile
from cellline.report.words import count, sentence, split_cautions
from cellline.runs.run import Run

# Groups of related pictures to show, and pictures of each.
GROUPS, MEMBERS = 3, 6
# Statistics in the figure of the shift.
SHOWN = 8


def audit_section(run: Run) -> Section:
    """The counts, what they would flatter, and some groups to look at."""
    findings = read_findings(run.folds.record)
    counts, reference = findings.counts, findings.reference
    n_train, n_test = len(run.competition.train_ids), len(run.competition.test_ids)
    _, cautions = split_cautions(describe_counts(counts, n_train, n_test))
    rows = (
        ("an exact copy in training, flipped or rotated too", counts.copies, counts.test_copies),
        ("an overlap with a training picture", counts.overlapping, counts.test_overlapping),
        (
            f"either, directly or through others ({count(counts.groups, 'group')})",
            counts.grouped_samples,
            counts.test_grouped,
        ),
    )
    table = Table(
        "Pictures that belong together are one observation; a network that has seen one of them "
        "knows the others. If the test set has relatives in training, the leaderboard is kinder "
        "than a score of folds that keep them apart.",
        ("samples with", "in training", "in test"),
        [(name, share(train, n_train), share(test, n_test)) for name, train, test in rows],
        title="What belongs together",
    )
    cautions += [f"In the input, {line}." for line in run.competition.warnings]
    return Section(
        "audit", "Leak audit", [table, *show_reference(reference), *show_groups(run)], cautions
    )


def share(part: int, whole: int) -> str:
    """Format a part of a whole, such as '1,311 (16.6 %)'."""
    return f"{part:,} ({100 * part / whole:.1f} %)"


def show_reference(reference: Reference) -> list[Block]:
    """The effect of a split that ignores groups on a model that takes seconds."""
    rows = {"split naively": reference.naive, "split by groups": reference.grouped}
    return [
        Figure(
            "What a naive split would flatter",
            "BAC of a cheap model of image statistics. Both splits score it on the same samples, "
            "so the leak makes the difference.",
            draw_intervals("reference", rows, "BAC, %"),
        ),
        [sentence(line) for line in describe_reference(reference)],
    ]


def show_groups(run: Run) -> list[Block]:
    """A few groups of related pictures, which a naive split would tear apart."""
    group = run.folds.group
    grids = [
        Grid(
            f"Group {group[rows[0]]}, {run.class_names[run.competition.labels[rows[0]]]}: "
            f"{len(rows)} of its {np.sum(group == group[rows[0]])} samples",
            "",
            [make_tile(run, row, f"fold {run.folds.fold[row]}") for row in rows],
        )
        for rows in choose_groups(run)
    ]
    if not grids:
        return ["No two training pictures belong together."]
    return [
        "Some groups, those with most copies first: look for the same cell shifted, turned or "
        "mirrored, and for the same stains. Folds are given below each picture.",
        *grids,
    ]


def choose_groups(run: Run) -> list[np.ndarray]:
    """Rows of a few groups, each of another class; the most copies first, side by side."""
    group, labels, images = run.folds.group, run.competition.labels, run.competition.train_images
    _, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    related = np.flatnonzero(sizes[number] > 1)
    # Sums over pixels: equal for copies however they are turned, and hardly for others.
    sums = images[related].sum(axis=(2, 3), dtype=np.int64)
    keys = np.column_stack([number[related], sums])
    _, picture, alike = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    copied = alike[picture] > 1
    order = np.lexsort((picture, ~copied, number[related]))
    ends = np.cumsum(sizes[sizes > 1])[:-1]
    groups = [(copied[part].sum(), related[part]) for part in np.split(order, ends) if len(part)]
    chosen: dict[int, np.ndarray] = {}
    for _, rows in sorted(groups, key=lambda one: (-min(one[0], MEMBERS), len(one[1]))):
        chosen.setdefault(labels[rows[0]], rows[:MEMBERS])
    return list(chosen.values())[:GROUPS]


def likeness_section(run: Run) -> Section:
    """Adversarial validation: how well a classifier tells test from training samples."""
    name, title = "test", "Training against test"
    shift = read_findings(run.folds.record).shift
    lines, cautions = split_cautions(describe_shift(shift))
    if shift is None:
        return Section(name, title, lines)
    largest = sorted(shift.differences.items(), key=lambda item: -abs(item[1].value))[:SHOWN]
    figure = Figure(
        "Statistics that differ most",
        "Test mean minus training mean, in standard deviations of the training samples. An "
        "interval that includes 0 is no difference; among so many a few miss it by chance.",
        draw_intervals("shift", dict(largest), "difference, standard deviations", 0, factor=1),
    )
    return Section(name, title, [[*cautions, *lines], figure], cautions)
