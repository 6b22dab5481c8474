"""A run that no network made: its predictions, history and audit are written, not computed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cellline.audit.findings import Findings
from cellline.audit.groups import Agreement, Counts, Trust
from cellline.audit.reference import Leak, Reference
from cellline.audit.shift import Shift
from cellline.config import Config, MetricName, Reading, Training
from cellline.data.competition import Competition
from cellline.runs.folds import NO_PAIRS, Folds, Pairs
from cellline.runs.predictions import OutOfFold, write_out_of_fold
from cellline.runs.run import Run, Tuning, new_run
from cellline.scoring.bootstrap import Estimate

CLASSES = ("A549", "HeLa", "RT4")


def make_folds(
    classes: Sequence[str] = CLASSES,
    samples: int = 60,
    shape: tuple[int, int, int] = (3, 12, 12),
    metric: MetricName = "balanced_accuracy",
) -> Folds:
    """Three folds of images of a shape; samples 2k and 2k + 1 are copies and have one label."""
    row = np.arange(samples)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (samples, *shape), dtype=np.uint8)
    images[1::2] = images[::2]
    competition = Competition(
        reading=Reading(id_column="id", label_column="kind"),
        metric=metric,
        output="label",
        template_columns=("id", "kind"),
        classes=tuple(classes),
        channels=tuple(f"channel {k}" for k in range(shape[0])),
        train_ids=row + 1,
        labels=row // 2 % len(classes),
        test_ids=np.arange(samples + 1, samples + 13),
        template=tuple(map(str, range(samples + 1, samples + 13))),
        train_images=images,
        test_images=images[:12],
        digest="1" * 64,
        test_digest="2" * 64,
        warnings=(),
    )
    fold = row // 2 // len(classes) % 3
    record = {"seed": 0, "audit": make_audit()}
    pairs = Pairs(row.reshape(-1, 2), NO_PAIRS.overlaps)
    return Folds(fold, row // 2 * 2 + 1, pairs, competition, 3, "3" * 64, record)


def make_run(
    folds: Folds | None = None,
    prob: np.ndarray | None = None,
    finished: Sequence[int] = (0, 1, 2),
    tuning: Tuning | None = None,
) -> Run:
    """A run on disk whose finished folds predict `prob` [n, class], by default 80 % of it right."""
    folds = folds or make_folds()
    run = new_run(replace(Config(training=Training(lr=1e-3, batch_size=64)), run="made"), folds)
    run.begin(tuning)
    if prob is None:
        prob = guess(folds.competition.labels, len(folds.competition.classes), 0.8)
    history = [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "train_score": 0.3 + 0.1 * epoch,
            "held_out_loss": 1.2 / epoch,
            "held_out_score": bac,
        }
        for epoch, bac in ((1.0, 0.5), (2.0, 0.75), (3.0, 0.7))
    ]
    for fold in finished:
        rows = folds.held_out_rows(fold)
        own = prob[rows].astype(np.float32)
        provenance = {**run.provenance(fold), "history": history}
        write_out_of_fold(run.oof_path(fold), OutOfFold(folds, rows, own, own), provenance)
    return run


def guess(labels: np.ndarray, n_classes: int, right: float) -> np.ndarray:
    """Probabilities of which a share of about `right` is right, sure by differing amounts."""
    generator = np.random.default_rng(0)
    wrong = (labels + 1) % n_classes
    likeliest = np.where(generator.random(len(labels)) < right, labels, wrong)
    prob = 0.4 * generator.dirichlet(np.ones(n_classes), len(labels))
    prob[np.arange(len(labels)), likeliest] += 0.6
    return prob


def sure_of(classes: np.ndarray, n_classes: int, sure: float) -> np.ndarray:
    """Probabilities `sure` of the classes [n]."""
    prob = np.full((len(classes), n_classes), (1 - sure) / (n_classes - 1))
    prob[np.arange(len(classes)), classes] = sure
    return prob


def make_audit() -> dict[str, object]:
    """The content of folds.json under "audit"."""
    score = Estimate(0.6, 0.5, 0.7, 0.05)
    gap = Estimate(0.1, 0.05, 0.15, 0.02)
    leak = Leak(score, score, 40, 20)
    counts = Counts(
        groups=30,
        grouped_samples=60,
        copies=60,
        overlapping=0,
        test_copies=0,
        test_overlapping=0,
        test_grouped=6,
        conflicts=(),
    )
    reference = Reference(score, score, gap, leak, leak, 0.5)
    shift = Shift(Estimate(0.5, 0.45, 0.55, 0.03), {"blue mean": gap})
    trust = Trust("auto", Agreement(30, 0, 0.0), Agreement(), Agreement(), 0)
    return Findings(counts, reference, shift, trust).record()
