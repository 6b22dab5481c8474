"""make submit: predict the test set with every fold, blend, validate, write."""

from dataclasses import dataclass

from cellline.cli import run_verb
from cellline.config import Config


@dataclass(frozen=True)
class SubmitConfig(Config):
    """Settings of `make submit`."""

    uses = ("folders", "run", "device", "precision")
    runs: tuple[str, ...] = ()
    """Runs to blend; by default --run alone."""
    partial: bool = False
    """Blend the folds that are finished, where some are missing."""


def main(config: SubmitConfig) -> None:
    """Predict the test set with every fold of every run, blend, validate and write the CSV."""
    # Here, so that a mistyped setting need not wait for torch.
    from cellline.submitting.submit import submit

    submit(config, config.runs or (config.run,), config.partial)


if __name__ == "__main__":
    run_verb(main, SubmitConfig)
