"""A real file system that is small."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(folder: Path, size: str) -> Iterator[Path]:
    """Mount one of so many bytes, such as '4m', at a new folder; skip where that is not allowed."""
    folder.mkdir(parents=True)
    where = str(folder.absolute())
    if shutil.which("mount") is None:
        pytest.skip("needs mount")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: what is mapped from it may not have been let go yet.
        subprocess.run(["umount", "--lazy", where], check=True)
