"""make compare: decide between two runs."""

from dataclasses import dataclass

from cellline.cli import run_verb
from cellline.config import Config
from cellline.host.progress import render
from cellline.report.comparing import compare_runs
from cellline.scoring.leaderboard import PUBLIC_SHARE


@dataclass(frozen=True)
class CompareConfig(Config):
    """Settings of `make compare`."""

    uses = ("input_dir", "oof_dir", "cache_dir")
    runs: tuple[str, ...] = ()
    """Two runs; the second is compared with the first."""
    seeds: int = 1
    """Runs a side: run a, and runs of the same settings with the next seeds, named a-seed1 etc."""
    public_share: float = PUBLIC_SHARE
    """Share of the test samples that the public leaderboard scores."""


def main(config: CompareConfig) -> None:
    """Compare two runs, overall and by class, on the held-out samples that both have predicted."""
    for line in compare_runs(config, config.runs, config.seeds, config.public_share).describe():
        print(render(line))


if __name__ == "__main__":
    run_verb(main, CompareConfig)
