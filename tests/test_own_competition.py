"""Competitions of another shape, changed only by settings: what docs/your-own-competition.md says.

Its snippets and commands are run out of the page.
"""

import csv
import io
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from layouts import Files, images, write
from layouts import csv as csv_text
from test_pipeline import ROOT, make, read

import folds
from cellline.audit.dealing import Plan, make_folds
from cellline.audit.words import describe_dealt
from cellline.cli import parse_arguments
from cellline.config import Config, Folders
from cellline.report.comparing import compare_runs
from cellline.runs.folds import read_folds_record

PAGE = (ROOT / "docs" / "your-own-competition.md").read_text(encoding="utf-8")
[DRAW] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
[COMMANDS] = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
LABELS = ["alive", "dead, or dying"]


def run_snippet(code: str) -> None:
    exec(compile(code, "docs/your-own-competition.md", "exec"), {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which all that the page tells to do has been done, and what it printed."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_snippet(DRAW)
        for name in ("src", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        commands = [shlex.split(line) for line in COMMANDS.splitlines()]
        assert [command[0] for command in commands] == ["make", "make"]
        return folder, "".join(make(*command[1:]) for command in commands)


def shape(line: str) -> str:
    """A line without what differs from machine to machine."""
    return re.sub(r"[-+]?[0-9a-f]*\d[0-9a-f]*(\.\d+)?", "#", " ".join(line.split()))


def test_the_page_prints_what_it_says(made: tuple[Path, str]) -> None:
    claimed = re.findall(r"^    (\S.*| {10,}\S.*)$", PAGE.split("```sh")[1].split("## ")[0], re.M)
    assert len(claimed) > 5
    printed = {shape(line) for line in made[1].splitlines()}
    stable = [line for line in claimed if "correction" not in line and "this rule" not in line]
    assert [line for line in stable if shape(line) not in printed] == []


def test_the_submission_is_the_templates(made: tuple[Path, str]) -> None:
    folder, _ = made
    [path] = folder.glob("submissions-wells/*.csv")
    template = read(folder / "wells/sample_submission.csv")
    rows = read(path)
    assert rows[0] == template[0] == ["well", "state"]
    assert [row[0] for row in rows] == [row[0] for row in template]
    assert template[8][0] == "plate4_B07"
    assert {row[1] for row in rows[1:]} <= set(LABELS)
    assert '"dead, or dying"' in (folder / "wells/y_train.csv").read_text()


def test_what_is_left_on_the_disk_is_of_text_and_of_its_shape(made: tuple[Path, str]) -> None:
    folder, _ = made
    truth = dict(read(folder / "wells/y_train.csv")[1:])
    header, *rows = read(folder / "oof-wells/folds.csv")
    assert header == ["well", "state", "group", "fold"]
    assert {row[0]: row[1] for row in rows} == truth
    assert read_folds_record(folder / "oof-wells")["channels"] == ["phase"]
    for fold in range(3):
        of_fold = folder / f"oof-wells/densenet_tiny-scratch/fold{fold}"
        with np.load(of_fold / "oof.npz", allow_pickle=False) as file:
            held_out = sorted(row[0] for row in rows if row[3] == str(fold))
            assert file["file_id"].tolist() == held_out
            assert [LABELS[k] for k in file["label"]] == [truth[i] for i in held_out]
            assert file["prob"].shape == (len(held_out), 2)
        with np.load(of_fold / "test.npz", allow_pickle=False) as file:
            assert file["file_id"].tolist() == [f"plate4_B{column:02d}" for column in range(24)]


def test_the_report_names_samples_by_their_ids(made: tuple[Path, str]) -> None:
    page = (made[0] / "oof-wells/densenet_tiny-scratch/report.html").read_text(encoding="utf-8")
    assert "1 channel of 40 by 28 pixels" in re.sub(r"\s+", " ", page)
    captions = re.findall(r"<figcaption><span>(.*?)</span>", page)
    assert captions
    assert all(re.fullmatch(r"plate[0-3]_B\d\d", caption) for caption in captions)
    assert "dead, or dying" in page


def test_runs_of_two_classes_and_text_ids_are_compared(made: tuple[Path, str]) -> None:
    folder = made[0]
    oof = Path(shutil.copytree(folder / "oof-wells", "oof"))
    shutil.copytree(oof / "densenet_tiny-scratch", oof / "a")
    shutil.copytree(oof / "densenet_tiny-scratch", oof / "again")
    config = Config(Folders(folder / "wells", oof, cache_dir=folder / ".cache"))
    lines = compare_runs(config, ("a", "again")).describe()
    assert "a and again score the same on all samples of all 3 folds: keep the cheaper" in lines
    assert [line for line in lines if line.startswith("dead, or dying ")]


def rename(drawn: Path, folder: Path) -> dict[int, str]:
    """Copy an input whose ids are numbers, text instead, in the same order; old and new ids."""
    folder.mkdir()
    names: dict[int, str] = {}
    for table in ("y_train.csv", "sample_submission.csv"):
        text = io.StringIO()
        header, *rows = read(drawn / table)
        names |= {int(row[0]): f'plate{int(row[0]) // 50}_é.{row[0]:0>3}, "x"' for row in rows}
        renamed = [(names[int(row[0])], row[1]) for row in rows]
        csv.writer(text).writerows([header, *renamed])
        (folder / table).write_text(text.getvalue())
    for split in ("train", "test"):
        with (
            tarfile.open(drawn / f"images_{split}.tar") as source,
            tarfile.open(folder / f"images_{split}.tar", "w") as target,
        ):
            for member in source:
                number, _, channel = Path(member.name).stem.partition("_")
                member.name = f"{names[int(number)]}_{channel}.png"
                target.addfile(member, source.extractfile(member))
    return names


def test_folds_are_the_same_whatever_the_ids_are(drawn: Path) -> None:
    names = rename(drawn, Path("named"))
    dealt = []
    for source, oof in ((drawn, "oof"), (Path("named"), "oof-named")):
        folders = Folders(source, Path(oof))
        folds = make_folds(folders, Plan(n_folds=3))
        rows = read(Path(oof, "folds.csv"))
        dealt.append((describe_dealt(folds), folds, rows, folds.record["audit"]))
    (lines, folds, rows, audit), (other_lines, other_folds, other_rows, other_audit) = dealt
    assert other_lines == lines
    assert other_audit == audit
    header, *expected = rows
    for row in expected:
        row[0], row[2] = names[int(row[0])], names[int(row[2])]
    assert other_rows == [header, *expected]
    assert len({row[2] for row in expected}) < len(expected)
    np.testing.assert_array_equal(other_folds.fold, folds.fold)
    assert other_folds.group.tolist() == [names[i] for i in folds.group.tolist()]


LAYOUTS = dict(re.findall(r"^\| (.*?) \| `make folds(?: ARGS=\"(.*)\")?` \|$", PAGE, re.M))
TRAIN, TEST = list("abcdefgh"), list("yz")
KINDS = dict(zip(TRAIN, "xxxxoooo", strict=True))
FOLDERS = {**images("train/{}.png", TRAIN), **images("test/{}.png", TEST, 8)}
TEMPLATE = {"sample_submission.csv": csv_text("name,kind", *(f"{name},x" for name in TEST))}


def table(header: str, row: str, names: list[str] = TRAIN) -> dict[str, bytes | str]:
    """A train.csv with a row for each sample, a format string of its name, kind and number."""
    numbered = enumerate(names)
    rows = (row.format(name=name, kind=KINDS[name], at=at) for at, name in numbered)
    return {"train.csv": csv_text(header, *rows)}


USUAL = {**table("name,kind", "{name},{kind}"), **TEMPLATE, **FOLDERS}
# What the rows of the page's table describe, in its order.
DRAWN: list[Files] = [
    USUAL,
    {f"all.zip/{name}": data for name, data in USUAL.items()},
    {**USUAL, **table("name,kind", "{name}.png,{kind}")},
    {**table("name,kind", "{name},{kind}"), **TEMPLATE, **images("images/{}.png", TRAIN + TEST)},
    {
        **FOLDERS,
        "train.csv": csv_text(
            "name,o,x", *(f"{name},{k == 'o':d},{k == 'x':d}" for name, k in KINDS.items())
        ),
        "sample_submission.csv": csv_text("name,o,x", *(f"{name},0.5,0.5" for name in TEST)),
    },
    {
        **images("train/{}.png", [f"{KINDS[name]}/{name}" for name in TRAIN]),
        **images("test/{}.png", TEST, 8),
        **TEMPLATE,
    },
    {
        **images("train/{}.png", [f"{kind}.{at}" for kind in ("cat", "dog") for at in range(4)]),
        **images("test/{}.png", TEST, 8),
        "sample_submission.csv": csv_text("name,kind", *(f"{name},0.5" for name in TEST)),
    },
    {
        **table("name,kind", "{at},{kind}"),
        "sample_submission.csv": csv_text("name,kind", "98,x", "99,x"),
        **images("train/{}_blue.png", range(8)),
        **images("train/{}_red.png", range(8), 20),
        **images("test/{}_blue.png", [98, 99], 8),
        **images("test/{}_red.png", [98, 99], 28),
    },
    {**table("name,kind", "{name},{kind}"), **images("photos/{}.png", TRAIN)},
    {**table("name,age,dx", "{name},{at},{kind}"), **images("photos/{}.png", TRAIN)},
    {**USUAL, **table("name,kind,patient_id", "{name},{kind},{at}")},
    {**USUAL, **table("name,kind,fold", "{name},{kind},{at}")},
]


@pytest.mark.parametrize("row", range(len(LAYOUTS)))
def test_each_layout_of_the_page_is_dealt(row: int) -> None:
    assert len(DRAWN) == len(LAYOUTS)
    write(DRAWN[row])
    arguments = ["--folds", "2", *shlex.split(list(LAYOUTS.values())[row])]
    folds.main(parse_arguments(folds.main, folds.FoldsConfig, arguments))
    _, *rows = read(Path("oof/folds.csv"))
    assert len(rows) == 8
    assert {kind for _, kind, *_ in rows} in ({"x", "o"}, {"cat", "dog"})
