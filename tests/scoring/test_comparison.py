import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from cellline.scoring.bootstrap import Bootstrap, Estimate
from cellline.scoring.comparison import Comparison, compare_predictions
from cellline.scoring.metrics import METRICS

BAC = METRICS["balanced_accuracy"]


def one_hot(predicted: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes, dtype=np.float32)[predicted]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 4))
def test_it_is_the_difference_of_the_scores_and_turns_with_the_order(seed: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(60) % 3)
    prob_a, prob_b = generator.dirichlet(np.ones(3), (2, 60)).astype(np.float32)
    bootstrap = Bootstrap(np.arange(60) // size)
    there = compare_predictions(BAC, labels, [prob_a], [prob_b], bootstrap)
    back = compare_predictions(BAC, labels, [prob_b], [prob_a], bootstrap)
    score_a, score_b = (balanced_accuracy_score(labels, p.argmax(1)) for p in (prob_a, prob_b))
    np.testing.assert_allclose(there.gain.value, score_b - score_a, atol=1e-12)
    for one, other in ((there.gain, back.gain), *zip(there.recalls, back.recalls, strict=True)):
        turned = (-other.value, -other.high, -other.low, other.error)
        np.testing.assert_allclose((one.value, one.low, one.high, one.error), turned, atol=1e-9)
    assert there.marked == back.marked


def test_a_run_does_not_differ_from_itself() -> None:
    labels = np.arange(90) % 3
    prob = np.random.default_rng(0).dirichlet(np.ones(3), 90).astype(np.float32)
    same = compare_predictions(BAC, labels, [prob], [prob], Bootstrap(labels))
    assert same.gain == Estimate(0, 0, 0, 0)
    assert not same.is_clear
    assert not any(same.marked)


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
