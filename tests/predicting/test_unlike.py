"""Images unlike the training images: how many are marked, and how many wrongly."""

import numpy as np

from cellline.predicting.sets import ERROR
from cellline.predicting.unlike import rank_features

# Classes, and where they lie among the features; the last is the one that training lacks.
CENTRES = 5 * np.eye(40)[:5]


def draw(n_groups: int, seed: int, classes: range = range(4)) -> tuple[np.ndarray, ...]:
    """Features [n, 40], labels [n] and groups [n]; samples of a group are nearly the same."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), generator.integers(1, 10, n_groups))
    label = generator.choice(classes, n_groups)
    features = (CENTRES[label] + generator.normal(size=(n_groups, 40)))[group]
    features += 0.01 * generator.normal(size=features.shape)
    return features.astype(np.float32), label[group], group


def test_new_groups_like_the_others_are_rarely_marked() -> None:
    shares = []
    for seed in range(40):
        new, _, group = draw(200, 1000 + seed)
        marked = rank_features(new, *draw(200, seed)) <= ERROR
        shares.append(np.average(marked, weights=1 / np.bincount(group)[group]))
    error = np.std(shares) / 40**0.5
    # Distances to all samples are a little shorter than those to four fifths of them.
    assert ERROR / 2 < np.mean(shares) < ERROR + 3 * error


def test_another_class_is_marked() -> None:
    new, _, _ = draw(200, 1, range(4, 5))
    assert np.mean(rank_features(new, *draw(200, 0)) <= ERROR) > 0.7


def test_few_held_out_groups_mark_nothing() -> None:
    new, _, _ = draw(10, 1, range(4, 5))
    assert np.all(rank_features(new, *draw(10, 0)) > ERROR)
    assert np.all(rank_features(new, *draw(1, 0)) > ERROR)
