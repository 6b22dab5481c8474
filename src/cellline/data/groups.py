"""Groups and folds of the user's own, from columns of the tables."""

from collections.abc import Mapping, Sequence

import numpy as np

from cellline.data.ids import Id


def group_samples(
    members: Sequence[tuple[str, Id, str]], parts: Mapping[str, Sequence[Id]]
) -> np.ndarray | None:
    """Group, int64 [n + m], of the training and test samples: connected by equal values.

    `members` are part, id and value; `parts` the ids of each part. None if there are no members.
    """
    if not members:
        return None
    # Imported where it is used: it takes a quarter of a second.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    samples = [(part, sample) for part, ids in parts.items() for sample in ids]
    row = {sample: at for at, sample in enumerate(samples)}
    there = [(row[part, sample], value) for part, sample, value in members if (part, sample) in row]
    of_value = {value: at for at, value in enumerate(dict.fromkeys(v for _, v in there), len(row))}
    ends = np.array([(at, of_value[value]) for at, value in there], np.int64).reshape(-1, 2)
    size = len(row) + len(of_value)
    graph = coo_array((np.ones(len(ends), bool), ends.T), shape=(size, size))
    group: np.ndarray = connected_components(graph, directed=False)[1][: len(row)]
    return group.astype(np.int64)


def number_folds(of_sample: Mapping[Id, str], ids: Sequence[Id]) -> np.ndarray | None:
    """Fold, int64 [n], of samples `ids` [n]: the user's, sorted and numbered from 0."""
    if not of_sample:
        return None
    given = [of_sample[sample] for sample in ids]
    try:
        values = np.array([float(text) for text in given])
    except ValueError:
        values = np.array(given)
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
