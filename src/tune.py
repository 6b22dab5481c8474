"""make tune: search learning rate and batch size with Optuna."""

from dataclasses import dataclass, replace

from cellline.cli import run_verb
from cellline.config import Config, check_settings


@dataclass(frozen=True)
class TuneConfig(Config):
    """Settings of `make tune`."""

    trials: int = 20
    """Finished trials that the study shall have, those of earlier calls included."""
    tune_epochs: int = 4
    """Epochs of a trial; the learning rate's whole course is fitted into them."""


def main(config: TuneConfig) -> None:
    """Search learning rate and batch size on one held-out fold (--fold, by default 0)."""
    # Here, so that a mistyped setting need not wait for torch.
    from cellline.tuning import tune_run

    # A trial is a short training: --epochs is for `make train`.
    config = replace(config, training=replace(config.training, epochs=config.tune_epochs))
    check_settings(config)
    tune_run(config, config.trials, print)


if __name__ == "__main__":
    run_verb(main, TuneConfig)
