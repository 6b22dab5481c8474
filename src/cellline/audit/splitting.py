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
    return fold


def find_straddling(group: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Samples, bool [n], whose group has samples in several folds; group any, fold int [n]."""
    _, number = np.unique(group, return_inverse=True)
    pairs = np.unique(np.stack([number, fold]), axis=1)
    return np.asarray(np.bincount(pairs[0])[number] > 1)
