"""Splitting samples into folds: by groups, stratified by class."""

import numpy as np

from cellline.errors import UserError
from cellline.host.names import name_classes


def check_groups(
    labels: np.ndarray, group: np.ndarray, classes: tuple[str, ...], n_folds: int
) -> None:
    """Raise UserError if a class has fewer groups than there are folds."""
    groups = [len(np.unique(group[labels == index])) for index in range(len(classes))]
    few = [
        f"{name} has {count}"
        for name, count in zip(name_classes(classes), groups, strict=True)
        if count < n_folds
    ]
    if few:
        enough = min(groups)
        advice = "add samples" if enough < 2 else f"deal fewer folds (--folds {enough})"
        raise UserError(
            f"{n_folds} folds need {n_folds} different pictures of every class (copies count "
            f"once), but {', '.join(few)}; {advice}"
        )


def deal_folds(labels: np.ndarray, group: np.ndarray | None, n_folds: int, seed: int) -> np.ndarray:
    """Stratified folds, int64 [n], of labels int [n]; groups [n], if any, stay together."""
    # Imported here, because it takes a second.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if group is None else StratifiedGroupKFold
    fold = np.empty(len(labels), dtype=np.int64)
    splits = kind(n_folds, shuffle=True, random_state=seed).split(labels, labels, group)
    for number, (_, held_out) in enumerate(splits):
        fold[held_out] = number
    return fold if group is None else fill_folds(labels, group, fold, n_folds)


def fill_folds(labels: np.ndarray, group: np.ndarray, fold: np.ndarray, n_folds: int) -> np.ndarray:
    """Move small groups into folds that lack a class, where no fold loses its last of a class.

    StratifiedGroupKFold deals large groups first, and can leave such folds although each class has
    enough groups (scikit-learn#28218). Folds that lack nothing are returned as they are.
    """
    names, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    n_classes = int(labels.max()) + 1
    holds = np.zeros((len(names), n_classes), dtype=bool)  # classes of each group
    holds[number, labels] = True
    place = np.zeros(len(names), np.int64)  # its fold
    place[number] = fold
    counts = np.zeros((n_folds, n_classes), np.int64)  # groups with the class in the fold
    np.add.at(counts, place, holds)
    for empty, label in np.argwhere(counts == 0):
        spare = (counts[place] > holds).all(axis=1, where=holds)  # its fold has others like it
        donors = np.flatnonzero(spare & holds[:, label])
        if counts[empty, label] == 0 and len(donors):
            moved = donors[sizes[donors].argmin()]
            counts[place[moved]] -= holds[moved]
            counts[empty] += holds[moved]
            place[moved] = empty
    return place[number]


def find_missing(labels: np.ndarray, fold: np.ndarray, n_folds: int) -> list[tuple[int, int]]:
    """Pairs of a class and a fold without a sample of it."""
    cells = np.zeros((int(labels.max()) + 1, n_folds), np.int64)
    np.add.at(cells, (labels, fold), 1)
    return [(int(label), int(number)) for label, number in np.argwhere(cells == 0)]


def find_straddling(group: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Samples, bool [n], whose group has samples in several folds; group any, fold int [n]."""
    _, number = np.unique(group, return_inverse=True)
    pairs = np.unique(np.stack([number, fold]), axis=1)
    return np.asarray(np.bincount(pairs[0])[number] > 1)
