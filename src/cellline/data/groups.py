"""Groups and folds of the user's own, from columns of the tables."""

from collections.abc import Mapping, Sequence

import numpy as np

from cellline.data.ids import Id


def group_samples(members: Sequence[tuple[Id, str, str]], ids: Sequence[Id]) -> np.ndarray | None:
    """Group, int64 [n], of samples `ids` [n]: connected by equal values of any column.

    `members` are ids with a column and its value. None if there are none.
    """
    if not members:
        return None
    # Imported where it is used: it takes a quarter of a second.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row = {sample: at for at, sample in enumerate(ids)}
    there = [(row[sample], (column, value)) for sample, column, value in members if sample in row]
    of_value = {value: len(ids) + at for at, value in enumerate(dict.fromkeys(v for _, v in there))}
    ends = np.array([(at, of_value[value]) for at, value in there], np.int64).reshape(-1, 2)
    size = len(ids) + len(of_value)
    graph = coo_array((np.ones(len(ends), bool), ends.T), shape=(size, size))
    group: np.ndarray = connected_components(graph, directed=False)[1][: len(ids)]
    return group.astype(np.int64)


def number_folds(of_sample: Mapping[Id, str], ids: Sequence[Id]) -> np.ndarray | None:
    """Fold, int64 [n], of samples `ids` [n]: the user's, sorted and numbered from 0."""
    if not of_sample:
        return None
    given = [of_sample[sample] for sample in ids]
    numbers = [float(text) if text.replace(".", "", 1).isdigit() else None for text in given]
    values = given if None in numbers else numbers
    return np.unique(np.array(values), return_inverse=True)[1].astype(np.int64)
