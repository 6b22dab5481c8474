import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellline.config import Folders
from cellline.data.folds import check_groups, deal_folds, make_folds, open_folds, read_record
from cellline.errors import UserError

CHANNELS = ("blue", "red", "yellow")


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_grouping_never_splits(data: st.DataObject) -> None:
    n_folds = data.draw(st.integers(2, 5))
    groups_of_class = data.draw(st.lists(st.integers(5, 15), min_size=2, max_size=4))
    label_of_group = np.repeat(np.arange(len(groups_of_class)), groups_of_class)
    sizes = data.draw(
        st.lists(st.integers(1, 6), min_size=len(label_of_group), max_size=len(label_of_group))
    )
    group = np.repeat(np.arange(len(label_of_group)) * 7, sizes)
    labels = label_of_group[group // 7]
    fold = deal_folds(labels, group, n_folds, seed=data.draw(st.integers(0, 9)))
    assert set(fold) <= set(range(n_folds))
    for name in np.unique(group):
        assert len(set(fold[group == name])) == 1


def test_classes_are_spread_evenly() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    fold = deal_folds(labels, np.arange(100), 5, seed=0)
    for name, share in ((0, 10), (1, 6), (2, 4)):
        assert list(np.bincount(fold[labels == name])) == [share] * 5


def test_a_class_with_too_few_groups_is_named() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    group = np.array([1, 2, 3, 4, 5, 5, 5, 6])
    with pytest.raises(UserError, match=r"RT4 has 2; deal fewer folds \(FOLDS=2\)"):
        check_groups(labels, group, ("HeLa", "RT4"), 3)
    with pytest.raises(UserError, match="add samples"):
        check_groups(labels, np.array([1, 2, 3, 4, 5, 5, 5, 5]), ("HeLa", "RT4"), 2)


def deal(drawn: Path, oof: str = "oof", n_folds: int = 3, seed: int = 0) -> list[str]:
    return list(make_folds(Folders(drawn, Path(oof)), CHANNELS, n_folds, seed))


def test_the_same_input_gives_the_same_bytes(drawn: Path) -> None:
    deal(drawn, "a")
    deal(drawn, "b")
    deal(drawn, "c", seed=1)
    a, b, c = ((Path(name) / "folds.csv").read_bytes() for name in "abc")
    assert a == b != c
    assert a.startswith(b"file_id,cell_line,group,fold\n")
    assert a.count(b"\n") == 91


def test_what_was_dealt_is_what_is_read(drawn: Path) -> None:
    lines = deal(drawn)
    competition, folds = open_folds(Folders(drawn, Path("oof")))
    assert folds.n_folds == 3
    assert set(folds.fold) == {0, 1, 2}
    assert set(folds.group) <= set(competition.train_ids)
    for fold in range(3):
        rows = np.concatenate([folds.training_rows(fold), folds.held_out_rows(fold)])
        assert sorted(rows) == list(range(90))
        assert not set(folds.group[folds.training_rows(fold)]) & set(
            folds.group[folds.held_out_rows(fold)]
        )
    record = read_record(Path("oof"))
    assert record["classes"] == list(competition.classes)
    assert record["audit"]["copies"] > 0
    assert any("have an exact copy" in line for line in lines)
    table = [line.split() for line in lines if line.startswith("RT4 ")]
    assert sum(map(int, table[0][1:4])) == int(table[0][4]) == np.sum(competition.labels == 6)


def test_a_second_start_deals_nothing(drawn: Path) -> None:
    deal(drawn)
    before = Path("oof/folds.csv").stat().st_mtime_ns
    assert "oof/folds.csv is up to date" in deal(drawn)
    assert Path("oof/folds.csv").stat().st_mtime_ns == before


def test_folds_that_a_run_depends_on_are_kept(drawn: Path) -> None:
    deal(drawn)
    before = Path("oof/folds.csv").read_bytes()
    Path("oof/night").mkdir()
    Path("oof/night/config.json").write_text("{}")
    with pytest.raises(UserError, match="night in oof depend on it"):
        deal(drawn, seed=1)
    assert Path("oof/folds.csv").read_bytes() == before
    Path("oof/night/config.json").unlink()
    deal(drawn, seed=1)
    assert Path("oof/folds.csv").read_bytes() != before


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("fold\n")])
def test_damaged_folds_are_dealt_again(drawn: Path, damage: Callable[[Path], object]) -> None:
    deal(drawn)
    path = Path("oof/folds.csv")
    before = path.read_bytes()
    damage(path)
    with pytest.raises(UserError, match="`make folds`"):
        open_folds(Folders(drawn, Path("oof")))
    # Also when a run depends on them: these very folds are what it depends on.
    Path("oof/night").mkdir()
    Path("oof/night/config.json").write_text("{}")
    deal(drawn)
    assert path.read_bytes() == before


def test_missing_folds_say_what_to_do(drawn: Path) -> None:
    with pytest.raises(UserError, match="run `make folds` first"):
        open_folds(Folders(drawn, Path("oof")))


def test_folds_of_other_input_are_refused(drawn: Path) -> None:
    deal(drawn)
    path = Path("oof/folds.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "input_digest": "0" * 64}))
    with pytest.raises(UserError, match="made from other input"):
        open_folds(Folders(drawn, Path("oof")))
