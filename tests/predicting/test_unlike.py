"""Samples of no known class: how many are marked, and how many others."""

import numpy as np
import pytest
from scipy.special import ndtr
from test_sets import draw

from cellline.predicting.sets import ERROR, Held
from cellline.predicting.unlike import combine_ranks, rank_likeness


@pytest.mark.parametrize("n_groups", [(60, 60, 60), (20, 60, 200)])
def test_new_groups_of_known_classes_are_rarely_marked(n_groups: tuple[int, ...]) -> None:
    shares = []
    for seed in range(60):
        prob, _, group = draw(n_groups, 1000 + seed)
        marked = rank_likeness(prob, Held(*draw(n_groups, seed))) <= ERROR
        shares.append(np.average(marked, weights=1 / np.bincount(group)[group]))
    error = np.std(shares) / 60**0.5
    assert abs(np.mean(shares) - ERROR) < 0.005 + 3 * error


def test_samples_between_the_classes_are_marked() -> None:
    prob, _, _ = draw((20, 20, 20), 1)
    between = np.full((1, 3), 1 / 3)
    likeness = rank_likeness(np.concatenate([between, prob]), Held(*draw((60, 60, 60), 0)))
    assert likeness[0] <= ERROR
    assert np.mean(likeness[1:] <= ERROR) < 0.2


def test_few_held_out_groups_mark_nothing() -> None:
    between = np.full((1, 3), 1 / 3)
    assert rank_likeness(between, Held(*draw((5, 5, 5), 0))) > ERROR


def test_a_class_that_a_fold_lacks_marks_nothing_and_hinders_nothing() -> None:
    between = np.array([[0.05, 0.05, 0.9]])
    assert rank_likeness(between, Held(*draw((60, 60, 0), 0))) <= ERROR


def test_ranks_of_any_number_of_networks_are_combined_to_one() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(size=100_000)
    for n_networks in (1, 3, 10):
        own = generator.normal(size=(n_networks, len(shared)))
        ranks = ndtr((shared + own) / 2**0.5)
        assert np.mean(combine_ranks([*ranks]) <= ERROR) == pytest.approx(ERROR, abs=0.003)
