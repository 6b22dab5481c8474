"""make train: train one fold or all, and predict what each held out."""

from dataclasses import dataclass

from cellline.cli import run_verb
from cellline.config import Config


@dataclass(frozen=True)
class TrainConfig(Config):
    """Settings of `make train`."""


def main(config: TrainConfig) -> None:
    """Train one fold (--fold) or every fold in turn, and predict the samples that it held out."""
    # Here, so that a mistyped setting need not wait for torch.
    from cellline.training.run import train_run

    train_run(config, print)


if __name__ == "__main__":
    run_verb(main, TrainConfig)
