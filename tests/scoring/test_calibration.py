import numpy as np
import pytest
from test_decisions import draw

from cellline.scoring.bootstrap import Bootstrap
from cellline.scoring.calibration import binned, calibration_error, error_by_chance
from cellline.scoring.decisions import fit_correction, likeliest
from cellline.scoring.metrics import METRICS


def test_reliability_by_hand() -> None:
    prob = np.array([[0.52, 0.48], [0.46, 0.54], [0.9, 0.1], [1, 0]], np.float32)
    labels = np.array([0, 0, 0, 1])
    count, confidence, right = binned(labels, prob).sum(axis=0).T
    # Bins are (7/15, 8/15], (8/15, 9/15], (13/15, 14/15] and (14/15, 1].
    assert np.flatnonzero(count).tolist() == [7, 8, 13, 14]
    np.testing.assert_allclose(confidence[count > 0], [0.52, 0.54, 0.9, 1], rtol=1e-6)
    assert right[count > 0].tolist() == [1, 0, 1, 0]
    error = calibration_error(labels, prob, Bootstrap(np.arange(4)))
    assert error.value == pytest.approx((0.48 + 0.54 + 0.1 + 1) / 4)


@pytest.mark.parametrize("size", [1, 10])
def test_perfect_probabilities_show_the_error_that_chance_gives(size: int) -> None:
    """Of 400 samples in groups of a size, right and wrong together."""
    generator = np.random.default_rng(0)
    groups = np.arange(400) // size
    bootstrap = Bootstrap(groups)
    shown, by_chance = [], []
    for _ in range(60):
        sure = generator.uniform(0.5, 1, 400 // size)[groups]
        prob = np.stack([sure, 1 - sure], axis=1)
        labels = (generator.random(400 // size)[groups] > sure).astype(int)
        shown.append(calibration_error(labels, prob, bootstrap).value)
        by_chance.append(error_by_chance(labels, prob, groups))
    assert np.mean(by_chance) == pytest.approx(np.mean(shown), rel=0.12)
    # Whole groups scatter more than as many samples.
    assert (np.mean(shown) > 0.1) == (size == 10)


def test_correction_brings_the_calibration_error_down() -> None:
    true, labels, prob = draw(2_000, 2, 0)
    bootstrap = Bootstrap(np.arange(len(labels)))
    before = calibration_error(labels, prob, bootstrap)
    corrected = fit_correction(prob, labels).apply(prob).prob
    after = calibration_error(labels, corrected, bootstrap)
    both = likeliest(prob), likeliest(corrected)
    assert METRICS["log_loss"].gain(labels, both, bootstrap).low > 0
    same = likeliest(true), likeliest(true)
    assert METRICS["log_loss"].gain(labels, same, bootstrap).interval == (0, 0)
    assert after.high < before.low
    assert after.value == pytest.approx(calibration_error(labels, true, bootstrap).value, abs=0.015)
