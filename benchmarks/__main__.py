"""`PYTHONPATH=src python -m benchmarks`, from the folder above this one."""

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
