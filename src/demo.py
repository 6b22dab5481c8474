"""make demo: the whole pipeline on a small synthetic competition."""

from dataclasses import dataclass
from pathlib import Path

from cellline.cli import run_verb
from cellline.config import Config, Folders, Training
from cellline.demo import demo


@dataclass(frozen=True)
class DemoConfig:
    """Settings of `make demo`; the defaults take about four minutes on two cores."""

    folder: Path = Path("demo")
    """Where the competition is drawn, and all that is made of it is kept."""
    network: str = "densenet161"
    """See `make train`."""
    epochs: int = 6
    """Of training; a tuning trial takes two."""
    folds: int = 3
    """Number of folds."""
    seed: int = 0
    """Of the drawing, the folds and training."""


def main(config: DemoConfig) -> None:
    """Draw a small competition, then folds, tune, train, submit; score it against the truth."""
    folders = Folders(*(config.folder / name for name in ("input", "oof", "submissions", "cache")))
    training = Training(
        network=config.network, weights="none", epochs=config.epochs, seed=config.seed
    )
    demo(config.folder, Config(folders, training), config.folds, print)


if __name__ == "__main__":
    run_verb(main, DemoConfig)
