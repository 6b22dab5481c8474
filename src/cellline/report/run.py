"""All that the page tells of: what a run and its input have left on disk, read once."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Config, Folders
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.names import name_classes
from cellline.report.reading import read_test
from cellline.runs.folds import Folds, open_folds, read_record
from cellline.runs.run_folder import (
    Chosen,
    History,
    OutOfFold,
    check_run,
    finished_folds,
    groups_of,
    read_chosen,
    read_out_of_fold,
    read_provenance,
    rows_of,
    run_folder,
    train_command,
)
from cellline.scoring.metrics import (
    Bootstrap,
    Estimate,
    bac_of,
    tally,
)
from cellline.submitting.decision import HeldOut, hold_out


@dataclass(frozen=True, eq=False)
class Run:
    """A run of which one fold or more is finished."""

    folders: Folders
    folder: Path
    settings: dict[str, Any]
    """As in config.json."""
    competition: Competition
    folds: Folds
    record: dict[str, Any]
    """As in folds.json."""
    finished: list[int]
    oof: OutOfFold
    """Of the finished folds."""
    rows: np.ndarray
    """int64 [n]: the competition's rows of the predicted samples."""
    groups: np.ndarray
    """[n], see Folds"""
    bootstrap: Bootstrap
    """One for all that is told of the predicted samples."""
    histories: dict[int, History]
    """Of the finished folds: the rows of history.csv, as the predictions' provenance has them."""
    chosen: Chosen | None
    """The tuning that the learning rate or batch size came from."""
    test: dict[int, np.ndarray]
    """Of the finished folds that `make submit` has seen: probabilities [m, class]."""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes' names as the page shows them; the competition's may be of any length."""
        return name_classes(self.competition.classes)

    @cached_property
    def predicted(self) -> np.ndarray:
        """int64 [n]: the class that each sample was taken for."""
        predicted: np.ndarray = self.oof.prob.argmax(1)
        return predicted

    @cached_property
    def fold(self) -> np.ndarray:
        """int64 [n]: the fold of each predicted sample."""
        fold: np.ndarray = self.folds.fold[self.rows]
        return fold

    @property
    def held_out(self) -> HeldOut:
        """What a decision rule is made from."""
        return hold_out([self.oof], self.competition, self.folds)

    @property
    def missing(self) -> list[int]:
        """The folds that are not finished."""
        return [fold for fold in range(self.folds.n_folds) if fold not in self.finished]

    def bac_on(self, chosen: np.ndarray) -> Estimate:
        """The balanced accuracy on the chosen samples, bool [n], of the classes among them."""
        cells = tally(self.oof.labels, self.predicted, len(self.classes))
        cells[~chosen] = False
        return self.bootstrap.estimate(bac_of, cells)


def open_run(config: Config) -> Run:
    """The run that `config` names.

    Raises UserError for bad input, when there are no folds or no run, when the run is of other
    data, when none of its folds is finished, and when the finished ones lack a class.
    """
    competition, folds = open_folds(config.folders)
    folder = run_folder(config.folders.oof_dir, config.run)
    run_config = check_run(folder, competition, folds)
    finished = finished_folds(folder, folds.n_folds)
    if not finished:
        raise UserError(
            f"no fold of {folder} is finished: there is nothing to report yet; "
            f"{train_command(config.folders, folder.name, 0)} trains the first"
        )
    oof = read_out_of_fold(folder, finished)
    absent = np.setdiff1d(np.arange(len(competition.classes)), oof.labels)
    if len(absent):
        missing = next(fold for fold in range(folds.n_folds) if fold not in finished)
        names = name_classes(competition.classes)
        raise UserError(
            f"what is finished of {folder} holds no sample of "
            f"{', '.join(names[index] for index in absent)}: there is no balanced "
            f"accuracy yet; {train_command(config.folders, folder.name, missing)} trains the next"
        )
    rows, groups = rows_of(oof, competition), groups_of(oof, competition, folds)
    return Run(
        folders=config.folders,
        folder=folder,
        settings=run_config["settings"],
        competition=competition,
        folds=folds,
        record=read_record(config.folders.oof_dir),
        finished=finished,
        oof=oof,
        rows=rows,
        groups=groups,
        bootstrap=Bootstrap(groups),
        histories={
            fold: read_provenance(folder / f"fold{fold}" / "oof.npz")["history"]
            for fold in finished
        },
        chosen=read_chosen(folder),
        test=read_test(folder, finished, run_config, competition),
    )
