"""The audit's findings in words: lines for a terminal or the report, some of them a Caution."""

from collections.abc import Sequence

import numpy as np

from cellline.audit.findings import Findings, read_findings
from cellline.audit.groups import Counts, Own, Trust
from cellline.audit.pictures import FOLDER
from cellline.audit.reference import Reference
from cellline.audit.shift import Shift
from cellline.audit.splitting import count_groups, find_missing
from cellline.data.competition import Competition
from cellline.data.ids import Id, parse_number
from cellline.data.images import name_channel
from cellline.data.problems import name_first
from cellline.errors import Caution
from cellline.host.names import align, name_classes
from cellline.runs.folds import Folds
from cellline.scoring.metrics import METRICS
from cellline.scoring.words import percent, points, with_interval

CONFLICTS = 10  # most groups of different labels that a line names
MOST_LINES, ENDS = 100, 5  # classes in a table; of more, so many at either end
UNEQUAL = 1.5  # largest over smallest fold, from which a line says so


def describe_dealt(folds: Folds) -> list[str]:
    """Everything that dealing found: the input's cautions, the audit, a table of the folds."""
    competition, findings = folds.competition, read_findings(folds.record)
    return [
        *competition.warnings,
        *describe_ranks(competition),
        *describe_related(findings, folds),
        *describe_reference(findings.reference),
        *(describe_shift(findings.shift) if competition.template else ["there is no test set"]),
        *describe_folds(folds),
    ]


def describe_related(findings: Findings, folds: Folds) -> list[str]:
    """Samples that belong together: by the audit, by the user's groups, and across folds."""
    competition = folds.competition
    n_train, n_test = len(competition.train_ids), len(competition.test_ids)
    return [
        *describe_counts(findings.counts, n_train, n_test),
        *describe_large(findings.counts, folds),
        *describe_trust(findings.trust, folds),
        *(describe_own(findings.own, folds) if findings.own else ()),
        *describe_torn(findings.torn, folds),
    ]


def describe_input(competition: Competition) -> list[str]:
    """Lines on how the input was read: tables, images, classes, metric, and the submission."""
    reading, n_train, n_test = competition.reading, len(competition.labels), competition.template
    _, n_channels, height, width = competition.train_images.shape
    channels = ", ".join(map(name_channel, competition.channels))
    places = [reading.train_images, *([reading.test_images] if n_test else [])]
    column = f", column {reading.label_column}" if reading.label_column else ""
    by_id = f" by {reading.id_column}" if reading.id_column else ""
    lines = [
        f"labels: {name_place(reading.labels)}{column}{by_id}; {n_train:,} training samples of "
        f"{len(competition.classes)} classes",
        f"images: {' and '.join(dict.fromkeys(map(name_place, places)))}"
        + f"; {n_channels} channel{'s' if n_channels > 1 else ''} ({channels}) of {width} x "
        f"{height} pixels",
    ]
    title = METRICS[competition.metric].title
    if not n_test:
        return [*lines, f"no template, so there is no test set; metric: {title} (--metric)"]
    asked = {
        "label": "a label",
        "probability": f"the probability of class {reading.positive}",
        "probabilities": "a probability for each class",
        "top5": "the five likeliest labels",
    }[competition.output]
    return [
        *lines,
        f"template: {reading.template}, {len(n_test):,} test samples; it asks for {asked} "
        f"(--output), scored by {title} (--metric)",
    ]


def name_place(place: str | None) -> str:
    """Name a folder or archive of images within the input folder."""
    return "the input folder" if place in (None, ".") else str(place)


def describe_ranks(competition: Competition) -> list[str]:
    """A Caution if quadratic kappa, which uses ranks, meets classes at unequal distances."""
    values = [parse_number(name) or 0 for name in competition.classes]
    if competition.metric != "quadratic_kappa" or len(set(np.diff(values))) < 2:
        return []
    return [
        Caution(
            f"quadratic kappa counts classes {name_first(competition.classes)} as ranks 0 to "
            f"{len(values) - 1}, because training lacks values between them; a competition that "
            "counts values scores differently"
        )
    ]


def describe_counts(counts: Counts, n_train: int, n_test: int) -> list[str]:
    """Samples found to show one picture, and a Caution if their labels differ."""
    lines = [f"no two of {n_train} training samples were found to show the same picture"]
    if counts.groups:
        lines = [
            f"groups of samples that show the same picture were found: {counts.groups}; they hold "
            f"{counts.grouped_samples} of {n_train} training samples: {counts.copies} have an "
            f"exact copy, {counts.overlapping} overlap with another"
        ]
    if counts.test_grouped:
        lines += [
            f"{counts.test_grouped} of {n_test} test samples were found to show a picture of the "
            f"training set: {counts.test_copies} have an exact copy there, "
            f"{counts.test_overlapping} overlap",
            "on these a leaderboard is kinder than a score on folds that keep groups together",
        ]
    elif n_test:
        lines.append(f"no test sample (of {n_test}) was found to share a picture with them")
    if counts.conflicts:
        named = "; ".join(name_first([*map(str, ids)]) for ids in counts.conflicts[:CONFLICTS])
        more = "; ..." if len(counts.conflicts) > CONFLICTS else ""
        lines.append(
            Caution(
                f"groups with different labels ({len(counts.conflicts)}): {named}{more}"
                f"{name_pictures(counts, 'mixed')}"
            )
        )
    return lines


def describe_own(own: Own, folds: Folds) -> list[str]:
    """Samples in the user's groups."""
    competition, columns = folds.competition, name_columns(folds)
    lines = [
        f"groups of two training samples or more by {columns}: {own.groups}; they hold "
        f"{own.samples} of {len(competition.train_ids)}"
    ]
    if own.n_test:
        lines.append(
            f"{own.n_test} of {len(competition.test_ids)} test samples are in a group with "
            f"training samples by {columns}: a leaderboard is kinder on these"
        )
    return lines


def name_columns(folds: Folds) -> str:
    """The columns of the user's groups."""
    return " and ".join(folds.competition.reading.group_column)


def describe_torn(torn: Sequence[Id], folds: Folds) -> list[str]:
    """A Caution for training samples with others of their group in another fold."""
    if not torn:
        return []
    same = f", the same {name_columns(folds)}" * bool(name_columns(folds))
    column = folds.competition.reading.folds_column
    why = (
        f"the folds of column {column} separate them; without --folds-column they stay together"
        if column
        else "the new test set connects them; in new folds (another --oof-dir) they stay together"
    )
    return [
        Caution(
            f"{len(torn)} training samples have a relative (copy, overlap{same}) in another fold: "
            f"{name_first([*map(str, torn)])}; the score is too high: {why}"
        )
    ]


def name_pictures(counts: Counts, kind: str) -> str:
    """The pictures of pairs whose names begin with `kind`, and the samples in each."""
    return "".join(
        f"; {FOLDER}/{pair.name} beside folds.csv shows {pair.ids[0]} and {pair.ids[1]}"
        for pair in counts.shown
        if pair.name.startswith(kind)
    )


def describe_large(counts: Counts, folds: Folds) -> list[str]:
    """A Caution for the largest groups, if they hold much of the samples or of a class."""
    if not counts.large:
        return []
    names, total = name_classes(folds.competition.classes), len(folds.fold)
    named = "; ".join(
        f"that of {group.name} has {group.samples} ({percent(group.samples / total)}), among them "
        f"{percent(group.share)} of class {names[group.label]}"
        for group in counts.large
    )
    without = (
        "; if they don't show one picture, deal folds without overlaps (--overlaps off)"
        if counts.overlapping
        else ""
    )
    return [Caution(f"groups are large: {named}{name_pictures(counts, 'large')}{without}")]


def describe_trust(trust: Trust, folds: Folds) -> list[str]:
    """The evidence for the overlaps, and a Caution if they were left out."""
    if trust.mode == "off":
        return ["overlaps were not looked for (--overlaps off): groups are exact copies only"]
    found = trust.found
    doubt = (
        f"labels differ in {found.mixed} of {found.pairs} overlaps, so about "
        f"{percent(found.false_share)} of them are false, or labels are wrong"
    )
    if trust.few is not None:
        label, groups = trust.few
        name = name_classes(folds.competition.classes)[label]
        fewer = f"; --folds {groups} keeps them" if groups > 1 else ""
        return [
            Caution(
                f"overlaps are left out, groups are exact copies only: {found.pairs} overlaps "
                f"would leave class {name} {groups} group{'s' * (groups > 1)} for "
                f"{folds.n_folds} folds; if they are true, the score is too high{fewer}"
            )
        ]
    if trust.strictness is None:
        return [
            Caution(
                f"overlaps are left out, groups are exact copies only: {doubt}; if labels are "
                "wrong, samples of one picture are in several folds and the score is too high"
            )
        ]
    lines = [
        "overlaps can be missed: in a test, 86 % of those that share a quarter of their area were "
        "found, and 17 % of those that share a tenth"
    ]
    if trust.strictness:
        lines.insert(
            0,
            f"{doubt}; only the {trust.kept.pairs} that pass a stricter test are kept, in which "
            f"labels differ in {trust.kept.mixed}; the test omits some true ones",
        )
    return lines


def describe_reference(reference: Reference) -> list[str]:
    """Effect of a split that ignores copies on a model of image statistics."""
    scores = (
        "a model of image statistics has a balanced accuracy of "
        f"{with_interval(reference.naive)} split naively and {with_interval(reference.grouped)} by "
        f"groups, {points(reference.difference)} points"
    )
    if not reference.flatters:
        return [f"no leak can be detected: {scores}"]
    lines = [f"a split that ignores copies would flatter: {scores}"]
    leak, same = reference.leak, reference.same_by_groups
    if leak is not None and same is not None:
        # The two kinds differ in more than the leak: each is compared with itself.
        lines.append(
            f"the {leak.n_leaked} samples with others of their group in another fold score "
            f"{with_interval(leak.leaked)} split naively and {with_interval(same.leaked)} by "
            f"groups, the {leak.n_rest} others {with_interval(leak.rest)} and "
            f"{with_interval(same.rest)}"
        )
        if reference.test_share:
            lines.append(
                f"on a test set of which {percent(reference.test_share)} have others in training, "
                f"it would score {with_interval(leak.expected(reference.test_share))}"
            )
    return lines


def describe_shift(shift: Shift | None) -> list[str]:
    """Differences between training and test samples, the evidence, and advice."""
    if shift is None:
        return ["there are too few groups to tell if the test set looks like the training set"]
    auc = f"AUC {shift.auc.value:.2f} [{shift.auc.low:.2f}, {shift.auc.high:.2f}]"
    named = name_first(
        [f"{name} ({shift.differences[name].value:+.2f} SD)" for name in shift.differing]
    )
    if not shift.shifted:
        return [f"training and test samples can't be told apart: {auc}, by image statistics alone"]
    most = f"most in {named}" if named else "in how statistics combine, though in no single mean"
    return [
        Caution(f"the test set looks different: {auc}; {most}"),
        "expect a lower score there than the OOF score, and augment what differs (--gain and "
        "--offset for brightness)",
    ]


def describe_folds(folds: Folds) -> list[str]:
    """A table of classes by folds, one line each, and a Caution for what they can't measure."""
    groups = count_groups(folds.competition.labels, folds.group)
    lines = tabulate_folds(folds, groups)
    if folds.n_folds < (asked := folds.record["folds"]):
        lines.append(
            Caution(
                f"{folds.n_folds} folds were dealt, not {asked}: there are only {folds.n_folds} "
                "groups of training samples (samples of one picture, or with one value in "
                "--group-column)"
            )
        )
    return [*lines, *describe_absent(folds, groups), *describe_unequal(folds)]


def tabulate_folds(folds: Folds, groups: np.ndarray) -> list[str]:
    """Samples of a class by fold, in all, and its `groups` [class]; of many classes the ends."""
    competition = folds.competition
    heads = [*(f"fold {k}" for k in folds.numbers), "samples", "groups"]
    margin, *names = align(["", *name_classes(competition.classes)])
    lines = [margin + "".join(f"{head:>9}" for head in heads)]
    of_class = np.bincount(competition.labels)
    shown = np.arange(len(of_class))
    if len(shown) > MOST_LINES:
        by_size = np.argsort(-of_class, kind="stable")
        shown = np.concatenate([by_size[:ENDS], by_size[-ENDS:]])
        lines.insert(0, f"the {ENDS} largest and the {ENDS} smallest of {len(of_class)} classes:")
    for index in shown:
        counts = np.bincount(folds.fold[competition.labels == index], minlength=folds.n_folds)
        cells = [*counts, of_class[index], groups[index]]
        lines.append(names[index] + "".join(f"{cell:9d}" for cell in cells))
    return lines


def describe_absent(folds: Folds, groups: np.ndarray) -> list[Caution]:
    """A Caution for classes of too few `groups` [class], and one for others that folds lack."""
    competition = folds.competition
    names = name_classes(competition.classes)
    cautions = []
    small = groups < folds.n_folds
    if small.any():
        few = [f"{names[label]} has {groups[label]}" for label in np.flatnonzero(small)]
        alone = "; a class with one is never both learned and scored" * bool(groups.min() == 1)
        cautions.append(
            Caution(
                f"classes with fewer groups than the {folds.n_folds} folds ({len(few)}): "
                f"{name_first(few)}; a fold without a class can't score its recall{alone}"
            )
        )
    missing = [
        f"{names[label]} in fold {number}"
        for label, number in find_missing(competition.labels, folds.fold, folds.n_folds)
        if not small[label]
    ]
    if missing:
        own = competition.own_fold is not None
        advice = "" if own else "; with fewer folds (--folds), each may have all classes"
        cautions.append(
            Caution(
                f"some folds have no sample of a class ({len(missing)}): {name_first(missing)}"
                f"{advice}"
            )
        )
    return cautions


def describe_unequal(folds: Folds) -> list[Caution]:
    """A Caution if folds differ much in size."""
    sizes = np.bincount(folds.fold, minlength=folds.n_folds)
    if sizes.max() <= UNEQUAL * sizes.min():
        return []
    largest = np.unique(folds.group, return_counts=True)[1].max()
    columns = f" (by copies, overlaps and {name_columns(folds)})" * bool(name_columns(folds))
    return [
        Caution(
            f"folds are unequal: they have {sizes.min()} to {sizes.max()} samples, and the largest "
            f"group{columns} has {largest}; scores of single folds differ for that reason alone"
        )
    ]
