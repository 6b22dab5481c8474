import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.runs.folds import Folds
from cellline.runs.run_folder import (
    OutOfFold,
    check_run,
    check_same_run,
    claim_run,
    describe_run,
    finished_folds,
    groups_of,
    read_out_of_fold,
    rows_of,
    run_folder,
    write_out_of_fold,
)
from cellline.submitting.blend import common_samples


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "tuning", "a b", "a\n", ".."])
def test_names_that_would_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="--run"):
        run_folder(Path("oof"), name)
    assert run_folder(Path("oof"), "b4-large_2.1") == Path("oof/b4-large_2.1")


def test_other_settings_are_refused_by_name(
    training: Training, competition: Competition, folds: Folds, tmp_path: Path
) -> None:
    config = describe_run(training, competition, folds)
    check_same_run(tmp_path, config)
    claim_run(tmp_path, config)
    check_same_run(tmp_path, config)
    gentler = replace(training.augmentation, gain=0.1)
    other = describe_run(replace(training, lr=1.0, augmentation=gentler), competition, folds)
    with pytest.raises(UserError, match=r"gain was 0.2 and is 0.1 now; lr was 0.003 and is 1.0"):
        check_same_run(tmp_path, other)


def test_runs_of_other_data_or_folds_are_refused(
    training: Training, competition: Competition, folds: Folds, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="train it first"):
        check_run(tmp_path, competition, folds)
    claim_run(tmp_path, describe_run(training, competition, folds))
    check_run(tmp_path, competition, folds)
    with pytest.raises(UserError, match=r"other input \(111111111111\)"):
        check_run(tmp_path, replace(competition, digest="9" * 64), folds)
    with pytest.raises(UserError, match=r"other folds \(333333333333\)"):
        check_run(tmp_path, competition, replace(folds, digest="9" * 64))


def test_predictions_that_belong_elsewhere_are_refused_with_both_sides(
    training: Training, competition: Competition, folds: Folds
) -> None:
    config = describe_run(training, competition, folds)
    run = Path("oof/run")
    claim_run(run, config)
    path = run / "fold1" / "oof.npz"
    prob = np.full((2, 3), 1 / 3, np.float32)
    predictions = OutOfFold(np.array([3, 6]), np.array([0, 1]), prob, prob)
    for changed, told in (
        ({"fold": 2}, "its fold is 2, not 1"),
        ({"folds_digest": "4" * 64}, "its folds_digest is 444444444444..., not 333333333333..."),
        ({"input_digest": "5" * 64}, "its input_digest is 555555555555..., not 111111111111..."),
        ({"classes": ["A549", "RT4"]}, r"its classes is \['A549', 'RT4'\], not \['A549', 'HeLa'"),
        ({"settings": {**config["settings"], "lr": 0.5}}, "its lr is 0.5, not 0.003"),
    ):
        write_out_of_fold(path, predictions, {**config, "fold": 1, **changed})
        with pytest.raises(UserError, match=rf"oof\.npz does not belong .* oof/run: {told}"):
            read_out_of_fold(run, [1])
    write_out_of_fold(path, predictions, {**config, "fold": 1, "code": "0" * 40})
    assert read_out_of_fold(run, [1]).ids.tolist() == [3, 6]


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 300])
def test_predictions_that_are_damaged_are_named(data: bytes) -> None:
    path = Path("oof/run/fold0/oof.npz")
    write_out_of_fold(path, OutOfFold(*4 * [np.zeros(3)]), {"fold": 0})
    whole = path.read_bytes()
    flipped = whole[:150] + bytes([whole[150] ^ 1]) + whole[151:]
    for damage in (data, whole[:-30], flipped, whole[:200] + whole[220:]):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"oof/run/fold0/oof\.npz is damaged"):
            read_out_of_fold(Path("oof/run"), [0])


def test_objects_in_predictions_are_never_loaded() -> None:
    path = Path("oof/run/fold0/oof.npz")
    path.parent.mkdir(parents=True)
    np.savez(path, provenance=np.array([print], dtype=object))  # a pickle
    with pytest.raises(UserError, match=r"oof\.npz is damaged \(Object arrays cannot be loaded"):
        read_out_of_fold(Path("oof/run"), [0])


def test_text_ids_are_joined_alike_and_found_without_pickle(
    competition: Competition, folds: Folds, tmp_path: Path
) -> None:
    texts = np.array(sorted(f"p{i}_{'é' * (i % 3)}" for i in range(48)))
    named = replace(competition, train_ids=texts)
    of_texts = replace(folds, group=np.repeat(texts[::2], 2))
    for fold in (2, 0):
        rows = of_texts.held_out_rows(fold)
        prob = rows[:, None].astype(np.float32)
        # As wide as the longest of these, which may be shorter than of all.
        ids = np.array(texts[rows].tolist())
        path = tmp_path / f"fold{fold}" / "oof.npz"
        write_out_of_fold(path, OutOfFold(ids, rows, prob, prob), {"fold": fold})
    joined = read_out_of_fold(tmp_path, [0, 2])
    rows = np.flatnonzero(of_texts.fold != 1)
    assert joined.ids.tolist() == texts[rows].tolist()
    assert joined.prob[:, 0].tolist() == joined.labels.tolist() == rows.tolist()
    assert rows_of(joined, named).tolist() == rows.tolist()
    assert groups_of(joined, named, of_texts).tolist() == texts[rows // 2 * 2].tolist()
    of_one = read_out_of_fold(tmp_path, [2])
    common = common_samples([joined, of_one])
    assert [part.ids.tolist() for part in common] == [of_one.ids.tolist()] * 2
    with np.load(tmp_path / "fold0" / "oof.npz", allow_pickle=False) as file:
        assert file["file_id"].dtype.kind == "U"


def test_folds_are_joined_in_the_order_of_ids(tmp_path: Path) -> None:
    for fold, ids in ((0, [5, 9]), (2, [1, 7])):
        prob = np.array(ids, np.float32)[:, None] / 10
        path = tmp_path / f"fold{fold}" / "oof.npz"
        predictions = OutOfFold(np.array(ids), np.array(ids) % 2, prob, prob)
        write_out_of_fold(path, predictions, {"fold": fold})
    assert finished_folds(tmp_path, 3) == [0, 2]
    joined = read_out_of_fold(tmp_path, [0, 2])
    assert joined.ids.tolist() == [1, 5, 7, 9]
    np.testing.assert_allclose(joined.prob[:, 0], [0.1, 0.5, 0.7, 0.9])
    with np.load(tmp_path / "fold0" / "oof.npz", allow_pickle=False) as file:
        assert json.loads(str(file["provenance"])) == {"fold": 0}
        assert {key: file[key].dtype for key in file if key != "provenance"} == {
            "file_id": np.int64,
            "label": np.int64,
            "prob": np.float32,
            "prob_plain": np.float32,
        }
