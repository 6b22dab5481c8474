"""A run: one configuration, trained on all folds, and everything that it has on disk.

`oof/<run>/` holds `config.json`, `tuned.json` if settings came from a tuning, `fitted.json` if they
were chosen to fit a time, and for each fold `fold<k>/` with checkpoints, `history.csv`,
`clock.json`, `oof.npz` and `test.npz`, and `permuted.npz` and `attributed.npz` of `explain`.
Networks that were distilled from it are in `distilled-<digest>/`, its page is `report.html`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cellline.cli import make_command
from cellline.config import Augmentation, Config, Training, describe_differences
from cellline.data.competition import Competition
from cellline.data.problems import name_first
from cellline.errors import UserError
from cellline.host.files import read_json, write_json
from cellline.host.locking import one_writer
from cellline.host.names import name_classes, shorten_name
from cellline.host.progress import say
from cellline.runs.folds import (
    FOLDS,
    PAIRS,
    RECORD,
    Folds,
    check_data,
    find_dependents,
    keep_folds,
)
from cellline.runs.predictions import (
    OutOfFold,
    check_belongs,
    read_history,
    read_out_of_fold,
    read_provenance,
)
from cellline.scoring.metrics import METRICS, Metric

# The rows of a fold's history.csv.
History = list[dict[str, float]]

# Other names in the OOF folder.
RESERVED = ("audit", "tuning", FOLDS, PAIRS, RECORD)
# The names of a fold's checkpoint that can be resumed from.
CHECKPOINTS = ("checkpoint.pt", "checkpoint-previous.pt")
# Bytes of a run's name, which becomes part of other files' names.
LONGEST_NAME = 100


@dataclass(frozen=True)
class Tuning:
    """The tuning that chose a run's learning rate or batch size: the content of tuned.json."""

    fold: int
    """The fold whose held-out part scored the trials."""
    trials: int
    """Number of trials it scored."""


@dataclass(frozen=True)
class Fitted:
    """The choice of a run's schedule by `--fit-minutes`: the content of fitted.json."""

    minutes: float
    """The time that was given."""
    n_folds: int
    """Number of folds that it was for."""
    replaced: dict[str, Any]
    """The values on the command line that the chosen schedule replaced, by name."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run and its files, opened and checked in this one place."""

    config: Config
    """The run's name, its folders and its training settings."""
    folds: Folds
    record: dict[str, Any]
    """The content of config.json: settings, metric, classes, channels, digests of weights, input
    and folds."""

    @property
    def name(self) -> str:
        """The name of the run and of its folder."""
        return self.config.run

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.config.folders.oof_dir / self.name

    @property
    def competition(self) -> Competition:
        """The competition that the folds divide."""
        return self.folds.competition

    @property
    def metric(self) -> Metric:
        """The metric that the run was trained under, which its histories are of."""
        return METRICS[self.record["metric"]]

    @property
    def settings(self) -> dict[str, Any]:
        """The training settings as config.json records them, with the digest of the weights."""
        return {**self.record["settings"], "weights_digest": self.record.get("weights_digest")}

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Class names shortened for display; the competition's own may have any length."""
        return name_classes(self.competition.classes)

    @property
    def finished(self) -> list[int]:
        """The trained folds: those with out-of-fold predictions, which are written last."""
        return [fold for fold in self.folds.numbers if self.oof_path(fold).exists()]

    @property
    def missing(self) -> list[int]:
        """The folds that are not finished."""
        return [fold for fold in self.folds.numbers if not self.oof_path(fold).exists()]

    @property
    def begun(self) -> list[int]:
        """The folds that have a checkpoint."""
        return [
            fold
            for fold in self.folds.numbers
            if any((self.fold_folder(fold) / name).exists() for name in CHECKPOINTS)
        ]

    def fold_folder(self, fold: int) -> Path:
        """The folder of a fold."""
        return self.folder / f"fold{fold}"

    def oof_path(self, fold: int) -> Path:
        """The file with the out-of-fold predictions of a fold."""
        return self.fold_folder(fold) / "oof.npz"

    def clock_path(self, fold: int) -> Path:
        """The file that says when a fold's training ended, how long it took, and on which device.

        Folds of earlier versions lack it.
        """
        return self.fold_folder(fold) / "clock.json"

    def provenance(self, fold: int) -> dict[str, Any]:
        """The origin that every file of a fold must record."""
        return {**self.record, "fold": fold}

    def out_of_fold(self, folds: Sequence[int]) -> OutOfFold:
        """Predictions of some finished folds.

        Raises UserError for a file that is damaged, or of another run, fold or data.
        """
        return read_out_of_fold(
            [self.oof_path(fold) for fold in folds],
            [self.provenance(fold) for fold in folds],
            self.folds,
        )

    @cached_property
    def oof(self) -> OutOfFold:
        """Predictions of all finished folds; see `out_of_fold`."""
        return self.out_of_fold(self.finished)

    @cached_property
    def histories(self) -> dict[int, History]:
        """The history of each finished fold, as its predictions recorded it."""
        return {fold: read_history(self.oof_path(fold)) for fold in self.finished}

    @property
    def tuning(self) -> Tuning | None:
        """The tuning that settings came from; None if none did."""
        path = self.folder / "tuned.json"
        return Tuning(**read_json(path)) if path.exists() else None

    def command(self, fold: int | None = None, processes: int = 1, *, begun: bool = True) -> str:
        """The command that trains a fold, or every missing fold, with the run's settings."""
        return make_command("train", replace(self.config, fold=fold), processes, begun=begun)

    def check_unchanged(self) -> None:
        """Raise UserError that names what differs if the run was begun with another config.

        A lost config.json is restored if the finished folds agree with this one.
        """
        recorded = read_record(self.folder)
        if recorded is None:
            for fold in self.finished:
                path = self.oof_path(fold)
                check_belongs(path, read_provenance(path), self.provenance(fold))
            if self.finished:
                self.begin()
        elif differences := describe_differences(recorded, self.record):
            raise UserError(
                f"{self.folder} was begun with other settings: {differences}. Give those again, "
                "or another name (--run)"
            )

    def begin(self, tuning: Tuning | None = None, fitted: Fitted | None = None) -> None:
        """Write config.json unless it exists; before it tuned.json and fitted.json, if given.

        Raises UserError if the run was begun with another config, even by another process now, or
        if other folds have been dealt meanwhile.
        """
        if read_record(self.folder) is not None:
            self.check_unchanged()
            return
        # Folds of one run may start at once: each of them holds the locks only for a moment.
        with (
            keep_folds(self.config.folders.oof_dir, self.folds, wait=10),
            one_writer(self.folder, "beginning a run", wait=10),
        ):
            if read_record(self.folder) is None:
                if tuning is not None:
                    write_json(self.folder / "tuned.json", asdict(tuning))
                # One that is there was left by a process that was killed here.
                (self.folder / "fitted.json").unlink(missing_ok=True)
                if fitted is not None:
                    write_json(self.folder / "fitted.json", asdict(fitted))
                write_json(self.folder / "config.json", self.record)
            else:
                self.check_unchanged()


def new_run(config: Config, folds: Folds, weights_digest: str | None = None) -> Run:
    """The run that these settings make; nothing is written.

    `weights_digest` is the SHA-256 of the file that it starts from; None from scratch. Raises
    UserError for a name that can't be a folder's.
    """
    config = replace(config, run=config.run_name)
    run_folder(config)
    competition = folds.competition
    record = {
        "settings": asdict(config.training),
        "weights_digest": weights_digest,
        "metric": competition.metric,
        "classes": list(competition.classes),
        "channels": list(competition.channels),
        "input_digest": competition.digest,
        "folds_digest": folds.digest,
    }
    return Run(config, folds, record)


def open_run(config: Config, folds: Folds) -> Run:
    """The run that `config` names, with the settings that it was begun with.

    Raises UserError if there is none, or if it is of other data, folds or program settings; see
    also `find_run`.
    """
    config = replace(config, run=config.run or find_run(config))
    folder = run_folder(config)
    record = read_record(folder)
    if record is None:
        raise UserError(f"no run in {folder}: train it first,\n  {make_command('train', config)}")
    advice = "train it again under another name (--run)"
    check_data(folds, record, f"{folder} was trained", advice)
    return Run(replace(config, training=read_training(record)), folds, record)


def find_run(config: Config) -> str:
    """Name of the run to open where none is named: that of the settings, else the only one.

    Raises UserError that lists the runs if there are others, but more than one.
    """
    name, oof_dir = config.run_name, config.folders.oof_dir
    there = list_runs(oof_dir)
    if name in there or not there:
        return name
    if len(there) > 1:
        raise UserError(
            f"there is no run {name} in {oof_dir}, but {name_first(there)}: name one (--run)"
        )
    say(f"run {there[0]}, the only one in {oof_dir}")
    return there[0]


def list_runs(oof_dir: Path) -> list[str]:
    """Names of the runs in an OOF folder."""
    return [name for name in find_dependents(oof_dir) if name not in RESERVED]


def open_runs(config: Config, names: Sequence[str], folds: Folds) -> list[Run]:
    """The runs of these names, each once; see `open_run`."""
    return [open_run(replace(config, run=name), folds) for name in dict.fromkeys(names)]


def check_trained(runs: Sequence[Run], advice: str = "") -> None:
    """Raise UserError that gives the commands to train the folds that are not finished."""
    if missing := [run.command(fold) for run in runs for fold in run.missing]:
        raise UserError("these folds are not trained:\n  " + name_first(missing, "\n  ") + advice)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The content of a run's config.json; None if the run has not begun."""
    path = folder / "config.json"
    return read_json(path) if path.exists() else None


def read_fitted(folder: Path) -> Fitted | None:
    """The choice of a run's schedule by `--fit-minutes`; None if that did not choose it."""
    path = folder / "fitted.json"
    begun = read_record(folder) is not None
    return Fitted(**read_json(path)) if begun and path.exists() else None


def read_training(record: dict[str, Any]) -> Training:
    """The settings that a config.json records."""
    settings = record["settings"]
    return Training(**{**settings, "augmentation": Augmentation(**settings["augmentation"])})


def run_folder(config: Config) -> Path:
    """The folder of the run that `config` names; it need not exist yet.

    Raises UserError for a name that is not a plain folder name, and if a link or file is in its
    place.
    """
    name = config.run_name
    plain = all(character.isalnum() or character in "._-" for character in name)
    if (
        not (name and plain)
        or name[0] in ".-"
        or name[-1] == "."
        or name.lower() in RESERVED
        or len(name.encode()) > LONGEST_NAME
    ):
        raise UserError(
            f"--run {shorten_name(name)!r}: the name may hold letters, digits, '.', '_' and '-', "
            f"must not begin with '.' or '-' nor end with '.', and has at most {LONGEST_NAME} "
            f"bytes; {', '.join(RESERVED)} are taken"
        )
    folder = config.folders.oof_dir / name
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        kind = "a link" if folder.is_symlink() else "a file"
        raise UserError(
            f"{folder} is {kind}, but the run needs a folder of its own there: move it away, or "
            "give the run another name (--run)"
        )
    return folder


def last_score(history: History, metric: Metric) -> str:
    """Words for the last epoch's score, such as 'held-out BAC 61.2 % after epoch 3'."""
    last = history[-1]
    score = metric.show(last["held_out_score"])
    return f"held-out {metric.title} {score} after epoch {last['epoch']:.0f}"


def best_epoch(history: History, metric: Metric) -> dict[str, float]:
    """The epoch with the best held-out score, the first of several."""
    return max(history, key=lambda row: metric.utility(row["held_out_score"]))
