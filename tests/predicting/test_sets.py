"""Prediction sets hold the true class as often as they promise, for each class and new groups."""

import numpy as np
import pytest

from cellline.predicting.sets import ERROR, fit_sets, judge_sets


def draw(
    groups_of: tuple[int, ...], seed: int, sizes: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [n, class], labels [n] and groups [n]; large groups are easier."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(groups_of)), groups_of)
    size = generator.integers(1, sizes + 1, len(labels))
    group = np.repeat(np.arange(len(labels)), size)
    shared = generator.normal(size=len(labels)) + 0.4 * size
    logits = generator.normal(size=(len(group), len(groups_of)))
    logits[np.arange(len(group)), labels[group]] += 1 + shared[group]
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), labels[group], group


def cover(labels: np.ndarray, group: np.ndarray, held: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of each class's groups' samples whose set holds it."""
    _, number, size = np.unique(group, return_inverse=True, return_counts=True)
    weight = (1 / size)[number]
    right = held[np.arange(len(labels)), labels]
    total, found = (np.bincount(labels, weight * of, n_classes) for of in (1, right))
    return np.asarray(found / total)


def test_new_groups_are_covered_class_by_class() -> None:
    covered = []
    for seed in range(60):
        sets = fit_sets(*draw((25, 60, 200), seed))
        prob, labels, group = draw((300, 300, 300), 1000 + seed)
        covered.append(cover(labels, group, sets.hold(prob), 3))
    mean, error = np.mean(covered, axis=0), np.std(covered, axis=0) / 60**0.5
    assert np.all(mean > 1 - ERROR - 3 * error)
    # No more than they must: a class of 25 groups can be let down by one of 26.
    assert np.all(mean < 1 - ERROR + 1 / np.array([26, 61, 201]) + 3 * error)


def test_a_class_of_few_groups_is_in_every_set() -> None:
    prob, labels, group = draw((18, 19, 200), 0)
    sets = fit_sets(prob, labels, group)
    assert sets.groups == (18, 19, 200)
    assert sets.thresholds[0] == 0
    assert sets.thresholds[1] == pytest.approx(prob[labels == 1, 1].min())
    assert sets.hold(prob)[:, 0].all()


def test_the_likeliest_class_is_in_its_set_whatever_the_thresholds() -> None:
    prob, labels, group = draw((200, 200), 0)
    sets = fit_sets(prob, labels, group)
    low = np.array([[0.5, 0.5 + 1e-6]]) * min(sets.thresholds)
    assert sets.hold(low).tolist() == [[False, True]]


def test_sets_are_judged_on_folds_that_they_were_not_made_from() -> None:
    prob, labels, group = draw((100, 100, 100), 0)
    fold = group % 5
    judged = judge_sets(prob, labels, group, fold)
    held = np.concatenate(
        [
            fit_sets(*(of[fold != k] for of in (prob, labels, group))).hold(prob[fold == k])
            for k in range(5)
        ]
    )
    order = np.concatenate([np.flatnonzero(fold == k) for k in range(5)])
    expected = cover(labels[order], group[order], held, 3)
    assert [recall.value for recall in judged.coverage] == pytest.approx(expected.tolist())
    assert all(recall.low < 0.95 < recall.high for recall in judged.coverage)
    assert 1 < judged.size < 3
