"""Names from strangers through all verbs: labels that stay text, runs that stay in their folder."""

import csv
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
from odd_labels import LABELS, relabel

from cellline.audit.dealing import Plan, make_folds
from cellline.audit.words import describe_dealt
from cellline.config import Config, Folders, Machine, Training
from cellline.errors import UserError
from cellline.host.names import count_columns, name_classes
from cellline.report.comparing import compare_runs
from cellline.report.page import write_report
from cellline.runs.run import run_folder
from cellline.submitting.submission import join_names, write_submission
from cellline.submitting.submit import submit
from cellline.training.run import train_run

TRAINING = Training(network="densenet_tiny", weights="none", epochs=1, batch_size=16)


@pytest.fixture(scope="module")
def printed(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the verbs print of two runs of a competition whose classes are called oddly."""
    folder = tmp_path_factory.mktemp("odd")
    relabel(drawn, folder / "input")
    names = ("input", "oof", "submissions", "cache")
    config = Config(
        Folders(*(folder / name for name in names)),
        TRAINING,
        Machine(device="cpu", precision="float32", workers=0),
    )
    lines = {"folds": describe_dealt(make_folds(config.folders, Plan(n_folds=3)))}
    for seed, run in enumerate(("a", "b")):
        training = replace(TRAINING, seed=seed)
        # Of one fold: a class's recall is of a few samples, or of none.
        train_run(replace(config, training=training, run=run, fold=0))
    with redirect_stdout(io.StringIO()) as text:
        path = submit(config, ("a", "b"), partial=True)
    lines["submit"] = text.getvalue().splitlines()
    lines["compare"] = compare_runs(config, ("a", "b")).describe()
    lines["written"] = [str(path)]
    return lines


def shown(lines: list[str], start: int) -> list[str]:
    """The first columns of a table's rows, from a line on."""
    width = max(map(count_columns, name_classes(LABELS)))
    cells = []
    for line in lines[start : start + len(LABELS)]:
        cell = line
        while count_columns(cell) > width:
            cell = cell[:-1]
        cells.append(cell.rstrip())
    return cells


@pytest.mark.parametrize(
    ("verb", "head"), [("folds", "fold 0"), ("submit", "predicted"), ("compare", "difference")]
)
def test_tables_show_labels_in_one_narrow_column(
    printed: dict[str, list[str]], verb: str, head: str
) -> None:
    [start] = [at for at, line in enumerate(printed[verb]) if head in line]
    assert shown(printed[verb], start + 1) == list(name_classes(sorted(LABELS)))
    widths = {count_columns(line) for line in printed[verb][start : start + 1 + len(LABELS)]}
    assert max(widths) <= 110


def test_labels_are_intact_in_the_submission(printed: dict[str, list[str]], drawn: Path) -> None:
    data = Path(printed["written"][0]).read_bytes()
    header, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
    assert header == ["file_id", "cell_line"]
    assert len(rows) == 18
    assert {row[1] for row in rows} <= set(LABELS)


LEAVING = ["..", "../x", "a/b", "/a", "a\0b", "a\nb", "-x", "--help", "a.", "a ", " a", "~"]
TAKEN = ["tuning", "Tuning", "folds.csv", "folds.json", ".lock", ".hidden"]


@pytest.mark.parametrize("name", [*LEAVING, *TAKEN, "x" * 101, "é" * 51, "\udc80", "a\u202eb"])
def test_names_that_are_no_run_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"--run '.*the name may hold") as refused:
        run_folder(Config(run=name))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", ["densenet161", "b4-large_2.1", "_x", "é" * 50, "x" * 100])
def test_names_that_are_one_stay_in_the_folder(name: str) -> None:
    folder = run_folder(Config(run=name))
    assert folder.parent == Path("oof")
    folder.mkdir(parents=True)
    assert run_folder(Config(run=name)) == folder


def put_file(path: Path) -> None:
    path.write_text("")


def put_link(path: Path) -> None:
    (path.parent / "other").mkdir()
    path.symlink_to("other")


def put_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("put", "told"),
    [(put_file, "is a file"), (put_link, "is a link"), (put_dangling_link, "is a link")],
)
def test_what_is_in_the_place_of_a_run_is_named(put: Callable[[Path], None], told: str) -> None:
    Path("oof").mkdir()
    put(Path("oof/run"))
    with pytest.raises(UserError, match=rf"oof/run {told}.*move it away"):
        run_folder(Config(run="run"))


def test_any_number_of_runs_has_a_name_for_the_file() -> None:
    runs = [f"run-{number}-{'x' * 80}" for number in range(40)]
    assert join_names(["a", "b"]) == "a+b"
    others = [runs[0], *runs[:0:-1]]
    names = {join_names(runs), join_names(others), join_names(runs[:39])}
    assert len(names) == 3
    longest = join_names(["é" * 50, *runs])
    # With all that a name may get, written for real.
    for name in (f"{join_names(runs)}-partial", f"{longest}-partial"):
        path = write_submission(Path("submissions"), name, b"id,label\n", {})
        assert path.exists()
        assert path.name.startswith(name)
        assert "-partial-" in path.name


def test_an_oof_folder_that_is_a_file_is_no_folder() -> None:
    Path("oof").write_text("not a folder")
    for verb in (
        lambda: train_run(Config()),
        lambda: submit(Config(), ("a",)),
        lambda: compare_runs(Config(), ("a", "b")),
        lambda: write_report(Config()),
    ):
        with pytest.raises(UserError, match="no folds in oof: run `folds` first"):
            verb()
    assert [path.name for path in Path().iterdir()] == ["oof"]
