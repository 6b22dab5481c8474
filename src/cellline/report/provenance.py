"""Everything that it takes to repeat the run: settings, digests, versions."""

from cellline.config import flatten
from cellline.data.images import name_channel
from cellline.host.versions import code_version, package_versions
from cellline.report.content import Section, Table
from cellline.runs.run import Run


def settings_section(run: Run) -> Section:
    """Every setting of the run, digests of its data, and versions."""
    settings = flatten(run.settings)
    data = {
        "input": run.competition.digest[:12],
        "folds": run.folds.digest[:12],
        "number of folds": run.folds.n_folds,
        "seed of the folds": run.folds.record["seed"],
        "channels": ", ".join(map(name_channel, run.competition.channels)),
    }
    versions = {"this program": code_version()[:12], **package_versions()}
    tables = []
    for note, column, values in (
        ("Settings of the training.", "setting", settings),
        ("Data. Digests change with any pixel, label or row.", "data", data),
        ("Versions installed where this page was made.", "package", versions),
    ):
        rows = [(k, "not set" if v is None else str(v)) for k, v in values.items()]
        tables.append(Table(note, (column, "value"), rows, text_columns=frozenset({0, 1})))
    return Section("settings", "Settings and versions", tables)
