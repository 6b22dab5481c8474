"""SIGKILL at any moment: what is left in the end is what an undisturbed verb leaves."""

from collections.abc import Callable
from pathlib import Path

import pytest
from scenes import Scenes
from torment import Toll, torment


def check(toll: Toll, kills: int) -> None:
    assert not toll.lost, "\n".join(toll.lost)
    assert toll.kills == kills
    assert toll.chains == toll.identical > 0


@pytest.mark.parametrize(
    ("verb", "kills"), [("train", 5), ("folds", 2), ("cache", 3), ("tune", 3), ("submit", 3)]
)
def test_a_few_kills(scenes: Scenes, tmp_path: Path, verb: str, kills: int) -> None:
    toll = torment(getattr(scenes, verb), tmp_path / "chains", kills=kills, seed=0)
    check(toll, kills)
    if verb == "train":
        # Of those that are aimed into a write, some come too late.
        assert toll.inside >= 1


@pytest.mark.torture
@pytest.mark.parametrize(
    ("verb", "kills"), [("train", 100), ("folds", 20), ("cache", 20), ("tune", 20), ("submit", 20)]
)
def test_many_kills(
    real_scenes: Scenes,
    tmp_path: Path,
    verb: str,
    kills: int,
    record_property: Callable[[str, object], None],
) -> None:
    toll = torment(getattr(real_scenes, verb), tmp_path / "chains", kills=kills, seed=1)
    record_property("toll", toll.row(verb))
    check(toll, kills)
    if verb == "train":
        assert toll.inside >= 20
