"""Predictions of a fold's held-out rows, and their scores."""

from collections.abc import Callable

import numpy as np

from cellline.model.views import PLAIN, Predictor, choose_views
from cellline.runs.predictions import OutOfFold
from cellline.scoring.decisions import likeliest, surprise
from cellline.training.learner import Learner
from cellline.training.progress import Progress
from cellline.training.task import Task


class HeldOut:
    """The held-out rows of a task. Their scores choose no epoch and no setting of this training.

    `pause` is called after each batch; an exception from it ends the prediction.
    """

    def __init__(self, task: Task, learner: Learner, progress: Progress) -> None:
        self.task = task
        self.learner = learner
        self.progress = progress

    @property
    def predictor(self) -> Predictor:
        """The averaged network, with batches of as many samples as a part of a training step."""
        batch_size = self.task.batch_size // self.learner.parts.count // self.task.ranks.size
        return Predictor(self.learner.model, self.task.device, batch_size)

    def score(self, pause: Callable[[], None]) -> tuple[float, float]:
        """Loss, weighted as in training, and score of the averaged network, without TTA."""
        labels = self.task.competition.labels[self.task.held_out]
        prob = self.predict(PLAIN, pause)[0]
        weights = self.learner.loss.weights.cpu().numpy()[labels]
        loss = float(np.mean(weights * surprise(labels, prob)))
        return loss, self.task.folds.metric.score(labels, likeliest(prob))

    def predictions(self, pause: Callable[[], None]) -> OutOfFold:
        """The fold's out-of-fold predictions, with and without TTA."""
        shape, symmetry = self.task.competition.train_images.shape, self.task.training.symmetry
        of_views = self.predict(choose_views(shape, symmetry), pause)
        prob = of_views.mean(axis=0)
        return OutOfFold(self.task.folds, self.task.held_out, prob, of_views[PLAIN[0]])

    def predict(self, views: tuple[int, ...], pause: Callable[[], None]) -> np.ndarray:
        """The averaged network's probabilities [view, held-out row, class]."""
        ranks, rows = self.task.ranks, self.task.held_out
        share = ranks.share(rows)
        with self.progress.predicting(len(views)) as advance:

            def after_batch(n_samples: int) -> None:
                advance(n_samples * ranks.size)
                pause()

            of_share = self.predictor.predict(
                self.task.competition.train_images,
                # All ranks pause together, after equally many batches: shorter shares are padded.
                np.resize(share, -(-len(rows) // ranks.size)),
                views,
                after_batch,
            )
        return np.concatenate(ranks.gather(of_share[:, : len(share)]), axis=1)
