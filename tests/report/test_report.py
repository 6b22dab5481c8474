"""The page of a run that the verbs have made, end to end, and in a real browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
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

from cellline.audit.dealing import make_folds
from cellline.config import Config, Folders, Machine, Training
from cellline.errors import UserError
from cellline.host.files import read_json
from cellline.host.names import name_classes
from cellline.report.calibrating import calibration_section, show_submissions
from cellline.report.page import write_report
from cellline.report.run import open_run
from cellline.runs.run_folder import OutOfFold, read_out_of_fold, write_out_of_fold
from cellline.scoring.metrics import percent
from cellline.submitting.submit import submit
from cellline.training.run import train_run
from cellline.tuning.tune import tune_run

SCRIPT = Path(__file__).resolve().parents[2] / "src" / "report.py"
TRAINING = Training(network="densenet_tiny", weights="none", epochs=2, batch_size=16)
WIDTHS = (1280, 390)

TEXTS_OUTSIDE = """[...document.querySelectorAll('svg text')].filter(one => {
  const [text, svg] = [one, one.closest('svg')].map(each => each.getBoundingClientRect());
  return text.left < svg.left - 1 || text.right > svg.right + 1;
}).map(one => one.textContent)"""
CELLS_OVERFULL = """[...document.querySelectorAll('th, td')].filter(
  one => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1
).map(one => one.textContent)"""


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def config(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of three folds, tuned before, that has predicted the test set."""
    folder = tmp_path_factory.mktemp("reported")
    given = folder / "input"
    relabel(drawn, given)
    made = Config(
        Folders(given, folder / "oof", folder / "submissions", folder / "cache"),
        TRAINING,
        Machine(device="cpu", precision="float32", workers=0),
        run="tiny",
    )
    list(make_folds(made.folders, ("blue", "red", "yellow"), 3, 0))
    tune_run(replace(made, training=replace(TRAINING, epochs=1), fold=1), 2, silent)
    # As from the command line, where these come from what was tuned.
    train_run(replace(made, training=replace(TRAINING, batch_size=None)), silent)
    submit(made, ("tiny",), False, silent)
    return made


@pytest.fixture(scope="module")
def page(config: Config) -> Path:
    """The page, written by the verb."""
    done = report(config)
    assert done.returncode == 0, done.stderr
    # Such as of a character that a font lacks.
    assert "Warning" not in done.stderr
    assert "OOF BAC of tiny on folds 0, 1 and 2 of 3: " in done.stdout
    path = config.folders.oof_dir / "tiny" / "report.html"
    assert f"wrote {path}" in done.stdout
    return path


def report(config: Config, run: str = "tiny") -> subprocess.CompletedProcess[str]:
    """What a user runs."""
    folders = config.folders
    arguments = {
        "--input-dir": folders.input_dir,
        "--oof-dir": folders.oof_dir,
        "--submissions-dir": folders.submissions_dir,
        "--cache-dir": folders.cache_dir,
        "--run": run,
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)


class Cells(HTMLParser):
    """What the page shows: the headline's score, and every table as rows of texts."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.headline = ""
        self.tables: list[list[list[str]]] = []
        self.into: list[str] | None = None
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.into = self.tables[-1][-1]
        elif tag == "b":
            self.into = [""]

    def handle_endtag(self, tag: str) -> None:
        if tag == "b":
            assert self.into is not None
            [self.headline] = self.into
        if tag in ("td", "th", "b"):
            self.into = None

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.into is not None:
            self.into[-1] += data

    def table(self, *head: str) -> list[list[str]]:
        """The rows of the table with these heads."""
        [table] = [table for table in self.tables if table[0] == list(head)]
        return table[1:]


def predictions(config: Config, folds: range = range(3)) -> dict[str, np.ndarray]:
    """What the OOF files of some folds hold, read plainly."""
    parts = [np.load(config.folders.oof_dir / "tiny" / f"fold{fold}" / "oof.npz") for fold in folds]
    keys = ("file_id", "label", "prob", "prob_plain")
    return {key: np.concatenate([part[key] for part in parts]) for key in keys}


def test_the_numbers_are_those_of_the_oof_files(config: Config, page: Path) -> None:
    shown, oof = Cells(page), predictions(config)
    labels, guesses = oof["label"], oof["prob"].argmax(1)
    assert shown.headline == f"{100 * balanced_accuracy_score(labels, guesses):.1f} %"

    scores = {row[0]: row[1:] for row in shown.table("", "with TTA", "without")}
    for column, prob in enumerate((oof["prob"], oof["prob_plain"])):
        guess = prob.argmax(1)
        expected = {
            "balanced accuracy (BAC)": f"{100 * balanced_accuracy_score(labels, guess):.1f} %",
            "accuracy": f"{100 * accuracy_score(labels, guess):.1f} %",
            "macro F1": f"{100 * f1_score(labels, guess, average='macro'):.1f} %",
            "log loss": f"{-np.mean(np.log(prob[np.arange(len(labels)), labels])):.3f}",
        }
        assert {name: row[column].split(" [")[0] for name, row in scores.items()} == expected

    recalls = recall_score(labels, guesses, average=None)
    shown_recalls = [
        row[1].split(" [")[0] for row in shown.table("class", "recall", "samples", "groups")
    ]
    assert shown_recalls == [f"{100 * recall:.1f} %" for recall in recalls]

    matrices = [table for table in shown.tables if len(table) == 10 and len(table[0]) == 10]
    [matrix] = [table for table in matrices if not table[0][0]]
    assert matrix[0][1:] == [row[0] for row in matrix[1:]]
    counts = [[int(cell) for cell in row[1:]] for row in matrix[1:]]
    assert counts == confusion_matrix(labels, guesses).tolist()


def test_the_folds_and_what_tta_gains_are_told(config: Config, page: Path) -> None:
    text = " ".join(Cells(page).texts)
    of_folds = []
    for fold in range(3):
        oof = predictions(config, range(fold, fold + 1))
        # Of the fold's own classes, as scikit-learn has it.
        of_folds.append(100 * balanced_accuracy_score(oof["label"], oof["prob"].argmax(1)))
    assert f"goes from {min(of_folds):.1f} % to {max(of_folds):.1f} %" in text
    assert f"standard deviation of {np.std(of_folds, ddof=1):.1f} points" in text
    oof = predictions(config)
    with_tta, without = (
        balanced_accuracy_score(oof["label"], oof[key].argmax(1)) for key in ("prob", "prob_plain")
    )
    assert f"gains {100 * (with_tta - without):+.1f} [" in text


def test_what_was_tuned_and_who_looked_is_told(page: Path) -> None:
    shown = Cells(page)
    trials = shown.table("trial", "state", "learning rate", "batch size", "epochs", "held-out BAC")
    assert [row[0] for row in trials] == ["0", "1"]
    text = " ".join(shown.texts)
    assert "2 trials of make tune looked at fold 1, and this run's" in text
    assert "Without that fold the BAC is" in text


def test_what_was_submitted_is_told_with_its_reasons(config: Config, page: Path) -> None:
    text = " ".join(Cells(page).texts)
    [path] = config.folders.submissions_dir.glob("*.csv")
    assert f"{path.name}, OOF BAC " in text
    assert "weights: tiny 1.00." in text
    record = read_json(path.with_suffix(".json"))
    assert text.count(record["rule"]["trials"][0]["why"]) == 2
    score = percent(record["oof"]["bac"], record["oof"]["interval"])
    assert f"by this run alone, each fold by what was fitted on the others: {score}." in text


def test_a_submission_that_was_changed_is_warned_of(config: Config) -> None:
    shutil.copytree(config.folders.submissions_dir, "submissions")
    run = open_run(config)
    run = replace(run, folders=replace(run.folders, submissions_dir=Path("submissions")))
    assert calibration_section(run).warnings == []
    [path] = Path("submissions").glob("*.csv")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    [warning] = calibration_section(run).warnings
    assert warning.startswith(f"{path.name} is not the file that was written")
    # Without its CSV, a record tells of nothing that could have been submitted.
    path.unlink()
    assert show_submissions(run) == ([], [])


def test_a_file_of_another_fold_ends_in_one_message(config: Config, page: Path) -> None:
    before = page.read_bytes()
    folds = [config.folders.oof_dir / "tiny" / f"fold{fold}" for fold in range(2)]
    for name in ("test.npz", "oof.npz"):
        own = (folds[0] / name).read_bytes()
        (folds[0] / name).write_bytes(own[: len(own) // 2])
        with pytest.raises(UserError, match=rf"fold0/{name} is "):
            write_report(config, silent)
        (folds[0] / name).write_bytes(own)
    own = (folds[0] / "test.npz").read_bytes()
    shutil.copy(folds[1] / "test.npz", folds[0])
    done = report(config)
    (folds[0] / "test.npz").write_bytes(own)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {folds[0]}/test.npz does not belong to the run in ")
    assert "its fold is 1, not 0" in done.stderr
    assert done.stderr.count("\n") == 1
    assert page.read_bytes() == before


def test_names_are_shown_as_text(page: Path) -> None:
    shown = Cells(page)
    texts = [text.strip() for text in shown.texts]
    for name in name_classes(sorted(LABELS)):
        # In the confusion matrix twice, and in a figure.
        assert texts.count(name) >= 3
    samples = shown.table("class", "recall", "samples", "groups")
    assert [row[0] for row in samples] == sorted(LABELS)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=http" not in text


def test_nothing_is_loaded_from_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
    ) in text
    # Of tags alone: in a class's name, which is text, there is an address.
    tags = " ".join(re.findall(r"<[^<>]+>", text))
    sources = re.findall(r'(?:src|href|url\()=?"?([^")\s]+)', tags)
    assert sources
    assert all(source.startswith(("#", "data:")) for source in sources)


def test_the_same_files_give_the_same_bytes(config: Config, page: Path) -> None:
    before = page.read_bytes()
    assert write_report(config, silent).read_bytes() == before


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if not is_installed():
        pytest.skip("chromium and chromedriver are not installed")
    with browse(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it_whole(config: Config, page: Path, tab: Tab, width: int) -> None:
    tab.open(page, width, dark=width == WIDTHS[1])
    # Nothing is as wide as the window but what scrolls in its own box.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("innerWidth") == width
    broken = "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
    assert tab.evaluate(broken) == 0
    assert tab.evaluate("document.images.length") > 20
    # Figures are as wide as their column, whatever they are drawn in.
    narrow = "[...document.querySelectorAll('svg')].filter(one => one.clientWidth < 300).length"
    assert tab.evaluate(narrow) == 0
    # No text is cut off, however long a name is: in figures, and in cells of tables.
    assert tab.evaluate(TEXTS_OUTSIDE) == []
    assert tab.evaluate(CELLS_OVERFULL) == []
    assert tab.evaluate("document.scripts.length") == 0

    assert tab.console() == []
    assert {url for url in tab.requests() if not url.startswith("data:")} == {page.as_uri()}

    oof = predictions(config)
    bac = 100 * balanced_accuracy_score(oof["label"], oof["prob"].argmax(1))
    assert tab.evaluate("document.querySelector('.score b').innerText") == f"{bac:.1f} %"
    cells = "[...document.querySelectorAll('.matrix td.right')].map(one => one.innerText)"
    diagonal = np.diag(confusion_matrix(oof["label"], oof["prob"].argmax(1)))
    assert tab.evaluate(cells) == [str(count) for count in diagonal]


def test_a_dark_page_is_dark_throughout(page: Path, tab: Tab) -> None:
    painted = (
        ("body", "backgroundColor"),
        ("svg text", "fill"),
        ("svg path[style*=blue]", "stroke"),
    )
    shown = []
    for dark in (False, True):
        tab.open(page, 800, dark=dark)
        shown.append(
            [
                tab.evaluate(f"getComputedStyle(document.querySelector('{what}')).{how}")
                for what, how in painted
            ]
        )
    assert all(light != dark for light, dark in zip(*shown, strict=True))


def test_one_fold_is_enough(config: Config) -> None:
    alone = replace(
        config,
        folders=replace(config.folders, oof_dir=Path("oof").absolute()),
        training=replace(TRAINING, epochs=1, lr=1e-3),
        fold=1,
    )
    alone.folders.oof_dir.mkdir()
    for name in ("folds.csv", "folds.json"):
        shutil.copy(config.folders.oof_dir / name, alone.folders.oof_dir)
    train_run(alone, silent)
    shown = Cells(write_report(alone, silent))
    text = " ".join(shown.texts)
    oof = predictions(alone, range(1, 2))
    bac = balanced_accuracy_score(oof["label"], oof["prob"].argmax(1))
    assert shown.headline == f"{100 * bac:.1f} %"
    for part in (
        f"on the {len(oof['label'])} held-out samples of fold 1 of 3",
        "Folds 0 and 2 are not trained yet: make train INPUT=",
        "make tune has not run",
        "make submit predicts the test set",
    ):
        assert part in text
    assert "looked at fold" not in text


def test_a_run_that_is_not_there_ends_in_one_message(config: Config) -> None:
    done = report(config, "never")
    assert done.returncode == 2
    assert "train it first" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_without_a_finished_fold_says_what_to_train(config: Config) -> None:
    folder = config.folders.oof_dir / "begun"
    folder.mkdir()
    shutil.copy(config.folders.oof_dir / "tiny" / "config.json", folder)
    with pytest.raises(UserError, match=r"make train .*RUN=begun FOLD=0.* trains the first"):
        write_report(replace(config, run="begun"), silent)
    assert not (folder / "report.html").exists()


def test_a_class_that_no_finished_fold_holds_is_named(config: Config) -> None:
    shutil.copytree(config.folders.oof_dir, "oof")
    copied = replace(config, folders=replace(config.folders, oof_dir=Path("oof")))
    folder = Path("oof/tiny")
    for fold in (1, 2):
        (folder / f"fold{fold}" / "oof.npz").unlink()
    oof = read_out_of_fold(folder, [0])
    kept = oof.labels != 3
    part = OutOfFold(oof.ids[kept], oof.labels[kept], oof.prob[kept], oof.prob_plain[kept])
    provenance = {**read_json(folder / "config.json"), "fold": 0}
    write_out_of_fold(folder / "fold0" / "oof.npz", part, provenance)
    absent = read_json(Path("oof/folds.json"))["classes"][3]
    with pytest.raises(UserError, match=re.escape(f"no sample of {absent}: ")) as error:
        write_report(copied, silent)
    assert "RUN=tiny FOLD=1 " in str(error.value)
