"""What it takes to have the run again: settings, digests, versions."""

import importlib.metadata
import platform

from cellline.prediction.run_folder import flatten
from cellline.report.content import Section, Table
from cellline.report.run import Run

VERSIONS_OF = (
    "torch",
    "torchvision",
    "numpy",
    "albumentations",
    "optuna",
    "scikit-learn",
    "scipy",
    "matplotlib",
)


def settings_section(run: Run) -> Section:
    """Every setting, and the versions and digests that it takes to have the run again."""
    settings = [
        (name, "not set" if value is None else str(value))
        for name, value in flatten(run.settings).items()
    ]
    made_from = [
        ("input", run.competition.digest[:12]),
        ("folds", run.folds.digest[:12]),
        ("folds' number", str(run.folds.n_folds)),
        ("folds' seed", str(run.record["seed"])),
        ("channels", ", ".join(run.competition.channels)),
    ]
    versions = [("python", platform.python_version())]
    versions += [(package, importlib.metadata.version(package)) for package in VERSIONS_OF]
    both = frozenset({0, 1})
    return Section(
        "settings",
        "Settings and versions",
        [
            Table("What the run was trained with.", ("setting", "value"), settings, both),
            Table(
                "What it was trained on: digests change with any pixel, label or row.",
                ("of", "value"),
                made_from,
                both,
            ),
            Table(
                "What is installed where this page was made.",
                ("package", "version"),
                versions,
                both,
            ),
        ],
    )
