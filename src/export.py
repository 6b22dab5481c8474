"""make export: trained runs as one ONNX file and one torch.export archive, or as tables."""

from dataclasses import dataclass
from pathlib import Path

from cellline.cli import run_verb
from cellline.config import Config
from cellline.errors import UserError


@dataclass(frozen=True)
class ExportConfig(Config):
    """Settings of `make export`."""

    uses = ("folders", "run", "device", "precision", "max_minutes")
    runs: tuple[str, ...] = ()
    """Runs to blend; by default --run alone."""
    tables: bool = False
    """Write tables of out-of-fold and test probabilities instead of models."""
    distill: int = 0
    """Epochs in which one network learns to predict as all of them do on average, to be written in
    their place; 0 writes them all. Only this and tables use --device and --precision: models are
    traced on the CPU, in float32."""
    exports_dir: Path = Path("exports")
    """Folder for the files."""


def main(config: ExportConfig) -> None:
    """Write what runs predict with, all folds and views in one file that needs no program of ours.

    With --tables, write what they predicted, for a model that is stacked on it.
    """
    runs = config.runs or (config.run,)
    if config.tables and config.distill:
        raise UserError("--tables and --distill: name one of them")
    if config.tables:
        from cellline.exporting.tables import export_tables

        export_tables(config, runs, config.exports_dir)
    else:  # imports onnxruntime
        from cellline.exporting.models import export_models

        export_models(config, runs, config.exports_dir, config.distill)


if __name__ == "__main__":
    run_verb(main, ExportConfig)
