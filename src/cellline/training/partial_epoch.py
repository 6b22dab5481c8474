"""What an epoch that has not ended has left so far: of it come the epoch's loss and BAC."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cellline.training.ranks import Ranks


@dataclass
class PartialEpoch:
    """What one rank has seen of an epoch."""

    losses: list[Tensor] = field(default_factory=list)
    """A scalar a step: the sum of the samples' losses."""
    predicted: list[Tensor] = field(default_factory=list)
    """The predicted classes [sample] of a step, on the device as the losses are."""
    labels: list[Tensor] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def join(self, ranks: Ranks) -> dict[str, Tensor]:
        """What all ranks have seen.

        `losses` [step] on the device; `predicted` and `labels` [sample], in one order, on the CPU.
        """
        if not self.losses:
            return {name: torch.empty(0) for name in ("losses", "predicted", "labels")}
        share = torch.cat(self.predicted).cpu(), torch.cat(self.labels)
        predicted, labels = zip(*ranks.gather(share), strict=True)
        return {
            "losses": ranks.total(torch.stack(self.losses)),
            "predicted": torch.cat(predicted),
            "labels": torch.cat(labels),
        }


def restore_epoch(joined: dict[str, Any], ranks: Ranks, device: torch.device) -> PartialEpoch:
    """The share of this rank in what `PartialEpoch.join` gave, and the `seconds` that it took.

    Rank 0 has all of it now, and the others what adds nothing.
    """
    if not len(joined["losses"]):
        return PartialEpoch()
    losses = joined["losses"].to(device)
    kept = slice(None) if ranks.first else slice(0)
    return PartialEpoch(
        list(losses if ranks.first else torch.zeros_like(losses)),
        [joined["predicted"][kept].to(device)],
        [joined["labels"][kept]],
        time.perf_counter() - joined["seconds"],
    )
