"""A fold's history as TensorBoard shows it; only with --tensorboard is anything imported here."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cellline.errors import UserError
from cellline.runs.run_folder import History

# What TensorBoard knows its files by.
EVENTS = "events.out.tfevents."


@contextmanager
def scalars(
    folder: Path, history: History, wanted: bool
) -> Iterator[Callable[[dict[str, float]], None]]:
    """Keep the columns of history.csv in `folder` for TensorBoard, a step an epoch.

    Yields what is to be given each new row of the history. Without `wanted` that does nothing, and
    nothing is imported. The rows that `history` has already are written anew and what earlier
    processes wrote is removed: each may have lost its end when it was killed, or have seen an epoch
    that was not saved and is trained again. Raises UserError where the package is not installed.
    """
    if not wanted:
        yield lambda row: None
        return
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard: the package tensorboard is not installed. Install it,\n"
            f"  {sys.executable} -m pip install tensorboard\n"
            "or leave --tensorboard away: history.csv has the same values"
        )
    # Here, for it takes a second, which nobody else shall wait for.
    from torch.utils.tensorboard import SummaryWriter

    for path in folder.glob(f"{EVENTS}*"):
        path.unlink()
    # A TensorBoard that has read the removed files replaces their steps by those that come again.
    with SummaryWriter(str(folder)) as writer:

        def write(row: dict[str, float]) -> None:
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(row["epoch"]))
            writer.flush()

        for row in history:
            write(row)
        yield write
