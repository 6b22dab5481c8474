import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellline.audit.groups import find_large
from cellline.audit.reference import choose_classes
from cellline.audit.splitting import (
    check_training,
    deal_folds,
    find_missing,
    find_straddling,
)
from cellline.errors import UserError


@settings(max_examples=60)
@given(st.data())
def test_folds_never_split_a_group_and_have_each_class(data: st.DataObject) -> None:
    """As far as a class has groups, which may be fewer than the folds."""
    n_folds = data.draw(st.integers(2, 5))
    groups_of_class = data.draw(
        st.lists(st.integers(1, 15), min_size=2, max_size=4).filter(lambda of: sum(of) >= n_folds)
    )
    label_of_group = np.repeat(np.arange(len(groups_of_class)), groups_of_class)
    n = len(label_of_group)
    sizes = data.draw(st.lists(st.sampled_from([1, 2, 6, 50]), min_size=n, max_size=n))
    group = np.repeat(np.arange(n) * 7, sizes)
    labels = label_of_group[group // 7]
    fold = deal_folds(labels, group, n_folds, data.draw(st.integers(0, 9)))
    assert set(fold) == set(range(n_folds))
    for label, groups in enumerate(groups_of_class):
        assert len(set(fold[labels == label])) == min(groups, n_folds)
    for name in np.unique(group):
        assert len(set(fold[group == name])) == 1


@pytest.mark.parametrize("group", [np.arange(100), None])
def test_classes_are_spread_evenly(group: np.ndarray | None) -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    fold = deal_folds(labels, group, 5, seed=0)
    for name, share in ((0, 10), (1, 6), (2, 4)):
        assert list(np.bincount(fold[labels == name])) == [share] * 5
    assert not np.array_equal(fold, deal_folds(labels, group, 5, seed=1))


def test_no_fold_is_empty_where_scikit_learn_would_leave_one() -> None:
    group = np.repeat(np.arange(5), [50, 2, 1, 3, 50])
    labels = np.array([0, 2, 1, 1, 0])[group]
    assert set(deal_folds(labels, group, 5, seed=0)) == set(range(5))


def test_memory_does_not_grow_with_the_square_of_the_number_of_classes() -> None:
    labels = np.repeat(np.arange(10_000), 2)
    group = np.arange(len(labels)) // 4 * 4  # of two classes each
    tracemalloc.start()
    fold = deal_folds(labels, group, 2, seed=0)
    large = find_large(group, labels, group)
    chosen = choose_classes(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # 5,000 groups by 10,000 classes, as bytes
    assert set(fold) == {0, 1}
    assert large == {}
    assert 2 <= len(np.unique(labels[chosen])) < 10_000
    assert choose_classes(labels[:100]).all()


def test_what_cannot_be_dealt_is_refused() -> None:
    labels, fold = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 1, 1])
    with pytest.raises(UserError, match="outside fold 1 all training samples are of class HeLa"):
        check_training(labels, fold, ("HeLa", "RT4"))


def test_a_fold_without_a_class_is_named() -> None:
    labels, fold = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert find_missing(labels, fold, 3) == [(0, 2), (1, 0), (1, 2)]


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2)), min_size=1, max_size=20).map(
        lambda rows: np.array(rows).T
    )
)
def test_what_has_a_relative_in_another_fold_is_found(rows: np.ndarray) -> None:
    group, fold = rows
    expected = [
        any(group[other] == group[row] and fold[other] != fold[row] for other in range(len(fold)))
        for row in range(len(fold))
    ]
    assert find_straddling(group, fold).tolist() == expected
