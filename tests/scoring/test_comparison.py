from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellline.scoring.bootstrap import Bootstrap, Estimate
from cellline.scoring.comparison import Comparison, compare_predictions
from cellline.scoring.decisions import likeliest
from cellline.scoring.metrics import METRICS, Metric

BAC = METRICS["balanced_accuracy"]


def one_hot(predicted: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes, dtype=np.float32)[predicted]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(list(METRICS.values())), st.integers(0, 999), st.integers(1, 4))
def test_it_is_the_difference_of_the_scores_and_turns_with_the_order(
    metric: Metric, seed: int, size: int
) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(60) % 3)
    prob_a, prob_b = generator.dirichlet(np.ones(3), (2, 60)).astype(np.float32)
    bootstrap = Bootstrap(np.arange(60) // size)
    there = compare_predictions(metric, labels, [prob_a], [prob_b], bootstrap)
    back = compare_predictions(metric, labels, [prob_b], [prob_a], bootstrap)
    old, new = (metric.score(labels, likeliest(prob)) for prob in (prob_a, prob_b))
    gain = old - new if metric.name == "log_loss" else new - old
    np.testing.assert_allclose(there.gain.value, gain, atol=1e-12)
    for one, other in ((there.gain, back.gain), *zip(there.recalls, back.recalls, strict=True)):
        turned = (-other.value, -other.high, -other.low, other.error)
        np.testing.assert_allclose((one.value, one.low, one.high, one.error), turned, atol=1e-9)
    assert there.marked == back.marked


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_run_does_not_differ_from_itself(metric: Metric) -> None:
    labels = np.arange(90) % 3
    prob = np.random.default_rng(0).dirichlet(np.ones(3), 90).astype(np.float32)
    same = compare_predictions(metric, labels, [prob], [prob], Bootstrap(np.arange(90) // 2))
    assert same.gain == Estimate(0, 0, 0, 0)
    assert not same.is_clear
    assert not any(same.marked)


def test_the_spread_of_seeds_counts_by_the_metric() -> None:
    """Of networks that are right equally often; some are too sure of it, which log loss shows."""
    labels = np.arange(200) % 2
    right = np.random.default_rng(0).random(200) < 0.8
    guess = one_hot(np.where(right, labels, 1 - labels), 2)

    def compare(*sure: float) -> Comparison:
        plain = [0.8 * guess + 0.1] * 3
        other = [share * guess + (1 - share) / 2 for share in sure]
        bootstrap = Bootstrap(np.arange(200))
        return compare_predictions(METRICS["log_loss"], labels, plain, other, bootstrap)

    alike, apart = compare(0.98, 0.98, 0.98), compare(0.8, 0.98, 0.999)
    assert alike.is_clear and alike.gain.value < 0
    assert not apart.is_clear and apart.gain.value < alike.gain.value
    assert [of.value for of in alike.recalls] == [0, 0]


def test_what_both_find_hard_cancels_out() -> None:
    """b repairs 16 of 400: far less than either score is known to, but 16 to 0."""
    labels = np.arange(400) % 2
    wrong = np.random.default_rng(0).random(400) < 0.3
    repaired = wrong & (np.cumsum(wrong) > 16)
    prob_a, prob_b = (one_hot(np.where(w, 1 - labels, labels), 2) for w in (wrong, repaired))
    alone = compare_predictions(BAC, labels, [prob_a], [prob_b], Bootstrap(np.arange(400)))
    assert alone.is_clear
    assert alone.gain.value == pytest.approx(0.04)
    # The same, of sixteen copies of one picture, is one observation.
    copies = np.where(wrong & ~repaired, -1, np.arange(400))
    assert not compare_predictions(BAC, labels, [prob_a], [prob_b], Bootstrap(copies)).is_clear


def test_so_many_groups_as_are_needed_show_the_difference_in_four_of_five_comparisons() -> None:
    """Of two runs that are wrong alone on 20 % and 10 % of the samples."""

    def compare(n: int, generator: np.random.Generator, bootstrap: Bootstrap) -> Comparison:
        labels = np.arange(n) % 2
        kind = generator.random(n)
        a_wrong, b_wrong = kind < 0.2, kind > 0.9
        probs = ([one_hot(np.where(w, 1 - labels, labels), 2)] for w in (a_wrong, b_wrong))
        return compare_predictions(BAC, labels, *probs, bootstrap)

    labels = np.arange(60) % 2
    a_wrong, b_wrong = np.arange(60) < 12, np.arange(60) >= 54
    probs = ([one_hot(np.where(w, 1 - labels, labels), 2)] for w in (a_wrong, b_wrong))
    small = compare_predictions(BAC, labels, *probs, Bootstrap(np.arange(60)))
    assert not small.is_clear
    n = round(60 * small.needed)
    generator, bootstrap = np.random.default_rng(0), Bootstrap(np.arange(n))
    seen = sum(compare(n, generator, bootstrap).is_clear for _ in range(150))
    # 80 % of 150, give or take three standard errors.
    assert 105 <= seen <= 135


def test_classes_are_seldom_marked_when_nothing_differs() -> None:
    """Each class alone, at 95 %, would be marked by chance in 26 % of comparisons of six."""
    generator = np.random.default_rng(0)
    bootstrap = Bootstrap(np.arange(120))
    labels = np.arange(120) % 6
    marked = 0
    for _ in range(60):
        probs = generator.dirichlet(np.ones(6), (2, 120)) + one_hot(labels, 6) / 4
        marked += any(compare_predictions(BAC, labels, probs[:1], probs[1:], bootstrap).marked)
    # 5 % of 60, plus three standard errors.
    assert marked <= 8


def test_a_gain_in_one_class_and_an_equal_loss_in_another_cancel_exactly() -> None:
    # Every group has a sample of each class; in a sixth of them b gains one and loses another.
    labels, group = np.tile([0, 1, 2], 90), np.arange(270) // 3
    torn = (group % 3 == 0) & (labels < 2)
    a = np.where(torn, 1, np.where(group % 5 == 0, (labels + 1) % 3, labels))
    b = np.where(torn & (group % 2 == 0), 0, a)
    probs = [[one_hot(predicted, 3)] for predicted in (a, b)]
    gain = compare_predictions(BAC, labels, *probs, Bootstrap(group)).gain
    assert astuple(gain) == (0, 0, 0, 0)
