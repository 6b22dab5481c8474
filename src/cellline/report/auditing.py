"""What belongs together in the data, and what a split that ignores it would flatter."""

import numpy as np

from cellline.audit.findings import read_findings
from cellline.audit.reference import Reference
from cellline.audit.words import describe_counts, describe_reference, describe_run_leak
from cellline.report.content import Block, Bullets, Figure, Grid, Section, Table, Text
from cellline.report.figures import draw_intervals
from cellline.report.tiles import show
from cellline.report.words import count, sentence, split_warnings
from cellline.runs.run import Run

# Of groups of pictures that belong together: how many are shown, and of each how many samples.
GROUPS, MEMBERS = 3, 6


def audit_section(run: Run) -> Section:
    """The counts, what they would flatter, and some groups to look at."""
    findings = read_findings(run.folds.record)
    counts = findings.counts
    n_train, n_test = len(run.competition.train_ids), len(run.competition.test_ids)
    _, warnings = split_warnings(describe_counts(counts, n_train, n_test))
    blocks: list[Block] = [
        Table(
            "Pictures that belong together are one observation; a network that has seen one of "
            "them knows the others. In the test set such samples make a leaderboard kinder than a "
            "score of folds that keep them apart.",
            ("samples with", "in training", "in test"),
            [
                (
                    "an exact copy in training, also turned or mirrored",
                    share(counts.copies, n_train),
                    share(counts.test_copies, n_test),
                ),
                (
                    "an overlap with a training picture",
                    share(counts.overlapping, n_train),
                    share(counts.test_overlapping, n_test),
                ),
                (
                    f"either, directly or through others ({count(counts.groups, 'group')})",
                    share(counts.grouped_samples, n_train),
                    share(counts.test_grouped, n_test),
                ),
            ],
            title="What belongs together",
        )
    ]
    blocks += show_reference(findings.reference)
    blocks += show_leak(run, findings.reference.test_share)
    warnings += [f"Of the input's {line}." for line in run.competition.warnings]
    return Section("audit", "Leak audit", [*blocks, *show_groups(run)], warnings)


def show_reference(reference: Reference) -> list[Block]:
    """What a split that ignores groups would do to a model that takes seconds."""
    rows = {"split naively": reference.naive, "split by groups": reference.grouped}
    for how, kind in (("naively", reference.leak), ("by groups", reference.same_by_groups)):
        if kind is not None:
            rows[f"{how}: with relatives"] = kind.leaked
            rows[f"{how}: without"] = kind.rest
    return [
        Figure(
            "What ignoring it would flatter",
            "BAC of a cheap model of image statistics: the two splits grade it on the same "
            "samples, so that the distance between them is the leak's.",
            draw_intervals("reference", list(rows), "BAC", list(rows.values()), "BAC, %"),
        ),
        Bullets([sentence(line) for line in describe_reference(reference)]),
    ]


def show_leak(run: Run, test_share: float) -> list[Block]:
    """What the run itself gained from folds that ignore groups; nothing for folds that don't."""
    lines = describe_run_leak(run.oof, test_share)
    if lines:
        lines[0] = f"these folds ignore groups; of this run, {lines[0]}"
    return [Text(sentence(line)) for line in lines]


def share(part: int, whole: int) -> str:
    """Such as '1,311 (16.6 %)'."""
    return f"{part:,} ({100 * part / whole:.1f} %)"


def show_groups(run: Run) -> list[Block]:
    """A few groups of related pictures: what a split that ignores them would tear apart."""
    group = run.folds.group
    chosen = choose_groups(run)
    if not chosen:
        return [Text("No two training pictures belong together.")]
    grids = []
    for rows in chosen:
        name, label = group[rows[0]], run.competition.labels[rows[0]]
        grids.append(
            Grid(
                f"Group {name}, {run.class_names[label]}: {len(rows)} of its "
                f"{np.sum(group == name)} samples",
                "",
                [show(run, int(row), f"fold {run.folds.fold[row]}") for row in rows],
            )
        )
    return [
        Text(
            "Some groups, those with copies first: look for the same cell shifted, turned or "
            "mirrored, and for the same stains. Their folds are below them."
        ),
        *grids,
    ]


def choose_groups(run: Run) -> list[np.ndarray]:
    """Rows of a few groups, each of another class where there are as many; copies side by side.

    Those are preferred in which most can be seen at once: of the samples that are shown most have
    a copy, then of most samples that are shown whole.
    """
    group, labels, images = run.folds.group, run.competition.labels, run.competition.train_images
    names, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    related = np.flatnonzero(sizes[number] > 1)
    # Sums over pixels: the same for copies however they are turned, and hardly for others.
    sums = images[related].sum(axis=(2, 3), dtype=np.int64)
    keys = np.column_stack([number[related], sums])
    _, kind, alike = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    copied = np.bincount(number[related], alike[kind] > 1, minlength=len(names))
    candidates = np.flatnonzero(sizes > 1)
    fits = np.minimum(sizes, MEMBERS)[candidates]
    order = candidates[
        np.lexsort((sizes[candidates], -fits, -np.minimum(copied[candidates], MEMBERS)))
    ]
    first = labels[np.unique(number, return_index=True)[1]][order]
    _, of_class = np.unique(first, return_index=True)
    chosen = [*order[np.sort(of_class)], *np.delete(order, of_class)][:GROUPS]
    by_kind = related[np.argsort(kind, kind="stable")]
    return [by_kind[number[by_kind] == name][:MEMBERS] for name in chosen]
