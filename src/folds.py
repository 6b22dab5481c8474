"""make folds: check the input, decode it once, find copies, deal samples into folds."""

from dataclasses import dataclass

from cellline.audit.dealing import Plan, make_folds
from cellline.audit.groups import OverlapMode
from cellline.audit.words import describe_dealt
from cellline.cli import make_command, run_verb
from cellline.config import Config
from cellline.host.progress import say


@dataclass(frozen=True)
class FoldsConfig(Config):
    """Settings of `make folds`."""

    uses = ("input_dir", "oof_dir", "cache_dir", "reading", "image_size", "seed", "recipe")
    folds: int = Plan.n_folds
    """Number of folds (K)."""
    overlaps: OverlapMode = Plan.overlaps
    """auto: keep overlapping crops in one fold, unless labels refute them; off: only copies."""


def main(config: FoldsConfig) -> None:
    """Check the input, decode it once, find copies, and deal the samples into folds."""
    training = config.training
    plan = Plan(config.reading, config.folds, training.seed, config.overlaps, training.image_size)
    for line in describe_dealt(make_folds(config.folders, plan)):
        say(line)
    say(f"next, train every fold:\n  {make_command('train', config)}")


if __name__ == "__main__":
    run_verb(main, FoldsConfig)
