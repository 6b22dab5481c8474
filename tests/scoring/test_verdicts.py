import numpy as np
import pytest

from benchmarks.verdicts import cases, false_verdicts

CASES = cases()


@pytest.mark.parametrize("name", ["one fold of the challenge", "the demo, three folds"])
def test_three_seeds_a_side_seldom_differ_if_the_recipe_is_one(name: str) -> None:
    """False verdicts, nominally in 5 % of comparisons."""
    shares = [false_verdicts(*CASES[name], bent, 3, 40) for bent in (0.0, 0.2)]
    assert np.mean(shares) <= 0.05


def test_one_seed_a_side_differs_too_often() -> None:
    """The reason for not recommending a run then."""
    assert false_verdicts(*CASES["one fold of the challenge"], 0.2, 1, 40) > 0.15
