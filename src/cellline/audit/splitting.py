"""Splitting samples into folds: by groups, stratified by class."""

import warnings

import numpy as np

from cellline.errors import UserError
from cellline.host.names import name_classes


def count_groups(labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Number of groups, int64 [class], that hold a class; the first of `group` are of `labels`."""
    _, number = np.unique(group[: len(labels)], return_inverse=True)
    return np.bincount(np.unique(np.stack([labels, number]), axis=1)[0])


def limit_folds(group: np.ndarray, n_folds: int) -> int:
    """Number of folds, at most that of groups. Raises UserError if there is one group only."""
    count = len(np.unique(group))
    if count < 2:
        raise UserError(
            "all training samples are in one group (samples of one picture, or with one value in "
            "--group-column), but folds need two groups or more; add samples"
        )
    return min(count, n_folds)


def check_training(labels: np.ndarray, fold: np.ndarray, classes: tuple[str, ...]) -> None:
    """Raise UserError if the samples outside a fold are of one class: none can be learned."""
    for number in np.unique(fold):
        there = np.unique(labels[fold != number])
        if len(there) < 2:
            raise UserError(
                f"outside fold {number} all training samples are of class "
                f"{name_classes(classes)[there[0]]}, so nothing can be learned there: every other "
                "class needs samples in two folds or more, of different groups; add some"
            )


def deal_folds(labels: np.ndarray, group: np.ndarray | None, n_folds: int, seed: int) -> np.ndarray:
    """Stratified folds, int64 [n], of labels int [n]; groups [n], if any, stay together.

    No fold is empty if there are as many groups as folds. A class with fewer groups than folds is
    spread over as many folds as it has groups.
    """
    # Imported here, because it takes a second.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if group is None else StratifiedGroupKFold
    # scikit-learn refuses if every class has fewer samples than folds.
    if np.bincount(labels).max() >= n_folds:
        fold = np.empty(len(labels), dtype=np.int64)
        with warnings.catch_warnings():
            # About small classes, which the audit describes.
            warnings.simplefilter("ignore", UserWarning)
            splits = kind(n_folds, shuffle=True, random_state=seed).split(labels, labels, group)
            for number, (_, held_out) in enumerate(splits):
                fold[held_out] = number
        # With about as many groups as folds, it can leave a fold empty.
        if len(np.unique(fold)) == n_folds:
            return fold if group is None else fill_folds(labels, group, fold, n_folds)
    return spread(labels, np.arange(len(labels)) if group is None else group, n_folds, seed)


def spread(labels: np.ndarray, group: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Folds, int64 [n], for few groups [n]: the largest first, each where its classes have least.

    An empty fold has least of every class, so none stays empty.
    """
    names, number = np.unique(group, return_inverse=True)
    cells = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(cells, (number, labels), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-cells[order].sum(axis=1), kind="stable")]
    place = np.empty(len(names), np.int64)
    filled = np.zeros((n_folds, cells.shape[1]), np.int64)
    for one in order:
        of_its_classes = filled[:, cells[one] > 0].sum(axis=1)
        place[one] = np.lexsort((filled.sum(axis=1), of_its_classes))[0]
        filled[place[one]] += cells[one]
    return place[number]


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
