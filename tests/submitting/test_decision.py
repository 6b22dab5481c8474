import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellline.config import MetricName
from cellline.scoring.decisions import likeliest
from cellline.scoring.metrics import METRICS
from cellline.scoring.recalls import balanced_accuracy
from cellline.submitting.decision import (
    HeldOut,
    Part,
    PartTrial,
    Rule,
    cross_fit,
    expect,
    fit_parts,
    fit_rule,
    score_decided,
)
from cellline.submitting.words import describe_expected

PRIOR = np.array([0.7, 0.2, 0.1])


def draw(
    strengths: tuple[float, ...],
    *,
    prior_share: float = 1,
    n: int = 300,
    seed: int = 0,
    metric: MetricName = "balanced_accuracy",
) -> HeldOut:
    """Runs that tell the classes by so much, in three folds, two samples a group, none a picture.

    `prior_share` says how much of the prior their probabilities have divided out.
    """
    generator = np.random.default_rng(seed)
    group = np.arange(n) // 2
    labels = generator.choice(3, n // 2, p=PRIOR)[group]
    logits = generator.normal(size=(len(strengths), n, 3))
    rows = np.arange(n)
    for of_run, strength in zip(logits, strengths, strict=True):
        of_run[rows, labels] += strength
        # Of unit normal features, shifted by s for the label, these are the log likelihoods.
        of_run *= max(strength, 1)
    logits += (1 - prior_share) * np.log(PRIOR)
    powers = np.exp(logits)
    prob = (powers / powers.sum(axis=2, keepdims=True)).astype(np.float32)
    members, alone, weight = np.full(n, 2), rows < 0, np.ones(n)
    return HeldOut(
        METRICS[metric],
        prob,
        labels,
        group % 3,
        group,
        rows,
        members,
        alone,
        weight,
        of_test=np.arange(30),
    )


def trials(samples: HeldOut) -> dict[Part, PartTrial]:
    return {trial.part: trial for trial in fit_rule(samples).trials}


def bac(samples: HeldOut, predicted: np.ndarray) -> float:
    return balanced_accuracy(samples.labels, predicted)


# One good run and two that know nothing, all of them leaning to the frequent class.
HELPED = draw((2, 0, 0), prior_share=-1, n=600)


def test_parts_that_help_are_used() -> None:
    rule = fit_rule(HELPED)
    assert [trial.part for trial in rule.trials] == [Part.SELECTION, Part.CORRECTION]
    assert all(trial.used for trial in rule.trials)
    assert rule.weights[0] > 0.5
    assert rule.correction is not None
    # What is used is fitted on all rows.
    fitted = fit_parts({Part.SELECTION, Part.CORRECTION}, HELPED)
    assert (rule.weights, rule.correction) == (fitted.weights, fitted.correction)


@pytest.mark.parametrize("metric", METRICS)
def test_the_rule_helps_under_every_metric(metric: MetricName) -> None:
    samples = draw((2, 0), prior_share=-1, n=450, metric=metric)
    rule, expected = fit_rule(samples), expect(samples)
    assert [trial.part for trial in rule.trials if trial.used] == [Part.SELECTION, Part.CORRECTION]
    assert expected.of_rule is not None
    after, before = expected.of_rule.like_test, expected.plain.like_test
    assert METRICS[metric].utility(after.value) > METRICS[metric].utility(before.value)
    assert after.low <= after.value <= after.high


def test_each_part_is_judged_on_top_of_those_before_it() -> None:
    scores = [
        bac(HELPED, cross_fit(partial(fit_parts, parts), HELPED).predicted)
        for parts in (set[Part](), {Part.SELECTION}, {Part.SELECTION, Part.CORRECTION})
    ]
    gains = [trial.gain.value for trial in fit_rule(HELPED).trials if trial.gain]
    assert gains == pytest.approx(np.diff(scores))


def test_the_score_is_of_rules_that_never_saw_the_fold() -> None:
    expected = expect(HELPED)
    assert expected.plain.like_test.value == pytest.approx(
        bac(HELPED, HELPED.prob.mean(axis=0).argmax(axis=1))
    )
    assert expected.of_rule is not None
    judged = bac(HELPED, cross_fit(fit_rule, HELPED).predicted)
    assert expected.of_rule.like_test.value == pytest.approx(judged)
    assert expected.of_rule.like_test.value > expected.plain.like_test.value + 0.1
    # Where the rule is fitted, it looks better than that.
    decided = fit_rule(HELPED).apply(HELPED.prob, HELPED.picture)
    assert bac(HELPED, decided.predicted) > expected.of_rule.like_test.value


def test_scores_count_samples_as_in_the_test_set_or_pictures_or_lone_samples() -> None:
    """Of each class a picture of four samples, all right, and two alone, one of them right."""
    labels = np.repeat([0, 1], 6)
    group = np.tile([0, 0, 0, 0, 1, 2], 2) + 3 * labels
    predicted = np.where(np.tile([1, 1, 1, 1, 1, 0], 2) == 1, labels, 1 - labels)
    prob = np.eye(2, dtype=np.float32)[predicted][None]
    decided = likeliest(prob[0])
    members = np.tile([4, 4, 4, 4, 1, 1], 2)
    # In the test set, half of the samples are alone.
    weight = np.where(members == 1, 1.5, 0.75)
    samples = HeldOut(
        METRICS["balanced_accuracy"],
        prob,
        labels,
        np.arange(12) % 3,
        group,
        group,
        members,
        members == 1,
        weight,
        np.arange(4),
    )
    scored = score_decided(samples, decided)
    assert scored.lone is not None
    found = [scored.like_test.value, scored.by_picture.value, scored.lone.value]
    assert found == pytest.approx([3 / 4, 2 / 3, 1 / 2])
    assert scored.lone.error > scored.like_test.error > 0
    of_one_class = replace(samples, alone=samples.alone & (labels == 0))
    assert score_decided(of_one_class, decided).lone is None


def test_without_a_test_set_the_score_is_of_new_samples() -> None:
    samples = replace(HELPED, of_test=np.empty(0, np.int64))
    [first, second] = describe_expected(expect(samples), samples, 600)
    assert re.match(r"expect BAC [\d.]+ % \[.*\] on new samples: OOF, 600 of 600 training", first)
    assert second.startswith("  each picture counted once: ")


def test_two_folds_can_use_a_part_but_not_judge_the_rule() -> None:
    samples = HELPED.at(HELPED.fold < 2)
    assert any(trial.used for trial in fit_rule(samples).trials)
    assert expect(samples).of_rule is None


@given(fold=st.integers(0, 2), seed=st.integers(0, 999))
@settings(max_examples=4, deadline=None)
def test_nothing_fitted_for_a_fold_depends_on_its_labels(fold: int, seed: int) -> None:
    held_out = np.flatnonzero(HELPED.fold == fold)
    labels = HELPED.labels.copy()
    labels[held_out] = np.random.default_rng(seed).permutation(labels[held_out])
    shuffled = replace(HELPED, labels=labels)
    rules: list[Rule] = []

    def fit(samples: HeldOut) -> Rule:
        rules.append(fit_rule(samples))
        return rules[-1]

    before, after = (cross_fit(fit, samples) for samples in (HELPED, shuffled))
    # Trials, their gains and the words about them included.
    assert rules[fold] == rules[3 + fold]
    assert all(trial.used for trial in rules[fold].trials)
    np.testing.assert_array_equal(before.prob[held_out], after.prob[held_out])
    np.testing.assert_array_equal(before.predicted[held_out], after.predicted[held_out])
    # It is those of the other folds that do.
    assert rules[(fold + 1) % 3] != rules[3 + (fold + 1) % 3]


@given(seed=st.integers(0, 999), share=st.floats(-0.5, 1.5))
@settings(max_examples=6, deadline=None)
def test_a_part_is_used_exactly_when_it_gains_enough(seed: int, share: float) -> None:
    samples = draw((1.5, 0.7), prior_share=share, n=120, seed=seed)
    rule = fit_rule(samples)
    for trial in rule.trials:
        assert trial.gain is not None
        errors = 0 if trial.part is Part.CORRECTION else 2
        assert trial.used == (trial.gain.value > errors * trial.gain.error)
    of = {trial.part: trial.used for trial in rule.trials}
    assert of[Part.CORRECTION] == (rule.correction is not None)
    if not of[Part.SELECTION]:
        assert rule.weights == (0.5, 0.5)
    assert sum(rule.weights) == pytest.approx(1)


def test_noise_that_selection_would_flatter_is_not_believed() -> None:
    """Of 30 runs that know nothing, a choice is better than chance only where it was made."""
    samples = draw((0,) * 30, n=240)
    flattered = fit_parts({Part.SELECTION}, samples).apply(samples.prob, samples.picture)
    assert bac(samples, flattered.predicted) > 0.45
    honest = expect(samples).of_rule
    assert honest is not None
    low, high = honest.like_test.interval
    assert low < 1 / 3 < high


def test_one_run_has_no_weights_to_select() -> None:
    assert list(trials(draw((2,)))) == [Part.CORRECTION]


def test_one_fold_can_judge_nothing() -> None:
    samples = HELPED.at(HELPED.fold == 1)
    rule = fit_rule(samples)
    assert rule.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert rule.correction is None
    for trial in rule.trials:
        assert (trial.gain, trial.used) == (None, False)
    assert expect(samples).of_rule is None


def test_copies_do_not_make_a_gain_surer() -> None:
    gains = []
    for times in (1, 4):
        rows = np.repeat(np.arange(300), times)
        gains.append(trials(draw((2,), prior_share=0).at(rows))[Part.CORRECTION].gain)
    assert gains[0] is not None
    assert gains[1] is not None
    assert gains[1].error == pytest.approx(gains[0].error, rel=0.1)
