from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cellline.audit.statistics import measure_statistics, name_statistics
from cellline.data.views import VIEWS, take_view

CHANNELS = ("blue", "red", "yellow")
pictures = st.tuples(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 13), st.integers(1, 13)
).flatmap(lambda shape: arrays.arrays(np.uint8, shape))


@settings(max_examples=60)
@given(images=pictures, view=st.sampled_from(VIEWS))
def test_flips_and_rotations_change_nothing(images: np.ndarray, view: int) -> None:
    statistics = measure_statistics(images)
    np.testing.assert_array_equal(measure_statistics(take_view(images, view)), statistics)
    assert statistics.dtype == np.float32
    assert np.isfinite(statistics).all()
    names = name_statistics([f"c{k}" for k in range(images.shape[1])])
    assert statistics.shape == (len(images), len(names)) == (len(images), len(set(names)))


def measure_one(image: np.ndarray) -> dict[str, float]:
    values = measure_statistics(image[None])[0].tolist()
    return dict(zip(name_statistics(CHANNELS), values, strict=True))


def test_names_say_what_the_numbers_are() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 100, (3, 20, 16), dtype=np.uint8)
    image[1, 5:15, 4:12] += 50
    image[2] = 255 - image[1]
    measured = measure_one(image)
    for channel, pixels in zip(CHANNELS, image.astype(float), strict=True):
        assert measured[f"{channel} mean"] == pytest.approx(pixels.mean())
        assert measured[f"{channel} standard deviation"] == pytest.approx(pixels.std(), rel=1e-5)
        assert measured[f"{channel} centre mean"] == pytest.approx(pixels[5:15, 4:12].mean())
        for name, q in (("1st percentile", 1), ("median", 50), ("99th percentile", 99)):
            assert measured[f"{channel} {name}"] == np.percentile(pixels, q, method="nearest")
        steps = np.concatenate([np.abs(np.diff(pixels, axis=axis)).ravel() for axis in (0, 1)])
        assert measured[f"{channel} fine texture"] == pytest.approx(steps.mean())
    assert measured["red-yellow correlation"] == pytest.approx(-1, abs=1e-5)
    blue_red = np.corrcoef(image[0].ravel(), image[1].ravel())[0, 1]
    assert measured["blue-red correlation"] == pytest.approx(blue_red, abs=1e-5)


def test_blocks_of_a_memory_map_don_t_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellline.audit.statistics.BLOCK_BYTES", 50 * 3 * 8 * 8)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (103, 3, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    one_by_one = np.concatenate([measure_statistics(image[None]) for image in images])
    np.testing.assert_array_equal(measure_statistics(mapped), one_by_one)
