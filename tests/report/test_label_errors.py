"""Label errors are found where they were planted, and none where all labels are right."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import cross_val_predict

from cellline.report.label_errors import LabelErrors, find_label_errors

N_CLASSES = 9


def plant(truth: np.ndarray, share: float, n_classes: int = N_CLASSES) -> np.ndarray:
    """The labels with a share of them wrong."""
    generator = np.random.default_rng(1)
    labels = truth.copy()
    rows = generator.choice(len(truth), round(share * len(truth)), replace=False)
    labels[rows] = (labels[rows] + generator.integers(1, n_classes, len(rows))) % n_classes
    return labels


def examine(labels: np.ndarray, prob: np.ndarray, groups: np.ndarray) -> LabelErrors:
    """The label errors, by a network that is good enough to tell."""
    found = find_label_errors(labels, prob, groups)
    assert found is not None
    return found


@pytest.mark.parametrize("share", [0.0, 0.08])
def test_wrong_labels_of_real_images_are_found_by_a_model_that_learned_from_them(
    share: float,
) -> None:
    images, truth = load_digits(return_X_y=True)
    images, truth = images[:500], truth[:500]
    labels = plant(truth, share, n_classes=10)
    model = ExtraTreesClassifier(50, random_state=0)
    prob = cross_val_predict(model, images, labels, method="predict_proba", cv=3)
    found = examine(labels, prob, np.arange(500))
    wrong = labels != truth
    assert found.evidence == wrong.any()
    if share:
        # Such a model is unsure of much, and in doubt it is blamed, not the label.
        assert wrong[found.rows].sum() >= 0.4 * wrong.sum()
        assert wrong[found.rows].mean() > 0.8
        assert np.mean(found.suggested == truth[found.rows]) > 0.7
    else:
        assert len(found.rows) == 0


def draw_predictions(
    generator: np.random.Generator, n: int, sure_mistakes: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, class] that are right but for some sure mistakes, and the true classes.

    The network hesitates, and is mistaken, between neighbours: of every other sample it is sure.
    """
    shown = generator.integers(0, N_CLASSES, n)
    distance = np.abs(np.arange(N_CLASSES) - shown[:, None])
    step = generator.choice([2.0, 10.0], (n, 1))
    logits = generator.normal(-step * np.minimum(distance, N_CLASSES - distance), 1.5)
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (prob.cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
    beside = (prob.argmax(axis=1) + generator.choice([-1, 1], n)) % N_CLASSES
    return prob, np.where(generator.random(n) < sure_mistakes, beside, truth)


@pytest.mark.parametrize(("sharpness", "sure_mistakes"), [(0.4, 0.0), (2.5, 0.04)])
def test_a_networks_errors_are_not_taken_for_the_labels(
    sharpness: float, sure_mistakes: float
) -> None:
    """However many there are, and however sure or unsure the network is."""
    prob, truth = draw_predictions(np.random.default_rng(0), 400, sure_mistakes)
    prob = prob**sharpness / (prob**sharpness).sum(axis=1, keepdims=True)
    clean = examine(truth, prob, np.arange(400))
    assert not clean.evidence
    assert len(clean.rows) == 0
    assert clean.rate.low == 0
    assert clean.rate.high < 0.03

    labels = plant(truth, 0.06)
    found = examine(labels, prob, np.arange(400))
    assert found.evidence
    assert found.rate.low < 0.06 < found.rate.high
    wrong = labels != truth
    assert wrong[found.rows].sum() >= 0.6 * wrong.sum()
    assert wrong[found.rows].mean() >= 0.7


def test_groups_whose_labels_differ_are_left_out() -> None:
    """Their labels are wrong, or their pictures don't belong together."""
    prob, truth = draw_predictions(np.random.default_rng(0), 400)
    labels = plant(truth, 0.06)
    wrong = labels != truth
    assert examine(labels, prob, np.arange(400)).evidence
    found = examine(labels, prob, np.where(wrong, -1, np.arange(400)))
    assert not found.evidence
    assert (found.n, found.mixed) == (400 - wrong.sum(), wrong.sum())


def test_a_weak_network_says_nothing_of_labels() -> None:
    prob, truth = draw_predictions(np.random.default_rng(0), 400)
    weak = 0.3 * prob + 0.7 * np.roll(prob, 1, axis=1)
    assert find_label_errors(truth, weak, np.arange(400)) is None


def test_copies_that_agree_speak_for_their_label() -> None:
    """The network takes some pictures for any other class: a label error, were each alone."""
    prob, truth = draw_predictions(np.random.default_rng(0), 200)
    labels = plant(truth, 0.06)
    assert examine(labels, prob, np.arange(200)).evidence
    thrice = [np.repeat(values, 3, axis=0) for values in (labels, prob, np.arange(200))]
    assert not examine(*thrice).evidence


def test_between_two_classes_no_error_is_blamed_on_the_labels() -> None:
    """Without copies nothing tells it from a sure mistake of the network."""
    truth = np.random.default_rng(0).integers(0, 2, 400)
    prob = np.where(np.eye(2)[truth] == 1, 0.97, 0.03)
    labels = plant(truth, 0.1, n_classes=2)
    assert not examine(labels, prob, np.arange(400)).evidence
