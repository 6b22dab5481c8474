import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_fold import overflow
from torch import Tensor

from cellline.config import Machine, Training
from cellline.host.device import Device, choose_device
from cellline.model.views import PLAIN
from cellline.runs.folds import Folds
from cellline.training.batches import Batch
from cellline.training.checkpoint import digest_values
from cellline.training.learner import Learner
from cellline.training.memory import TooLittleMemoryError
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer


@pytest.fixture
def task(folds: Folds, training: Training, device: Device) -> Task:
    return Task(folds, 0, training, device)


def mixed_batch(task: Task, n_samples: int, step: int = 0) -> Batch:
    """Samples whose classes, and so their weights, differ from the batch's start to its end."""
    competition = task.competition
    rows = np.linspace(0, len(competition.labels) - 1, n_samples).astype(int)
    images = torch.from_numpy(competition.train_images[rows])
    return Batch(images, torch.from_numpy(competition.labels[rows]), step, n_samples)


def begin(task: Task) -> Learner:
    learner = Learner(task)
    learner.begin_epoch(0)
    return learner


def test_the_model_is_the_moving_average_of_the_weights(task: Task) -> None:
    learner = begin(replace(task, training=replace(task.training, averaging=0.25)))
    decay = 1 - 1 / (0.25 * 12)  # of 3 epochs of 4 steps
    names = "backbone.features.conv0.weight", "backbone.features.norm0.running_mean"
    expected: dict[str, Tensor] = {}
    for step in range(4):
        learner.step(mixed_batch(task, 8, step))
        now = {name: learner.network.state_dict()[name].clone() for name in names}
        expected = {
            name: decay * expected[name] + (1 - decay) * now[name] if expected else now[name]
            for name in now
        }
    for name, value in expected.items():
        assert torch.allclose(learner.model.state_dict()[name], value, atol=1e-6)


@given(st.integers(1, 60), st.integers(1, 40))
def test_parts_have_two_samples_or_more_and_hold_each_once(n_samples: int, n_parts: int) -> None:
    numbers = torch.arange(n_samples)
    parts = Batch(numbers, numbers, 0, n_samples).split(n_parts)
    assert len(parts) == max(1, min(n_parts, n_samples // 2))
    assert torch.equal(torch.cat([part.labels for part in parts]), numbers)
    sizes = [len(part.images) for part in parts]
    assert min(sizes) >= min(2, n_samples)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("n_samples", "parts"), [(8, 2), (7, 3), (16, 8), (1, 2)])
def test_the_gradients_of_parts_add_up_to_those_of_the_batch(
    task: Task, n_samples: int, parts: int
) -> None:
    # A part's images are cut into each other.
    learner = Learner(replace(task, training=replace(task.training, cutmix=0.0)))
    # Without batch statistics, which are each part's own, and without dropout.
    learner.network.eval()

    def compute(parts: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        learner.parts.count = parts
        loss, logits = learner.parts.backward(learner.backward, mixed_batch(task, n_samples))
        gradients = [weight.grad for weight in learner.network.parameters()]
        return loss, logits, [gradient for gradient in gradients if gradient is not None]

    whole, in_parts = compute(1), compute(parts)
    torch.testing.assert_close(in_parts[:2], whole[:2])
    torch.testing.assert_close(in_parts[2], whole[2], rtol=1e-4, atol=1e-6)
    assert len(whole[2]) == len(list(learner.network.parameters()))


def test_a_share_of_the_batches_is_mixed_and_so_are_their_labels(task: Task) -> None:
    learner, labels = begin(task), torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])
    grey = torch.tensor([10.0, 100.0, 200.0])  # of each class
    images = grey[labels].to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).clone()
    seen: list[Tensor] = []
    learner.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    learner.loss.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    for step in range(40):
        learner.backward(Batch(images, labels, step, len(labels)))
    mixed = 0
    for shown, wanted in zip(seen[::2], seen[1::2], strict=True):
        if wanted.ndim == 2:
            mixed += 1
            assert torch.allclose(shown.float().mean((1, 2, 3)), wanted @ grey, atol=0.5)
        else:
            assert torch.equal(shown, images)
            assert torch.equal(wanted, labels)
    assert 10 < mixed < 30


def test_dropout_and_mixing_are_functions_of_seed_step_and_part(task: Task) -> None:
    digests, seeds = [], []
    for other_draws in (0, 5):
        learner = begin(task)
        learner.parts.count = 2
        learner.network.register_forward_hook(lambda *_: seeds.append(torch.initial_seed()))
        torch.rand(other_draws)
        for step in range(3):
            learner.step(mixed_batch(task, 8, step))
        digests.append(digest_values(learner.state()))
    assert digests[0] == digests[1]
    assert seeds[:6] == seeds[6:]
    assert len(set(seeds)) == 6
    # Both parts are one step.
    assert learner.n_averaged == 3
    assert {int(state["step"]) for state in learner.optimizers[-1].state.values()} == {3}


def test_if_two_samples_are_too_many_it_says_so_and_nothing_has_changed(task: Task) -> None:
    learner = begin(task)
    overflow(learner, 0)
    before = digest_values(learner.state()["network"])
    with pytest.raises(
        TooLittleMemoryError,
        match=r"two or three samples are too many .*\(CUDA out of memory\. Tried .*try a smaller",
    ):
        learner.step(mixed_batch(task, 8))
    assert digest_values(learner.state()["network"]) == before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what is used")
def test_when_the_memory_of_a_cpu_ends_it_says_what_to_do(task: Task) -> None:
    """A real limit; the step needs gigabytes more."""
    learner = begin(replace(task, training=replace(task.training, image_size=1024)))
    used = next(
        1024 * int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmData")
    )
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + 200 * 2**20, before[1]))
    try:
        with pytest.raises(TooLittleMemoryError, match=r"^out of memory \(.*smaller --batch-size"):
            learner.step(mixed_batch(task, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_that_does_not_fit_a_gpu_is_computed_in_parts(task: Task) -> None:
    device = choose_device(Machine(device="cuda", precision="float32", workers=0))
    training = replace(task.training, image_size=512, batch_size=32)
    large = replace(task, training=training, device=device)
    total = torch.cuda.get_device_properties(device.device).total_memory

    def step(share: float) -> tuple[FoldTrainer, int]:
        """A step within this share of the memory; its trainer, and the bytes it took at most."""
        trainer = FoldTrainer(large)
        trainer.learner.begin_epoch(0)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(share)
        try:
            loss, _ = trainer.learner.step(mixed_batch(large, 32))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert loss.isfinite()
        return trainer, torch.cuda.max_memory_reserved()

    whole, needed = step(1.0)
    assert whole.learner.parts.count == 1
    in_parts, _ = step(0.6 * needed / total)
    assert in_parts.learner.parts.count > 1
    assert len(in_parts.held_out.predict(PLAIN, lambda: None)[0]) == len(large.held_out)
    with pytest.raises(TooLittleMemoryError):
        step(0.01 * needed / total)
