"""What it takes to have the run again: settings, digests, versions."""

from cellline.config import flatten
from cellline.data.images import name_channel
from cellline.host.versions import code_version, package_versions
from cellline.report.content import Section, Table
from cellline.runs.run import Run


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
        ("folds' seed", str(run.folds.record["seed"])),
        ("channels", ", ".join(map(name_channel, run.competition.channels))),
    ]
    versions = [("this program", code_version()[:12]), *package_versions().items()]
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
