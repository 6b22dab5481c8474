import os
import runpy
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from benchmarks.case import Case
from benchmarks.ceiling import count_operations
from benchmarks.measuring import Figure, alternate, compare
from benchmarks.reference import plain_network
from benchmarks.training import OurEpochs, reference_loop
from cellline.config import Config, Folders
from cellline.host.device import Device
from cellline.host.files import read_json
from cellline.host.stopping import Stop
from cellline.runs.run import new_run
from cellline.training.checkpoint import digest_values, read_checkpoint
from cellline.training.fold import train_fold
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer

TINY = (
    *("--network", "densenet_tiny", "--image-size", "32"),
    *("--batch-size", "12", "--steps", "1", "--rounds", "2"),
)


@pytest.fixture
def case(device: Device) -> Case:
    return Case("densenet_tiny", 32, 12, 2, 1, device)


def run_bench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """As `python -m benchmarks` does, but in this process: it has imported torch already."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    runpy.run_module("benchmarks", run_name="__main__")


# What is measured, and how.


@given(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True), st.integers(1, 4))
def test_candidates_take_turns_and_the_first_is_not_timed(names: list[str], rounds: int) -> None:
    calls: list[str] = []
    ends: list[int] = []
    seconds = alternate(
        {name: lambda name=name: calls.append(name) for name in names},  # type: ignore[misc]
        rounds,
        after_round=lambda: ends.append(len(calls)),
    )
    assert calls == names * (rounds + 1)
    assert ends == [len(names) * count for count in range(1, rounds + 2)]
    assert list(seconds) == names
    assert {len(values) for values in seconds.values()} == {rounds}


def test_figures_are_compared_round_by_round() -> None:
    # Each round's machine is twice as slow as the one before; the ratio does not see it.
    above = Figure("above", "samples/s", (8.0, 4.0, 2.2))
    below = Figure("below", "samples/s", (4.0, 2.0, 1.0))
    ratio = compare(above, below)
    assert ratio.values == (2.0, 2.0, 2.2)
    assert (ratio.name, ratio.median, ratio.spread) == ("above / below", 2.0, (2.0, 2.2))


def test_operations_are_those_of_torchvision() -> None:
    # The first convolution alone, counted by hand: 64 outputs of 7 x 7 x 3, at half the size.
    first = 2 * 32 * 32 * 64 * 7 * 7 * 3
    forward = count_operations("resnet18", 64, backward=False)
    both = count_operations("resnet18", 64, backward=True)
    # torchvision's documentation says 1.81 thousand million multiplications with additions at
    # 224 px.
    assert forward * (224 / 64) ** 2 / 2 == pytest.approx(1.81e9, rel=0.01)
    # Backward is twice as much, but for the images, which need no gradient.
    assert both == 3 * forward - first


# The reference loop.


def test_a_step_of_the_reference_loop_is_a_plain_step(case: Case) -> None:
    case = replace(case, steps=1)
    torch.manual_seed(0)
    loop = reference_loop(case)
    twin = plain_network("densenet_tiny", 9)
    twin.load_state_dict(loop.network.state_dict())
    for network in (loop.network, twin):
        # The loop's batch is shuffled: each sample would lose other features.
        network.get_submodule("classifier.0").p = 0.0

    folds = case.draw()
    competition, rows = folds.competition, folds.training_rows(0)
    images = torch.from_numpy(competition.train_images[rows]).double()
    std, mean = torch.std_mean(images, dim=(0, 2, 3), correction=0, keepdim=True)
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    labels = torch.from_numpy(competition.labels[rows])
    logits = twin(((images - mean) / std).float())
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()

    found = loop.train_epoch()
    assert found[0] == pytest.approx(loss.item(), rel=1e-5)
    assert found[1] == (logits.argmax(1) == labels).double().mean().item()
    for ours, theirs in zip(loop.network.parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
        # Adam's first step is the gradient's sign, which rounding decides where it is tiny.
        clear = theirs.grad.abs() > 1e-4
        torch.testing.assert_close(ours[clear], theirs[clear], rtol=0, atol=1e-5)


# What it is compared with.


def test_ours_is_the_training_that_train_does(case: Case) -> None:
    ours = OurEpochs(case, Path("bench"))
    for _ in range(case.training.epochs):
        ours()
    run = new_run(Config(Folders(oof_dir=Path("train")), case.training), case.draw())
    trainer = FoldTrainer(Task(run.folds, 0, case.training, case.device))
    train_fold(trainer, run, Stop())
    networks = [
        read_checkpoint(Path(folder, run.name, "fold0", "checkpoint.pt")).network
        for folder in ("bench", "train")
    ]
    assert digest_values(networks[0]) == digest_values(networks[1])
    assert len(ours.training_seconds) == len(ours.saving_seconds) == case.training.epochs
    assert min(ours.training_seconds + ours.saving_seconds) > 0


# The whole.


def test_make_bench_prints_and_writes_every_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ("--parts", "training", "prediction", "--output", "results.json")
    run_bench(monkeypatch, *TINY, *parts)
    printed = capsys.readouterr()
    check_rows(printed.out, Path("results.json"))
    assert printed.err.splitlines()[-1] == (
        "prediction, 32 px, batch 12: 100 % of all, about 0 s left"
    )


@pytest.mark.torture  # a dozen processes that import torch
def test_all_parts_in_a_process_of_their_own(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *TINY, "--output", str(output)],
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sections = check_rows(done.stdout, output)
    assert sections[2:] == ["memory, 32 px, batch 12", "decoding", "start-up"]


def check_rows(printed: str, output: Path) -> list[str]:
    """Every figure of the JSON is a row of the table, and follows from others as it says."""
    result = read_json(output)
    assert result["machine"]["precision"] in ("float32", "bfloat16", "float16")
    assert result["machine"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    sections: list[dict[str, Any]] = result["sections"]
    titles = [section["title"] for section in sections]
    assert titles[:2] == ["training, 32 px, batch 12", "prediction, 32 px, batch 12"]
    table = [line for line in printed.splitlines() if line.startswith("|")]
    n_ratios = 0
    for section in sections:
        figures = {figure["name"]: figure for figure in section["figures"]}
        assert len(figures) == len(section["figures"])
        for name, figure in figures.items():
            row = next(line for line in table if line.startswith(f"| {name} "))
            del table[table.index(row)]
            assert figure["unit"] in row
            assert figure["median"] == statistics.median(figure["values"])
            assert figure["values"] and min(figure["values"]) > 0
            if " / " in name:
                above, below = (figures[part]["values"] for part in name.split(" / "))
                assert figure["values"] == [a / b for a, b in zip(above, below, strict=True)]
                n_ratios += 1
            if figure["share"]:
                # samples/s x operations a sample / operations a second
                backward = section["title"].startswith("training")
                operations = count_operations("densenet_tiny", 32, backward=backward) / 1e9
                ceiling = figures["matrix product"]["values"]
                assert figure["share"] == pytest.approx(
                    [v * operations / c for v, c in zip(figure["values"], ceiling, strict=True)]
                )
    assert n_ratios >= 5
    # What is left are the head and the sections' titles.
    assert len(table) == 2 + len(sections)
    return titles


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--network", "resnet18"), "--network resnet18: measured are densenet_tiny, densenet121"),
        (("--rounds", "0"), "--rounds 0: must be 1 or more"),
        (("--batch-size", "8"), "--batch-size 8: must be 9 or more"),
    ],
)
def test_a_setting_that_cannot_be_measured_is_refused(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_bench(monkeypatch, *arguments)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert message in printed.err
