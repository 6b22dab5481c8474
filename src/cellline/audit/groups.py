"""The leak audit: which samples are one picture, and what that means for a split."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from cellline.audit.copies import Copies, find_copies
from cellline.data.competition import Competition
from cellline.data.ids import Id
from cellline.errors import Caution


@dataclass(frozen=True)
class Counts:
    """How many samples show one picture with others."""

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

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """What `record` gave; it may hold more beside it, as in folds.json."""
        counts = {field.name: record[field.name] for field in fields(cls)}
        return cls(**{**counts, "conflicts": tuple(map(tuple, counts["conflicts"]))})

    def record(self) -> dict[str, Any]:
        """For folds.json."""
        return asdict(self)

    def describe(self, n_train: int, n_test: int) -> list[str]:
        """What was found, a line each."""
        lines = [
            f"{self.groups} groups of pictures that belong together hold {self.grouped_samples} of "
            f"{n_train} training samples: {self.copies} have an exact copy, {self.overlapping} "
            "overlap with another",
            f"{self.test_grouped} of {n_test} test samples belong together with training samples: "
            f"{self.test_copies} have an exact copy there, {self.test_overlapping} overlap",
        ]
        if self.test_grouped:
            lines.append(
                "on those a leaderboard is kinder than a score of folds that keep them apart"
            )
        if self.conflicts:
            named = "; ".join(", ".join(map(str, ids)) for ids in self.conflicts[:10])
            more = " ..." if len(self.conflicts) > 10 else ""
            lines.append(
                Caution(f"groups that hold different labels ({len(self.conflicts)}): {named}{more}")
            )
        return lines


@dataclass(frozen=True)
class Audit:
    """Groups of samples that show one picture, and their counts."""

    group: np.ndarray
    """int64 or text [n]: of each training sample the first id in its group."""
    test_group: np.ndarray
    """The same kind [m]: of each test sample its group's first training id, or test id if none."""
    counts: Counts


def audit_copies(competition: Competition, scratch: Path) -> Audit:
    """Group the training samples, and count what they share with each other and the test set.

    What is too large for memory is in a file in the folder `scratch` meanwhile.
    """
    ids, labels = competition.train_ids, competition.labels
    n = len(ids)
    copies = find_copies(competition.train_images, competition.test_images, scratch=scratch)
    # Rows number the training samples first: a group with one of them is named by one of them.
    group, test_group = np.split(np.concatenate([ids, competition.test_ids])[copies.group], [n])
    _, sizes = np.unique(group, return_counts=True)
    # Ids ascend with rows.
    kinds = np.unique(np.stack([copies.group[:n], labels]), axis=1)
    first, n_labels = np.unique(kinds[0], return_counts=True)
    conflicts = tuple(tuple(ids[group == ids[row]].tolist()) for row in first[n_labels > 1])
    counts = Counts(
        groups=int(np.sum(sizes > 1)),
        grouped_samples=int(sizes[sizes > 1].sum()),
        copies=count_copied(copies, n, of_test=False),
        overlapping=count_overlapping(copies, n, of_test=False),
        test_copies=count_copied(copies, n, of_test=True),
        test_overlapping=count_overlapping(copies, n, of_test=True),
        # A group with a training sample is named by its first one, whose row is below n.
        test_grouped=int(np.sum(copies.group[n:] < n)),
        conflicts=conflicts,
    )
    return Audit(group, test_group, counts)


def pictures(copies: Copies, n_rows: int) -> np.ndarray:
    """int64 [n_rows]: the first row that is an exact copy of each row, its own when alone."""
    picture = np.arange(n_rows)
    picture[copies.exact[:, 1]] = copies.exact[:, 0]
    return picture


def count_copied(copies: Copies, n_train: int, *, of_test: bool) -> int:
    """Samples of one part with an exact copy among the (other) training samples."""
    picture = pictures(copies, len(copies.group))
    in_training = np.bincount(picture[:n_train], minlength=len(picture))
    rows = np.arange(n_train, len(picture)) if of_test else np.arange(n_train)
    return int(np.sum(in_training[picture[rows]] > (0 if of_test else 1)))


def count_overlapping(copies: Copies, n_train: int, *, of_test: bool) -> int:
    """Samples of one part that overlap with a training sample that is not their copy.

    Only the first of exact copies takes part in `copies.overlaps`: it stands for all of them.
    """
    picture = pictures(copies, len(copies.group))
    in_training = np.bincount(picture[:n_train], minlength=len(picture)) > 0
    touched = np.zeros(len(picture), dtype=bool)
    for here, there in (copies.overlaps.T, copies.overlaps.T[::-1]):
        touched[here[in_training[there]]] = True
    rows = slice(n_train, None) if of_test else slice(0, n_train)
    return int(touched[picture[rows]].sum())
