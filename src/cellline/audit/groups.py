"""Pictures that several samples show, how far they can be trusted, and groups of samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cellline.audit.copies import Copies, find_copies
from cellline.audit.overlaps import STRICTEST
from cellline.audit.splitting import count_groups, list_classes
from cellline.data.competition import Competition
from cellline.data.groups import connect
from cellline.data.ids import Id
from cellline.runs.folds import Pairs

# Share of false pairs from which the overlaps are not believed. On cell-lines it is 0; on digits
# enlarged to 64 pixels 39 %.
MOST_FALSE = 0.01
# Chance that so few false pairs all agree, above which their agreement proves nothing.
MOST_BY_CHANCE = 0.05
# A group above either share is named, if it has FEWEST samples. The largest group of cell-lines has
# 1 % of the samples and 5 % of its class.
LARGE, LARGE_IN_CLASS, FEWEST = 1 / 20, 1 / 5, 10
NAMED = 3  # large groups to name
# Pictures of a pair of the largest of these, and of mixed groups.
LARGEST, MIXED = "large.png", ("mixed-1.png", "mixed-2.png", "mixed-3.png")

OverlapMode = Literal["auto", "off"]


@dataclass(frozen=True)
class Agreement:
    """Accepted pairs of training samples, and how many of them the labels contradict."""

    pairs: int = 0
    mixed: int = 0
    """Pairs whose labels differ."""
    false_share: float = 0.0
    """Share of false pairs: that of mixed ones, divided by its value for samples paired at random.

    That value is one minus the sum of the squared class shares.
    """


@dataclass(frozen=True)
class Trust:
    """The evidence for the overlaps, and what became of them."""

    mode: OverlapMode
    copies: Agreement
    found: Agreement
    """All overlaps that the search accepted."""
    kept: Agreement
    """Overlaps that the groups are made of."""
    strictness: int | None
    """Number of stricter tests that these had to pass, see `overlaps.Found`; None if left out."""
    few: tuple[int, int] | None = None
    """Class, and the groups it would have, if the overlaps are left out because these are fewer
    than the folds."""

    @property
    def trusted(self) -> bool:
        """True if labels differ in less than one in a hundred of the pairs that make the groups."""
        mixed = self.copies.mixed + self.kept.mixed
        return mixed == 0 or mixed < MOST_FALSE * (self.copies.pairs + self.kept.pairs)


@dataclass(frozen=True)
class Large:
    """A group that has much of the training samples, or of one class."""

    name: Id
    samples: int
    label: int
    """The class of most of its samples."""
    share: float
    """Share of that class that is in the group."""


@dataclass(frozen=True)
class Shown:
    """A pair of training samples to look at, as one picture."""

    name: str
    """Name of the picture, without a folder."""
    ids: tuple[Id, ...]


@dataclass(frozen=True)
class Counts:
    """Numbers of samples that show one picture with others."""

    groups: int
    """Groups with two training samples or more."""
    grouped_samples: int
    """Training samples in them."""
    copies: int
    """Training samples that have an exact copy, also flipped or rotated, among the others."""
    overlapping: int
    """Training samples that overlap with another one."""
    test_copies: int
    """Test samples with an exact copy in training."""
    test_overlapping: int
    """Test samples that overlap with a training sample."""
    test_grouped: int
    """Test samples in a group with a training sample."""
    conflicts: tuple[tuple[Id, ...], ...]
    """The ids of each group whose samples have different labels."""
    large: tuple[Large, ...] = ()
    """The largest groups, if they are suspiciously large."""
    shown: tuple[Shown, ...] = ()
    """A pair of the largest of these, and of some groups whose samples have different labels."""


@dataclass(frozen=True)
class Own:
    """Groups of the user's own, such as patients, with two training samples or more."""

    groups: int
    samples: int
    """Training samples in them."""
    n_test: int
    """Test samples whose group of the user's has a training sample."""


@dataclass(frozen=True)
class Audit:
    """Pairs of samples that show one picture, counts of them, and groups."""

    group: np.ndarray
    """int64 [n + m]: number of each training and test sample's group, in the order of first ids."""
    first: np.ndarray
    """int64 or text [n]: the first id in each training sample's group, see `Dealt.group`."""
    pairs: Pairs
    counts: Counts
    trust: Trust
    own: Own | None


def audit_copies(
    competition: Competition, scratch: Path, n_folds: int, mode: OverlapMode = "auto"
) -> Audit:
    """Find the samples that show one picture, count them, and group all for `n_folds` folds.

    The folder `scratch` holds a temporary file. The mode "off" doesn't look for overlaps.
    """
    ids, labels = competition.train_ids, competition.labels
    n = len(ids)
    parts = (competition.train_images, competition.test_images)
    found = find_copies(*parts, scratch=scratch, overlaps=mode == "auto")
    copies, trust = choose_overlaps(found, labels, n_folds, mode)
    edges, own = [copies.exact, copies.overlaps], None
    if competition.own_group is not None:
        _, first, number = np.unique(competition.own_group, return_index=True, return_inverse=True)
        edges.append(np.stack([first[number], np.arange(len(number))], axis=1))
        own = count_own(number, n)
    joined = connect(len(copies.group), *edges)
    # A training and a test sample may have the same id, so ids can't name the groups of both.
    order = np.argsort(np.concatenate([ids, competition.test_ids]), kind="stable")
    group = np.argsort(order)[joined]
    # From here on pictures, without the user's groups.
    _, sizes = np.unique(copies.group[:n], return_counts=True)
    # Ids ascend with rows.
    kinds = np.unique(np.stack([copies.group[:n], labels]), axis=1)
    first, n_labels = np.unique(kinds[0], return_counts=True)
    mixed = first[n_labels > 1]
    large = find_large(copies.group[:n], labels, ids)
    copied, overlapping = find_relatives(copies, n)
    counts = Counts(
        groups=int(np.sum(sizes > 1)),
        grouped_samples=int(sizes[sizes > 1].sum()),
        copies=int(copied[:n].sum()),
        overlapping=int(overlapping[:n].sum()),
        test_copies=int(copied[n:].sum()),
        test_overlapping=int(overlapping[n:].sum()),
        test_grouped=int(np.sum(copies.group[n:] < n)),
        conflicts=tuple(tuple(ids[copies.group[:n] == row].tolist()) for row in mixed),
        large=tuple(large.values()),
        shown=(
            *(Shown(LARGEST, show(copies, row, ids)) for row in list(large)[:1]),
            *(
                Shown(name, show(copies, row, ids, labels))
                for name, row in zip(MIXED, mixed.tolist(), strict=False)
            ),
        ),
    )
    pairs = Pairs(copies.exact, copies.overlaps)
    # Training rows come first: the smallest row of a group with a training sample is below n.
    return Audit(group, ids[joined[:n]], pairs, counts, trust, own)


def count_own(number: np.ndarray, n_train: int) -> Own:
    """Count the user's groups, numbered from 0 without a gap, of training and test samples."""
    sizes = np.bincount(number[:n_train], minlength=number.max() + 1)
    several = sizes[sizes > 1]
    return Own(len(several), int(several.sum()), int(np.sum(sizes[number[n_train:]] > 0)))


def choose_overlaps(
    copies: Copies, labels: np.ndarray, n_folds: int, mode: OverlapMode
) -> tuple[Copies, Trust]:
    """Keep the overlaps of the loosest test whose pairs agree in their labels.

    Leave all out if no test has such pairs, or if they leave a class fewer groups than folds that
    has enough without them.
    """
    exact, found = (count_mixed(pairs, labels) for pairs in (copies.exact, copies.overlaps))
    few, nothing = None, copies.keep(copies.strictness < 0)
    if mode == "auto":
        for strictness in range(STRICTEST + 1):
            chosen = copies.keep(copies.strictness >= strictness)
            kept = count_mixed(chosen.overlaps, labels)
            # False pairs would all agree by chance too often to prove anything.
            if strictness and (1 - found.mixed / found.pairs) ** kept.pairs > MOST_BY_CHANCE:
                break
            if kept.false_share < MOST_FALSE:
                groups = count_groups(labels, chosen.group)
                lost = (groups < n_folds) & (count_groups(labels, nothing.group) >= n_folds)
                if not lost.any():
                    return chosen, Trust(mode, exact, found, kept, strictness)
                fewest = int(np.where(lost, groups, n_folds).argmin())
                few = fewest, int(groups[fewest])
                break
    return nothing, Trust(mode, exact, found, Agreement(), None, few)


def count_mixed(pairs: np.ndarray, labels: np.ndarray) -> Agreement:
    """Agreement of the labels, int [n], in pairs [k, 2] of rows, of those below n."""
    first, second = labels[pairs[(pairs < len(labels)).all(axis=1)]].T
    by_chance = 1 - np.square(np.bincount(labels) / len(labels)).sum()
    mixed = int(np.sum(first != second))
    share = min(mixed / len(first) / float(by_chance), 1.0) if mixed else 0.0
    return Agreement(len(first), mixed, share)


def find_large(group: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> dict[int, Large]:
    """The largest of the suspicious groups, by the first row of each."""
    names, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    classes, counts = list_classes(labels, number)
    of_class = np.bincount(labels)
    shares = [count / of_class[held] for held, count in zip(classes, counts, strict=True)]
    largest_share = np.array([share.max() for share in shares])
    suspicious = (sizes > LARGE * len(labels)) | (largest_share > LARGE_IN_CLASS)
    order = np.argsort(-sizes, kind="stable")
    large = {}
    for k in order[(suspicious & (sizes >= FEWEST))[order]][:NAMED]:
        most = counts[k].argmax()
        large[int(names[k])] = Large(
            ids[names[k]].item(), int(sizes[k]), int(classes[k][most]), float(shares[k][most])
        )
    return large


def show(
    copies: Copies, name: int, ids: np.ndarray, labels: np.ndarray | None = None
) -> tuple[Id, ...]:
    """Two training samples of a group: a pair that was accepted, with different labels if given.

    The first two of the group, or the first with each label, if test samples connect it.
    """
    rows = np.flatnonzero(copies.group[: len(ids)] == name)
    pairs = np.concatenate([copies.overlaps, copies.exact])
    pairs = pairs[(copies.group[pairs[:, 0]] == name) & (pairs < len(ids)).all(axis=1)]
    if labels is not None:
        pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
        rows = rows[np.sort(np.unique(labels[rows], return_index=True)[1])]
    chosen = pairs[0] if len(pairs) else rows[:2]
    return tuple(ids[chosen].tolist())


def find_relatives(copies: Copies, n_train: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples, bool [row], with an exact copy, and with an overlap, among others in training."""
    rows = np.arange(len(copies.group))
    # The first of exact copies stands for all of them, also in `copies.overlaps`.
    picture = rows.copy()
    picture[copies.exact[:, 1]] = copies.exact[:, 0]
    in_training = np.bincount(picture[:n_train], minlength=len(rows))
    touched = np.zeros(len(rows), dtype=bool)
    for here, there in (copies.overlaps.T, copies.overlaps.T[::-1]):
        touched[here[in_training[there] > 0]] = True
    return in_training[picture] > (rows < n_train), touched[picture]
