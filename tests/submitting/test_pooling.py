import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from cellline.submitting.pooling import count_members, match_test, pool, thin


@given(
    logits=arrays(np.float64, (2, 12, 3), elements=st.floats(-20, 20)),
    picture=arrays(np.int64, 12, elements=st.integers(0, 12)),
)
def test_all_samples_of_a_picture_have_the_geometric_mean_of_theirs(
    logits: np.ndarray, picture: np.ndarray
) -> None:
    prob = softmax(logits, axis=2).astype(np.float32)
    pooled = pool(prob, picture)
    assert pooled.dtype == np.float32
    for row in range(12):
        own = softmax(logits[:, picture == picture[row]].mean(axis=1), axis=1)
        np.testing.assert_allclose(pooled[:, row], own, atol=1e-5)
    # Where samples stand, and what their pictures are called, changes nothing.
    order = np.random.default_rng(0).permutation(12)
    names = np.array([f"picture {number}" for number in picture[order]])
    np.testing.assert_allclose(pool(prob[:, order], names), pooled[:, order], atol=1e-6)


def test_a_sample_that_is_alone_stays_as_it_is() -> None:
    prob = np.random.default_rng(0).dirichlet(np.ones(9), (2, 50)).astype(np.float32)
    np.testing.assert_allclose(pool(prob, np.arange(50)), prob, rtol=1e-6)


def test_what_is_impossible_for_one_is_not_impossible_for_all() -> None:
    """A probability can be zero in float32; its logarithm must not be."""
    prob = np.array([[[1, 0], [0, 1], [0, 1]]], np.float32)
    pooled = pool(prob, np.zeros(3))
    assert np.isfinite(pooled).all()
    assert (pooled.argmax(axis=2) == 1).all()


@given(
    group=arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 5)),
    n_test=st.integers(0, 50),
)
def test_thinning_divides_groups_and_never_joins_them(group: np.ndarray, n_test: int) -> None:
    picture = thin(group, n_test)
    assert len(np.unique(np.stack([picture, group]), axis=1)[0]) == len(np.unique(picture))
    np.testing.assert_array_equal(picture, thin(group, n_test))
    if n_test == 0 or n_test >= len(group):
        assert len(np.unique(picture)) == len(np.unique(group))


def test_pictures_are_as_small_as_the_test_sets() -> None:
    """Of pictures with 20 crops each, of which two in nine were put into the test set."""
    generator = np.random.default_rng(1)
    picture = np.repeat(np.arange(1000), 20)
    in_test = generator.random(20_000) < 1 / 4.4
    of_test = picture[in_test]
    thinned = thin(picture[~in_test], int(in_test.sum()))

    def mean_size(picture: np.ndarray) -> float:
        return float(np.unique(picture, return_counts=True)[1].mean())

    assert mean_size(thinned) == pytest.approx(mean_size(of_test), rel=0.05)
    assert mean_size(picture[~in_test]) > 3 * mean_size(of_test)


def test_weights_make_pictures_as_frequent_as_in_the_test_set() -> None:
    """Pictures here have 1, 4 or 40 samples."""
    picture = np.concatenate([np.arange(10), np.repeat([20, 21], 4), np.repeat(30, 40)])
    of_test = np.concatenate([np.arange(6), np.repeat([10, 11], 2), np.repeat(20, 2)])
    weight = match_test(picture, of_test)
    members = count_members(picture)
    # What is not in the test set keeps a twentieth.
    assert weight[members == 40] == pytest.approx(0.05)
    # Two of the test set share a picture; here, the next smaller size is one.
    assert weight[members == 1].sum() == pytest.approx(0.95 * len(picture) + 0.05 * 10)
    of_test = np.concatenate([np.arange(6), np.repeat(10, 3), np.repeat(11, 3)])
    weight = match_test(picture, of_test)
    for size, share in ((1, 1 / 2), (4, 1 / 2), (40, 0)):
        plain = np.mean(members == size)
        found = weight[members == size].sum() / len(picture)
        assert found == pytest.approx(0.95 * share + 0.05 * plain)
    np.testing.assert_allclose(match_test(picture, picture), 1)
    np.testing.assert_array_equal(match_test(picture, picture[:0]), 1)
