import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellline.model.normalization import measure_normalization

IMAGES = arrays(np.uint8, st.tuples(st.just(9), st.integers(1, 4), st.just(3), st.just(5)))


@given(IMAGES)
def test_statistics_are_those_of_all_pixels(images: np.ndarray) -> None:
    rows = np.array([1, 4, 8])
    found = measure_normalization(images, rows)
    pixels = images[rows].transpose(1, 0, 2, 3).reshape(images.shape[1], -1).astype(float)
    std = pixels.std(axis=1)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, np.where(std > 0, std, 1), rtol=1e-6)


@given(IMAGES, st.integers(0, 255))
def test_held_out_pixels_move_nothing(images: np.ndarray, value: int) -> None:
    rows = np.array([0, 2, 3, 5])
    before = measure_normalization(images, rows)
    changed = images.copy()
    changed[[1, 4, 6, 7, 8]] = value
    assert measure_normalization(changed, rows) == before


def test_order_and_blocks_change_no_digit() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (700, 2, 4, 4), dtype=np.uint8)
    rows = np.arange(700)
    assert measure_normalization(images, rows) == measure_normalization(
        images, generator.permutation(rows)
    )


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_a_channel_of_one_value_normalizes_to_zero(value: int) -> None:
    found = measure_normalization(np.full((100, 1, 40, 40), value, np.uint8), np.arange(100))
    assert (found.mean, found.std) == ((float(value),), (1.0,))
