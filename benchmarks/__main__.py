"""`python -m benchmarks`, from the folder above this one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import tyro

from benchmarks.bench import Bench, bench
from cellline.cli import end
from cellline.errors import UserError

if __name__ == "__main__":
    settings = tyro.cli(Bench, description=bench.__doc__)
    try:
        bench(settings, print)
    except UserError as error:
        end(2, f"error: {error}")
