import warnings
from dataclasses import astuple
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as theirs
from sklearn.preprocessing import label_binarize

from cellline.config import MetricName
from cellline.scoring.bootstrap import Bootstrap, Estimate
from cellline.scoring.decisions import Decided, likeliest
from cellline.scoring.metrics import METRICS

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)
NAMES = get_args(MetricName)
SHARES = [name for name in NAMES if name not in ("log_loss", "quadratic_kappa")]


def draw(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, Decided, np.ndarray]:
    """Labels that hold every class, decisions with ties among the probabilities, and weights."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % n_classes)
    odds = generator.integers(1, 6, (n, n_classes)) + np.eye(n_classes)[labels]
    prob = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    predicted = generator.integers(0, n_classes, n)
    return labels, Decided(prob, predicted), generator.integers(0, 4, n) + generator.random(n)


def score_by_scikit_learn(
    name: str, labels: np.ndarray, decided: Decided, weights: np.ndarray | None
) -> float:
    prob, predicted, known = decided.prob.astype(float), decided.predicted, np.unique(labels)
    every = np.arange(prob.shape[1])
    if name == "balanced_accuracy":
        return theirs.balanced_accuracy_score(labels, predicted, sample_weight=weights)
    if name == "accuracy":
        return theirs.accuracy_score(labels, predicted, sample_weight=weights)
    if name == "macro_f1":
        return theirs.f1_score(labels, predicted, average="macro", sample_weight=weights)
    if name == "log_loss":
        prob /= prob.sum(axis=1, keepdims=True)
        return theirs.log_loss(labels, prob, labels=every, sample_weight=weights)
    if name == "quadratic_kappa":
        return theirs.cohen_kappa_score(
            labels, predicted, labels=every, weights="quadratic", sample_weight=weights
        )
    if name == "roc_auc":
        columns = [1] if len(every) == 2 else known
        truth = label_binarize(labels, classes=[*every, len(every)])
        areas = [
            theirs.roc_auc_score(truth[:, k], prob[:, k], sample_weight=weights) for k in columns
        ]
        return float(np.mean(areas))
    # MAP@5, by its definition on Kaggle.
    ranked = np.argsort(-prob, axis=1, kind="stable")[:, :5]
    each = [
        sum(1 / (rank + 1) for rank, k in enumerate(best) if k == label)
        for label, best in zip(labels, ranked, strict=True)
    ]
    return float(np.average(each, weights=weights))


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(2, 8), st.integers(0, 40), st.integers(0, 999), st.booleans())
@settings(max_examples=30)
def test_scores_are_scikit_learns(
    name: MetricName, n_classes: int, more: int, seed: int, weighted: bool
) -> None:
    labels, decided, weights = draw(n_classes + more, n_classes, seed)
    given_weights = weights if weighted else None
    found = METRICS[name].score(labels, decided, given_weights)
    with warnings.catch_warnings(action="ignore"):
        expected = score_by_scikit_learn(name, labels, decided, given_weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(2, 5), st.integers(1, 8), st.integers(0, 999))
@settings(max_examples=5)
def test_estimates_and_gains_agree_with_scores(
    name: MetricName, n_classes: int, n_groups: int, seed: int
) -> None:
    metric = METRICS[name]
    labels, decided, weights = draw(40, n_classes, seed)
    better = Decided(np.eye(n_classes, dtype=np.float32)[labels], labels)
    bootstrap = Bootstrap(np.arange(40) % n_groups)
    for each in (decided, better):
        found = metric.estimate(labels, each, bootstrap, weights)
        assert found.value == metric.score(labels, each, weights)
        assert found.low <= found.high
    gain = metric.gain(labels, (decided, better), bootstrap, weights)
    ahead = metric.utility(found.value) - metric.utility(metric.score(labels, decided, weights))
    np.testing.assert_allclose(gain.value, ahead)
    assert 0 < gain.value <= gain.high + 1e-6  # draws of ROC AUC have 32 bits
    back = metric.gain(labels, (better, decided), bootstrap, weights)
    np.testing.assert_allclose(back.interval, (-gain.high, -gain.low))


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_their_groups_change_nothing(name: MetricName) -> None:
    labels, decided, weights = draw(60, 3, 0)
    once = METRICS[name].estimate(labels, decided, Bootstrap(np.arange(60)), weights)
    rows = np.repeat(np.arange(60), 4)
    copied = Decided(decided.prob[rows], decided.predicted[rows])
    fourfold = METRICS[name].estimate(labels[rows], copied, Bootstrap(rows), weights[rows])
    np.testing.assert_allclose(astuple(once), astuple(fourfold), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_of_0_leaves_a_sample_out(name: MetricName) -> None:
    labels, decided, weights = draw(60, 4, 1)
    kept = labels != 2  # one class has no weight at all
    alone = Decided(decided.prob[kept], decided.predicted[kept])
    score = METRICS[name].score
    np.testing.assert_allclose(
        score(labels, decided, weights * kept), score(labels[kept], alone, weights[kept])
    )


@given(PAIRS, st.integers(1, 8))
def test_a_perfect_classifier_scores_1_and_may_be_imperfect(
    pairs: list[tuple[int, int]], n_groups: int
) -> None:
    labels = np.unique([label for label, _ in pairs], return_inverse=True)[1]
    perfect = likeliest(np.eye(max(labels.max() + 1, 2), dtype=np.float32)[labels])
    bac = METRICS["balanced_accuracy"]
    found = bac.estimate(labels, perfect, Bootstrap(np.arange(len(labels)) % n_groups))
    assert 0 <= found.low < found.value == found.high == 1
    for name in SHARES:
        if name != "roc_auc" or labels.max() > 0:
            assert METRICS[name].score(labels, perfect) == 1
    assert METRICS["log_loss"].score(labels, perfect) == 0


def simulate(
    n: int, prior: list[float], seed: int, *, lean: float = 0, sharpness: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of ordered classes, and a network's probabilities from a noisy view of each.

    `lean` is the power of the prior that they are wrongly multiplied with; `sharpness` above 1
    makes them too sure.
    """
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(prior), n, p=prior)
    seen = labels + 0.9 * generator.normal(size=n)
    log_p = -((seen[:, None] - np.arange(len(prior))) ** 2) / (2 * 0.9**2)
    log_p += (1 + lean) * np.log(prior)
    return labels, softmax(sharpness * log_p, axis=1).astype(np.float32)


# Its draws take a second, once.
BOOTSTRAP = Bootstrap(np.arange(6000))
PRIOR = [0.55, 0.2, 0.12, 0.08, 0.05]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("lean", "sharpness"), [(-1, 1), (0, 1), (1, 1), (0, 0.5), (0, 3), (1, 3)])
def test_a_decision_is_never_worse_than_the_likeliest_class_beyond_noise(
    name: MetricName, lean: float, sharpness: float
) -> None:
    metric = METRICS[name]
    labels, prob = simulate(12000, PRIOR, 0, lean=lean, sharpness=sharpness)
    held_out = np.arange(12000) < 6000
    fitted = metric.fit(prob[~held_out], labels[~held_out])
    pair = (likeliest(prob[held_out]), fitted.apply(prob[held_out]))
    gain = metric.gain(labels[held_out], pair, BOOTSTRAP)
    # The rows that it was fitted to are noise of their own.
    assert gain.value > -3 * gain.error - 1e-6
    # What is wrong is put right where the metric asks for it.
    wrong = {
        "balanced_accuracy": lean > -1,
        "accuracy": lean != 0,
        "macro_f1": lean > 0,
        "log_loss": lean != 0 or sharpness != 1,
        "quadratic_kappa": True,
        "map5": False,
        "roc_auc": False,
    }
    if wrong[name]:
        assert gain.low > 0


def test_two_classes_stay_in_their_order_so_roc_auc_has_no_decision() -> None:
    metric = METRICS["roc_auc"]
    labels, prob = simulate(400, [0.8, 0.2], 0, lean=1, sharpness=3)
    assert metric.fewest_classes == 3
    corrected = metric.fit(prob, labels).apply(prob)
    assert metric.score(labels, corrected) == pytest.approx(metric.score(labels, likeliest(prob)))


@pytest.mark.parametrize("weighted", [False, True])
def test_each_draw_of_roc_auc_is_the_score_of_its_samples(weighted: bool) -> None:
    labels, decided, weights = draw(60, 3, 0)
    bootstrap = Bootstrap(np.arange(60) // 2)
    measure, given = METRICS["roc_auc"].measure, weights if weighted else None
    found = measure(labels, decided, given, bootstrap)
    for at, counts in enumerate(bootstrap.counts[:100:20]):
        of_draw = counts[bootstrap.group] * (1 if given is None else given)
        expected = score_by_scikit_learn("roc_auc", labels, decided, of_draw)
        assert found[20 * at] == pytest.approx(expected, abs=1e-6)


def test_one_class_alone_has_no_roc_auc() -> None:
    labels, decided, _ = draw(40, 2, 0)
    found = METRICS["roc_auc"].estimate(0 * labels, decided, Bootstrap(np.arange(40)))
    assert np.isnan(astuple(found)).all()
    shown = [METRICS[name].show(of) for name in ("roc_auc", "log_loss") for of in (found, np.nan)]
    assert shown == ["none"] * 4
    assert [METRICS["roc_auc"].show_gain(of) for of in (found, np.nan)] == ["none"] * 2


def test_scores_are_shown_as_the_metric_is_read() -> None:
    found = Estimate(0.84215, 0.821, 0.86, 0.01)
    gain = Estimate(0.018, 0.004, 0.032, 0.01)
    bac, loss = METRICS["balanced_accuracy"], METRICS["log_loss"]
    assert [bac.show(0.84215), bac.show(found)] == ["84.2 %", "84.2 % [82.1, 86.0]"]
    assert [loss.show(0.84215), loss.show(found)] == ["0.842", "0.842 [0.821, 0.860]"]
    assert bac.show_gain(gain) == "+1.8 [0.4, 3.2] points"
    assert bac.show_gain(0.018) == "+1.8 points"
    assert loss.show_gain(gain) == "+0.018 [0.004, 0.032]"
    # Enough digits to show on which side of 0 the interval ends.
    assert bac.show_gain(Estimate(0.018, 0.0004, 0.032, 0.01)) == "+1.80 [0.04, 3.20] points"
