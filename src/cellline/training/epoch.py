"""One epoch: its results so far, and its row of history.csv."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cellline.training.ranks import Ranks


@dataclass(frozen=True)
class EpochRecord:
    """A row of history.csv."""

    epoch: int
    """From 1."""
    train_loss: float
    train_score: float
    """On the augmented batches, as they were learned from, except those mixed by CutMix; NaN if all
    were."""
    held_out_loss: float
    held_out_score: float
    """Computed with the averaged weights, without test-time augmentation."""
    lr: float
    """At the epoch's last step."""
    samples_per_second: float
    """In training alone."""
    seconds: float
    """For training and scoring."""


@dataclass
class PartialEpoch:
    """One rank's results of the steps of an epoch that has not ended.

    They stay on the device until they are needed: to fetch them is to wait for a GPU.
    """

    losses: list[Tensor] = field(default_factory=list)
    """A scalar for each step: the sum of the samples' losses."""
    logits: list[Tensor] = field(default_factory=list)
    """Logits [sample, class] for each step."""
    labels: list[Tensor] = field(default_factory=list)
    """Labels [sample] for each step, on the CPU."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the epoch began, without those between stop and resume."""
        return time.perf_counter() - self.started

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add the results of a step."""
        self.losses.append(loss)
        self.logits.append(logits)
        self.labels.append(labels)

    def join(self, ranks: Ranks) -> dict[str, Tensor]:
        """The results of all ranks.

        `losses` [step] on the device; `logits` [sample, class] and `labels` [sample], in one order,
        on the CPU.
        """
        if not self.losses:
            return {name: torch.empty(0) for name in ("losses", "logits", "labels")}
        share = torch.cat(self.logits).cpu(), torch.cat(self.labels)
        logits, labels = zip(*ranks.gather(share), strict=True)
        return {
            "losses": ranks.total(torch.stack(self.losses)),
            "logits": torch.cat(logits),
            "labels": torch.cat(labels),
        }


def restore_epoch(joined: dict[str, Any], ranks: Ranks, device: torch.device) -> PartialEpoch:
    """A rank's part of `PartialEpoch.join`, which `joined` holds beside the `seconds`.

    Rank 0 gets all of it, and the other ranks get what adds nothing.
    """
    if not len(joined["losses"]):
        return PartialEpoch()
    losses = joined["losses"].to(device)
    kept = slice(None) if ranks.first else slice(0)
    return PartialEpoch(
        list(losses if ranks.first else torch.zeros_like(losses)),
        [joined["logits"][kept].to(device)],
        [joined["labels"][kept]],
        time.perf_counter() - joined["seconds"],
    )
