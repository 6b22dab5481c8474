"""make demo: the whole pipeline on a small synthetic competition."""

from dataclasses import dataclass, replace
from pathlib import Path

from cellline.cli import run_verb
from cellline.config import Config, Folders


@dataclass(frozen=True)
class DemoConfig(Config):
    """Settings of `make demo`; its folders, weights and image size are its own."""

    uses = ("network", "seed", "device", "precision", "workers", "run")
    demo_dir: Path = Path("demo")
    """Folder of the drawn competition and of all results."""
    folds: int = 3
    """Number of folds (K)."""
    demo_epochs: int = 5
    """Epochs of training; a tuning trial takes two."""


def main(config: DemoConfig) -> None:
    """Draw a small competition, then folds, tune, train, submit; score it against the truth."""
    # Imported here, so that a mistyped setting need not wait for torch.
    from cellline.demo.run import demo

    names = ("input", "oof", "submissions", "cache")
    folders = Folders(*(config.demo_dir / name for name in names))
    # Images keep their drawn size: enlarged they would take twice the time.
    training = replace(
        config.training, weights="none", epochs=config.demo_epochs, image_size=None, start_size=None
    )
    demo(replace(config, folders=folders, training=training), config.folds)


if __name__ == "__main__":
    run_verb(main, DemoConfig)
