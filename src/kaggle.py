"""make kaggle: one zip and one notebook, to run the pipeline where there is no network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellline.cli import run_verb
from cellline.config import Config


@dataclass(frozen=True)
class KaggleConfig(Config):
    """Settings of `make kaggle`."""

    uses = ("input_dir", "training", "run", "recipe")
    recipe: Literal["quick", "full"] = "full"
    """Set of defaults that the notebook trains with: full, for Kaggle's GPUs, or quick."""
    output_dir: Path = Path("dist")
    """Folder for the zip and the notebook."""
    pythons: tuple[str, ...] = ("3.11", "3.12", "3.13")
    """Versions of Python to include wheels for: Kaggle's image has 3.12, Colab's 3.13 (September
    2026)."""


def main(config: KaggleConfig) -> None:
    """Pack a zip to attach on Kaggle (sources, wheels, weights), and write a notebook to import.

    The notebook trains with the settings given here, and with those of competition.toml.
    """
    # Here, so that a mistyped setting need not wait for torch.
    from cellline.kaggle.bundle import build_bundle

    build_bundle(config, config.output_dir, config.pythons)


if __name__ == "__main__":
    run_verb(main, KaggleConfig)
