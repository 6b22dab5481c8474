import importlib
import os
import re
import select
import shlex
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cellline.cli import make_command, parse_arguments
from cellline.config import RECIPES, Config, flatten
from cellline.errors import UserError
from cellline.settings_file import KEYS

VERBS = (
    *("compare", "demo", "explain", "export", "folds", "kaggle", "predict", "report"),
    *("submit", "train", "tune"),
)
SOURCES = Path(__file__).resolve().parents[1] / "src"

VERB = """
import os, signal, sys
from dataclasses import dataclass
from cellline.cli import run_verb
from cellline.config import Config

def main(config: Config) -> None:
    \"\"\"A verb.\"\"\"
    {body}

run_verb(main, Config)
"""


def run_verb(body: str, pipe: str = "") -> subprocess.CompletedProcess[str]:
    """Run a verb in a process of its own, its output into `pipe`."""
    Path("verb.py").write_text(VERB.format(body=body))
    command = f"{sys.executable} verb.py {pipe}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_with_their_status_and_a_line(number: int, status: int) -> None:
    done = run_verb(f"os.kill(os.getpid(), {int(number)})")
    name = signal.Signals(number).name
    assert done.returncode == status
    assert done.stderr == f"{name}: stopped; rerun the same command to resume\n"


def test_a_full_disk_is_no_traceback() -> None:
    done = run_verb("os.write(os.open('/dev/full', os.O_WRONLY), b'x')")
    assert done.returncode == 2
    assert done.stderr.startswith("error: No space left on device; make room.")
    # What is printed is written as well.
    done = run_verb("print('x')", "> /dev/full")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("streams", ["> /dev/full", "> /dev/full 2> /dev/full", "| true"])
def test_work_goes_on_when_its_log_can_not_be_written(streams: str) -> None:
    body = "[say(str(i)) for i in range(100_000)]; open('done', 'w')"
    done = run_verb(f"from cellline.host.progress import say; {body}", streams)
    assert done.returncode == 0
    assert Path("done").exists()
    told = r"(warning: what this prints can't be written: .*; going on without\n)?"
    assert re.fullmatch(told, done.stderr)


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">&-", "2>&-"])
def test_work_is_done_though_standard_streams_are_closed(streams: str) -> None:
    # As services start it. What libraries print must not get into files that are opened.
    body = "print('x'); file = open('done', 'w'); os.write(1, b'y'); os.write(2, b'z')"
    assert run_verb(body, streams).returncode == 0
    assert Path("done").read_text() == ""
    assert run_verb("raise OSError(5, 'broken')", streams).returncode == 2


def test_what_the_system_refuses_is_named() -> None:
    # A drive that was cut off; there are many numbers of its kind.
    done = run_verb("raise OSError(107, 'Transport endpoint is not connected', 'oof/folds.csv')")
    assert done.returncode == 2
    told = "error: oof/folds.csv: Transport endpoint is not connected; correct that, or name"
    assert done.stderr.startswith(told)


def test_a_folder_that_cannot_be_written_is_named() -> None:
    Path("oof").touch()
    done = run_verb("os.makedirs('oof/run')")
    assert done.returncode == 2
    assert "error: oof" in done.stderr


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    done = run_verb("[print(i) for i in range(100_000)]", "| head -1")
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


def test_a_log_can_be_read_while_it_is_written() -> None:
    Path("verb.py").write_text(VERB.format(body="print('x'); sys.stdin.readline()"))
    process = subprocess.Popen(
        [sys.executable, "verb.py"],
        # As Python is by itself, whatever the shell that started the tests says.
        env={**os.environ, "PYTHONPATH": str(SOURCES), "PYTHONUNBUFFERED": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    process.communicate(b"\n")
    assert ready
    assert process.returncode == 0


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    done = run_verb("raise KeyError('gone')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("verb", "arguments", "status"),
    [
        *((verb, ["--help-all"], 0) for verb in ("train", "tune", "submit", "demo")),
        ("train", ["--epochs", "many"], 2),
        ("tune", ["--epochs", "0"], 2),
    ],
)
def test_neither_help_nor_a_mistake_waits_for_torch(
    verb: str, arguments: list[str], status: int
) -> None:
    Path("torch.py").write_text("raise SystemExit('torch was imported')\n")
    done = subprocess.run(
        [sys.executable, str(SOURCES / f"{verb}.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert "--epochs" in done.stdout + done.stderr


def test_a_verb_does_not_look_for_garbage_while_torch_is_imported() -> None:
    body = "import gc, torch; print(gc.isenabled(), gc.get_stats()[2]['collections'])"
    assert run_verb(body).stdout == "True 0\n"


def test_a_recipe_says_what_is_not_given() -> None:
    show = "print(config.training.epochs, config.training.image_size, config.training.lr)"
    quick, full = RECIPES["quick"], RECIPES["full"]
    assert run_verb(show).stdout == f"{quick.epochs} {quick.image_size} None\n"
    assert run_verb(show, "--recipe quick").stdout == f"{quick.epochs} {quick.image_size} None\n"
    assert run_verb(show, "--recipe full").stdout == f"{full.epochs} {full.image_size} None\n"
    given = run_verb(show, "--epochs 3 --recipe=full --lr 0.1")
    assert given.stdout == f"3 {full.image_size} 0.1\n"
    # So does the help.
    assert f"default: {full.epochs}" in run_verb("", "--recipe full --help").stdout


@pytest.mark.parametrize("arguments", ["--recipe best", "--recipe"])
def test_a_recipe_that_is_none_is_refused(arguments: str) -> None:
    done = run_verb("print('ran')", arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'--recipe'" in done.stderr or "'best'" in done.stderr
    assert "Traceback" not in done.stderr


def parse(verb: str, *arguments: str) -> Any:
    """The settings that a verb gets."""
    module = importlib.import_module(verb)
    [settings] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Config) and value is not Config
    ]
    return parse_arguments(module.main, settings, arguments)


def test_the_home_folder_is_found_where_a_shell_leaves_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    folders = parse("folds", "--input-dir", "~/cells", "--oof-dir=~/oof").folders
    assert (folders.input_dir, folders.oof_dir) == (Path("/home/me/cells"), Path("/home/me/oof"))
    assert parse("train", "--weights", "~/w.pth").training.weights == "/home/me/w.pth"
    assert parse("train", "--weights", "a~/w.pth").training.weights == "a~/w.pth"


def test_epochs_beside_the_time_that_chooses_them_are_refused() -> None:
    for settings in (["--fit-minutes", "60"], ["--epochs", "9"]):
        parse("train", *settings)
    with pytest.raises(UserError, match=r"--epochs 9 and --fit-minutes 60: .* omit one of them"):
        parse("train", "--epochs", "9", "--fit-minutes", "60")


def names(settings: Config) -> set[str]:
    """The names of settings on the command line."""
    return set(flatten(asdict(settings)))


def write_competition(text: str, folder: str = "input") -> None:
    """Keep settings in an input folder."""
    Path(folder).mkdir(exist_ok=True)
    # As Windows' editors save it.
    Path(folder, "competition.toml").write_text(text, encoding="utf-8-sig")


@pytest.mark.parametrize(
    ("verb", "listed", "omitted"),
    [
        ("compare", {"oof_dir", "seeds"}, {"run", "device"}),
        ("demo", {"demo_dir", "seed", "device"}, {"input_dir", "weights"}),
        ("export", {"runs", "tables", "exports_dir", "precision"}, {"dropout", "fold"}),
        (
            "folds",
            {"folds", "metric", "image_size", "seed", "recipe"},
            {"dropout", "device", "run"},
        ),
        ("kaggle", {"pythons", "network", "recipe"}, {"oof_dir", "device"}),
        ("report", {"run", "storage", "public_share", "submissions_dir"}, {"lr", "device"}),
        ("submit", {"runs", "device", "submissions_dir"}, {"dropout", "workers", "fold"}),
        ("train", {"gpus", "dropout", "symmetry", "rotate", "device"}, {"submissions_dir"}),
        ("tune", {"trials", "dropout", "rotate", "device"}, {"epochs", "run"}),
    ],
)
def test_help_lists_what_the_verb_uses_and_help_all_the_rest(
    verb: str, listed: set[str], omitted: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def read_page(page: str) -> tuple[set[str], str]:
        """The settings on a page of help, and its last line."""
        with pytest.raises(SystemExit) as ended:
            parse(verb, page)
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        words = {word.strip("[],.;") for word in printed.split()}
        found = {name for name in names(parse(verb)) if f"--{name.replace('_', '-')}" in words}
        return found, printed.splitlines()[-1]

    found, last = read_page("--help")
    assert found >= listed | (names(parse(verb)) - names(Config()))
    assert not found & omitted
    assert "--help-all" in last
    assert read_page("-h") == (found, last)
    found, last = read_page("--help-all")
    assert found == names(parse(verb))
    assert "--help-all" not in last
    # A misspelt name would hide a setting.
    assert set(parse(verb).uses) <= names(Config()) | asdict(Config()).keys() | {"augmentation"}


def test_the_same_arguments_fit_every_verb() -> None:
    for verb in VERBS:
        parsed = parse(verb, "--dropout", "0.1", "--device", "cpu", "--run", "a", "--fold", "0")
        assert (parsed.training.dropout, parsed.machine.device) == (0.1, "cpu")
        assert (parsed.run, parsed.fold) == ("a", 0)


def test_a_competition_keeps_its_settings_beside_its_files() -> None:
    write_competition(
        """
        metric = "log_loss"
        positive = "ä"
        group-column = "patient_id"
        channels = ["gray", ""]
        folds = 3
        recipe = "full"
        image-size = "None"
        symmetry = "mirror"
        translate = 0
        public_share = 0.5
        """
    )
    folds = parse("folds")
    assert (folds.reading.metric, folds.reading.positive) == ("log_loss", "ä")
    assert folds.folds == 3
    assert folds.reading.group_column == ("patient_id",)
    assert folds.reading.channels == ("gray", "")
    train = parse("train")
    assert (train.training.symmetry, train.training.image_size) == ("mirror", None)
    assert train.training.augmentation.translate == 0
    # What it doesn't say is the recipe's; what the command line says comes first.
    assert train.training.epochs == RECIPES["full"].epochs
    given = parse("train", "--symmetry", "none", "--recipe=quick")
    assert (given.training.symmetry, given.recipe) == ("none", "quick")
    assert given.training.epochs == RECIPES["quick"].epochs
    assert parse("report").public_share == 0.5
    # Of another input, and of none.
    write_competition("folds = 4", "other")
    for option in (["--input-dir", "other"], ["--input_dir=other"]):
        assert parse("folds", *option).folds == 4
    assert parse("demo").folds == 3
    assert parse("demo").training.symmetry == "d4"


def test_a_printed_command_gives_what_the_competition_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_competition("recipe = 'full'\nnetwork = 'resnet18'\nlr = 0.1")
    assert make_command("train", parse("train")) == "make train"
    with monkeypatch.context() as patch:
        patch.setenv("VENV", "")
        patch.setenv("PYTHON", "my python")
        assert make_command("train", parse("train")) == "make train VENV='' PYTHON='my python'"
    usual = Config()
    given = parse("train", "--recipe", "quick", "--network", usual.training.network, "--lr", "1")
    command = make_command("train", given)
    assert f"--network {usual.training.network}" in command
    assert f"--epochs {RECIPES['quick'].epochs}" in command
    # A run keeps its own learning rate only where nothing else gives one.
    assert "--lr 1.0" in command
    write_competition("")
    assert "--lr" not in make_command("train", given)


def test_an_installed_program_prints_commands_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellline.cli.INSTALLED", True)
    given = "--input-dir 'my input' --run a --fold 0 --epochs 3 --class-weights none"
    config = parse("train", *shlex.split(given))
    command = make_command("train", config, 2, begun=False)
    words = shlex.split(command)
    assert command.startswith("cellline train --input-dir 'my input' --run a --fold 0 --gpus 2 ")
    assert parse("train", *words[2:]) == replace(config, gpus=2)
    assert make_command("train", parse("train")) == "cellline train"


@pytest.mark.parametrize(
    ("own", "given", "name"),
    [
        ("", "", "densenet161"),
        ("", "--network timm/tf_efficientnet_lite0.in1k", "tf_efficientnet_lite0.in1k"),
        ("", "--weights none --recipe full --seed 2", "densenet161-scratch-full-seed2"),
        ("", "--weights none --run large", "large"),
        ("network = 'resnet18'\nweights = 'none'", "--weights a.pth --seed 1", "resnet18-seed1"),
        ("recipe = 'full'", "", "densenet161-full"),
        ("recipe = 'full'", "--recipe quick", "densenet161"),
    ],
)
def test_a_run_is_called_after_what_it_is_also_by_its_printed_command(
    own: str, given: str, name: str
) -> None:
    write_competition(own)
    config = parse("train", *given.split())
    assert config.run_name == name
    printed = dict(word.split("=", 1) for word in shlex.split(make_command("train", config))[2:])
    pasted = ["--run", printed.get("RUN", ""), *shlex.split(printed.get("ARGS", ""))]
    assert parse("train", *pasted).run_name == name


def test_every_key_of_a_competition_is_a_flag() -> None:
    assert set().union(*(names(parse(verb)) for verb in VERBS)) >= KEYS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symetry = 'none'", "no setting 'symetry'; did you mean 'symmetry'"),
        ("oof_dir = 'x'", "no setting 'oof_dir'; there are averaging, batch_size,"),
        ("[reading]\nmetric = 'accuracy'", "no setting 'reading'"),
        ("symmetry = 'all'", "symmetry = 'all': must be one of d4, flips, mirror, none"),
        ("metric = 1", "metric = 1: must be one of balanced_accuracy,"),
        ("epochs = 2.5", "epochs = 2.5: must be a whole number"),
        ("epochs = true", "epochs = True: must be a whole number"),
        ("epochs = 'None'", "epochs = 'None': must be a whole number"),
        ("dropout = '0.5'", "dropout = '0.5': must be a number"),
        ("dropout = 1.5", "dropout = 1.5: must be 0 or more and less than 1"),
        ("image_size = 0", "image_size = 0: must be at least 1"),
        ("seed = 4294967296", "seed = 4294967296: must be at most 4294967295"),
        ("positive = 1", "positive = 1: must be a text, in quotes"),
        ("channels = [1]", r"channels = \[1\]: must be a text, or a list of texts"),
        ("recipe = []", r"recipe = \[\]: must be one of quick, full"),
        ("epochs = ", "not TOML: Invalid value"),
        (f"epochs = {'[' * 100_000}", "not TOML: maximum recursion depth"),
    ],
)
def test_a_mistake_in_the_settings_of_a_competition_is_explained(text: str, message: str) -> None:
    write_competition(text)
    with pytest.raises(UserError, match=rf"^input/competition\.toml.*{message}"):
        parse("folds")


def test_a_mistake_in_the_settings_of_a_competition_ends_the_verb() -> None:
    write_competition("epochs = 0")
    done = run_verb("print('ran')")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: input/competition.toml: epochs = 0: must be at least 1\n"
