"""The page of a run that the verbs have made, end to end, and in a real browser."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from browser import Tab, browse, is_installed
from odd_labels import LABELS, relabel
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
)

from cellline.audit.dealing import Plan, make_folds
from cellline.config import Config, Folders, Machine, Training
from cellline.errors import UserError
from cellline.exporting.tables import export_tables
from cellline.host.files import read_json
from cellline.host.names import name_classes
from cellline.report.calibrating import show_submissions
from cellline.report.page import open_finished, write_report
from cellline.runs.folds import open_folds, write_folds
from cellline.runs.predictions import write_out_of_fold
from cellline.runs.run import new_run
from cellline.scoring.bootstrap import Estimate
from cellline.scoring.words import percent, with_interval
from cellline.submitting.submit import submit
from cellline.training.run import train_run
from cellline.tuning.tune import tune_run

SCRIPT = Path(__file__).resolve().parents[2] / "src" / "report.py"
TRAINING = Training(network="densenet_tiny", weights="none", epochs=1, batch_size=16)

BROKEN_IMAGES = "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
# Figures are as wide as their column, whatever they are drawn in.
NARROW_FIGURES = "[...document.querySelectorAll('svg')].filter(one => one.clientWidth < 300).length"
TEXTS_OUTSIDE = """[...document.querySelectorAll('svg text')].filter(one => {
  const [text, svg] = [one, one.closest('svg')].map(each => each.getBoundingClientRect());
  return text.left < svg.left - 1 || text.right > svg.right + 1;
}).map(one => one.textContent)"""
CELLS_OVERFULL = """[...document.querySelectorAll('th, td')].filter(
  one => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1
).map(one => one.textContent)"""
# Tables that hide their last columns until they are scrolled.
BOXES_CUT = """[...document.querySelectorAll('.box:not(:has(.matrix))')].filter(
  one => one.scrollWidth > one.clientWidth).map(one => one.innerText.slice(0, 200))"""
UNNAMED = """[...document.querySelectorAll('img, [role=img], [role=region]')].filter(
  one => !(one.alt || one.getAttribute('aria-label'))).length"""
DIAGONAL = "[...document.querySelectorAll('.matrix td.right')].map(one => one.innerText)"
PAINTED = """[['body', 'backgroundColor'], ['svg text', 'fill'],
  ['svg path[style*=blue]', 'stroke']].map(
  ([what, how]) => getComputedStyle(document.querySelector(what))[how])"""


@pytest.fixture(scope="module")
def config(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of three folds, tuned before, that has predicted the test set."""
    folder = tmp_path_factory.mktemp("reported")
    relabel(drawn, folder / "input")
    made = Config(
        Folders(*(folder / name for name in ("input", "oof", "submissions", "cache"))),
        TRAINING,
        Machine(device="cpu", precision="float32", workers=0),
        run="tiny",
    )
    make_folds(made.folders, Plan(n_folds=3))
    tune_run(replace(made, fold=1), 2)
    # As from the command line, where the batch size comes from the tuning.
    train_run(replace(made, training=replace(TRAINING, batch_size=None)))
    submit(made, ("tiny",))
    return made


@pytest.fixture(scope="module")
def page(config: Config) -> Path:
    """The page, written by the verb."""
    names = ("input_dir", "oof_dir", "submissions_dir", "cache_dir")
    folders = [f"--{name.replace('_', '-')}={getattr(config.folders, name)}" for name in names]
    command = [sys.executable, str(SCRIPT), *folders, "--run=tiny"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # A font that lacks a character would warn.
    assert "Warning" not in done.stderr
    assert "related to training samples: OOF, 90 of 90 training samples\n" in done.stdout
    path = config.folders.oof_dir / "tiny" / "report.html"
    assert f"wrote {path}" in done.stdout
    return path


@pytest.fixture
def copied(config: Config) -> Config:
    """The same run in a folder of the test's own."""
    shutil.copytree(config.folders.oof_dir, "oof")
    shutil.copytree(config.folders.submissions_dir, "submissions")
    oof, submissions = Path("oof"), Path("submissions")
    return replace(
        config, folders=replace(config.folders, oof_dir=oof, submissions_dir=submissions)
    )


class Shown:
    """The source of a page, its text, and its tables as rows of texts."""

    def __init__(self, page: Path) -> None:
        self.source = page.read_text(encoding="utf-8")
        # All '<' and '>' outside tags are escaped.
        self.text = " ".join(unescape(re.sub(r"<[^>]+>", " ", self.source)).split())
        self.tables = [
            [
                [unescape(cell) for cell in re.findall(r"<t[hd]\b[^>]*>([^<]*)</t[hd]>", row)]
                for row in table.split("<tr>")[1:]
            ]
            for table in re.findall(r"<table.*?</table>", self.source, flags=re.DOTALL)
        ]

    def table(self, *head: str) -> list[list[str]]:
        """The rows of the table with these heads."""
        [table] = [table for table in self.tables if table[0] == list(head)]
        return table[1:]


def predictions(config: Config, folds: range = range(3)) -> dict[str, np.ndarray]:
    """The content of some folds' OOF files, read plainly."""
    parts = [np.load(config.folders.oof_dir / "tiny" / f"fold{fold}" / "oof.npz") for fold in folds]
    keys = ("file_id", "label", "prob", "prob_plain")
    return {key: np.concatenate([part[key] for part in parts]) for key in keys}


def bac_of(oof: dict[str, np.ndarray], key: str = "prob") -> float:
    return 100 * float(balanced_accuracy_score(oof["label"], oof[key].argmax(1)))


def test_the_numbers_are_those_of_the_oof_files(config: Config, page: Path) -> None:
    shown, oof = Shown(page), predictions(config)
    labels, guesses = oof["label"], oof["prob"].argmax(1)
    # The head is that of a submission of the run alone.
    [record_path] = config.folders.submissions_dir.glob("*.json")
    record = read_json(record_path)["oof"]
    assert f"<b>{percent(record['score'])}</b>" in shown.source
    kinds = shown.table("BAC", "as decided", "each sample by itself")
    shown_scores = [row[1].split(" [")[0] for row in kinds]
    assert shown_scores == [percent(score["value"]) for score in record["scores"].values()]
    assert kinds[0][2].split(" [")[0] == percent(record["plain_score"])

    for column, prob in enumerate((oof["prob"], oof["prob_plain"]), start=1):
        guess = prob.argmax(1)
        expected = [
            f"{100 * balanced_accuracy_score(labels, guess):.1f} %",
            f"{100 * accuracy_score(labels, guess):.1f} %",
            f"{100 * f1_score(labels, guess, average='macro'):.1f} %",
            f"{-np.mean(np.log(prob[np.arange(len(labels)), labels])):.3f}",
        ]
        scores = shown.table("", "with TTA", "without")
        assert [row[column].split(" [")[0] for row in scores] == expected

    samples = shown.table("class", "recall", "samples", "groups")
    recalls = recall_score(labels, guesses, average=None)
    assert [row[1].split(" [")[0] for row in samples] == [f"{100 * one:.1f} %" for one in recalls]

    [matrix] = [table for table in shown.tables if len(table[0]) == 10 and not table[0][0]]
    counts = [[int(cell) for cell in row[1:]] for row in matrix[1:]]
    assert counts == confusion_matrix(labels, guesses).tolist()

    # A fold's BAC is of its own classes, as in scikit-learn.
    folds = [bac_of(predictions(config, range(fold, fold + 1))) for fold in range(3)]
    assert f"ranges from {min(folds):.1f} % to {max(folds):.1f} %" in shown.text
    assert f"standard deviation of {np.std(folds, ddof=1):.1f} points" in shown.text
    assert f"Its gain in BAC is {bac_of(oof) - bac_of(oof, 'prob_plain'):+.1f} [" in shown.text


def test_tuning_and_submissions_are_told(config: Config, page: Path) -> None:
    shown = Shown(page)
    trials = shown.table("trial", "state", "learning rate", "batch size", "epochs", "held-out BAC")
    assert [row[0] for row in trials] == ["0", "1"]
    assert "2 trials of a tuning looked at fold 1 and chose this run's" in shown.text
    assert "Without that fold the BAC is" in shown.text

    [path] = config.folders.submissions_dir.glob("*.csv")
    record = read_json(path.with_suffix(".json"))
    score = with_interval(Estimate(**record["oof"]["scores"]["like_test"]))
    assert f"{path.name}, OOF BAC {score}, weights: tiny 1.00." in shown.text
    assert record["rule"]["trials"][0]["why"] in shown.text


def test_a_submission_that_was_changed_is_warned_of(copied: Config) -> None:
    run = open_finished(copied)
    assert show_submissions(run)[1] == []
    [path] = Path("submissions").glob("*.csv")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    # Somebody else's, named as ours may be, and damaged.
    for ending in ("csv", "json"):
        Path(f"submissions/scores-20261130.{ending}").write_text("1")
    theirs, caution = show_submissions(run)[1]
    assert "scores-20261130.json is damaged" in theirs
    assert caution.startswith(f"{path.name} has changed since it was written")
    Path("submissions/scores-20261130.csv").unlink()
    # Without its CSV, a record is of nothing that could have been submitted.
    path.unlink()
    # Nor are tables submissions.
    export_tables(copied, ["tiny"], Path("submissions"))
    assert show_submissions(run) == ([], [])


def test_names_are_shown_as_text(page: Path) -> None:
    shown = Shown(page)
    samples = shown.table("class", "recall", "samples", "groups")
    assert [row[0] for row in samples] == sorted(LABELS)
    [matrix] = [table for table in shown.tables if len(table[0]) == 10 and not table[0][0]]
    assert matrix[0][1:] == [row[0] for row in matrix[1:]] == list(name_classes(sorted(LABELS)))
    assert "<script" not in shown.source
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in shown.source
    # Tags only: the name of a class, which is text, holds an address. So does its alternative.
    tags = re.sub(r'(alt|aria-label)="[^"]*"', "", " ".join(re.findall(r"<[^<>]+>", shown.source)))
    sources = re.findall(r'(?:src|href|url\()=?"?([^")\s]+)', tags)
    assert sources
    assert all(source.startswith(("#", "data:")) for source in sources)


def test_the_same_files_give_the_same_bytes(config: Config, page: Path) -> None:
    before = page.read_bytes()
    assert write_report(config).read_bytes() == before


def test_a_browser_shows_it_whole_on_a_desk_and_dark_on_a_phone(
    config: Config, page: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not is_installed():
        pytest.skip("chromium and chromedriver are not installed")
    oof = predictions(config)
    [record_path] = config.folders.submissions_dir.glob("*.json")
    bac = percent(read_json(record_path)["oof"]["score"])
    diagonal = np.diag(confusion_matrix(oof["label"], oof["prob"].argmax(1)))
    with browse(tmp_path_factory.mktemp("profile")) as tab:
        light, dark = (check_shown(tab, page, width, width < 600) for width in (1280, 360))
        assert tab.evaluate("document.querySelector('.score b').innerText") == bac
        assert tab.evaluate(DIAGONAL) == [str(count) for count in diagonal]
    assert all(one != other for one, other in zip(light, dark, strict=True))


def check_shown(tab: Tab, page: Path, width: int, dark: bool) -> list[str]:
    """Look at the page in a window of a width; its colours."""
    tab.open(page, width, dark=dark)
    assert tab.evaluate("innerWidth") == width
    # Nothing is as wide as the window but what scrolls in its own box.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.images.length") > 20
    assert tab.evaluate(BROKEN_IMAGES) == 0
    assert tab.evaluate(NARROW_FIGURES) == 0
    # No text is cut off, however long a name is: in figures, and in cells of tables.
    assert tab.evaluate(TEXTS_OUTSIDE) == []
    assert tab.evaluate(CELLS_OVERFULL) == []
    assert tab.evaluate(BOXES_CUT) == []
    assert tab.evaluate(UNNAMED) == 0
    assert tab.evaluate("document.scripts.length") == 0
    assert tab.console() == []
    assert {url for url in tab.requests() if not url.startswith("data:")} == {page.as_uri()}
    colours: list[str] = tab.evaluate(PAINTED)
    return colours


def test_one_fold_is_enough(copied: Config) -> None:
    shutil.rmtree("oof/tuning")
    Path("oof/tiny/tuned.json").unlink()
    for fold in (0, 2):
        shutil.rmtree(f"oof/tiny/fold{fold}")
    shown = Shown(write_report(copied))
    oof = predictions(copied, range(1, 2))
    assert "are decided each by itself" in shown.text
    for part in (
        f"each of the {len(oof['label'])} samples of fold 1 of 3 is predicted",
        "Folds 0 and 2 are not trained yet: make train INPUT=",
    ):
        assert part in shown.text
    assert "Tuning" not in shown.text


def test_what_can_not_be_reported_is_said_and_leaves_the_page(config: Config, page: Path) -> None:
    """No such run, no finished fold, and another fold's file."""
    oof_dir, before = config.folders.oof_dir, page.read_bytes()
    with pytest.raises(UserError, match="train it first"):
        write_report(replace(config, run="never"))
    (oof_dir / "begun").mkdir()
    shutil.copy(oof_dir / "tiny" / "config.json", oof_dir / "begun")
    with pytest.raises(UserError, match=r"train the first:\n  make train .*RUN=begun FOLD=0"):
        write_report(replace(config, run="begun"))
    shutil.rmtree(oof_dir / "begun")
    path = oof_dir / "tiny" / "fold0" / "oof.npz"
    own = path.read_bytes()
    shutil.copy(oof_dir / "tiny" / "fold1" / "oof.npz", path)
    with pytest.raises(UserError, match=r"does not belong to the run in .*: its fold is 1, not 0"):
        write_report(config)
    path.write_bytes(own)
    assert page.read_bytes() == before


def test_a_class_that_no_finished_fold_holds_is_named(copied: Config) -> None:
    run = open_finished(copied)
    fold = np.where(run.competition.labels == 3, 1, run.folds.fold)
    for name in ("tiny", "tuning"):
        shutil.rmtree(Path("oof") / name)
    dealt = replace(run.folds, fold=fold)
    write_folds(Path("oof"), run.competition, dealt, {**run.folds.record})
    begun = new_run(run.config, open_folds(copied.folders))
    begun.begin()
    part = run.oof.at(fold[run.oof.rows] == 0)
    write_out_of_fold(begun.oof_path(0), part, begun.provenance(0))
    absent = re.escape(run.class_names[3])
    with pytest.raises(UserError, match=rf"no sample of {absent}, so .*\n.*RUN=tiny FOLD=1 "):
        write_report(copied)
