import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from cellline.report.class_mix import ClassMix, estimate_mix, fit_mix

CLASSES = ("A549", "HeLa", "RT4")
# Rates at which classes are predicted.
CONFUSION = np.array([[0.80, 0.15, 0.05], [0.20, 0.70, 0.10], [0.05, 0.35, 0.60]])
TRAINING = np.array([0.5, 0.3, 0.2])
SHARES = arrays(float, 3, elements=st.floats(0.01, 1)).map(lambda x: x / x.sum())


def draw(
    mix: np.ndarray, n_groups: int, size: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and groups of pictures of which each is confused in its own way."""
    labels = generator.choice(3, n_groups, p=mix)
    # Normalized gammas are a Dirichlet distribution.
    gammas = generator.standard_gamma(6 * CONFUSION[labels])
    ends = (gammas / gammas.sum(axis=1, keepdims=True)).cumsum(axis=1)[:, None, :-1]
    predicted = (generator.random((n_groups, size, 1)) > ends).sum(axis=2).ravel()
    return np.repeat(labels, size), predicted, np.repeat(np.arange(n_groups), size)


def draw_predicted(mix: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    """Test predictions of so many pictures, each of them alone."""
    return draw(mix, n, 1, generator)[1]


def warnings_of(result: ClassMix) -> str:
    return "\n".join(line for line in result.describe(CLASSES) if line.startswith("warning"))


@settings(max_examples=50, deadline=None)
@given(SHARES, st.lists(SHARES, min_size=3, max_size=3))
def test_the_mix_behind_known_confusion_is_found(mix: np.ndarray, rows: list[np.ndarray]) -> None:
    confusion = (np.stack(rows) + 2 * np.eye(3)) / 3
    np.testing.assert_allclose(fit_mix(mix @ confusion, confusion), mix, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(SHARES, st.lists(SHARES, min_size=3, max_size=3))
def test_any_estimate_is_a_mix(predicted: np.ndarray, rows: list[np.ndarray]) -> None:
    mix = fit_mix(predicted, np.stack(rows))
    assert mix.min() >= 0
    assert mix.sum() == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(SHARES)
def test_a_perfect_classifier_shows_the_mix_itself(predicted: np.ndarray) -> None:
    np.testing.assert_allclose(fit_mix(predicted, np.eye(3)), predicted, atol=1e-9)


def test_of_a_perfect_classifier_only_the_labels_are_by_chance() -> None:
    labels = np.arange(60) % 3
    test = [np.repeat([0, 1, 2], counts) for counts in ([9, 6, 5], [8, 6, 6])]
    result = estimate_mix(labels, labels, np.arange(60) // 6, test, 3)
    for shares in (result.predicted, result.mix, result.mix_low, result.mix_high):
        np.testing.assert_allclose(shares, [0.425, 0.3, 0.275], atol=1e-9)
    assert result.residual == result.residual_limit == 0
    expected = binom.ppf([0.025 / 3, 1 - 0.025 / 3], 20, 1 / 3) / 20
    np.testing.assert_allclose([result.low, result.high], np.tile(expected, (3, 1)).T, atol=0.051)


def test_what_is_explained_allows_for_the_number_of_classes() -> None:
    labels = np.arange(900) % 9
    test = [np.arange(1800) % 9]
    result = estimate_mix(labels, labels, np.arange(900), test, 9)
    expected = binom.ppf([0.025 / 9, 1 - 0.025 / 9], 1800, 1 / 9) / 1800
    assert np.mean(result.low) == pytest.approx(expected[0], abs=0.002)
    assert np.mean(result.high) == pytest.approx(expected[1], abs=0.002)


def test_predictions_of_a_class_that_was_never_predicted_have_a_nearest_mix() -> None:
    confusion = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.5, 0.5, 0.0]])
    mix = fit_mix(np.array([0.0, 0.0, 1.0]), confusion)
    assert mix.sum() == pytest.approx(1)


def test_a_shifted_mix_is_recovered_from_many_samples() -> None:
    generator = np.random.default_rng(0)
    shifted = np.array([0.1, 0.2, 0.7])
    labels, oof_predicted, groups = draw(TRAINING, 800, 10, generator)
    test = [draw_predicted(shifted, 20000, generator) for _ in range(2)]
    result = estimate_mix(labels, oof_predicted, groups, test, 3)
    np.testing.assert_allclose(result.mix, shifted, atol=0.04)
    assert np.all((result.mix_low < shifted) & (shifted < result.mix_high))
    assert np.all(result.mix_high - result.mix_low < 0.2)
    np.testing.assert_allclose(result.predicted, shifted @ CONFUSION, atol=0.01)


def test_a_shift_is_warned_of_and_none_is_not() -> None:
    """Groups of ten, about 16 of them RT4: 6 times without a shift, 6 times with one."""
    generator = np.random.default_rng(0)
    alarms, seen = 0, 0
    for _ in range(6):
        oof = draw(TRAINING, 80, 10, generator)
        still, shifted = (
            estimate_mix(*oof, [draw_predicted(mix, 400, generator)], 3)
            for mix in (oof_mix(oof[0]), np.array([0.2, 0.2, 0.6]))
        )
        alarms += "differs" in warnings_of(still)
        seen += "RT4 predicted" in warnings_of(shifted)
    assert alarms <= 1
    assert seen >= 5


def oof_mix(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels, minlength=3) / len(labels)


def test_samples_that_are_few_pictures_explain_more() -> None:
    """The same samples, once each a picture of its own and once in groups of ten."""
    generator = np.random.default_rng(0)
    labels, predicted, groups = draw(TRAINING, 40, 10, generator)
    test = [draw_predicted(TRAINING, 300, generator)]
    alone = estimate_mix(labels, predicted, np.arange(len(labels)), test, 3)
    grouped = estimate_mix(labels, predicted, groups, test, 3)
    assert np.all(grouped.high - grouped.low > 1.2 * (alone.high - alone.low))
    assert np.all(grouped.mix_high - grouped.mix_low > 1.2 * (alone.mix_high - alone.mix_low))


def test_predictions_that_no_mix_explains_are_warned_of() -> None:
    """At most 80 % of a class are predicted as A549, so a test set can't be A549 throughout."""
    generator = np.random.default_rng(0)
    oof = draw(TRAINING, 100, 5, generator)
    odd = estimate_mix(*oof, [np.zeros(300, dtype=np.int64)], 3)
    assert "warning: no class mix explains" in warnings_of(odd)
    assert odd.residual == pytest.approx(0.2, abs=0.05)
    np.testing.assert_allclose(odd.mix, [1, 0, 0])
    # A test set of one class is an odd mix, but a mix.
    one = estimate_mix(*oof, [draw_predicted(np.array([0.0, 0.0, 1.0]), 300, generator)], 3)
    assert "class mix differs" in warnings_of(one)
    assert "no class mix" not in warnings_of(one)


def test_a_class_of_one_picture_does_no_harm() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] * 4)
    groups = np.array([*range(20), 20, 20, 20, 20])
    result = estimate_mix(labels, labels, groups, [labels], 3)
    assert all(np.isfinite(value).all() for value in vars(result).values())
    assert warnings_of(result) == ""


def test_the_table_shows_what_was_found() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    result = ClassMix(
        training=shares,
        predicted=np.array([0.45, 0.266, 0.284]),
        low=np.array([0.4, 0.25, 0.18]),
        high=np.array([0.6, 0.35, 0.249]),
        mix=shares,
        mix_low=shares - 0.1,
        mix_high=shares + 0.1,
        residual=0.0,
        residual_limit=0.0,
    )
    lines = result.describe(CLASSES)
    assert lines[0] == "      training  predicted       explained  estimated mix"
    assert lines[3] == "RT4     20.0 %     28.4 %  18.0 to 24.9 %  20.0 % [10.0, 30.0]"
    assert "RT4 predicted 28.4 %, 18.0 to 24.9 % explained. " in lines[-1]
    assert "HeLa predicted" not in lines[-1]
