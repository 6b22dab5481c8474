"""make predict: classes of new images, with probabilities and prediction sets."""

from dataclasses import dataclass
from pathlib import Path

from cellline.cli import run_verb
from cellline.config import Config


@dataclass(frozen=True)
class PredictConfig(Config):
    """Settings of `make predict`."""

    uses = ("folders", "run", "device", "precision")
    images: Path | None = None
    """Folder or archive of new images, named by channel as the training images are."""
    runs: tuple[str, ...] = ()
    """Runs to blend; by default --run alone."""
    pooled: bool = False
    """Decide samples of one picture together."""
    claimed: Path | None = None
    """Table of what the samples are claimed to be: id, label and, to judge them together, culture;
    marks samples and cultures that don't look like it."""
    predictions_dir: Path = Path("predictions")
    """Folder for the table."""


def main(config: PredictConfig) -> None:
    """Predict new images with every fold of every run; write a table with a row for each sample."""
    from cellline.errors import UserError
    from cellline.predicting.predict import NewImages, predict

    if config.images is None:
        raise UserError("which images? name a folder or archive: --images PATH")
    runs = config.runs or (config.run,)
    new = NewImages(config.images, config.pooled, config.claimed)
    predict(config, runs, new, config.predictions_dir)


if __name__ == "__main__":
    run_verb(main, PredictConfig)
