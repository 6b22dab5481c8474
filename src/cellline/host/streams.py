"""The standard streams where they are closed, full, or read by nobody any more."""

import os
import sys
from pathlib import Path
from typing import TextIO


def open_closed() -> None:
    """Open the standard streams that whoever started the process has closed, to nowhere.

    Their numbers must not become those of files of ours, which would then hold what libraries
    print.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # It gets the lowest number that is free: its own.
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115


def silence(stream: TextIO) -> None:
    """Drop what is written to a stream from now on, and what it could not write before."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
