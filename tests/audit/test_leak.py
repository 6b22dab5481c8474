import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellline.audit.leak import (
    Leak,
    describe_expected,
    expected,
    measure_leak,
    measure_run_leak,
)
from cellline.data.competition import Competition
from cellline.runs.folds import Folds
from cellline.runs.run_folder import OutOfFold
from cellline.scoring.metrics import Estimate

LEAK = Leak(Estimate(0.8, 0.76, 0.84, 0.02), Estimate(0.6, 0.54, 0.66, 0.03), 60, 40)


def test_leaked_samples_are_scored_apart() -> None:
    labels = np.tile([0, 1], 40)
    leaked = np.arange(80) < 40
    predicted = labels.copy()
    predicted[40:60] = 0
    leak = measure_leak(labels, predicted, 2, leaked, np.arange(80) // 2)
    assert leak is not None
    assert (leak.leaked.value, leak.rest.value) == (1, 0.75)
    assert (leak.n_leaked, leak.n_rest) == (40, 40)
    assert leak.rest.low < 0.75 < leak.rest.high
    assert leak.difference.value == 0.25
    assert leak.difference.low > 0
    assert "40 samples" in leak.describe()
    assert "+25.0" in leak.describe()


def test_only_classes_that_both_hold_are_compared() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    leaked = np.array([True, True, False, False, False, False])
    predicted = np.array([0, 0, 0, 1, 0, 0])
    leak = measure_leak(labels, predicted, 2, leaked, np.arange(6))
    assert leak is not None
    assert (leak.leaked.value, leak.rest.value, leak.n_rest) == (1, 0.5, 2)


@pytest.mark.parametrize("leaked", [[False] * 4, [True] * 4, [True, True, False, False]])
def test_nothing_is_said_where_nothing_can_be_compared(leaked: list[bool]) -> None:
    labels = np.array([0, 0, 1, 1])
    assert measure_leak(labels, labels, 2, np.array(leaked), np.arange(4)) is None


@given(st.floats(0, 1))
def test_the_expectation_lies_between_its_parts(share: float) -> None:
    score = expected(LEAK, share)
    assert score.value == pytest.approx(0.6 + 0.2 * share)
    assert score.low < score.value < score.high
    assert score.error <= 0.03 + 1e-12


def test_the_expectation_ends_in_its_parts() -> None:
    assert (expected(LEAK, 1).value, expected(LEAK, 1).error) == (0.8, 0.02)
    assert (expected(LEAK, 0).value, expected(LEAK, 0).error) == (0.6, 0.03)
    # Independent errors: below their sum.
    assert LEAK.difference.error == pytest.approx(np.hypot(0.02, 0.03))
    assert describe_expected(LEAK, 0.5).endswith("makes 70.0 % [66.5, 73.5]")


def test_a_leak_is_read_as_it_was_written() -> None:
    assert Leak.from_record(json.loads(json.dumps(asdict(LEAK)))) == LEAK


def predict(competition: Competition, rows: np.ndarray) -> OutOfFold:
    """Every other sample right."""
    guesses = np.where(rows % 2, competition.labels[rows], 0)
    prob = np.eye(len(competition.classes), dtype=np.float32)[guesses]
    return OutOfFold(competition.train_ids[rows], competition.labels[rows], prob, prob)


def test_a_run_on_folds_that_tear_groups_apart_has_a_leak(
    competition: Competition, folds: Folds
) -> None:
    rows = np.arange(48)
    assert measure_run_leak(predict(competition, rows), competition, folds) is None
    # Rows 0 and 1, 24 and 25, 39 and 40 are one picture each, in different folds.
    group = folds.group.copy()
    group[[1, 25, 40]] = group[[0, 24, 39]]
    torn = replace(folds, group=group, ignore_groups=True)
    leak = measure_run_leak(predict(competition, rows), competition, torn)
    assert leak is not None
    assert (leak.n_leaked, leak.n_rest) == (6, 42)
    # Also of one fold alone, whose samples' relatives were learned from.
    held_out = torn.held_out_rows(0)
    leak = measure_run_leak(predict(competition, held_out), competition, torn)
    assert leak is not None
    assert leak.n_leaked == 3
