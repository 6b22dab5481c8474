"""make kaggle: one zip and one notebook, to run the pipeline where there is no network."""

from dataclasses import dataclass
from pathlib import Path

from cellline.cli import run_verb
from cellline.config import Config
from cellline.kaggle.bundle import PYTHONS, build_bundle


@dataclass(frozen=True)
class BundleConfig(Config):
    """Settings of `make kaggle`."""

    uses = ()
    output_dir: Path = Path("dist")
    """Folder for the zip and the notebook."""
    weights_file: Path | None = None
    """ImageNet weights to include, as torchvision publishes them (densenet161-8d451a50.pth)."""
    pythons: tuple[str, ...] = PYTHONS
    """Versions of Python to include wheels for."""


def main(config: BundleConfig) -> None:
    """Build the zip to attach on Kaggle (sources, wheels, weights), and the notebook to import."""
    build_bundle(config.output_dir, config.pythons, config.weights_file)


if __name__ == "__main__":
    run_verb(main, BundleConfig)
