"""The verbs as a user calls them: through make and the scripts, end to end."""

import csv
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data" / "cell-lines-small"
TINY = (
    "--network densenet_tiny --weights none --image-size 16 --start-size 16 --epochs 2 "
    "--batch-size 16 --device cpu"
)

needs_real_data = pytest.mark.skipif(not REAL.exists(), reason="the real data are not here")


def make(*arguments: str, status: int = 0) -> str:
    """Run make with this Python in the current folder; what it printed."""
    # As from a fresh shell: not as a part of the make that may have started the tests.
    outer = ("MAKE", "MFLAGS", "ARGS", "RUN", "FOLD", "INPUT", "OOF", "SUBMISSIONS")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), *arguments, "VENV=", f"PYTHON={sys.executable}"],
        env={**environment, "LC_ALL": "C"},
        capture_output=True,
        timeout=300,
    )
    printed = (done.stdout + done.stderr).decode()
    # Nothing is overwritten where it is no terminal.
    assert "\r" not in printed
    # make itself ends with 2 when a script has failed, and says the script's status.
    assert done.returncode == (2 if status else 0), printed
    if status:
        assert f"Error {status}" in printed
        assert "Traceback" not in printed
    return printed


class Verbs:
    """The scripts, run in this process, which has imported torch already."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capfd = capfd

    def __call__(self, command: str, status: int = 0) -> str:
        """Run a script by its name and arguments; its output."""
        verb, *arguments = shlex.split(command)
        self.capfd.readouterr()
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [f"{verb}.py", *arguments])
            patch.setenv("TERM", "dumb")
            ended = 0
            try:
                runpy.run_path(str(ROOT / "src" / f"{verb}.py"), run_name="__main__")
            except SystemExit as exit_:
                ended = int(exit_.code or 0)
        printed = "".join(self.capfd.readouterr())
        assert ended == status, printed
        assert "Traceback" not in printed
        return printed


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Verbs:
    """The verbs in this process."""
    return Verbs(monkeypatch, capfd)


@pytest.fixture(autouse=True)
def sources() -> None:
    """The scripts are called as `src/...`, relative to the folder that make runs in."""
    Path("src").symlink_to(ROOT / "src")
    Path("pyproject.toml").symlink_to(ROOT / "pyproject.toml")


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def only(pattern: str) -> Path:
    [path] = Path().glob(pattern)
    return path


def test_from_four_files_to_a_submission(drawn: Path, verbs: Verbs) -> None:
    shutil.copytree(drawn, "input")
    printed = make(
        "folds",
        "tune",
        "train",
        "submit",
        "FOLDS=3",
        "TRIALS=1",
        "TUNE_EPOCHS=1",
        f"ARGS={TINY} --metric balanced_accuracy",
    )
    assert printed.startswith(
        "labels: y_train.csv, column cell_line by file_id; 90 training samples of 9 classes\n"
    )
    for part in (
        f"next, train every fold:\n  make train VENV='' PYTHON={shlex.quote(sys.executable)} ARGS=",
        "have an exact copy",
        "best trial of 1 on fold 0",
        "the best epoch, ",
        "fold 2 is finished",
        "wrote ",
    ):
        assert part in printed

    submission = only("submissions/densenet_tiny-scratch-*.csv")
    rows = read(submission)
    template = read(Path("input/sample_submission.csv"))
    assert [row[0] for row in rows] == [row[0] for row in template]
    record = json.loads(submission.with_suffix(".json").read_text())
    assert record["oof"]["samples"] == 90
    assert record["oof"]["interval"][0] <= record["oof"]["score"] <= record["oof"]["interval"][1]
    assert list(record["runs"][0]["models"]) == ["0", "1", "2"]

    kept = {
        path: path.read_bytes()
        for pattern in ("oof/*/fold*/*.npz", "submissions/[!.]*")
        for path in Path().glob(pattern)
    }
    # Except for the locks, which name their last holder.
    stamps = {path: path.stat().st_mtime_ns for path in Path().glob("oof/*/fold*/[!.]*")}
    assert verbs(f"train {TINY}").count("is finished already") == 3
    verbs(f"submit {TINY}")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps

    for folder in ("oof", "submissions"):
        shutil.rmtree(folder)
    verbs("folds --folds 3")
    verbs(f"train {TINY} --workers 2")
    verbs("submit --device cpu")
    assert {path: path.read_bytes() for path in kept} == kept


def test_missing_folds_are_named_and_can_be_left_out(drawn: Path, verbs: Verbs) -> None:
    verbs(f"folds --input-dir {drawn} --folds 3")
    verbs(f"train --input-dir {drawn} --fold 1 {TINY}")
    refused = verbs(f"submit --input-dir {drawn} {TINY}", status=2)
    # The command works as it is printed: with the folders and the run's own settings.
    [command] = [line for line in refused.splitlines() if " FOLD=0 " in line]
    assert " FOLD=1 " not in refused
    make(*shlex.split(command)[1:])
    assert Path("oof/densenet_tiny-scratch/fold0/oof.npz").exists()
    shutil.rmtree("oof/densenet_tiny-scratch/fold0")
    assert not Path("submissions").exists()
    printed = verbs(f"submit --input-dir {drawn} {TINY} --partial")
    held_out = len(np.load("oof/densenet_tiny-scratch/fold1/oof.npz")["file_id"])
    assert f"OOF, {held_out} of 90 training samples" in printed
    assert only("submissions/*.csv").name.startswith("densenet_tiny-scratch-partial-")


def test_runs_are_blended(drawn: Path, verbs: Verbs) -> None:
    verbs(f"folds --input-dir {drawn} --folds 3")
    for run, seed in (("a", 0), ("b", 1)):
        verbs(f"train --input-dir {drawn} --run {run} --fold 0 {TINY} --seed {seed}")
    verbs(f"submit --input-dir {drawn} --runs a b --partial --device cpu")
    both = only("submissions/a+b-*.json")
    assert [run["run"] for run in json.loads(both.read_text())["runs"]] == ["a", "b"]
    parts = [np.load(f"oof/{run}/fold0/test.npz")["prob"] for run in "ab"]
    assert not np.array_equal(*parts)
    classes = json.loads(Path("oof/folds.json").read_text())["classes"]
    expected = [classes[k] for k in ((parts[0] + parts[1]) / 2).argmax(1)]
    rows = read(both.with_suffix(".csv"))[1:]
    assert [label for _, label in sorted((int(i), label) for i, label in rows)] == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --fold 7", "--fold 7: folds are 0 to 2"),
        ("train --run ../x", "the name may hold"),
        ("train --weights imagenet --network densenet_tiny", "add --weights none"),
        ("train --weights nowhere.pth", "no such file"),
        ("train --network densenet1610", "not a classification model of torchvision"),
        ("train --epochs many", "--epochs"),
        ("train --epochs 0", "--epochs 0: must be at least 1"),
        ("tune --dropout 2", "--dropout 2: must be 0 or more and less than 1"),
        ("tune --tune-epochs 0", "--tune-epochs 0: must be at least 1"),
        ("train --no-such-setting", "no-such-setting"),
        ("submit --run never", "train it first"),
        ("tune --trials 0", "--trials 0: must be at least 1"),
        *(
            (
                f"compare --runs a b --public-share {share}",
                f"--public-share {share}: must be more than 0 and less than 1",
            )
            for share in (0, 1, 30)
        ),
        ("export --distill -1", "--distill -1: must be at least 0"),
        ("folds --seed 5 --input-dir nowhere", "nowhere"),
    ],
)
def test_mistakes_end_in_one_message(dealt: Path, verbs: Verbs, command: str, message: str) -> None:
    before = sorted(dealt.rglob("*"))
    verb, _, arguments = command.partition(" ")
    folders = f"--input-dir {dealt / 'input'} --oof-dir {dealt / 'oof'}"
    assert message in verbs(f"{verb} {folders} {arguments}", status=2)
    assert sorted(dealt.rglob("*")) == before


def test_make_shows_the_status_of_a_script(drawn: Path) -> None:
    assert "--fold 7: folds are" in make("folds", "train", f"INPUT={drawn}", "FOLD=7", status=2)


@pytest.fixture(scope="module")
def dealt(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with input and folds."""
    folder = tmp_path_factory.mktemp("dealt")
    shutil.copytree(drawn, folder / "input")
    command = [sys.executable, str(ROOT / "src/folds.py"), "--folds", "3"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_an_interrupted_training_says_so_and_goes_on(dealt: Path) -> None:
    arguments = [
        "--input-dir",
        str(dealt / "input"),
        "--oof-dir",
        str(dealt / "oof"),
        "--fold",
        "0",
    ]
    script = [sys.executable, str(ROOT / "src/train.py"), *arguments, "--run", "stopped"]
    settings = [*TINY.replace("--epochs 2", "--epochs 12").split()]
    process = subprocess.Popen(
        [*script, *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "epoch 2/" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    told, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "rerun the same command to resume" in printed
    assert re.search(
        r"^fold 0 is saved, held-out BAC [\d.]+ % after epoch \d+; to resume:$", told, re.M
    )
    done = subprocess.run([*script, *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/" not in done.stdout
    assert "epoch 12/12" in done.stdout


def test_help_lists_every_verb() -> None:
    printed = make()
    for verb in ("demo", "folds", "tune", "train", "submit", "kaggle", "setup", "test", "lint"):
        assert f"make {verb} " in printed
    scripts = {path.stem for path in (ROOT / "src").glob("*.py")} - {"environment"}
    assert all(f"make {name} " in printed for name in scripts)


def rewrite(archive: Path, drop: str = "", truncate: str = "") -> None:
    """Copy a tar without one member, or with one cut off."""
    old = archive.with_suffix(".old")
    archive.rename(old)
    with tarfile.open(old) as source, tarfile.open(archive, "w") as target:
        for member in source:
            file = source.extractfile(member) if member.isfile() else None
            if member.name.endswith(truncate) and truncate:
                member.size //= 2
            if not (drop and member.name.endswith(drop)):
                target.addfile(member, file)
    old.unlink()


@needs_real_data
def test_the_real_competition(verbs: Verbs) -> None:
    shutil.copytree(REAL, "input")
    for path in [Path("input"), *Path("input").iterdir()]:
        path.chmod(0o755)
    rows = Path("input/y_train.csv").read_text().splitlines()
    first = rows[1].split(",")[0]

    # Three faults are reported at once: a lost image, a truncated one, a lost row.
    third = rows[3].split(",")[0]
    whole = Path("input/images_train.tar").read_bytes()
    rewrite(Path("input/images_train.tar"), drop=f"{int(first):05d}_red.png")
    rewrite(Path("input/images_train.tar"), truncate=f"{int(third):05d}_red.png")
    Path("input/y_train.csv").write_text("\n".join([*rows[:2], *rows[3:]]) + "\n")
    printed = verbs("folds", status=2)
    for told in ("without a row in y_train.csv", "red", first, third, rows[2].split(",")[0]):
        assert told in printed
    left = [path for name in ("oof", ".cache") for path in Path(name).rglob("*")]
    assert all(path.name == ".lock" for path in left)

    Path("input/images_train.tar").write_bytes(whole)
    Path("input/y_train.csv").write_text("\n".join(rows) + "\n")
    verbs("folds")
    verbs(f"train --fold 0 {TINY}")
    assert "make train FOLD=4 ARGS=" in verbs(f"submit {TINY}", status=2)
    assert "(126 rows)" in verbs(f"submit {TINY} --partial")
