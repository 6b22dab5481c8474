"""A run in memory: as `open_run` would read it, without any training."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from cellline.runs.run_folder import Chosen, OutOfFold

from cellline.audit.findings import Findings
from cellline.audit.groups import Counts
from cellline.audit.leak import Leak
from cellline.audit.reference import Reference
from cellline.audit.shift import Shift
from cellline.config import Folders, Training
from cellline.data.competition import Competition
from cellline.report.run import Run
from cellline.runs.folds import Folds
from cellline.scoring.metrics import Bootstrap, Estimate

SIZE = 12


def make_run(
    classes: Sequence[str] = ("A549", "HeLa", "RT4"),
    *,
    samples: int = 60,
    channels: int = 3,
    height: int = SIZE,
    width: int = SIZE,
    right: float = 0.8,
    finished: Sequence[int] = (0, 1, 2),
    ignore_groups: bool = False,
    chosen: Chosen | None = None,
    seed: int = 0,
) -> Run:
    """A run whose networks are right in a share of about `right` of its samples.

    Samples 2k and 2k + 1 are copies and have one label. There are three folds.
    """
    generator = np.random.default_rng(seed)
    n_classes = len(classes)
    row = np.arange(samples)
    labels = row // 2 % n_classes
    group = row // 2 * 2 + 1
    images = generator.integers(0, 256, (samples, channels, height, width), dtype=np.uint8)
    images[1::2] = images[::2]
    competition = Competition(
        id_column="id",
        label_column="kind",
        classes=tuple(classes),
        channels=tuple(f"channel {k}" for k in range(channels)),
        train_ids=row + 1,
        labels=labels,
        test_ids=np.arange(samples + 1, samples + 13),
        template=tuple(map(str, range(samples + 1, samples + 13))),
        train_images=images,
        test_images=images[:12],
        digest="1" * 64,
        test_digest="2" * 64,
        warnings=(),
    )
    fold = (row if ignore_groups else row // 2 // n_classes) % 3
    folds = Folds(fold, group, 3, "3" * 64, ignore_groups)
    rows = np.flatnonzero(np.isin(fold, finished))
    guess = np.where(generator.random(samples) < right, labels, (labels + 1) % n_classes)
    prob = generator.dirichlet(np.ones(n_classes), samples).astype(np.float32)
    prob = 0.4 * prob + 0.6 * np.eye(n_classes, dtype=np.float32)[guess]
    oof = OutOfFold(competition.train_ids[rows], labels[rows], prob[rows], prob[rows])
    history = [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "train_bac": 0.3 + 0.1 * epoch,
            "held_out_loss": 1.2 / epoch,
            "held_out_bac": bac,
        }
        for epoch, bac in ((1.0, 0.5), (2.0, 0.75), (3.0, 0.7))
    ]
    return Run(
        folders=Folders(),
        chosen=chosen,
        folder=Path("oof/made"),
        settings=asdict(Training(lr=1e-3, batch_size=64)),
        competition=competition,
        folds=folds,
        record={"seed": 0, "audit": make_audit()},
        finished=list(finished),
        oof=oof,
        rows=rows,
        groups=group[rows],
        bootstrap=Bootstrap(group[rows]),
        histories=dict.fromkeys(finished, history),
        test=dict.fromkeys(finished, prob[:12]),
    )


def make_audit() -> dict[str, object]:
    """What folds.json holds under "audit"."""
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
    return Findings(counts, reference, shift).record()
