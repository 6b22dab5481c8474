"""Groups of connected samples; groups and folds of the user's own, from columns of the tables."""

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
    samples = [(part, sample) for part, ids in parts.items() for sample in ids]
    row = {sample: at for at, sample in enumerate(samples)}
    there = [(row[part, sample], value) for part, sample, value in members if (part, sample) in row]
    first: dict[str, int] = {}  # the first row of each value
    edges = [(first.setdefault(value, at), at) for at, value in there]
    return connect(len(row), np.array(edges, np.int64).reshape(-1, 2))


def connect(n: int, *edges: np.ndarray) -> np.ndarray:
    """Smallest node, int64 [n], of each node's connected component; edges are int64 [k, 2]."""
    # Imported where it is used: it takes a quarter of a second.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    both = np.concatenate(edges).T
    graph = coo_array((np.ones(both.shape[1]), both), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return np.asarray(first[component])


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
