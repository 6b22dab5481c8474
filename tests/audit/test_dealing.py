import shutil
from pathlib import Path

import numpy as np
import pytest
from altered import draw_altered

from cellline.audit.dealing import Plan, make_folds
from cellline.audit.findings import read_findings
from cellline.audit.splitting import find_straddling
from cellline.audit.words import describe_dealt
from cellline.config import Folders
from cellline.demo.drawing import Drawing
from cellline.errors import Caution, UserError
from cellline.host.files import write_json
from cellline.runs.folds import Folds, open_folds, read_folds_record


def deal(drawn: Path, oof: Path = Path("oof"), seed: int = 0) -> Folds:
    # The cache lies beside the input, so that it is decoded once.
    folders = Folders(drawn, oof, cache_dir=drawn.parent / "cache")
    return make_folds(folders, Plan(n_folds=3, seed=seed))


@pytest.fixture(scope="module")
def first(drawn: Path) -> Folds:
    """Folds dealt once; their folder is not to be written to."""
    return deal(drawn, drawn.parent / "dealt")


@pytest.fixture
def dealt(first: Folds, drawn: Path) -> Path:
    """A copy of their folder, relative to the current one."""
    return Path(shutil.copytree(drawn.parent / "dealt", "oof"))


def read_all(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def begin_run() -> None:
    """Make the folds something that a night's training depends on."""
    Path("oof/night").mkdir()
    digest = read_folds_record(Path("oof"))["folds_digest"]
    write_json(Path("oof/night/config.json"), {"folds_digest": digest})


def test_dealt_folds_are_read_and_described(drawn: Path, first: Folds, dealt: Path) -> None:
    folds = open_folds(Folders(drawn, dealt))
    competition = folds.competition
    assert folds.n_folds == 3
    assert set(folds.fold) == {0, 1, 2}
    assert set(folds.group) <= set(competition.train_ids)
    assert not find_straddling(folds.group, folds.fold).any()
    for fold in range(3):
        rows = np.concatenate([folds.training_rows(fold), folds.held_out_rows(fold)])
        assert sorted(rows) == list(range(90))
    assert folds.record["classes"] == list(competition.classes)
    findings = read_findings(folds.record)
    assert findings.counts.copies > 0
    assert findings.reference.naive.value > 1 / 9
    csv = (dealt / "folds.csv").read_bytes()
    assert csv.startswith(b"file_id,cell_line,group,fold\n")
    assert csv.count(b"\n") == 91
    told = describe_dealt(folds)
    assert told == describe_dealt(first)
    for part in ("have an exact copy", "split naively", "can't be told apart"):
        assert any(part in line for line in told)
    [table] = [line.split() for line in told if line.startswith("RT4 ")]
    assert sum(map(int, table[1:4])) == int(table[4]) == np.sum(competition.labels == 6)


def test_folds_that_a_run_depends_on_are_kept(drawn: Path, dealt: Path) -> None:
    kept = read_all(dealt)
    begin_run()
    with pytest.raises(UserError, match="night in oof depend on it"):
        deal(drawn, seed=1)
    assert read_all(dealt) == kept


def test_damaged_folds_are_dealt_again_with_the_same_bytes(
    drawn: Path, dealt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = read_all(dealt)
    deal(drawn)
    assert capsys.readouterr().out.endswith("\noof/folds.csv is up to date\n")
    for name, damage in (("folds", Path.unlink), ("pairs", lambda path: path.write_text("id\n"))):
        damage(dealt / f"{name}.csv")
        with pytest.raises(UserError, match="run `folds` to restore them"):
            open_folds(Folders(drawn, dealt))
    # Also when a run depends on them: these very folds are what it depends on.
    begin_run()
    deal(drawn)
    assert read_all(dealt) == kept


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


@pytest.mark.parametrize("planted", ["leak", "shift"])
def test_what_is_planted_is_found_and_named_and_nothing_else(tmp_path: Path, planted: str) -> None:
    drawing = Drawing(200, 60, size=16, copies=0.3 if planted == "leak" else 0, overlaps=0)
    # Wrong labels for samples without copies: only copies can be known.
    gain = 1.6 if planted == "shift" else 1
    draw_altered(tmp_path / "input", drawing, mislabelled=0.4, test_gain=gain)
    folds = deal(tmp_path / "input")
    findings = read_findings(folds.record)
    assert findings.shift is not None
    assert findings.reference.flatters == (planted == "leak")
    assert findings.shift.shifted == (planted == "shift")
    assert any(isinstance(line, Caution) for line in describe_dealt(folds)) == (planted == "shift")
    if planted == "leak":
        assert findings.reference.difference.low > 0.05
    else:
        assert all(name.startswith("red") for name in findings.shift.differing)
