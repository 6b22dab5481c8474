from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellline.config import Config, Folders, Reading, Training
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError
from cellline.host.files import write_json
from cellline.runs.folds import (
    NO_PAIRS,
    Dealt,
    Folds,
    Pairs,
    open_folds,
    read_folds,
    write_folds,
)
from cellline.runs.run import new_run


def test_folds_are_read_as_they_were_written(competition: Competition, folds: Folds) -> None:
    record = {"n_folds": 3, "input_digest": competition.digest}
    folds = replace(folds, pairs=Pairs(np.array([[0, 50]]), np.array([[2, 9], [48, 56]])))
    write_folds(Path("oof"), competition, folds, record)
    read = read_folds(Path("oof"), competition)
    np.testing.assert_array_equal(read.fold, folds.fold)
    np.testing.assert_array_equal(read.group, folds.group)
    np.testing.assert_array_equal(read.pairs.copies, folds.pairs.copies)
    np.testing.assert_array_equal(read.pairs.overlaps, folds.pairs.overlaps)
    assert "train,9,train,30,overlap\n" in (Path("oof") / "pairs.csv").read_text()
    assert read.n_folds == 3
    assert list(read.numbers) == [0, 1, 2]
    with pytest.raises(UserError, match="made from other input"):
        read_folds(Path("oof"), replace(competition, digest="0" * 64))


def test_missing_folds_say_what_to_do(drawn: Path) -> None:
    with pytest.raises(UserError, match="run `folds` first"):
        open_folds(Folders(drawn, Path("oof")))


def test_settings_that_changed_since_the_folds_were_dealt_are_reported(
    drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = Folders()
    folders.input_dir.mkdir()
    for path in drawn.iterdir():
        (folders.input_dir / path.name).symlink_to(path)
    competition = load_competition(folders.input_dir, folders.cache_dir, Reading(template=""))
    record = {
        "n_folds": 2,
        "input_digest": competition.digest,
        "image_size": None,
        "settings_file": {"resize": "squash"},
    }
    dealt = Dealt(np.arange(90) % 2, competition.train_ids, NO_PAIRS)
    write_folds(folders.oof_dir, competition, dealt, record)
    capsys.readouterr()
    settings = folders.input_dir / "competition.toml"
    settings.write_text("resize = 'squash'\nepochs = 3")
    open_folds(folders)
    assert capsys.readouterr().out == ""
    # The same arguments fit all verbs, as long as they are those that the folds were dealt with.
    channels = competition.reading.channels
    open_folds(folders, Reading(channels=channels, train_images="images_train.tar/", template=""))
    with pytest.raises(UserError, match=r"--metric accuracy: the folds were dealt with balanced_"):
        open_folds(folders, Reading(metric="accuracy"))
    settings.write_text("resize = 'crop'\ngroup_column = 'plate'")
    asked = Reading(resize="crop", group_column=("plate",))
    assert open_folds(folders, asked).competition.reading.resize == "squash"
    assert "resize was squash and is crop now; run `folds`" in capsys.readouterr().out


def test_folds_do_not_change_under_what_depends_on_them(
    competition: Competition, folds: Folds
) -> None:
    oof = Path("oof")
    record = {"n_folds": 3, "input_digest": competition.digest}
    write_folds(oof, competition, folds, record)
    written = (oof / "folds.csv").read_bytes()
    digest = read_folds(oof, competition).digest
    # A run and a tuning alike: both have a config.json that names their folds.
    for name in ("a", "tuning"):
        write_json(oof / name / "config.json", {"folds_digest": digest})
    write_folds(oof, competition, folds, record)
    with pytest.raises(UserError, match=r"folds.csv would change, and a, tuning in oof depend"):
        write_folds(oof, competition, replace(folds, fold=folds.fold[::-1]), record)
    assert (oof / "folds.csv").read_bytes() == written


def test_folds_that_were_dealt_since_they_were_read_begin_no_run(
    competition: Competition, folds: Folds, training: Training
) -> None:
    oof = Path("oof")
    record = {"n_folds": 3, "input_digest": competition.digest}
    write_folds(oof, competition, folds, record)
    run = new_run(Config(training=training, run="a"), read_folds(oof, competition))
    write_folds(oof, competition, replace(folds, fold=folds.fold[::-1]), record)
    with pytest.raises(UserError, match=r"folds.csv has changed since .* give it again"):
        run.begin()
    assert not run.folder.exists()
