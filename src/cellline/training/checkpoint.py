"""A fold's checkpoint: tensors and plain values, enough to go on or to predict."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellline.errors import UserError, first_line
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

    def digest(self) -> str:
        """SHA-256 of the model: names and values of its tensors, not the clock in the history."""
        whole = hashlib.sha256()
        for name, tensor in self.network.items():
            whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            whole.update(tensor.contiguous().numpy().data)
        return whole.hexdigest()


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic(path) as file:
        # Not asdict(), which would copy every tensor.
        torch.save(vars(checkpoint), file)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint into the CPU's memory. Raises UserError when it is missing or damaged."""
    if not path.exists():
        raise UserError(
            f"{path} is missing; to train the fold again, delete what else is in {path.parent}"
        )
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever its unpickler, zip reader or storage meets in a damaged file.
    except Exception as error:
        raise UserError(
            f"{path} is damaged ({first_line(error)}); delete it to train the fold again"
        ) from error
    return Checkpoint(**values)
