"""make explain: which channel decides, and where the network looked."""

from dataclasses import dataclass
from pathlib import Path

from cellline.cli import run_verb
from cellline.config import Config


@dataclass(frozen=True)
class ExplainConfig(Config):
    """Settings of `make explain`."""

    uses = ("folders", "run", "device", "precision")
    ids: tuple[str, ...] = ()
    """Training samples to draw a picture of, beside those that the report shows."""
    explanations_dir: Path = Path("explanations")
    """Folder for these pictures."""


def main(config: ExplainConfig) -> None:
    """Measure how much each channel counts and where the network looked, for the report."""
    from cellline.explaining.explain import explain

    explain(config, config.ids, config.explanations_dir)


if __name__ == "__main__":
    run_verb(main, ExplainConfig)
