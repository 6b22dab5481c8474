"""Everything that it takes to repeat the run: settings, digests, versions."""

from cellline.config import flatten
from cellline.data.images import name_channel
from cellline.host.files import read_json
from cellline.host.progress import duration
from cellline.host.versions import code_version, package_versions
from cellline.report.content import Section, Table
from cellline.runs.run import Run


def settings_section(run: Run) -> Section:
    """Every setting of the run, digests of its data, and versions."""
    settings = flatten(run.settings)
    data = {
        "metric": run.folds.metric.title,
        "input": run.competition.digest[:12],
        "folds": run.folds.digest[:12],
        "number of folds": run.folds.n_folds,
        "seed of the folds": run.folds.record["seed"],
        "channels": ", ".join(map(name_channel, run.competition.channels)),
    }
    versions = {"this program": code_version()[:12], **package_versions()}
    tables = show_training(run)
    for note, column, values in (
        ("Settings of the training.", "setting", settings),
        ("Data. Digests change with any pixel, label or row.", "data", data),
        ("Versions installed where this page was made.", "package", versions),
    ):
        rows = [(k, "not set" if v is None else str(v)) for k, v in values.items()]
        tables.append(Table(note, (column, "value"), rows, text_columns=frozenset({0, 1})))
    return Section("settings", "Settings and versions", tables)


def show_training(run: Run) -> list[Table]:
    """End, duration and device of each finished fold's training; empty if not recorded."""
    rows = []
    for fold in run.finished:
        path = run.clock_path(fold)
        if path.exists():
            clock = read_json(path)
            many = f", {clock['processes']} together" if clock["processes"] > 1 else ""
            took = duration(clock["seconds"])
            rows.append((f"fold {fold}", clock["ended"], took, clock["device"] + many))
    head = ("", "ended", "took", "device")
    note = "The training of each fold."
    return [Table(note, head, rows, text_columns=frozenset(range(4)))] if rows else []
