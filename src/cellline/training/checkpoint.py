"""A fold's checkpoint: tensors and plain values, enough to resume or to predict.

The newest is `checkpoint.pt`, the one before it `checkpoint-previous.pt`; `fold` decides when they
are written. Each holds a digest of its content, because torch ignores the checksums in the file
when it reads one (MINIZ_DISABLE_ZIP_READER_CRC32_CHECKS in its build): a flipped bit would become a
weight.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellline.errors import Caution, UserError
from cellline.host.files import atomic, open_regular, sync_folder
from cellline.host.progress import say
from cellline.runs.predictions import check_belongs
from cellline.runs.run import CHECKPOINTS
from cellline.training.memory import TooLittleMemoryError, explain_full_memory

(NEWEST, PREVIOUS), DAMAGED = CHECKPOINTS, "checkpoint-damaged.pt"


class DamagedError(UserError):
    """A checkpoint no longer holds what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a fold's training after a step."""

    config: dict[str, Any]
    """The run's config.json, which the weights belong to."""
    fold: int
    code: str
    """The version of the program that trained the last step."""
    epoch: int
    """Epochs trained so far."""
    network: dict[str, Tensor]
    """The model: averaged weights with the fold's normalization. `resume` has the raw weights."""
    history: list[dict[str, float]]
    """One row for each epoch."""
    resume: dict[str, Any] | None
    """Everything else that training resumes from; None after its end."""
    precision: str = ""
    """The last step's; empty if an earlier version of the program wrote it."""

    def model_digest(self) -> str:
        """SHA-256 of the model: names and values of its tensors."""
        return digest_values(self.network)


def digest_values(value: Any) -> str:
    """SHA-256 of nested dicts and lists of tensors and plain values, in hexadecimal."""
    whole = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            whole.update(f"{value.dtype} {tuple(value.shape)};".encode())
            whole.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, dict):
            whole.update(f"{len(value)} entries;".encode())
            for key, entry in value.items():
                whole.update(f"{key!r};".encode())
                add(entry)
        elif isinstance(value, list | tuple):
            whole.update(f"{len(value)} items;".encode())
            for entry in value:
                add(entry)
        else:
            whole.update(f"{value!r};".encode())

    add(value)
    return whole.hexdigest()


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the newest checkpoint in `folder`; the one it replaces becomes the previous one."""
    # Not asdict(), which would copy every tensor.
    values = vars(checkpoint)
    with atomic(folder / NEWEST, folder / PREVIOUS) as file:
        try:
            torch.save({**values, "digest": digest_values(values)}, file)
        except RuntimeError as error:
            # After a failed write, on a full disk, torch raises an error about its own state.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint into the CPU's memory. Raises UserError if it is missing or damaged."""
    if not path.exists():
        raise UserError(f"{path} is missing; to train the fold again, move {path.parent} away")
    try:
        with explain_full_memory(), open(path, "rb", opener=open_regular) as file:
            values = torch.load(file, map_location="cpu", weights_only=True)
    except (TooLittleMemoryError, OSError):
        raise  # the file may be intact
    # torch.load raises anything that its unpickler, zip reader or storage meets in a damaged file.
    # It is not quoted: it advises to load objects, which may run code.
    except Exception as error:
        raise damaged(path, "it can't be read") from error
    digest = values.pop("digest", None) if isinstance(values, dict) else None
    if digest is None:
        raise damaged(path, "not written by this program")
    if digest_values(values) != digest:
        raise damaged(path, "its content is not what was written")
    return Checkpoint(**values)


def damaged(path: Path, why: str) -> DamagedError:
    """The error for a checkpoint that can't be used."""
    advice = f"move {path.parent} away to train the fold again"
    if path.name == NEWEST and path.with_name(PREVIOUS).exists():
        advice = f"rerun `train` to resume from {PREVIOUS}, after moving away any oof.npz beside it"
    return DamagedError(f"{path} is damaged ({why}); {advice}")


def put_previous_back(folder: Path) -> None:
    """Undo the first of write_checkpoint's two renames if the process was killed between them."""
    newest, previous = folder / NEWEST, folder / PREVIOUS
    if not newest.exists() and previous.exists():
        previous.replace(newest)
        sync_folder(folder)


def read_newest(folder: Path, config: dict[str, Any], fold: int) -> Checkpoint | None:
    """The checkpoint to resume from; None if there is none yet.

    If the newest is damaged, says so, moves it aside, and puts the previous one in its place.
    Raises UserError if both are damaged, or if it belongs to another run or fold.
    """
    newest, previous = folder / NEWEST, folder / PREVIOUS
    put_previous_back(folder)
    if not newest.exists():
        return None
    try:
        checkpoint = read_checkpoint(newest)
    except DamagedError as error:
        if not previous.exists():
            raise
        checkpoint = read_checkpoint(previous)
        newest.replace(folder / DAMAGED)
        put_previous_back(folder)
        say(Caution(str(error)))
        say(
            f"resuming from the checkpoint before it (epoch {checkpoint.epoch}); the damaged one "
            f"is kept as {folder / DAMAGED}"
        )
    check_belongs(newest, {**checkpoint.config, "fold": checkpoint.fold}, {**config, "fold": fold})
    return checkpoint
