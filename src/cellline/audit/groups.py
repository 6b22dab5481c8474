"""Groups of samples that show one picture, and how many training and test samples are in them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellline.audit.copies import Copies, find_copies
from cellline.data.competition import Competition
from cellline.data.ids import Id
from cellline.runs.folds import Pairs


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


@dataclass(frozen=True)
class Audit:
    """Groups of samples that show one picture, and their counts."""

    group: np.ndarray
    """int64 or text [n]: the first id in each training sample's group."""
    test_group: np.ndarray
    """Same of test samples: a training id, if the group has one."""
    pairs: Pairs
    counts: Counts


def audit_copies(competition: Competition, scratch: Path) -> Audit:
    """Group all samples, and count them; the folder `scratch` holds a temporary file."""
    ids, labels = competition.train_ids, competition.labels
    n = len(ids)
    copies = find_copies(competition.train_images, competition.test_images, scratch=scratch)
    # Training rows come first: the smallest row of a group with a training sample is below n.
    group, test_group = np.split(np.concatenate([ids, competition.test_ids])[copies.group], [n])
    _, sizes = np.unique(group, return_counts=True)
    # Ids ascend with rows.
    kinds = np.unique(np.stack([copies.group[:n], labels]), axis=1)
    first, n_labels = np.unique(kinds[0], return_counts=True)
    copied, overlapping = find_relatives(copies, n)
    counts = Counts(
        groups=int(np.sum(sizes > 1)),
        grouped_samples=int(sizes[sizes > 1].sum()),
        copies=int(copied[:n].sum()),
        overlapping=int(overlapping[:n].sum()),
        test_copies=int(copied[n:].sum()),
        test_overlapping=int(overlapping[n:].sum()),
        test_grouped=int(np.sum(copies.group[n:] < n)),
        conflicts=tuple(tuple(ids[group == ids[row]].tolist()) for row in first[n_labels > 1]),
    )
    return Audit(group, test_group, Pairs(copies.exact, copies.overlaps), counts)


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
