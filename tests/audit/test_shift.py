from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cellline.audit.shift import Shift, compare_means, measure_auc, measure_shift
from cellline.audit.statistics import Part
from cellline.audit.words import describe_shift
from cellline.errors import Caution
from cellline.scoring.bootstrap import Bootstrap

NAMES = ("red mean", "red median", "blue mean", "blue median")
N_TRAIN, N_TEST = 160, 60


def draw(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, len(NAMES))).astype(np.float32)


def measure(train: np.ndarray, test: np.ndarray) -> Shift:
    group, test_group = np.split(np.arange(len(train) + len(test)), [len(train)])
    found = measure_shift(Part(train, group), Part(test, test_group), NAMES, 3, 0)
    assert found is not None
    return found


def test_parts_that_are_alike_can_t_be_told_apart() -> None:
    found = measure(draw(N_TRAIN, 0), draw(N_TEST, 1))
    assert not found.shifted
    assert found.auc.low < 0.5 < found.auc.high
    assert found.differing == ()
    [line] = describe_shift(found)
    assert line.startswith("training and test samples can't be told apart: AUC 0.")


def test_a_shift_is_found_and_named_the_largest_first() -> None:
    test = draw(N_TEST, 1)
    test[:, [0, 3]] += [1.5, -2.5]
    found = measure(draw(N_TRAIN, 0), test)
    assert found.shifted
    assert found.differing == ("blue median", "red mean")
    assert found.differences["blue median"].value == pytest.approx(-2.5, abs=0.4)
    what, advice = describe_shift(found)
    assert isinstance(what, Caution)
    assert what.startswith("the test set looks different: AUC 0.9")
    assert what.index("blue median (-2.") < what.index("red mean (+1.")
    assert "--gain" in advice


def test_test_copies_of_training_samples_are_no_shift() -> None:
    train = draw(N_TRAIN, 0)
    part = Part(train, np.arange(N_TRAIN))
    copied = Part(train[:N_TEST], part.group[:N_TEST])
    together = measure_shift(part, copied, NAMES, 3, 0)
    assert together is not None
    assert together.auc.low < 0.5 < together.auc.high
    # In different folds a copy with the other label would teach the wrong answer.
    assert measure(train, train[:N_TEST]).auc.high < 0.5


def test_too_few_samples_tell_nothing() -> None:
    train = Part(draw(40, 0), np.arange(40))
    test = Part(draw(4, 1), np.array([50, 50, 51, 51]))
    found = measure_shift(train, test, NAMES, 3, 0)
    assert found is None
    assert describe_shift(found)[0].startswith("there are too few groups")


@settings(max_examples=30)
@given(st.data())
def test_the_auc_is_the_known_one_within_each_fold(data: st.DataObject) -> None:
    n_folds, values = data.draw(st.integers(1, 2)), st.sampled_from([0.0, 0.25, 0.5, 1.0])
    prob = np.array(data.draw(st.lists(values, min_size=24, max_size=24)))
    is_test, fold = np.arange(24) // 2 % 2, np.arange(24) % n_folds
    auc = measure_auc(is_test, prob, fold, Bootstrap(np.arange(24)))
    known = [roc_auc_score(is_test[fold == k], prob[fold == k]) for k in range(n_folds)]
    assert auc.value == pytest.approx(np.mean(known))
    assert 0 <= auc.low <= auc.value <= auc.high <= 1


def test_copies_of_one_picture_make_the_auc_no_surer() -> None:
    generator = np.random.default_rng(0)
    prob, is_test, fold = generator.random(200), np.arange(200) % 4 // 3, np.arange(200) % 3
    once = measure_auc(is_test, prob, fold, Bootstrap(np.arange(200)))
    twice = [np.repeat(each, 2) for each in (is_test, prob, fold, np.arange(200))]
    copied = measure_auc(*twice[:3], Bootstrap(twice[3]))
    assert copied.value == pytest.approx(once.value)
    assert copied.error == pytest.approx(once.error)
    # The Mann-Whitney statistic's own error, widened.
    assert once.error == pytest.approx(sqrt(2 * 201 / (12 * 50 * 150)), rel=0.1)


def test_means_are_compared_in_standard_deviations_of_the_training_samples() -> None:
    statistics = 10 * draw(N_TRAIN + N_TEST, 0)
    is_test = np.repeat([0, 1], [N_TRAIN, N_TEST])
    statistics[is_test == 1, 0] += 20
    statistics[:, 1] = 3
    statistics[:, 2] = 3 + is_test
    bootstrap = Bootstrap(np.arange(len(statistics)))
    shifted, constant, unit, alike = compare_means(statistics, is_test, bootstrap)
    assert shifted.value == pytest.approx(2, abs=0.3)
    assert (constant.value, constant.error) == (0, 0)
    assert unit.value == pytest.approx(1)
    assert alike.low < 0 < alike.high
    assert alike.error == pytest.approx(sqrt(1 / N_TRAIN + 1 / N_TEST), rel=0.15)
