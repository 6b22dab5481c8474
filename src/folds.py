"""make folds: check the input, decode it once, find copies, deal samples into folds."""

from dataclasses import dataclass

from cellline.audit.dealing import make_folds
from cellline.cli import run_verb
from cellline.config import Config


@dataclass(frozen=True)
class FoldsConfig(Config):
    """Settings of `make folds`."""

    folds: int = 5
    """Number of folds (K)."""
    channels: tuple[str, ...] = ("blue", "red", "yellow")
    """Channels as image files' names end, in the order that the network sees; "" for <id>.png."""
    ignore_groups: bool = False
    """Deal copies and overlaps apart, to measure the leak and for nothing else: scores flatter."""


def main(config: FoldsConfig) -> None:
    """Check the input, decode it once, find copies, and deal the samples into folds."""
    seed = config.training.seed
    for line in make_folds(
        config.folders, config.channels, config.folds, seed, ignore_groups=config.ignore_groups
    ):
        print(line, flush=True)


if __name__ == "__main__":
    run_verb(main, FoldsConfig)
