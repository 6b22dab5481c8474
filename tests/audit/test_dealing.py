import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from altered import draw_altered
from layouts import csv, images, write

from cellline.audit import dealing
from cellline.audit.dealing import Plan, make_folds
from cellline.audit.findings import read_findings
from cellline.audit.groups import Own
from cellline.audit.splitting import find_straddling
from cellline.audit.words import describe_dealt, describe_input
from cellline.config import Folders, Reading
from cellline.data.competition import Competition
from cellline.demo.drawing import Drawing
from cellline.errors import Caution, UserError
from cellline.host.files import write_json
from cellline.runs.folds import (
    Folds,
    open_folds,
    read_folds,
    read_folds_record,
    write_folds,
)
from cellline.runs.predictions import OutOfFold
from cellline.submitting.decision import HeldOut, hold_out


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
    written = (dealt / "folds.csv").read_bytes()
    assert written.startswith(b"file_id,cell_line,group,fold\n")
    assert written.count(b"\n") == 91
    told = describe_dealt(folds)
    assert told == describe_dealt(first)
    for part in ("have an exact copy", "split naively", "can't be told apart"):
        assert any(part in line for line in told)
    [table] = [line.split() for line in told if line.startswith("RT4 ")]
    assert sum(map(int, table[1:4])) == int(table[4]) == np.sum(competition.labels == 6)


def test_folds_that_a_run_depends_on_are_kept(drawn: Path, dealt: Path) -> None:
    kept = read_all(dealt)
    begin_run()
    told = r"would change \(seed was 0 and is 1 now\), and night in oof depend on it"
    with pytest.raises(UserError, match=told):
        deal(drawn, seed=1)
    assert read_all(dealt) == kept
    # Folds that were exchanged under a run, as an earlier version could do, can be dealt again.
    shutil.move("oof/night", "night")
    folds = open_folds(Folders(drawn, dealt))
    record = {**folds.record, "seed": 1}
    write_folds(dealt, folds.competition, replace(folds, fold=folds.fold[::-1]), record)
    shutil.move("night", "oof/night")
    deal(drawn)
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


def deal_own(competition: Competition, n_folds: int = 3, seed: int = 0) -> Folds:
    """Deal folds of a competition that is in memory only."""
    Path("oof").mkdir(exist_ok=True)
    dealing.deal(Folders(), competition, Plan(n_folds=n_folds, seed=seed))
    return read_folds(Path("oof"), competition)


def cautions(folds: Folds) -> list[str]:
    return [line for line in describe_dealt(folds) if isinstance(line, Caution)]


def hold_out_all(folds: Folds) -> HeldOut:
    prob = np.full((len(folds.fold), len(folds.competition.classes)), 1 / 3, np.float32)
    return hold_out([OutOfFold(folds, np.arange(len(prob)), prob, prob)])


@pytest.fixture
def patients(competition: Competition) -> Competition:
    """12 patients with four training samples each, of different labels; one pair of copies.

    The copies, rows 0 and 1, are of two patients. Patients 0 to 2 have a test sample, too.
    """
    competition.train_images[1] = competition.train_images[0]
    own = np.concatenate([np.arange(48) % 12, np.arange(3), np.arange(100, 106)])
    reading = replace(competition.reading, group_column=("patient",))
    return replace(competition, own_group=own, own_train_group=own[:48], reading=reading)


def test_the_users_groups_stay_in_one_fold_but_are_no_pictures(patients: Competition) -> None:
    folds = deal_own(patients)
    assert patients.own_group is not None
    number = np.maximum(patients.own_group[:48], 1)  # the copies join patients 0 and 1
    assert len(set(zip(number, folds.group, strict=True))) == len(set(folds.group)) == 11
    assert not find_straddling(folds.group, folds.fold).any()
    findings = read_findings(folds.record)
    assert (findings.counts.groups, findings.counts.conflicts) == (1, ())
    assert findings.counts.large == ()
    assert findings.own == Own(12, 48, 3)
    told = "\n".join(describe_dealt(folds))
    assert "groups of two training samples or more by patient: 12; they hold 48 of 48" in told
    assert "3 of 9 test samples are in a group with training samples by patient" in told
    assert "in another fold:" not in told
    samples = hold_out_all(folds)
    np.testing.assert_array_equal(samples.group, folds.group)
    assert samples.members.tolist() == [2, 2] + [1] * 46
    assert samples.alone.tolist() == [False, False] + [True] * 46


def test_a_users_group_larger_than_a_fold_is_named(competition: Competition) -> None:
    own = np.concatenate([np.zeros(30, int), np.arange(1, 28)])
    reading = replace(competition.reading, group_column=("patient", "slide"))
    folds = deal_own(replace(competition, own_group=own, reading=reading))
    [told] = [line for line in cautions(folds) if "folds are unequal" in line]
    assert "the largest group (by copies, overlaps and patient and slide) has 30" in told


def test_fewer_groups_than_folds_make_fewer_folds(
    competition: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    own = np.concatenate([np.arange(48) % 3, np.arange(100, 109)])
    few = replace(competition, own_group=own, own_train_group=own[:48])
    folds = deal_own(few, n_folds=5)
    assert folds.n_folds == len(set(folds.fold)) == 3
    assert not find_straddling(own[:48], folds.fold).any()
    assert any("3 folds were dealt, not 5: there are only 3 groups" in of for of in cautions(folds))
    deal_own(few, n_folds=5)
    assert "is up to date" in capsys.readouterr().out
    one = np.zeros(57, int)
    with pytest.raises(UserError, match="all training samples are in one group"):
        deal_own(replace(few, own_group=one, own_train_group=one[:48]))


def test_the_users_folds_are_taken_and_judged(patients: Competition) -> None:
    reading = replace(patients.reading, folds_column="part")
    own_fold = np.arange(48) % 4  # all samples of a patient in one
    given = replace(patients, own_fold=own_fold, reading=reading)
    folds = deal_own(given)
    assert folds.n_folds == 4
    np.testing.assert_array_equal(folds.fold, own_fold)
    # Copies of patients 0 and 1 connect all samples of both.
    [told] = [line for line in cautions(folds) if "in another fold" in line]
    assert "8 training samples have a relative (copy, overlap, the same patient)" in told
    assert ": 3, 6, 39, 42, 75 and " in told
    assert "the folds of column part" in told
    begin_run()
    deal_own(given, n_folds=7, seed=1)  # neither matters
    moved = replace(given, own_fold=own_fold[::-1].copy())
    with pytest.raises(UserError, match="night in oof depend on it"):
        deal_own(moved)
    shutil.rmtree("oof/night")
    with pytest.raises(UserError, match="--folds-column part: it has a single value"):
        deal_own(replace(given, own_fold=np.zeros(48, int)))
    apart = replace(given, own_fold=(patients.labels > 0).astype(int))
    with pytest.raises(UserError, match="outside fold 1 all training samples are of class A549"):
        deal_own(apart)


def test_classes_with_fewer_groups_than_folds_are_dealt_with_a_warning(
    competition: Competition,
) -> None:
    labels = np.repeat([0, 1, 2], [45, 2, 1])
    folds = deal_own(replace(competition, labels=labels), n_folds=5)
    assert len(set(folds.fold[labels == 1])) == 2
    [told] = [line for line in cautions(folds) if "classes" in line]
    assert told.startswith("classes with fewer groups than the 5 folds (2): HeLa has 2, RT4 has 1")
    assert told.endswith("a class with one is never both learned and scored")
    # scikit-learn refuses, if every class has fewer samples than folds.
    folds = deal_own(replace(competition, labels=np.arange(48) % 3), n_folds=17)
    assert all(len(set(folds.fold[label::3])) == 16 for label in range(3))
    labels = np.repeat([0, 1], [47, 1])
    two = replace(competition, labels=labels, classes=("A549", "HeLa"))
    with pytest.raises(UserError, match="all training samples are of class A549"):
        deal_own(two)


def test_grades_that_training_lacks_are_a_caution_under_quadratic_kappa(
    competition: Competition,
) -> None:
    for classes, told in (
        (("0", "1", "4"), ["classes 0, 1, 4 as ranks 0 to 2"]),
        (("1", "2", "3"), []),
    ):
        folds = deal_own(replace(competition, metric="quadratic_kappa", classes=classes))
        found = [line for line in cautions(folds) if "quadratic kappa" in line]
        assert [part for part, line in zip(told, found, strict=True) if part in line] == told


def test_labelled_images_alone_can_be_dealt(competition: Competition) -> None:
    competition.train_images[1] = competition.train_images[0]
    none = replace(
        competition,
        test_ids=competition.test_ids[:0],
        test_images=competition.test_images[:0],
        template=(),
        template_columns=(),
    )
    folds = deal_own(none)
    told = [*describe_input(none), *describe_dealt(folds)]
    assert "there is no test set" in told[2]
    assert [line for line in told[3:] if "test" in line and "in a test" not in line] == [
        "there is no test set"
    ]
    assert read_findings(folds.record).shift is None
    samples = hold_out_all(folds)
    assert samples.members.tolist() == [2, 2] + [1] * 46
    assert samples.picture[0] == samples.picture[1] != samples.picture[2]
    np.testing.assert_array_equal(samples.rate, 1)


def test_a_new_test_set_leaves_trained_folds_valid(patients: Competition) -> None:
    first = deal_own(patients)
    begin_run()
    kept = Path("oof/folds.csv").read_bytes()
    # A test image of patient 0 is a copy of another patient's, in another fold.
    row = int(np.flatnonzero(first.fold != first.fold[0])[0])
    images = patients.test_images.copy()
    images[0] = patients.train_images[row]
    new = replace(patients, test_images=images, test_digest="9" * 64)
    with pytest.raises(UserError, match=r"test images have changed .* run `folds` again"):
        read_folds(Path("oof"), new)
    trainable = read_folds(Path("oof"), new, for_training=True)
    np.testing.assert_array_equal(trainable.fold, first.fold)
    renewed = deal_own(new)
    assert Path("oof/folds.csv").read_bytes() == kept
    assert renewed.digest == first.digest
    assert [row, 48] in renewed.pairs.copies.tolist()
    assert read_findings(renewed.record).counts.test_copies == 1
    [told] = [line for line in cautions(renewed) if "in another fold" in line]
    assert "the new test set connects them" in told
    shutil.rmtree("oof/night")
    # Nothing depends on the folds any more.
    again = deal_own(replace(new, test_digest="8" * 64))
    assert again.digest != first.digest
    assert not [line for line in cautions(again) if "in another fold" in line]


def test_what_does_not_move_folds_is_only_recorded(patients: Competition) -> None:
    first = deal_own(patients)
    begin_run()
    kept = read_all(Path("oof"))
    reading = replace(patients.reading, metric="log_loss", template="other.csv")
    scored = replace(patients, metric="log_loss", output="probabilities", reading=reading)
    folds = deal_own(scored)
    assert (folds.record["metric"], folds.record["output"]) == ("log_loss", "probabilities")
    assert folds.record["reading"]["template"] == "other.csv"
    changed = {path.name for path, data in read_all(Path("oof")).items() if data != kept[path]}
    assert changed == {"folds.json"}
    assert folds.digest == first.digest
    # Another numbering of the same patients is no change, other patients are.
    assert patients.own_group is not None
    doubled = patients.own_group * 2
    deal_own(replace(scored, own_group=doubled, own_train_group=doubled[:48]))
    others = np.arange(57) // 4
    with pytest.raises(UserError, match="night in oof depend on it"):
        deal_own(replace(scored, own_group=others, own_train_group=others[:48]))


def test_test_rows_that_connect_the_users_groups_leave_trained_folds_valid(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [f"s{at:02d}" for at in range(24)]
    rows = [f"{name},{'xy'[at % 2]},p{at // 3},d{at // 3}" for at, name in enumerate(names)]
    files = {
        **images("images/{}.png", [*names, "t0", "t1"], first=1),
        "train.csv": csv("id,label,patient,day", *rows),
        "sample_submission.csv": csv("id,label", "t0,x", "t1,x"),
    }
    reading = Reading(train_images="images", test_images="images", group_column=("patient", "day"))

    def deal_with(*of_test: str) -> Folds:
        folder = write({**files, "test.csv": csv("id,patient,day", *of_test)})
        return make_folds(Folders(folder), Plan(reading, n_folds=3, overlaps="off"))

    first = deal_with("t0,p90,d90", "t1,p91,d91")
    begin_run()
    other = int(np.flatnonzero(first.fold != first.fold[0])[0]) // 3
    connected = deal_with(f"t0,p0,d{other}", "t1,p91,d91")
    assert connected.digest == first.digest
    [told] = [line for line in cautions(connected) if "in another fold" in line]
    assert told.startswith("6 training samples have a relative")
    assert "the new test set connects them" in told
    capsys.readouterr()
    deal_with(f"t0,p0,d{other}", "t1,p91,d91")
    assert "is up to date" in capsys.readouterr().out


def test_a_template_that_comes_later_leaves_trained_folds_valid() -> None:
    names = [f"{kind}/{number}" for kind in "xy" for number in range(6)]
    write(
        {"labels.csv": csv("n,kind", *(f"{n},{n[0]}" for n in names)), **images("a/{}.png", names)}
    )
    first = make_folds(Folders(), Plan(n_folds=2))
    begin_run()
    template = csv("n,x,y", *(f"{number},0.5,0.5" for number in range(90, 94)))
    write({"sample_submission.csv": template, **images("test/{}.png", range(90, 94), 50)})
    renewed = make_folds(Folders(), Plan(n_folds=2))
    assert renewed.digest == first.digest
    assert renewed.competition.output == "probabilities"
    assert renewed.competition.metric == first.competition.metric == "balanced_accuracy"
    assert make_folds(Folders(), Plan(Reading(metric="log_loss"), 2)).digest == first.digest
