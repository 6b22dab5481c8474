"""One network that predicts as the mean of many does: distillation (Hinton et al. 2015)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellline.config import Config
from cellline.errors import UserError
from cellline.host.device import choose_device
from cellline.host.files import digest_text
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.host.stopping import Stop, Stopped
from cellline.host.versions import code_version
from cellline.runs.run import Run
from cellline.scoring.decisions import Correction
from cellline.submitting.blend import blend
from cellline.submitting.inference import place_network, predict_images, predict_run
from cellline.training.batches import LoadingError, TrainingBatches
from cellline.training.checkpoint import Checkpoint, read_newest, write_checkpoint
from cellline.training.fold import Keeper, describe_resumed
from cellline.training.learner import Learner
from cellline.training.progress import Progress
from cellline.training.task import Task, Teacher

# Number of the fold that holds nothing out.
NO_FOLD = -1
TITLE = "one network of all"
# Of the run's learning rate, as the student begins where a teacher ended.
RATE = 0.2


def distill_runs(
    config: Config, runs: Sequence[Run], teachers: Sequence[tuple[Checkpoint, str]], epochs: int
) -> Checkpoint:
    """Distill all networks of some runs, `teachers` with their digests, into one like the first's.

    It learns from the training images, varied as in the first run, and is kept in that run's
    folder. Raises UserError if the runs have different symmetries; Stopped.
    """
    first = runs[0]
    if len({run.config.training.symmetry for run in runs}) > 1:
        raise UserError("--distill: these runs have different symmetries; name runs with the same")
    usual = first.config.training
    assert usual.lr is not None
    training = replace(
        usual,
        epochs=epochs,
        start_share=0.0,
        lr=RATE * usual.lr,
        # Weighted, the loss would be smallest elsewhere than at the teachers' probabilities.
        class_weights="none",
    )
    record = {
        **first.record,
        "settings": asdict(training),
        "teachers": [digest for _, digest in teachers],
    }
    folder = first.folder / f"distilled-{digest_text(json.dumps(record))[:8]}"
    task = Task(first.folds, NO_FOLD, training, choose_device(config.machine))
    stop = Stop(config.machine.max_minutes)
    return distill(task, [teacher for teacher, _ in teachers], record, folder, stop)


def count_agreement(
    config: Config, runs: Sequence[Run], student: Checkpoint, correction: Correction
) -> dict[str, Any]:
    """How often a student of some runs decides like their mean, on test images.

    On those without a relative in training, if there are any: on images that it has learned from, a
    student agrees more. Empty without a test set.
    """
    competition, picture = runs[0].competition, runs[0].folds.picture
    n_train = len(competition.train_ids)
    unrelated = picture[n_train:] >= n_train
    rows = np.flatnonzero(unrelated if unrelated.any() else np.ones_like(unrelated))
    if not len(rows):
        return {}
    device = choose_device(config.machine)
    images = competition.test_images
    own = predict_images(student, images, device, f"{TITLE}, test set")[rows]
    mean = blend([predict_run(run, device)[0] for run in runs])[rows]
    classes = [correction.apply(prob).predicted for prob in (own, mean)]
    return {"test_samples": len(rows), "same_class": float(np.mean(classes[0] == classes[1]))}


def distill(
    task: Task,
    teachers: Sequence[Checkpoint],
    record: dict[str, Any],
    folder: Path,
    stop: Stop,
) -> Checkpoint:
    """Train one network to predict as `teachers` do on average, from the first one's weights.

    Network and teachers see the same varied images, CutMix included: what counts is that they agree
    wherever they are asked (Beyer et al. 2022). Saves to `folder` as `train_fold` does, and resumes
    from there; `record` names teachers and settings. Raises Stopped, and LoadingError.
    """
    with one_writer(folder, "distilling"), stop.on_signals():
        checkpoint = read_newest(folder, record, NO_FOLD)
        if checkpoint is not None and checkpoint.resume is None:
            return checkpoint
        task = replace(task, teacher=join_teachers(teachers, task))
        learner, batches, progress = Learner(task), TrainingBatches(task), Progress(TITLE, task)
        done = 0
        if checkpoint is None or checkpoint.resume is None:
            learner.network.load_state_dict(teachers[0].network)
        else:
            describe_resumed(checkpoint, TITLE, task.device.precision)
            learner.load(checkpoint)
            done = checkpoint.resume["done"]

        def save() -> None:
            nonlocal checkpoint
            state = None if done == task.n_steps else {**learner.state(), "done": done}
            checkpoint = Checkpoint(
                record,
                NO_FOLD,
                code_version(),
                done // task.steps,
                learner.model.state_dict(),
                [],
                state,
                task.device.precision,
            )
            write_checkpoint(folder, checkpoint)

        keeper = Keeper(save, stop, task.ranks)
        keeper.begin(save=True)
        while done < task.n_steps:
            epoch, first = divmod(done, task.steps)
            learner.begin_epoch(epoch)
            try:
                for batch in progress.batches(batches.epoch(epoch, first), epoch, first):
                    loss, _ = learner.step(batch)
                    done += 1
                    keeper.pause()
            except (Stopped, LoadingError):
                keeper.save()
                raise
            learner.check_finite(loss)
            keeper.save()
            say(f"{TITLE}: epoch {epoch + 1} of {task.training.epochs} is saved")
        assert checkpoint is not None  # it was saved at least once
        return checkpoint


def join_teachers(teachers: Sequence[Checkpoint], task: Task) -> Teacher:
    """The mean of the teachers' probabilities of images as they are, without gradients."""
    shape = task.competition.train_images.shape[1:]
    placed = [place_network(teacher, shape, task.device) for teacher in teachers]
    networks = [of.predictor.network.eval() for of in placed]

    @torch.no_grad()
    def teach(images: Tensor) -> Tensor:
        with task.device.autocast():
            logits = torch.stack([network(images) for network in networks])
        return logits.float().softmax(dim=2).mean(dim=0)

    return teach
