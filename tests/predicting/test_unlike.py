"""Images unlike the training images: how many are marked, and how many wrongly."""

import numpy as np

from cellline.predicting.sets import ERROR
from cellline.predicting.unlike import rank_features


def draw(n_groups: int, seed: int, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 8] of length 1 and groups [n]; those of a group are nearly the same."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), generator.integers(1, 20, n_groups))
    features = generator.normal(size=(n_groups, 8)) + centre * np.eye(8)[0]
    features = features[group] + 0.01 * generator.normal(size=(len(group), 8))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), group


def test_new_groups_like_the_others_are_rarely_marked() -> None:
    shares = []
    for seed in range(20):
        held, group = draw(100, seed, centre=4)
        new, of_new = draw(100, 1000 + seed, centre=4)
        marked = rank_features(new, held, group) <= ERROR
        size = np.bincount(of_new)[of_new]
        shares.append(np.average(marked, weights=1 / size))
    error = np.std(shares) / 20**0.5
    assert abs(np.mean(shares) - ERROR) < 0.005 + 3 * error


def test_what_lies_elsewhere_is_marked() -> None:
    held, group = draw(200, 0, centre=4)
    new, _ = draw(200, 1, centre=-4)
    assert np.mean(rank_features(new, held, group) <= ERROR) > 0.95


def test_few_held_out_samples_mark_nothing() -> None:
    held, group = draw(5, 0, centre=4)
    new, _ = draw(5, 1, centre=-4)
    assert np.all(rank_features(new, held, group) > ERROR)
