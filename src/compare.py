"""make compare: decide between two runs."""

from dataclasses import dataclass

from cellline.cli import run_verb
from cellline.config import Config
from cellline.host.progress import say
from cellline.report.comparing import compare_runs


@dataclass(frozen=True)
class CompareConfig(Config):
    """Settings of `make compare`."""

    runs: tuple[str, ...] = ()
    """Two runs; the second is compared with the first."""


def main(config: CompareConfig) -> None:
    """Compare two runs, overall and by class, on the held-out samples that both have predicted."""
    for line in compare_runs(config, config.runs).describe():
        say(line)


if __name__ == "__main__":
    run_verb(main, CompareConfig)
