import shutil
from pathlib import Path

import numpy as np
import pytest

from cellline.audit.dealing import make_folds
from cellline.audit.reference import Reference
from cellline.audit.shift import Shift
from cellline.config import Folders
from cellline.demo.drawing import draw_competition
from cellline.errors import UserError
from cellline.host.files import write_json
from cellline.runs.folds import IGNORING_GROUPS, open_folds, read_record

CHANNELS = ("blue", "red", "yellow")


def deal(
    drawn: Path, oof: Path = Path("oof"), seed: int = 0, ignore_groups: bool = False
) -> list[str]:
    # Beside the input, so that it is decoded once.
    folders = Folders(drawn, oof, cache_dir=drawn.parent / "cache")
    return list(make_folds(folders, CHANNELS, 3, seed, ignore_groups=ignore_groups))


@pytest.fixture(scope="module")
def first(drawn: Path) -> tuple[Path, list[str]]:
    """An OOF folder dealt once, and what was printed; not to be written to."""
    oof = drawn.parent / "dealt"
    return oof, deal(drawn, oof)


@pytest.fixture
def dealt(first: tuple[Path, list[str]]) -> Path:
    """A copy of it, relative to the current folder."""
    return Path(shutil.copytree(first[0], "oof"))


def begin_run() -> None:
    """What makes the folds something that a night's training depends on."""
    Path("oof/night").mkdir()
    digest = read_record(Path("oof"))["folds_digest"]
    write_json(Path("oof/night/config.json"), {"folds_digest": digest})


def test_what_was_dealt_is_what_is_read(
    drawn: Path, dealt: Path, first: tuple[Path, list[str]]
) -> None:
    competition, folds = open_folds(Folders(drawn, dealt))
    assert folds.n_folds == 3
    assert set(folds.fold) == {0, 1, 2}
    assert set(folds.group) <= set(competition.train_ids)
    assert not folds.leaked().any()
    assert not folds.ignore_groups
    for fold in range(3):
        rows = np.concatenate([folds.training_rows(fold), folds.held_out_rows(fold)])
        assert sorted(rows) == list(range(90))
    record = read_record(dealt)
    assert record["classes"] == list(competition.classes)
    assert record["audit"]["copies"] > 0
    assert Reference.from_record(record["audit"]["reference"]).naive.value > 1 / 9
    assert Shift.from_record(record["audit"]["shift"]).auc.low < 0.5
    csv = (dealt / "folds.csv").read_bytes()
    assert csv.startswith(b"file_id,cell_line,group,fold\n")
    assert csv.count(b"\n") == 91
    table = [line.split() for line in first[1] if line.startswith("RT4 ")]
    assert sum(map(int, table[0][1:4])) == int(table[0][4]) == np.sum(competition.labels == 6)


def test_a_second_start_deals_nothing_and_tells_what_the_audit_found(
    drawn: Path, dealt: Path, first: tuple[Path, list[str]]
) -> None:
    before = (dealt / "folds.csv").stat().st_mtime_ns
    [up_to_date, *told] = deal(drawn)
    assert up_to_date == "oof/folds.csv is up to date"
    assert (dealt / "folds.csv").stat().st_mtime_ns == before
    assert told == first[1][2:]
    for part in ("have an exact copy", "split naively", "can't be told apart"):
        assert any(part in line for line in told)


def test_folds_that_a_run_depends_on_are_kept(drawn: Path, dealt: Path) -> None:
    kept = {path: path.read_bytes() for path in dealt.iterdir()}
    begin_run()
    for change in ({"seed": 1}, {"ignore_groups": True}):
        with pytest.raises(UserError, match="night in oof depend on it"):
            deal(drawn, **change)
    assert {path: path.read_bytes() for path in kept} == kept


def test_damaged_folds_are_dealt_again_with_the_same_bytes(drawn: Path, dealt: Path) -> None:
    kept = {path: path.read_bytes() for path in dealt.iterdir()}
    for damage in (Path.unlink, lambda path: path.write_text("fold\n")):
        damage(dealt / "folds.csv")
        with pytest.raises(UserError, match="`make folds`, which restores it"):
            open_folds(Folders(drawn, dealt))
    # Also when a run depends on them: these very folds are what it depends on.
    begin_run()
    deal(drawn)
    assert {path: path.read_bytes() for path in kept} == kept


def test_folds_whose_record_is_lost_are_dealt_again_if_runs_depend_on_them(
    drawn: Path, dealt: Path
) -> None:
    begin_run()
    path = dealt / "folds.json"
    written = path.read_bytes()
    path.write_bytes(written.replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(UserError, match=r"folds\.json is damaged .* move it away"):
        deal(drawn)
    path.unlink()
    deal(drawn)
    assert path.read_bytes() == written
    path.unlink()
    with pytest.raises(UserError, match="would change, and night in oof depend on it"):
        deal(drawn, seed=1)


def test_folds_that_ignore_groups_say_so(drawn: Path, dealt: Path) -> None:
    _, grouped = open_folds(Folders(drawn, dealt))
    # Nothing depends on the folds there: others may take their place.
    assert deal(drawn, ignore_groups=True)[-1] == IGNORING_GROUPS
    assert deal(drawn, ignore_groups=True)[-1] == IGNORING_GROUPS
    assert read_record(dealt)["ignore_groups"] is True
    competition, naive = open_folds(Folders(drawn, dealt))
    assert naive.ignore_groups
    np.testing.assert_array_equal(naive.group, grouped.group)
    shared = np.isin(naive.group, [g for g in naive.group if np.sum(naive.group == g) > 1])
    assert 0 < naive.leaked().sum() <= shared.sum()
    assert not naive.leaked()[~shared].any()
    for index in range(len(competition.classes)):
        sizes = np.bincount(naive.fold[competition.labels == index], minlength=3)
        assert sizes.max() - sizes.min() <= 1


def test_folds_need_two(drawn: Path) -> None:
    with pytest.raises(UserError, match="--folds 1: at least 2"):
        list(make_folds(Folders(drawn), CHANNELS, 1, 0))


@pytest.mark.parametrize("planted", ["leak", "shift"])
def test_what_is_planted_is_found_and_named_and_nothing_else(tmp_path: Path, planted: str) -> None:
    # Wrong labels for samples without copies: of those only a copy is known.
    draw_competition(
        tmp_path / "input",
        samples_train=200,
        samples_test=60,
        size=16,
        copies=0.3 if planted == "leak" else 0,
        overlaps=0,
        mislabelled=0.4,
        test_gain=1.6 if planted == "shift" else 1,
    )
    lines = deal(tmp_path / "input")
    leak = [line for line in lines if "a split that ignores copies would flatter" in line]
    shift = [line for line in lines if "warning: the test set looks different" in line]
    assert (bool(leak), bool(shift)) == (planted == "leak", planted == "shift")
    assert any("no leak can be told" in line for line in lines) == (planted == "shift")
    assert any("can't be told apart" in line for line in lines) == (planted == "leak")
    audit = read_record(Path("oof"))["audit"]
    if planted == "leak":
        assert Reference.from_record(audit["reference"]).difference.low > 0.05
    else:
        assert all(name.startswith("red") for name in Shift.from_record(audit["shift"]).differing)
        assert "red" in shift[0]
