from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stop_at import StopAt

from cellline.config import Machine, Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.device import Device, choose_device
from cellline.host.stopping import Stop, Stopped
from cellline.model.views import PLAIN
from cellline.runs.folds import Folds
from cellline.runs.run_folder import describe_run
from cellline.scoring.metrics import balanced_accuracy
from cellline.training.checkpoint import digest_values, read_checkpoint
from cellline.training.fold import train_fold
from cellline.training.loop import DivergedError, FoldTrainer
from cellline.training.memory import TooLittleMemoryError
from cellline.training.progress import Progress


def run(
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    folder: str,
    fold: int = 0,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Train a fold; what it left, without what depends on the clock."""
    trainer = FoldTrainer(folds, fold, training, device)
    config = describe_run(training, competition, folds)
    train_fold(trainer, Path(folder), config, fold, stop or Stop())
    checkpoint = read_checkpoint(Path(folder) / "checkpoint.pt")
    timed = ("samples_per_second", "seconds")
    return {
        "oof": (Path(folder) / "oof.npz").read_bytes(),
        "weights": {key: value.numpy().tobytes() for key, value in checkpoint.network.items()},
        "history": [
            {key: value for key, value in row.items() if key not in timed}
            for row in checkpoint.history
        ],
    }


def test_it_learns_and_leaves_what_the_contracts_promise(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    longer = replace(training, epochs=10)
    left = run(competition, folds, longer, device, "fold0")
    with np.load("fold0/oof.npz") as oof:
        held_out = folds.held_out_rows(0)
        np.testing.assert_array_equal(oof["file_id"], competition.train_ids[held_out])
        np.testing.assert_array_equal(oof["label"], competition.labels[held_out])
        np.testing.assert_allclose(oof["prob"].sum(1), 1, atol=1e-5)
        assert balanced_accuracy(oof["label"], oof["prob"].argmax(1)) > 0.7
    history = Path("fold0/history.csv").read_text().splitlines()
    assert len(history) == 11
    assert history[0].split(",") == [*left["history"][0], "samples_per_second", "seconds"]
    assert left["history"][-1]["train_loss"] < left["history"][0]["train_loss"]
    finished = read_checkpoint(Path("fold0/checkpoint.pt"))
    assert finished.resume is None
    assert finished.epoch == 10
    assert {path.name for path in Path("fold0").iterdir()} == {
        ".lock",
        "checkpoint.pt",
        "checkpoint-previous.pt",
        "history.csv",
        "oof.npz",
    }


def test_the_same_training_twice_is_the_same_to_the_bit(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    first = run(competition, folds, training, device, "a")
    assert run(competition, folds, training, device, "b") == first
    assert run(competition, folds, training, replace(device, workers=2), "c") == first
    assert run(competition, folds, replace(training, seed=1), device, "d") != first


def test_dropout_is_drawn_anew_each_step(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    trainer = FoldTrainer(folds, 0, training, device)
    progress = Progress("fold 0", device, 32, 16, range(3), 4)
    seeds = []
    for epoch in (0, 1, 2, 1):
        trainer.train_epoch(epoch, progress, lambda: seeds.append(torch.initial_seed()))
    # Four steps an epoch, then one batch of held-out rows, which draws nothing.
    steps = [seeds[start : start + 4] for start in range(0, len(seeds), 5)]
    assert steps[3] == steps[1]
    assert len({seed for seeds in steps for seed in seeds}) == 12


def test_images_are_small_first_and_large_in_the_end(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    small = replace(training, start_size=12, start_share=0.7, image_size=24)
    trainer = FoldTrainer(folds, 0, small, device)
    seen: dict[bool, list[int]] = {True: [], False: []}
    for network in (trainer.network, trainer.model):
        network.backbone.register_forward_hook(
            lambda module, inputs, _: seen[module.training].append(inputs[0].shape[-1])
        )
    config = describe_run(small, competition, folds)
    train_fold(trainer, Path("fold0"), config, 0, Stop())
    # Three epochs of four steps; an epoch's held-out rows are one batch, and so are eight views.
    assert seen[True] == 8 * [12] + 4 * [24]
    assert seen[False][:3] == [12, 12, 24]
    assert set(seen[False][3:]) == {24}
    assert [trainer.pixels(epoch) for epoch in range(3)] == [144, 144, 576]
    for share in (0.0, 0.3):  # less than an epoch
        left = run(competition, folds, replace(small, start_share=share), device, f"{share}")
        large = run(competition, folds, replace(small, start_size=None), device, f"{share} large")
        assert left["weights"] == large["weights"]


@pytest.mark.parametrize("start_size", [None, 12])
def test_a_training_stopped_anywhere_ends_where_an_uninterrupted_one_does(
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    start_size: int | None,
) -> None:
    training = replace(training, start_size=start_size, start_share=0.4)
    expected = run(competition, folds, training, device, "whole")
    # Three epochs of four steps and one batch of held-out rows, and the last predictions: each
    # time the training gets a little further; the number of loader processes may change as well.
    stops = 0
    for call in (2, 3, 5, 1, 6, 4, 3, 2):
        device = replace(device, workers=call % 2)
        try:
            run(competition, folds, training, device, "parts", stop=StopAt(call))
        except Stopped:
            stops += 1
            assert not Path("parts/oof.npz").exists()
    assert stops > 5
    assert run(competition, folds, training, device, "parts") == expected


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_held_out_rows_move_nothing_that_is_learned(
    competition: Competition, folds: Folds, training: Training, device: Device, changed: str
) -> None:
    expected = run(competition, folds, training, device, "a")
    held_out = folds.held_out_rows(0)
    if changed == "images":
        images = competition.train_images.copy()
        images[held_out] = 255 - images[held_out]
        other = replace(competition, train_images=images)
    else:
        labels = competition.labels.copy()
        labels[held_out] = (labels[held_out] + 1) % 3
        other = replace(competition, labels=labels)
    found = run(other, folds, training, device, "b")
    assert found["weights"] == expected["weights"]
    assert found["oof"] != expected["oof"]


def test_a_training_row_does_move_what_is_learned(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    expected = run(competition, folds, training, device, "a")
    images = competition.train_images.copy()
    images[folds.training_rows(0)[0]] = 200
    found = run(replace(competition, train_images=images), folds, training, device, "b")
    assert found["weights"] != expected["weights"]


def test_a_loss_that_is_no_number_stops_at_once(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    with pytest.raises(DivergedError, match=r"with a lower --lr than 1e\+30"):
        run(competition, folds, replace(training, lr=1e30), device, "a")


def test_a_checkpoint_of_another_run_is_refused(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    run(competition, folds, training, device, "a")
    with pytest.raises(UserError, match=r"checkpoint\.pt does not belong .*: its fold is 0, not 1"):
        run(competition, folds, training, device, "a", fold=1)


@pytest.mark.parametrize("damage", ["truncated", "a bit flipped", "of another program"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = run(competition, folds, training, device, "a")
    path, oof = Path("a/checkpoint.pt"), Path("a/oof.npz")
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
    oof.unlink()
    assert run(competition, folds, training, device, "a") == expected
    printed = capsys.readouterr().out
    assert "warning: a/checkpoint.pt is damaged" in printed
    assert "going on from the checkpoint before it (epoch 2)" in printed
    assert Path("a/checkpoint-damaged.pt").read_bytes() == data

    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        Path("a", name).write_bytes(data)
    with pytest.raises(UserError, match=r"a/checkpoint-previous\.pt is damaged"):
        run(competition, folds, training, device, "a")


def test_a_training_killed_between_the_two_renames_goes_on(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    expected = run(competition, folds, training, device, "a")
    Path("a/oof.npz").unlink()
    Path("a/checkpoint.pt").unlink()
    assert run(competition, folds, training, device, "a") == expected


def test_weights_that_are_no_numbers_are_not_saved(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    class Spoilt(FoldTrainer):
        def train_step(self, step: int, images: Any, labels: Any) -> Any:
            done = super().train_step(step, images, labels)
            if step == 7:  # the second epoch's last: no loss will tell
                next(self.network.parameters()).data.fill_(float("nan"))
            return done

    config = describe_run(training, competition, folds)
    trainer = Spoilt(competition, folds, 0, training, device)
    with pytest.raises(DivergedError):
        train_fold(trainer, Path("a"), config, 0, Stop())
    kept = read_checkpoint(Path("a/checkpoint.pt"))
    assert kept.epoch == 1
    assert all(value.isfinite().all() for value in kept.network.values())


def test_the_model_is_the_moving_average_of_the_weights(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    trainer = FoldTrainer(folds, 0, replace(training, averaging=0.25), device)
    decay = 1 - 1 / (0.25 * 12)  # of 3 epochs of 4 steps
    images = torch.from_numpy(competition.train_images[:8])
    labels = torch.from_numpy(competition.labels[:8])
    trainer.network.train()
    key, statistic = "backbone.features.conv0.weight", "backbone.features.norm0.running_mean"
    expected: dict[str, torch.Tensor] = {}
    for step in range(4):
        trainer.train_step(step, images, labels)
        now = {name: trainer.network.state_dict()[name].clone() for name in (key, statistic)}
        expected = {
            name: decay * expected[name] + (1 - decay) * now[name] if expected else now[name]
            for name in now
        }
    for name, value in expected.items():
        assert torch.allclose(trainer.model.state_dict()[name], value, atol=1e-6)


def mixed_batch(competition: Competition, n_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples whose classes, and so their weights, differ from the batch's start to its end."""
    rows = np.linspace(0, len(competition.labels) - 1, n_samples).astype(int)
    return torch.from_numpy(competition.train_images[rows]), torch.from_numpy(
        competition.labels[rows]
    )


@pytest.mark.parametrize(("n_samples", "parts"), [(8, 2), (7, 3), (16, 8), (5, 4), (3, 8), (1, 2)])
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    n_samples: int,
    parts: int,
) -> None:
    trainer = FoldTrainer(folds, 0, training, device)
    # Without statistics of the batch, and without dropout.
    trainer.network.eval()
    batch = mixed_batch(competition, n_samples)
    sizes: list[int] = []
    trainer.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))

    def compute(parts: int) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        trainer.parts = parts
        loss, logits = trainer.compute_gradients(0, *batch)
        gradients = [weight.grad for weight in trainer.network.parameters()]
        return loss, logits, [gradient for gradient in gradients if gradient is not None]

    whole = compute(1)
    sizes.clear()
    in_parts = compute(parts)
    # None of a single sample, which batch normalization has nothing to average over in.
    assert sum(sizes) == n_samples
    assert len(sizes) == max(1, min(parts, n_samples // 2))
    assert min(sizes) >= min(2, n_samples)
    assert max(sizes) - min(sizes) <= 1
    torch.testing.assert_close(in_parts[:2], whole[:2])
    torch.testing.assert_close(in_parts[2], whole[2], rtol=1e-4, atol=1e-6)
    assert len(whole[2]) == len(list(trainer.network.parameters()))


def test_a_step_in_parts_is_one_step(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    images, labels = mixed_batch(competition, 8)
    digests, seeds = [], []
    for others_draws in (0, 5):
        trainer = FoldTrainer(folds, 0, training, device)
        trainer.parts = 2
        trainer.network.train()
        trainer.network.register_forward_hook(lambda *_: seeds.append(torch.initial_seed()))
        torch.rand(others_draws)
        trainer.train_step(0, images, labels)
        digests.append(digest_values(trainer.model.state_dict()))
        assert trainer.averaged.steps == 1
        adamw = trainer.optimizers[-1]
        assert {int(state["step"]) for state in adamw.state.values()} == {1}
    # Each part has draws of its own, and they depend on the seed, the step and the part alone.
    assert digests[0] == digests[1]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]


def test_batch_normalization_sees_a_part_at_a_time(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    images, labels = mixed_batch(competition, 8)
    mean = "backbone.features.norm0.running_mean"
    in_parts = FoldTrainer(folds, 0, training, device)
    in_parts.parts = 2
    expected = FoldTrainer(folds, 0, training, device)
    for trainer in (in_parts, expected):
        trainer.network.train()
    in_parts.compute_gradients(0, images, labels)
    for part in (slice(0, 4), slice(4, 8)):
        expected.compute_gradients(0, images[part], labels[part])
    found = in_parts.network.state_dict()[mean]
    assert torch.equal(found, expected.network.state_dict()[mean])


def overflow(trainer: FoldTrainer, most: int) -> list[int]:
    """Let the backward pass of more than `most` samples end as on a GPU; how many it was given."""
    tried: list[int] = []

    def watch(network: Any, inputs: Any, logits: torch.Tensor) -> None:
        def backward(gradient: torch.Tensor) -> None:
            tried.append(len(gradient))
            if len(gradient) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        if logits.requires_grad:
            logits.register_hook(backward)

    trainer.network.register_forward_hook(watch)
    return tried


def test_a_batch_that_a_gpu_has_no_memory_for_is_halved(
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = describe_run(training, competition, folds)
    left = []
    predicted: list[int] = []
    for halved in (True, False):
        trainer = FoldTrainer(folds, 0, training, device)
        if halved:
            tried = overflow(trainer, 2)
        else:
            trainer.parts = 4
            trainer.model.register_forward_hook(lambda *call: predicted.append(len(call[-1])))
        train_fold(trainer, Path(f"{halved}"), config, 0, Stop())
        left.append(
            (digest_values(trainer.model.state_dict()), Path(f"{halved}/oof.npz").read_bytes())
        )
        assert trainer.parts == 4
    # What failed has left no trace: not in the weights, not in the running statistics.
    assert left[0] == left[1]
    # 32 training samples: two attempts fail, then it is known for all 4 steps of 3 epochs.
    assert tried == [8, 4] + 4 * 4 * 3 * [2]
    # Nor is more predicted at once than fits where two samples can be trained on.
    assert set(predicted) == {8}
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(warnings) == 2
    assert "a step computes them in 4 parts now" in warnings[1]
    assert "the statistics of batch normalization are those of a part" in warnings[1]


def test_a_gpu_may_run_out_of_memory_later(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    digests = []
    for halved in (True, False):
        trainer = FoldTrainer(folds, 0, training, device)
        trainer.network.train()
        trainer.train_step(0, *mixed_batch(competition, 8))
        if halved:
            overflow(trainer, 4)
        else:
            trainer.parts = 2
        trainer.train_step(1, *mixed_batch(competition, 8))
        digests.append(digest_values(trainer.model.state_dict()))
    assert digests[0] == digests[1]


def test_where_two_samples_are_too_many_it_is_said_and_nothing_has_changed(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    trainer = FoldTrainer(folds, 0, training, device)
    trainer.network.train()
    overflow(trainer, 0)
    before = digest_values(trainer.resume_state()["network"])
    with pytest.raises(
        TooLittleMemoryError,
        match=r"not even two or three samples fit .*\(CUDA out of memory\. Tried .*try a smaller",
    ):
        trainer.train_step(0, *mixed_batch(competition, 8))
    assert digest_values(trainer.resume_state()["network"]) == before


def test_images_that_are_not_square_are_trained_on(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    cut = replace(competition, train_images=competition.train_images[:, :, :12])
    run(cut, folds, training, device, "a")
    assert Path("a/oof.npz").exists()
    run(cut, folds, replace(training, image_size=24), device, "b")
    assert Path("b/oof.npz").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_learns_on_a_gpu(
    competition: Competition, folds: Folds, training: Training, precision: Any
) -> None:
    device = choose_device(Machine(device="cuda", precision=precision, workers=2))
    run(competition, folds, replace(training, epochs=10), device, "fold0")
    with np.load("fold0/oof.npz") as oof:
        assert balanced_accuracy(oof["label"], oof["prob"].argmax(1)) > 0.7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_that_does_not_fit_a_gpu_is_computed_in_parts(
    competition: Competition, folds: Folds, training: Training
) -> None:
    device = choose_device(Machine(device="cuda", precision="float32", workers=0))
    large = replace(training, image_size=512, batch_size=32)
    batch = mixed_batch(competition, 32)
    total = torch.cuda.get_device_properties(device.device).total_memory

    def step(share: float) -> tuple[FoldTrainer, int]:
        """A step within this share of the memory; its trainer, and the bytes it took at most."""
        trainer = FoldTrainer(folds, 0, large, device)
        trainer.network.train()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(share)
        try:
            loss, _ = trainer.train_step(0, *batch)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert loss.isfinite()
        return trainer, torch.cuda.max_memory_reserved()

    whole, needed = step(1.0)
    assert whole.parts == 1
    in_parts, _ = step(0.6 * needed / total)
    assert in_parts.parts > 1
    assert len(in_parts.predict(PLAIN, lambda: None)[0]) == len(in_parts.held_out)
    with pytest.raises(TooLittleMemoryError):
        step(0.01 * needed / total)
