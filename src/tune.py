"""make tune: search learning rate and batch size with Optuna."""

from dataclasses import dataclass, fields, replace

from cellline.cli import run_verb
from cellline.config import Config, Training


@dataclass(frozen=True)
class TuneConfig(Config):
    """Settings of `make tune`."""

    uses = (
        *("input_dir", "oof_dir", "cache_dir", "machine", "fold", "recipe"),
        # Of `make train` alone are the epochs.
        *(each.name for each in fields(Training) if each.name != "epochs"),
    )
    trials: int = 20
    """Finished trials that the study should have, including those of earlier calls."""
    tune_epochs: int = 4
    """Epochs of a trial; the learning rate's whole course is fitted into them."""
    storage: str | None = None
    """Storage of the study, see above; by default tuning/journal.log under --oof-dir."""


def main(config: TuneConfig) -> None:
    """Search learning rate and batch size on one held-out fold (--fold, by default 0).

    Several at once, on one machine or many, work at one study. Where they have no OOF folder in
    common, name one --storage to all: the path of a journal file on a disk that they share, or
    the URL of a database, such as postgresql+psycopg://user@host/database. Its password is best
    kept in ~/.pgpass: whoever may list processes sees the URL.
    """
    # Here, so that a mistyped setting need not wait for torch.
    from cellline.tuning.tune import tune_run

    # A trial is a short training: --epochs is for `make train`.
    config = replace(config, training=replace(config.training, epochs=config.tune_epochs))
    tune_run(config, config.trials, config.storage)


if __name__ == "__main__":
    run_verb(main, TuneConfig)
