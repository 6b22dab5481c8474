"""make train: train one fold or all, and predict what each held out."""

from dataclasses import dataclass

from cellline.cli import run_verb
from cellline.config import Config
from cellline.training.launching import end_with_parent, launch, launched


@dataclass(frozen=True)
class TrainConfig(Config):
    """Settings of `make train`."""

    uses = ("input_dir", "oof_dir", "cache_dir", "training", "machine", "run", "fold", "recipe")
    gpus: int = 1
    """Number of GPUs (on a CPU: processes) that train each fold together; not for torchrun."""


def main(config: TrainConfig) -> None:
    """Train one fold (--fold) or every fold in turn, and predict the samples that it held out."""
    if launched():
        end_with_parent()
    elif config.gpus > 1:
        launch(config.gpus)
        return
    # Here, so that a mistyped setting need not wait for torch.
    from cellline.training.run import train_run

    train_run(config, config.gpus)


if __name__ == "__main__":
    run_verb(main, TrainConfig)
