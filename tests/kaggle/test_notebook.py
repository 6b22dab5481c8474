"""The bundle as on Kaggle: no network, a read-only input, and only the image's packages."""

import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import timm
from environments import installed, make_environment
from layouts import images, write
from safetensors.torch import save_file

from cellline.config import Config, Training
from cellline.kaggle.bundle import NAME, ROOT, build_bundle, in_image, list_pins

HERE = Path(__file__).resolve().parent
TINY = Training(network="densenet_tiny", weights="none", epochs=1, batch_size=16)
NETWORK = "timm/test_resnet"  # half a million weights


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip, with the wheels for this Python, and with weights of a network of timm's."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = tmp_path_factory.mktemp("dist")
    # A wheel that every index has: without it there is none, or no connection.
    trial = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, "wheel"]
    if subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("no package index can be reached")
    weights = timm.create_model(NETWORK.removeprefix("timm/")).state_dict()
    checkpoints = folder / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    save_file(weights, checkpoints / "test_resnet.r160_in1k.safetensors")
    training = replace(TINY, network=NETWORK, weights="imagenet", image_size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(folder))
        return build_bundle(Config(training=training, run="tiny"), folder, [python])


@dataclass
class Session:
    """One session of a notebook: the folder that it sees as /kaggle."""

    folder: Path
    python: Path

    def run(self, notebook: Path, settings: str) -> str:
        """Run the notebook in a closed environment; return what it printed."""
        for name in ("input", "working", "temp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        closed = ["unshare", "--mount", "--net", sys.executable, str(HERE / "machine.py")]
        done = subprocess.run(
            [*closed, self.folder, self.python, HERE / "execute.py", notebook, settings],
            capture_output=True,
            text=True,
            # Nothing of the environment that tests run in, such as where pip finds packages.
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/kaggle/temp",
                "OMP_NUM_THREADS": "1",
                "HIDDEN": str(ROOT / "src"),
                "READ_ONLY": sysconfig.get_path("purelib"),
            },
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submission(self) -> list[list[str]]:
        return read(self.folder / "working" / "submission.csv")


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def session(tmp_path: Path, drawn: Path) -> Session:
    """A session that the drawn competition is attached to."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    trial = subprocess.run(
        ["unshare", "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", tmp_path],
        capture_output=True,
        text=True,
    )
    if trial.returncode:
        pytest.skip(f"no namespaces can be made here: {trial.stderr.strip()}")
    folder = tmp_path / "first"
    shutil.copytree(drawn, folder / "input" / "competitions" / "cell-lines")
    return Session(folder, make_environment(tmp_path / "image", in_image))


def settings(minutes: float, *arguments: str) -> str:
    return f"FOLDS = ['--folds', '2']\nMINUTES = {minutes}\nARGS += {list(arguments)}"


def test_the_notebook_makes_a_submission_without_a_network(
    session: Session, bundle: Path, drawn: Path
) -> None:
    had = installed(session.python)
    assert {"torch", "numpy", "scipy", "pillow"} <= set(had)
    assert "albumentations" not in had
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(session.folder / "input" / "datasets" / "me" / NAME)
    printed = session.run(bundle.with_suffix(".ipynb"), settings(500))
    assert "fold 1 is finished" in printed

    # What the image had is as it was; what it lacked is there now.
    has = installed(session.python)
    assert had.items() <= has.items()
    assert has["albumentations"] in "\n".join(list_pins("3.12"))

    rows, template = session.submission(), read(drawn / "sample_submission.csv")
    assert [row[0] for row in rows] == [row[0] for row in template]
    assert {row[1] for row in rows[1:]} <= {row[1] for row in read(drawn / "y_train.csv")[1:]}
    working = session.folder / "working"
    assert {path.name for path in working.iterdir()} == {"oof", "submissions", "submission.csv"}
    [kept] = working.glob("submissions/*.csv")
    assert kept.read_bytes() == (working / "submission.csv").read_bytes()


def attempt(folder: Path, more: str = "") -> subprocess.CompletedProcess[str]:
    """Run a bundle without wheels in this Python, with these folders in place of /kaggle."""
    notebook = build_bundle(Config(training=TINY), folder / "input", ()).with_suffix(".ipynb")
    names = (("INPUT", "input"), ("WORKING", "working"), ("TEMPORARY", "temp"))
    edited = "".join(f"{name} = Path({str(folder / path)!r})\n" for name, path in names)
    command = [sys.executable, HERE / "execute.py", notebook, edited + settings(1) + more]
    return subprocess.run(command, capture_output=True, text=True)


def test_mistakes_are_named(tmp_path: Path, drawn: Path) -> None:
    needed = "attach exactly one folder of a competition, or set DATA to it; found"
    done = attempt(tmp_path)
    assert f"{needed} under {tmp_path / 'input'}: none" in done.stderr
    shutil.copytree(drawn, tmp_path / "input" / "one")
    done = attempt(tmp_path, "\nFOLDS = ['--folds', '1']")
    assert "error: --folds 1: must be at least 2" in done.stdout
    assert done.returncode == 1
    assert "CalledProcessError" in done.stderr
    shutil.copytree(drawn, tmp_path / "input" / "other")
    done = attempt(tmp_path)
    assert needed in done.stderr
    assert all(str(tmp_path / "input" / name) in done.stderr for name in ("one", "other"))
    chosen = f"\nDATA = {str(tmp_path / 'input' / 'other')!r}\nFOLDS = ['--folds', '1']"
    assert "error: --folds 1: must be at least 2" in attempt(tmp_path, chosen).stdout


@pytest.mark.parametrize("place", ["cats", "datasets/me/cats"])
def test_a_competition_of_any_layout_is_found(tmp_path: Path, place: str) -> None:
    names = [f"{kind}.{at}" for at in range(6) for kind in ("cat", "dog")]
    attached = tmp_path / "input"
    write(images("train/{}.jpg", names), attached / place)
    # Weights are no competition.
    write({"model.safetensors": ""}, attached / "datasets" / "me" / "weights")
    # Training fails, after the folds.
    done = attempt(tmp_path, "\nMINUTES = -1")
    assert "12 training samples of 2 classes" in done.stdout
    assert "--max-minutes" in done.stdout


@pytest.mark.torture
def test_a_session_that_runs_out_of_time_submits_and_the_next_goes_on(
    session: Session, bundle: Path
) -> None:
    # As it is on a drive: not unpacked.
    shutil.copy(bundle, session.folder / "input")
    notebook = bundle.with_suffix(".ipynb")
    # More epochs than a minute has, and a minute is enough for the first of them.
    long = settings(1, "--epochs", "5000")
    assert "is saved; to resume" in session.run(notebook, long)
    first = session.submission()
    history = Path("working", "oof", "tiny", "fold0", "history.csv")
    epochs = read(session.folder / history)

    following = Session(session.folder.with_name("second"), session.python)
    shutil.copytree(session.folder / "input", following.folder / "input")
    earlier = following.folder / "input" / "notebooks" / "me" / "first"
    shutil.copytree(session.folder / "working", earlier)
    printed = following.run(notebook, long)
    assert "folds.csv is up to date" in printed
    assert "is saved; to resume" in printed
    assert read(following.folder / history)[: len(epochs)] == epochs
    assert len(read(following.folder / history)) > len(epochs)
    assert [row[0] for row in following.submission()] == [row[0] for row in first]
