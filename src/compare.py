"""make compare: say whether one run is better than another."""

from dataclasses import dataclass

from cellline.cli import run_verb
from cellline.config import Config
from cellline.report.comparing import compare_runs


@dataclass(frozen=True)
class CompareConfig(Config):
    """Settings of `make compare`."""

    runs: tuple[str, ...] = ()
    """The two runs: is the second better than the first?"""


def main(config: CompareConfig) -> None:
    """Compare two runs on the held-out samples that both have predicted, overall and by class."""
    compare_runs(config, config.runs, print)


if __name__ == "__main__":
    run_verb(main, CompareConfig)
