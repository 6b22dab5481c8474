"""Submissions from predictions that were drawn: what the rule makes of them, and what is said."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from cellline.audit.dealing import Plan, make_folds
from cellline.audit.splitting import deal_folds
from cellline.config import Config, Folders, Machine, Training
from cellline.data.competition import load_competition
from cellline.demo.cells import CELL_LINES
from cellline.demo.drawing import Drawing, Sample, draw_sample, write_competition
from cellline.errors import UserError
from cellline.host.files import read_json, write_json
from cellline.runs.folds import NO_PAIRS, Dealt, open_folds, write_folds
from cellline.runs.predictions import OutOfFold, write_out_of_fold, write_test
from cellline.runs.run import new_run
from cellline.scoring.decisions import Correction
from cellline.scoring.recalls import balanced_accuracy
from cellline.submitting.submit import submit
from cellline.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

Submitted = tuple[np.ndarray, dict[str, Any], str]
Submitting = Callable[..., Submitted]

CONFIG = Config(Folders(Path("input")), machine=Machine(device="cpu", precision="float32"))


@pytest.fixture(scope="module")
def dealt(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the input decoded and dealt into three folds, every sample its own group."""
    folder = tmp_path_factory.mktemp("dealt")
    (folder / "input").symlink_to(drawn)
    competition = load_competition(folder / "input", folder / ".cache")
    record = {
        "n_folds": 3,
        "classes": competition.classes,
        "channels": competition.channels,
        "image_size": None,
        "input_digest": competition.digest,
    }
    fold = deal_folds(competition.labels, competition.train_ids, 3, 0)
    dealt = Dealt(fold, competition.train_ids, NO_PAIRS)
    write_folds(folder / "oof", competition, dealt, record)
    return folder


@pytest.fixture
def here(dealt: Path, tmp_path: Path) -> None:
    """The input and its folds lie in the current folder, where they are looked for by default."""
    for name in ("input", ".cache"):
        (tmp_path / name).symlink_to(dealt / name)
    (tmp_path / "oof").mkdir()
    for name in ("folds.csv", "pairs.csv", "folds.json"):
        (tmp_path / "oof" / name).write_bytes((dealt / "oof" / name).read_bytes())


def deal_copies(*, of_test: int, mixed: bool = False) -> None:
    """Folds here, of 90 samples that are two copies each; of the 90 to test are `of_test` each.

    If `mixed`, the labels of two copies differ.
    """
    lines, drawing = list(CELL_LINES), Drawing(90, 90, size=16)
    train = {i: Sample(lines[i // 2 % 9], i // 2, (0, 0)) for i in range(90)}
    test = {90 + i: Sample(lines[i // 3 % 9], 45 + i // of_test, (0, 0)) for i in range(90)}
    write_competition(
        Path("input"),
        *(((i, draw_sample(s, drawing)) for i, s in part.items()) for part in (train, test)),
        {i: lines[(i // 2 + i % 2 * mixed) % 9] for i in train},
        test,
    )
    make_folds(Folders(Path("input")), Plan(n_folds=3))


def draw_run(
    name: str,
    strength: float,
    *,
    bias: float = 0,
    sharpness: float = 1,
    folds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """A run whose predictions tell the classes by `strength`, held-out and test samples alike.

    `bias` is the power of the classes' frequencies that leans them to the frequent ones;
    `sharpness` makes them too sure.
    """
    dealt = open_folds(CONFIG.folders)
    competition = dealt.competition
    seed = sum(name.encode())
    generator = np.random.default_rng(seed)
    n_classes = len(competition.classes)
    lean = bias * np.log(np.bincount(competition.labels) / len(competition.labels))

    def predict(labels: np.ndarray) -> np.ndarray:
        logits = generator.normal(size=(len(labels), n_classes)) + lean
        logits[np.arange(len(labels)), labels] += strength
        powers = np.exp(sharpness * logits)
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    run = new_run(replace(CONFIG, run=name, training=Training(seed=seed)), dealt)
    run.begin()
    for fold in folds:
        # The test predictions exist already: that network is never asked.
        network = {"weight": torch.tensor([seed, fold])}
        checkpoint = Checkpoint(run.record, fold, "0" * 40, 20, network, [], None)
        write_checkpoint(run.fold_folder(fold), checkpoint)
        provenance = {
            **run.provenance(fold),
            "model_digest": checkpoint.model_digest(),
            "test_digest": competition.test_digest,
            "precision": "float32",
        }
        of_test = predict(np.arange(len(competition.test_ids)) % n_classes)
        path = run.fold_folder(fold) / "test.npz"
        write_test(path, competition.test_ids, of_test, provenance)
        rows = dealt.held_out_rows(fold)
        prob = predict(competition.labels[rows])
        write_out_of_fold(run.oof_path(fold), OutOfFold(dealt, rows, prob, prob), provenance)


def ask_for_probabilities() -> None:
    """Change the template here to one with a column for each class, scored by log loss."""
    drawn = Path("input").resolve()
    Path("input").unlink()
    shutil.copytree(drawn, "input")
    path, classes = (
        Path("input/sample_submission.csv"),
        read_json(Path("oof/folds.json"))["classes"],
    )
    ids = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
    rows = [["file_id", *classes], *([sample, *["0.1"] * len(classes)] for sample in ids)]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    record = read_json(Path("oof/folds.json"))
    record["reading"] |= {"metric": "log_loss", "output": "probabilities"}
    write_json(Path("oof/folds.json"), record)


def unfinish(name: str, *, steps: int) -> None:
    """Make a drawn run one whose folds were stopped after so many steps."""
    for folder in Path("oof", name).glob("fold*"):
        (folder / "oof.npz").unlink(missing_ok=True)
        checkpoint = read_checkpoint(folder / "checkpoint.pt")
        history = [{"epoch": 3, "held_out_score": 0.612}]
        begun = replace(checkpoint, resume={"n_averaged": steps}, history=history)
        write_checkpoint(folder, begun)


@pytest.fixture
def submitted(capsys: pytest.CaptureFixture[str]) -> Callable[..., Submitted]:
    """Submit runs: test classes in ascending order of ids, the record, and the printed text."""

    def submit_runs(*runs: str, partial: bool = False) -> Submitted:
        path = submit(CONFIG, runs, partial)
        with path.open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        classes = json.loads(Path("oof/folds.json").read_text())["classes"]
        ordered = [cells for _, *cells in sorted(rows, key=lambda row: int(row[0]))]
        predicted = np.array(
            [
                classes.index(cells[0]) if len(cells) == 1 else np.argmax(list(map(float, cells)))
                for cells in ordered
            ]
        )
        return predicted, json.loads(path.with_suffix(".json").read_text()), capsys.readouterr().out

    return submit_runs


def of_test(run: str, folds: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """A run's probabilities of the test samples, the mean of its folds'."""
    probs = [np.load(f"oof/{run}/fold{fold}/test.npz")["prob"] for fold in folds]
    mean: np.ndarray = np.mean(probs, axis=0, dtype=np.float64)
    return mean


def of_train(run: str) -> tuple[np.ndarray, np.ndarray]:
    """A run's out-of-fold probabilities and their labels."""
    files = [np.load(f"oof/{run}/fold{fold}/oof.npz") for fold in range(3)]
    prob, labels = (np.concatenate([file[key] for file in files]) for key in ("prob", "label"))
    return prob, labels


@pytest.mark.usefixtures("here")
def test_where_nothing_helps_it_is_the_plain_blend(submitted: Submitting) -> None:
    draw_run("a", 6)
    draw_run("b", 6)
    predicted, record, printed = submitted("a", "b")
    blended = of_test("a") + of_test("b")
    np.testing.assert_array_equal(predicted, blended.argmax(axis=1))
    assert record["rule"]["weights"] == {"a": 0.5, "b": 0.5}
    assert record["rule"]["correction"] is None
    assert [trial["used"] for trial in record["rule"]["trials"]] == [False, False]
    assert "greedy selection: not used" in printed
    assert "class biases: not used" in printed


@pytest.mark.usefixtures("here")
def test_runs_that_know_nothing_are_left_out(submitted: Submitting) -> None:
    draw_run("good", 3)
    draw_run("noise", 0)
    draw_run("more-noise", 0)
    predicted, record, printed = submitted("good", "noise", "more-noise")
    weights = record["rule"]["weights"]
    assert list(weights) == ["good", "noise", "more-noise"]
    assert weights["good"] > 0.6
    blended = sum(weight * of_test(run) for run, weight in weights.items())
    np.testing.assert_array_equal(predicted, np.asarray(blended).argmax(axis=1))
    [selection, _] = record["rule"]["trials"]
    assert selection["used"]
    assert selection["gain"]["value"] > 2 * selection["gain"]["error"] > 0
    gain = 100 * selection["gain"]["value"]
    assert f"weights of the runs by greedy selection: used, {gain:+.1f} points\n" in printed
    assert "good alone: " in printed
    assert "3 runs were scored" not in printed
    assert "3 runs were scored on these folds: if the best is chosen" in submitted("good")[2]
    assert f"weights: good {weights['good']:.2f}, noise" in printed
    assert record["oof"]["score"] > record["oof"]["plain_score"]


@pytest.mark.usefixtures("here")
def test_what_leans_to_frequent_classes_is_corrected(submitted: Submitting) -> None:
    draw_run("leaning", 3, bias=5)
    predicted, record, printed = submitted("leaning")
    correction = record["rule"]["correction"]
    prior = np.array(correction["prior"])
    assert prior.sum() == pytest.approx(1)
    prob = of_test("leaning")
    calibrated = np.log(prob) / correction["temperature"]
    calibrated += correction["prior_share"] * np.log(prior) + correction["bias"]
    np.testing.assert_array_equal(predicted, (calibrated - np.log(prior)).argmax(axis=1))
    assert not np.array_equal(predicted, prob.argmax(axis=1))
    [trial] = record["rule"]["trials"]
    assert trial["used"]
    assert f"temperature {correction['temperature']:.2f}" in printed
    held_out, labels = of_train("leaning")
    plain = balanced_accuracy(labels, held_out.argmax(axis=1))
    assert record["oof"]["plain_score"] == pytest.approx(plain)
    low, high = record["oof"]["interval"]
    assert plain < low < record["oof"]["score"] < high
    assert f"expect BAC {100 * record['oof']['score']:.1f} % [" in printed
    assert "on this test set: OOF, 90 of 90 training samples\n" in printed


@pytest.mark.usefixtures("here")
def test_log_loss_is_calibrated_and_named(submitted: Submitting) -> None:
    ask_for_probabilities()
    draw_run("sure", 2, sharpness=5)
    _, record, printed = submitted("sure")
    [trial] = record["rule"]["trials"]
    assert (trial["part"], trial["used"]) == (
        "calibration by temperature, prior and class biases",
        True,
    )
    assert record["rule"]["correction"]["temperature"] > 2
    oof = record["oof"]
    assert oof["metric"] == "log_loss"
    held_out, labels = of_train("sure")
    assert oof["plain_score"] == pytest.approx(log_loss(labels, held_out), rel=1e-5)
    assert oof["interval"][0] < oof["score"] < oof["plain_score"]
    assert f"expect log loss {oof['score']:.3f} [" in printed
    assert f"biases: used, {trial['gain']['value']:+.3f} (temp" in printed
    assert "BAC" not in printed


def test_test_samples_of_one_picture_get_one_class(submitted: Submitting) -> None:
    deal_copies(of_test=3)
    draw_run("a", 1.5)
    predicted, record, printed = submitted("a")
    assert (predicted.reshape(-1, 3) == predicted[::3, None]).all()
    pooled = np.log(of_test("a")).reshape(30, 3, 9).mean(axis=1)
    np.testing.assert_array_equal(predicted[::3], pooled.argmax(axis=1))
    assert (of_test("a").argmax(axis=1) != predicted).any()
    assert record["rule"]["trials"][0]["used"]
    assert record["pooled_samples"] == 90
    assert "90 of 90 test samples are pooled with others of their picture" in printed
    assert "warning" not in printed
    assert record["oof"]["score"] > record["oof"]["plain_score"]
    assert "pooling samples of one picture: used" in printed


def test_fewer_test_samples_of_one_picture_than_were_scored_are_warned_of(
    submitted: Callable[..., Submitted],
) -> None:
    deal_copies(of_test=1)
    draw_run("a", 1.5)
    predicted, record, printed = submitted("a")
    np.testing.assert_array_equal(predicted, of_test("a").argmax(axis=1))
    assert (record["rule"]["pooled"], record["pooled_samples"]) == (True, 0)
    assert "0 of 90 test samples are pooled" in printed
    assert "warning: 100.0 % are in the score below" in printed


def test_copies_that_labels_contradict_are_not_pooled(submitted: Submitting) -> None:
    deal_copies(of_test=3, mixed=True)
    draw_run("a", 1.5)
    predicted, record, printed = submitted("a")
    [trial] = record["rule"]["trials"]
    assert (trial["part"], trial["used"]) == ("temperature, prior and class biases", True)
    # Each sample by itself.
    expected = Correction(**record["rule"]["correction"]).apply(of_test("a"))
    np.testing.assert_array_equal(predicted, expected.predicted)
    assert "pooled" not in printed.partition("predicted")[2]


def test_what_pooling_would_not_help_is_not_pooled(submitted: Submitting) -> None:
    deal_copies(of_test=3)
    draw_run("a", 9)
    predicted, record, printed = submitted("a")
    np.testing.assert_array_equal(predicted, of_test("a").argmax(axis=1))
    assert record["pooled_samples"] == 0
    assert "pooled with others" not in printed


@pytest.mark.usefixtures("here")
def test_only_samples_that_all_runs_have_count(submitted: Submitting) -> None:
    draw_run("a", 3, folds=(0, 1))
    draw_run("b", 3, folds=(1, 2))
    predicted, record, printed = submitted("a", "b", partial=True)
    held_out = np.load("oof/a/fold1/oof.npz")["file_id"]
    assert record["oof"]["samples"] == len(held_out)
    assert f"OOF, {len(held_out)} of 90 training samples, nothing pooled" in printed
    # One fold is left, so nothing is fitted; each run's own folds predict the test set.
    assert printed.count("two finished folds") == 2
    assert record["rule"]["trials"][0]["gain"] is None
    blended = of_test("a", (0, 1)) + of_test("b", (1, 2))
    np.testing.assert_array_equal(predicted, blended.argmax(axis=1))


@pytest.mark.usefixtures("here")
def test_the_same_runs_give_the_same_bytes(submitted: Submitting) -> None:
    draw_run("a", 2, bias=3)
    draw_run("b", 1, bias=3)
    written = []
    for _ in range(2):
        submitted("a", "b")
        written.append({path: path.read_bytes() for path in Path("submissions").glob("a+b*")})
    assert written[0] == written[1]
    assert len(written[0]) == 2


@pytest.mark.usefixtures("here")
def test_a_run_without_a_finished_fold_still_leaves_something_to_submit(
    submitted: Callable[..., Submitted],
) -> None:
    draw_run("a", 6, folds=(0, 2))
    unfinish("a", steps=3)
    with pytest.raises(UserError, match="these folds are not trained"):
        submitted("a")
    predicted, record, printed = submitted("a", partial=True)
    np.testing.assert_array_equal(predicted, of_test("a", folds=(0, 2)).argmax(axis=1))
    for fold in (0, 2):
        assert f"a, fold {fold} was stopped early: held-out BAC 61.2 % after epoch 3" in printed
    assert record["oof"] is None
    assert record["runs"][0]["models"].keys() == {"0", "2"}
    # Killed between the two renames of a checkpoint; and a fold that was just begun.
    newest = Path("oof/a/fold0/checkpoint.pt")
    newest.rename(newest.with_name("checkpoint-previous.pt"))
    start = read_checkpoint(Path("oof/a/fold2/checkpoint.pt"))
    write_checkpoint(Path("oof/a/fold2"), replace(start, resume={"n_averaged": 0}))
    predicted, record, _ = submitted("a", partial=True)
    np.testing.assert_array_equal(predicted, of_test("a", folds=(0,)).argmax(axis=1))
    assert record["runs"][0]["models"].keys() == {"0"}
    unfinish("a", steps=0)
    with pytest.raises(UserError, match="a has not trained for a single step"):
        submitted("a", partial=True)


@pytest.mark.usefixtures("here")
def test_a_run_that_was_not_begun_leaves_nothing(submitted: Submitting) -> None:
    draw_run("a", 6, folds=())
    with pytest.raises(UserError, match="no fold of a was begun"):
        submitted("a", partial=True)
    assert not Path("submissions").exists()
