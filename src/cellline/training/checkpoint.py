"""A fold's checkpoint: tensors and plain values, enough to go on or to predict."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellline.device import first_line
from cellline.errors import UserError
from cellline.files import atomic


@dataclass(frozen=True)
class Checkpoint:
    """The state at the end of an epoch."""

    config: dict[str, Any]
    """The run's config.json: what the weights belong to."""
    fold: int
    epoch: int
    """Epochs trained so far."""
    network: dict[str, Tensor]
    """Averaged weights, with the fold's normalization: the model."""
    history: list[dict[str, float]]
    """One row an epoch."""
    resume: dict[str, Any] | None
    """What training goes on with; None once the fold is finished."""


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic(path) as file:
        # Not asdict(), which would copy every tensor.
        torch.save(vars(checkpoint), file)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint into the CPU's memory. Raises UserError when it is damaged."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever its unpickler, zip reader or storage meets in a damaged file.
    except Exception as error:
        raise UserError(
            f"{path} is damaged ({first_line(error)}); delete it to train the fold again"
        ) from error
    return Checkpoint(**values)
