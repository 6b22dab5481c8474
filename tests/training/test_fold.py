import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stop_at import StopAt

from cellline.config import Config, Machine, MetricName, Symmetry, Training
from cellline.errors import UserError
from cellline.host.device import Device, choose_device
from cellline.host.stopping import Stop, Stopped
from cellline.runs.folds import Folds
from cellline.runs.run import Run, new_run
from cellline.scoring.decisions import likeliest, surprise
from cellline.scoring.metrics import METRICS
from cellline.scoring.recalls import balanced_accuracy
from cellline.training.batches import Batch, LoadingError
from cellline.training.checkpoint import digest_values, read_checkpoint, write_checkpoint
from cellline.training.fold import train_fold
from cellline.training.learner import DivergedError, Learner
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer


def run_of(task: Task, name: str) -> Run:
    return new_run(Config(training=task.training, run=name), task.folds)


def train(task: Task, name: str, stop: Stop | None = None) -> dict[str, Any]:
    """Train a fold of a run; its files without the clock's columns."""
    run = run_of(task, name)
    train_fold(FoldTrainer(task), run, stop or Stop())
    checkpoint = read_checkpoint(run.fold_folder(task.fold) / "checkpoint.pt")
    timed = ("samples_per_second", "seconds")
    return {
        "oof": run.oof_path(task.fold).read_bytes(),
        "weights": checkpoint.model_digest(),
        "history": [
            {key: value for key, value in row.items() if key not in timed}
            for row in checkpoint.history
        ],
    }


@pytest.fixture
def task(folds: Folds, training: Training, device: Device) -> Task:
    return Task(folds, 0, training, device)


def test_it_learns_and_leaves_what_the_contracts_promise(task: Task) -> None:
    left = train(replace(task, training=replace(task.training, epochs=10)), "a")
    folder = Path("oof/a/fold0")
    with np.load(folder / "oof.npz") as oof:
        np.testing.assert_array_equal(oof["file_id"], task.competition.train_ids[task.held_out])
        np.testing.assert_array_equal(oof["label"], task.competition.labels[task.held_out])
        np.testing.assert_allclose(oof["prob"].sum(1), 1, atol=1e-5)
        assert balanced_accuracy(oof["label"], oof["prob"].argmax(1)) > 0.7
    history = (folder / "history.csv").read_text().splitlines()
    assert len(history) == 11
    assert history[0].split(",") == [*left["history"][0], "samples_per_second", "seconds"]
    assert left["history"][-1]["train_loss"] < left["history"][0]["train_loss"]
    finished = read_checkpoint(folder / "checkpoint.pt")
    assert (finished.resume, finished.epoch) == (None, 10)
    clock = json.loads((folder / "clock.json").read_text())
    seconds = sum(float(row.rsplit(",", 1)[1]) for row in history[1:])
    assert clock["seconds"] == pytest.approx(seconds)
    assert (clock["device"], clock["processes"]) == ("cpu", 1)
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "checkpoint.pt",
        "checkpoint-previous.pt",
        "clock.json",
        "history.csv",
        "oof.npz",
    }


@pytest.mark.parametrize("metric", METRICS)
def test_histories_are_of_the_competitions_metric(task: Task, metric: MetricName) -> None:
    competition = replace(task.competition, metric=metric)
    training = replace(task.training, epochs=2)
    task = replace(task, folds=replace(task.folds, competition=competition), training=training)
    [_, last] = train(task, "a")["history"]
    with np.load("oof/a/fold0/oof.npz") as oof:
        prob, labels = oof["prob_plain"], oof["label"]
    assert last["held_out_score"] == METRICS[metric].score(labels, likeliest(prob))
    # Weights in the loss follow the metric.
    counts = np.bincount(competition.labels[task.rows])
    weights = counts.sum() / 3 / counts if METRICS[metric].balanced else np.ones(3)
    loss = np.mean(weights[labels] * surprise(labels, prob))
    assert last["held_out_loss"] == pytest.approx(loss, rel=1e-6)


def test_a_class_that_only_the_held_out_fold_has_does_not_stop_the_training(task: Task) -> None:
    fold = np.where(task.competition.labels == 2, 0, task.folds.fold)
    [*_, last] = train(replace(task, folds=replace(task.folds, fold=fold)), "a")["history"]
    assert np.isfinite([last["train_loss"], last["held_out_loss"]]).all()


def test_the_same_training_twice_is_the_same_to_the_bit(task: Task) -> None:
    first = train(task, "a")
    assert train(task, "b") == first
    assert train(replace(task, device=replace(task.device, workers=2)), "c") == first
    other = train(replace(task, training=replace(task.training, seed=1)), "d")
    assert other["weights"] != first["weights"]


def test_a_loader_process_that_is_killed_ends_training_with_a_message_and_it_resumes(
    task: Task,
) -> None:
    class Kill(Stop):
        def check(self) -> None:
            for process in multiprocessing.active_children():
                time.sleep(1)  # until it waits for a reader of its next batch
                process.kill()

    # Batches that are too large for a pipe.
    images = task.competition.train_images[:].repeat(8, axis=2).repeat(8, axis=3)
    competition = replace(task.competition, train_images=images)
    task = replace(task, folds=replace(task.folds, competition=competition))
    expected = train(task, "a")
    loaded = replace(task, device=replace(task.device, workers=1))
    with pytest.raises(LoadingError, match="ended from outside"):
        train_fold(FoldTrainer(loaded), run_of(loaded, "b"), Kill())
    saved = read_checkpoint(Path("oof/b/fold0/checkpoint.pt"))
    assert saved.resume is not None
    assert len(saved.resume["losses"])
    assert train(task, "b") == expected


def test_images_are_small_first_and_large_in_the_end(task: Task) -> None:
    training = replace(task.training, start_size=12, start_share=0.7, image_size=24)
    small = replace(task, training=training)
    trainer = FoldTrainer(small)
    seen: dict[bool, list[int]] = {True: [], False: []}
    for network in (trainer.learner.network, trainer.learner.model):
        network.backbone.register_forward_hook(
            lambda module, inputs, _: seen[module.training].append(inputs[0].shape[-1])
        )
    train_fold(trainer, run_of(small, "a"), Stop())
    # Three epochs of four steps; an epoch's held-out rows are one batch, and so are eight views.
    assert seen[True] == 8 * [12] + 4 * [24]
    assert seen[False][:3] == [12, 12, 24]
    assert set(seen[False][3:]) == {24}
    assert [small.pixels(epoch) for epoch in range(3)] == [144, 144, 576]
    # A share of less than an epoch is none.
    assert {replace(training, start_share=0.3).size_of(epoch) for epoch in range(3)} == {24}


@pytest.mark.parametrize("width", [16, 12])
@pytest.mark.parametrize(
    ("symmetry", "views"), [("d4", 8), ("flips", 4), ("mirror", 2), ("none", 1)]
)
def test_training_and_prediction_see_an_image_as_its_symmetry_allows(
    task: Task, plain_training: Training, symmetry: Symmetry, views: int, width: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 16, width), dtype=np.uint8)
    competition = replace(task.competition, train_images=np.repeat(image[None], 48, axis=0))
    trainer = FoldTrainer(
        replace(
            task,
            folds=replace(task.folds, competition=competition),
            training=replace(plain_training, symmetry=symmetry),
        )
    )
    seen: dict[bool, set[bytes]] = {True: set(), False: set()}
    for network in (trainer.learner.network, trainer.learner.model):
        network.register_forward_pre_hook(
            lambda module, inputs: seen[module.training].update(
                each.numpy().tobytes() for each in inputs[0]
            )
        )
    train_fold(trainer, run_of(trainer.task, "a"), Stop())
    assert seen[True] == seen[False]
    # Quarter turns would change the shape of a rectangle.
    assert len(seen[True]) == min(views, 8 if width == 16 else 4)
    upright = {
        "none": [image],
        "mirror": [image, image[:, :, ::-1]],
        "flips": [image, image[:, :, ::-1], image[:, ::-1], image[:, ::-1, ::-1]],
    }
    if symmetry != "d4":
        assert seen[True] == {view.tobytes() for view in upright[symmetry]}


@pytest.mark.parametrize("start_size", [None, 12])
def test_a_training_stopped_anywhere_ends_where_an_uninterrupted_one_does(
    task: Task, start_size: int | None
) -> None:
    training = replace(task.training, start_size=start_size, start_share=0.4)
    task = replace(task, training=training)
    expected = train(task, "whole")
    # Three epochs of four steps and one batch of held-out rows, and the last predictions: each
    # time the training gets a little further; the number of loader processes may change as well.
    stops = 0
    for call in (2, 3, 5, 1, 6, 4, 3, 2):
        device = replace(task.device, workers=call % 2)
        try:
            train(replace(task, device=device), "parts", StopAt(call))
        except Stopped:
            stops += 1
            assert not Path("oof/parts/fold0/oof.npz").exists()
    assert stops > 5
    assert train(task, "parts") == expected


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_held_out_rows_change_nothing_that_is_learned(task: Task, changed: str) -> None:
    expected = train(task, "a")
    competition = task.competition
    if changed == "images":
        images = competition.train_images.copy()
        images[task.held_out] = 255 - images[task.held_out]
        other = replace(competition, train_images=images)
    else:
        labels = competition.labels.copy()
        labels[task.held_out] = (labels[task.held_out] + 1) % 3
        other = replace(competition, labels=labels)
    found = train(replace(task, folds=replace(task.folds, competition=other)), "b")
    assert found["weights"] == expected["weights"]
    assert found["oof"] != expected["oof"]


def test_a_loss_that_is_nan_ends_the_training_at_once(task: Task) -> None:
    with pytest.raises(DivergedError, match=r"NaN or infinite.* lower --lr than 1e\+30"):
        train(replace(task, training=replace(task.training, lr=1e30)), "a")


class SpoiltLearner(Learner):
    """Its weights become NaN in the second epoch's last step, which no loss shows."""

    def step(self, batch: Batch) -> Any:
        done = super().step(batch)
        if batch.step == 7:
            next(self.network.parameters()).data.fill_(float("nan"))
        return done


def test_weights_that_are_nan_are_not_saved(task: Task) -> None:
    trainer = FoldTrainer(task)
    trainer.learner = trainer.held_out.learner = SpoiltLearner(task)
    with pytest.raises(DivergedError):
        train_fold(trainer, run_of(task, "a"), Stop())
    kept = read_checkpoint(Path("oof/a/fold0/checkpoint.pt"))
    assert kept.epoch == 1
    assert all(value.isfinite().all() for value in kept.network.values())


def test_a_checkpoint_of_another_run_is_refused(task: Task) -> None:
    train(task, "a")
    Path("oof/a/fold0").rename("oof/a/fold1")
    with pytest.raises(UserError, match=r"checkpoint\.pt does not belong .*: its fold is 0, not 1"):
        train(replace(task, fold=1), "a")


@pytest.mark.parametrize("damage", ["truncated", "a bit flipped", "of another program"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
    task: Task, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = train(task, "a")
    folder = Path("oof/a/fold0")
    path = folder / "checkpoint.pt"
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        del data[1000:]
    elif damage == "a bit flipped":
        bias = read_checkpoint(path).network["backbone.classifier.1.weight"].numpy().tobytes()
        data[data.index(bias) + 2] ^= 16
    else:
        torch.save({"epoch": 3}, path)
        data = bytearray(path.read_bytes())
    path.write_bytes(data)
    (folder / "oof.npz").unlink()
    assert train(task, "a") == expected
    printed = capsys.readouterr().out
    assert "warning: oof/a/fold0/checkpoint.pt is damaged" in printed
    assert "resuming from the checkpoint before it (epoch 2)" in printed
    assert (folder / "checkpoint-damaged.pt").read_bytes() == data

    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=r"fold0/checkpoint-previous\.pt is damaged"):
        train(task, "a")


def test_a_training_killed_between_the_two_renames_resumes(task: Task) -> None:
    expected = train(task, "a")
    Path("oof/a/fold0/oof.npz").unlink()
    Path("oof/a/fold0/checkpoint.pt").unlink()
    assert train(task, "a") == expected


def test_another_version_or_precision_may_resume_and_says_so(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = train(task, "a")
    folder = Path("oof/a/fold0")
    checkpoint = read_checkpoint(folder / "checkpoint.pt")
    write_checkpoint(folder, replace(checkpoint, code="e" * 40, precision="bfloat16"))
    (folder / "oof.npz").unlink()
    assert train(task, "a") == expected
    printed = capsys.readouterr().out
    assert "warning: fold 0 was trained by another version of this program (eeeee" in printed
    assert "fold 0 was trained in bfloat16 so far and resumes in float32\n" in printed


def test_images_that_are_not_square_are_resized_to_squares(task: Task) -> None:
    cut = replace(task.competition, train_images=task.competition.train_images[:, :, :12])
    flat = replace(task, folds=replace(task.folds, competition=cut))
    assert train(replace(flat, training=replace(task.training, image_size=24)), "a")["oof"]


def overflow(learner: Learner, most: int) -> list[int]:
    """Let the backward pass of more than `most` samples fail as on a GPU; how many it was given."""
    tried: list[int] = []

    def watch(network: Any, inputs: Any, logits: torch.Tensor) -> None:
        def backward(gradient: torch.Tensor) -> None:
            tried.append(len(gradient))
            if len(gradient) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        if logits.requires_grad:
            logits.register_hook(backward)

    learner.network.register_forward_hook(watch)
    return tried


def test_a_batch_too_large_for_a_gpu_is_halved(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    left = []
    predicted: list[int] = []
    for halved in (True, False):
        trainer = FoldTrainer(task)
        learner = trainer.learner
        if halved:
            tried = overflow(learner, 2)
        else:
            learner.parts.count = 4
            learner.model.register_forward_hook(lambda *call: predicted.append(len(call[-1])))
        run = run_of(task, f"{halved}")
        train_fold(trainer, run, Stop())
        left.append((digest_values(learner.model.state_dict()), run.oof_path(0).read_bytes()))
        assert learner.parts.count == 4
    # The failed attempts left no trace in weights or running statistics.
    assert left[0] == left[1]
    # 32 training samples: two attempts fail, then all 4 steps of 3 epochs have 4 parts at once.
    assert tried == [8, 4] + 4 * 4 * 3 * [2]
    # Nor is more predicted at once than fits where two samples can be trained on.
    assert set(predicted) == {8}
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(warnings) == 2
    assert "from now on a step computes them in 4 parts" in warnings[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_learns_on_a_gpu(folds: Folds, training: Training, precision: Any) -> None:
    device = choose_device(Machine(device="cuda", precision=precision, workers=2))
    train(Task(folds, 0, replace(training, epochs=10), device), "a")
    with np.load("oof/a/fold0/oof.npz") as oof:
        assert balanced_accuracy(oof["label"], oof["prob"].argmax(1)) > 0.7
