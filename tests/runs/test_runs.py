import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellline.config import Config, Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.runs.folds import Folds
from cellline.runs.predictions import (
    OutOfFold,
    common_samples,
    read_test,
    write_out_of_fold,
    write_test,
)
from cellline.runs.run import Run, new_run, open_run, run_folder


@pytest.fixture
def run(training: Training, folds: Folds) -> Run:
    """A run that has begun, with no fold finished."""
    begun = new_run(Config(training=training, run="run"), folds)
    begun.begin()
    return begun


def finish(run: Run, fold: int, /, **changed: Any) -> Path:
    """Write predictions of a fold: of each sample as sure as its row is large; their file."""
    rows = run.folds.held_out_rows(fold)
    prob = np.stack([rows, 100 - rows, 0 * rows], axis=1).astype(np.float32) / 100
    predictions = OutOfFold(run.folds, rows, prob, prob)
    write_out_of_fold(run.oof_path(fold), predictions, {**run.provenance(fold), **changed})
    return run.oof_path(fold)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "tuning", "a b", "a\n", ".."])
def test_names_that_would_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="--run"):
        run_folder(Config(run=name))
    assert run_folder(Config(run="b4-large_2.1")) == Path("oof/b4-large_2.1")


def test_without_a_name_the_run_of_the_settings_is_opened_or_the_only_one(run: Run) -> None:
    unnamed = replace(run.config, run="")
    assert open_run(unnamed, run.folds).name == "run"
    new_run(unnamed, run.folds).begin()
    assert open_run(unnamed, run.folds).name == "densenet_tiny-scratch"
    Path("oof/tuning").mkdir()
    Path("oof/tuning/config.json").write_text("{}")
    other = replace(unnamed, training=replace(unnamed.training, seed=3))
    told = "no run densenet_tiny-scratch-seed3 in oof, but densenet_tiny-scratch, run: name one"
    with pytest.raises(UserError, match=told):
        open_run(other, run.folds)


def test_other_settings_are_refused_by_name(run: Run) -> None:
    run.check_unchanged()
    run.begin()
    training = run.config.training
    gentler = replace(training, lr=1.0, augmentation=replace(training.augmentation, gain=0.1))
    other = new_run(replace(run.config, training=gentler), run.folds)
    for check in (other.check_unchanged, other.begin):
        with pytest.raises(UserError, match=r"gain was 0.2 and is 0.1 now; lr was 0.003 and is 1"):
            check()


def test_runs_of_other_data_or_folds_are_refused(run: Run, competition: Competition) -> None:
    assert open_run(run.config, run.folds).settings == run.settings
    assert open_run(replace(run.config, training=Training()), run.folds).config == run.config
    with pytest.raises(UserError, match=r"no run in oof/b: train it first,\n  make train RUN=b"):
        open_run(replace(run.config, run="b"), run.folds)
    with pytest.raises(UserError, match=r"other input \(111111111111\)"):
        open_run(run.config, replace(run.folds, competition=replace(competition, digest="9" * 64)))
    with pytest.raises(UserError, match=r"other folds \(333333333333\)"):
        open_run(run.config, replace(run.folds, digest="9" * 64))


def test_predictions_that_belong_elsewhere_are_refused_with_both_sides(run: Run) -> None:
    for changed, told in (
        ({"fold": 2}, "its fold is 2, not 1"),
        ({"folds_digest": "4" * 64}, "its folds_digest is 444444444444..., not 333333333333..."),
        ({"input_digest": "5" * 64}, "its input_digest is 555555555555..., not 111111111111..."),
        ({"classes": ["A549", "RT4"]}, r"its classes is \['A549', 'RT4'\], not \['A549', 'HeLa'"),
        ({"settings": {**run.settings, "lr": 0.5}}, "its lr is 0.5, not 0.003"),
    ):
        finish(run, 1, **changed)
        with pytest.raises(UserError, match=rf"oof\.npz does not belong .* oof/run: {told}"):
            run.out_of_fold([1])
    finish(run, 1, code="0" * 40)
    assert run.out_of_fold([1]).ids.tolist() == run.competition.train_ids[1::3].tolist()


def test_a_config_that_was_lost_is_restored_if_the_folds_agree(run: Run) -> None:
    finish(run, 1)
    path = run.folder / "config.json"
    written = path.read_bytes()
    path.unlink()
    longer = replace(run.config, training=replace(run.config.training, epochs=9))
    with pytest.raises(UserError, match=r"oof\.npz does not belong .* its epochs is 3, not 9"):
        new_run(longer, run.folds).check_unchanged()
    assert not path.exists()
    run.check_unchanged()
    assert path.read_bytes() == written


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 300])
def test_predictions_that_are_damaged_are_named(run: Run, data: bytes) -> None:
    path = finish(run, 0)
    whole = path.read_bytes()
    flipped = whole[:150] + bytes([whole[150] ^ 1]) + whole[151:]
    for damage in (data, whole[:-30], flipped, whole[:200] + whole[220:]):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"oof/run/fold0/oof\.npz is damaged"):
            run.out_of_fold([0])


NESTED = np.array("[" * 100_000)


def without_rows(array: np.ndarray) -> np.ndarray:
    return array[:3]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("prob", lambda prob: prob * np.nan),
        ("prob", lambda prob: prob - 1),
        ("prob", lambda prob: prob * 0),
        ("prob", without_rows),
        ("prob", lambda prob: prob[:, :1]),
        ("prob", lambda prob: prob.astype(complex)),
        ("prob", lambda prob: prob.astype(str)),
        ("file_id", lambda ids: ids + 1000),
        ("file_id", lambda ids: ids.astype(str)),
        ("file_id", without_rows),
        ("provenance", lambda _: np.array("{no json")),
        ("provenance", lambda _: NESTED),
        ("provenance", lambda _: np.array("[]")),
        ("label", lambda labels: labels + 1),
        ("prob_plain", without_rows),
    ],
)
def test_predictions_of_anything_else_than_their_samples_are_damaged(
    run: Run, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    ids = run.competition.test_ids
    of_test = run.fold_folder(0) / "test.npz"
    write_test(of_test, ids, np.full((len(ids), 3), 1 / 3, np.float32), {"a": 1})
    for path, read in (
        (finish(run, 0), lambda: run.out_of_fold([0])),
        (of_test, lambda: read_test(of_test, {"a": 1}, run.competition)),
    ):
        read()
        arrays = dict(np.load(path))
        if name in arrays:
            np.savez(path, allow_pickle=False, **{**arrays, name: change(arrays[name])})
            with pytest.raises(UserError, match=rf"{path.name} is damaged"):
                read()


def test_a_size_that_no_memory_has_is_damage(run: Run) -> None:
    path = finish(run, 0)
    size = {"descr": "<f4", "fortran_order": False, "shape": (10**14, 3)}
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, size)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {**members, "prob.npy": header.getvalue()}.items():
            file.writestr(name, data)
    with pytest.raises(UserError, match=r"oof\.npz is damaged"):
        run.out_of_fold([0])


@pytest.mark.parametrize("history", [None, [], [{}], ["a"], 5, [{"epoch": "1"}]])
def test_a_history_without_its_rows_is_damaged(run: Run, history: Any) -> None:
    finish(run, 0, history=history)
    with pytest.raises(UserError, match=r"oof\.npz is damaged \(its history is not"):
        _ = run.histories


def test_objects_in_predictions_are_never_loaded(run: Run) -> None:
    path = finish(run, 0)
    np.savez(path, provenance=np.array([print], dtype=object))  # a pickle
    with pytest.raises(UserError, match=r"oof\.npz is damaged \(Object arrays cannot be loaded"):
        run.out_of_fold([0])


@pytest.mark.parametrize("texts", [False, True])
def test_folds_are_joined_in_the_order_of_ids_and_found_without_pickle(
    run: Run, competition: Competition, texts: bool
) -> None:
    ids = np.array(sorted(f"p{i}_{'é' * (i % 3)}" for i in range(48)))
    if texts:
        named = replace(run.folds, competition=replace(competition, train_ids=ids), group=ids)
        run = Run(run.config, named, run.record)
    for fold in (2, 0):
        finish(run, fold)
    assert (run.finished, run.missing, run.begun) == ([0, 2], [1], [])
    joined, of_one = run.oof, run.out_of_fold([2])
    rows = np.flatnonzero(run.folds.fold != 1)
    assert joined.rows.tolist() == rows.tolist()
    assert joined.ids.tolist() == run.competition.train_ids[rows].tolist()
    np.testing.assert_allclose(joined.prob[:, 0], rows / 100)
    assert [part.rows.tolist() for part in common_samples([joined, of_one])] == [
        of_one.rows.tolist()
    ] * 2
    with np.load(run.oof_path(0), allow_pickle=False) as file:
        assert json.loads(str(file["provenance"])) == run.provenance(0)
        kinds = {key: file[key].dtype.kind for key in file if key != "provenance"}
        id_kind = "U" if texts else "i"
        assert kinds == {"file_id": id_kind, "label": "i", "prob": "f", "prob_plain": "f"}
