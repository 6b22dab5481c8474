from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.data.folds import Folds
from cellline.errors import UserError
from cellline.prediction.run_folder import (
    OutOfFold,
    check_run,
    check_same_run,
    claim_run,
    describe_run,
    finished_folds,
    read_out_of_fold,
    run_folder,
    write_out_of_fold,
)


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


def test_folds_are_joined_in_the_order_of_ids(tmp_path: Path) -> None:
    for fold, ids in ((0, [5, 9]), (2, [1, 7])):
        prob = np.array(ids, np.float32)[:, None] / 10
        path = tmp_path / f"fold{fold}" / "oof.npz"
        write_out_of_fold(path, OutOfFold(np.array(ids), np.array(ids) % 2, prob, prob))
    assert finished_folds(tmp_path, 3) == [0, 2]
    joined = read_out_of_fold(tmp_path, [0, 2])
    assert joined.ids.tolist() == [1, 5, 7, 9]
    np.testing.assert_allclose(joined.prob[:, 0], [0.1, 0.5, 0.7, 0.9])
    with np.load(tmp_path / "fold0" / "oof.npz", allow_pickle=False) as file:
        assert {key: file[key].dtype for key in file} == {
            "file_id": np.int64,
            "label": np.int64,
            "prob": np.float32,
            "prob_plain": np.float32,
        }
