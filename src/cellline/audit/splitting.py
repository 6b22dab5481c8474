"""Splitting samples into folds: by groups, stratified by class."""

import warnings

import numpy as np

from cellline.errors import UserError
from cellline.host.names import name_classes

# StratifiedGroupKFold has 8 bytes for each group and class, and takes a minute for these.
MOST_CELLS = 10_000_000


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
    of_class = np.bincount(labels)
    cells = 0 if group is None else len(np.unique(group)) * len(of_class)
    # scikit-learn refuses if every class has fewer samples than folds.
    if of_class.max() >= n_folds and cells <= MOST_CELLS:
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
    names, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    classes, counts = list_classes(labels, number)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    place = np.empty(len(names), np.int64)
    filled = np.zeros((n_folds, int(labels.max()) + 1), np.int64)
    total = np.zeros(n_folds, np.int64)
    for one in order:
        of_its_classes = filled[:, classes[one]].sum(axis=1)
        place[one] = np.lexsort((total, of_its_classes))[0]
        filled[place[one], classes[one]] += counts[one]
        total[place[one]] += sizes[one]
    return place[number]


def fill_folds(labels: np.ndarray, group: np.ndarray, fold: np.ndarray, n_folds: int) -> np.ndarray:
    """Move small groups into folds that lack a class, where no fold loses its last of a class.

    StratifiedGroupKFold deals large groups first, and can leave such folds although each class has
    enough groups (scikit-learn#28218). Folds that lack nothing are returned as they are.
    """
    names, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    classes, _ = list_classes(labels, number)
    place = np.zeros(len(names), np.int64)  # each group's fold
    place[number] = fold
    counts = np.zeros((n_folds, int(labels.max()) + 1), np.int64)  # groups with a class in a fold
    holders: list[list[int]] = [[] for _ in range(counts.shape[1])]  # groups with a class
    for one, held in enumerate(classes):
        counts[place[one], held] += 1
        for label in held:
            holders[label].append(one)
    for empty, label in np.argwhere(counts == 0):
        if counts[empty, label]:  # filled by a group with several classes
            continue
        # Their folds have others like them.
        donors = [one for one in holders[label] if (counts[place[one], classes[one]] > 1).all()]
        if donors:
            moved = min(donors, key=sizes.__getitem__)
            counts[place[moved], classes[moved]] -= 1
            counts[empty, classes[moved]] += 1
            place[moved] = empty
    return place[number]


def list_classes(
    labels: np.ndarray, number: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The classes of each group, and its samples of each; `number` [n] numbers groups from 0.

    A table of all groups and classes would take memory that grows with the square of the classes.
    """
    (groups, classes), counts = np.unique(np.stack([number, labels]), axis=1, return_counts=True)
    starts = np.flatnonzero(np.diff(groups)) + 1
    return np.split(classes, starts), np.split(counts, starts)


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
