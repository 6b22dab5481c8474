from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.report.reading import read_test
from cellline.runs.folds import Folds
from cellline.runs.run_folder import (
    OutOfFold,
    describe_run,
    write_out_of_fold,
    write_test_predictions,
)

Write = Callable[..., Path]


@pytest.fixture
def config(training: Training, competition: Competition, folds: Folds) -> dict[str, Any]:
    return describe_run(training, competition, folds)


@pytest.fixture
def write(config: dict[str, Any], competition: Competition) -> Write:
    """Leave fold 1 of a run with its test predictions, or with others."""

    def leave(ids: np.ndarray | None = None, prob: np.ndarray | None = None, **other: Any) -> Path:
        nothing = np.zeros((0, 3), np.float32)
        of_fold = {**config, "fold": 1, "model_digest": "a" * 64}
        predictions = OutOfFold(np.zeros(0), np.zeros(0), nothing, nothing)
        write_out_of_fold(Path("oof/run/fold1/oof.npz"), predictions, of_fold)
        path = Path("oof/run/fold1/test.npz")
        write_test_predictions(
            path,
            competition.test_ids if ids is None else ids,
            np.full((9, 3), 1 / 3, np.float32) if prob is None else prob,
            {**of_fold, "test_digest": competition.test_digest, **other},
        )
        return path

    return leave


def test_the_test_predictions_are_read(
    config: dict[str, Any], competition: Competition, write: Write
) -> None:
    assert read_test(Path("oof/run"), [0, 1], config, competition) == {}
    write()
    found = read_test(Path("oof/run"), [0, 1], config, competition)
    assert found.keys() == {1}
    assert found[1].shape == (9, 3)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"model_digest": "b" * 64}, "model_digest is bbbbbbbbbbbb..., not aaaaaaaaaaaa..."),
        ({"test_digest": "c" * 64}, "test_digest is cccccccccccc..., not 222222222222..."),
        ({"fold": 2}, "fold is 2, not 1"),
        ({"folds_digest": "d" * 64}, "folds_digest is dddddddddddd..., not 333333333333..."),
    ],
)
def test_test_predictions_of_something_else_are_refused_with_both_sides(
    config: dict[str, Any],
    competition: Competition,
    write: Write,
    other: dict[str, Any],
    told: str,
) -> None:
    write(**other)
    with pytest.raises(UserError, match=rf"fold1/test\.npz does not belong .*its {told}"):
        read_test(Path("oof/run"), [1], config, competition)


def test_test_predictions_of_other_samples_or_shape_are_refused(
    config: dict[str, Any], competition: Competition, write: Write
) -> None:
    prob = np.full((9, 3), 1 / 3, np.float32)
    for others in (
        {"ids": competition.test_ids + 1},
        {"prob": prob[:, :2]},
        {"prob": prob[:5]},
        {"prob": prob.astype(str)},
    ):
        write(**others)
        with pytest.raises(UserError, match=r"test\.npz is damaged \(it is not of these test"):
            read_test(Path("oof/run"), [1], config, competition)


def test_test_predictions_that_are_damaged_are_named(
    config: dict[str, Any], competition: Competition, write: Write
) -> None:
    path = write()
    whole = path.read_bytes()
    flipped = whole[:-300] + bytes([whole[-300] ^ 1]) + whole[-299:]
    for damage in (b"", b"PK", whole[:-30], flipped, whole[:200] + whole[220:]):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"oof/run/fold1/test\.npz is damaged"):
            read_test(Path("oof/run"), [1], config, competition)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("exploded").absolute(),)


def test_a_pickle_among_them_is_never_loaded(
    config: dict[str, Any], competition: Competition, write: Write
) -> None:
    path = write()
    arrays = dict(np.load(path))
    for name in arrays:
        np.savez(path, **{**arrays, name: np.array([Bomb()], dtype=object)})
        with pytest.raises(UserError, match=r"test\.npz is damaged \(Object arrays cannot"):
            read_test(Path("oof/run"), [1], config, competition)
    assert not Path("exploded").exists()
    # It would: the same file, read without care.
    np.load(path, allow_pickle=True)[name]
    assert Path("exploded").exists()


def test_another_order_of_classes_is_another_run(
    config: dict[str, Any], competition: Competition, write: Write
) -> None:
    write()
    turned = replace(competition, classes=competition.classes[::-1])
    with pytest.raises(UserError, match="its classes is"):
        read_test(Path("oof/run"), [1], {**config, "classes": list(turned.classes)}, turned)
