"""What `make tune` has tried: read from the study's journal."""

from dataclasses import dataclass
from pathlib import Path

from cellline.errors import UserError


@dataclass(frozen=True)
class Trial:
    """A trial of the study."""

    number: int
    state: str
    """complete, pruned, fail, running or waiting."""
    lr: float
    batch_size: int
    bac: float | None
    """Held-out, after its last epoch; None when it did not come to the end of one."""
    epochs: int
    """How often it was scored on the held-out fold."""


@dataclass(frozen=True)
class Study:
    """The trials, and the fold that scored them."""

    fold: int
    trials: tuple[Trial, ...]

    @property
    def looks(self) -> int:
        """Trials that were scored on the fold once or more."""
        return sum(trial.epochs > 0 for trial in self.trials)


def read_study(oof_dir: Path, folds_digest: str) -> Study | None:
    """The study in the OOF folder; None when nothing was tried there.

    Raises UserError when its journal is damaged, or of other folds than these.
    """
    journal = oof_dir / "tuning" / "journal.log"
    if not journal.exists():
        return None
    # Imported where they are used: they take a second.
    import optuna
    from optuna.storages import JournalStorage

    from cellline.journal import Journal

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(Journal(journal))
    # Optuna makes the file before the study.
    if not storage.get_all_studies():
        return None
    study = optuna.load_study(study_name=None, storage=storage)
    trials = tuple(
        Trial(
            number=trial.number,
            state=trial.state.name.lower(),
            lr=trial.params["lr"],
            batch_size=trial.params["batch_size"],
            bac=trial.value,
            epochs=len(trial.intermediate_values),
        )
        for trial in study.trials
        # One that waits for its turn has none yet.
        if "batch_size" in trial.params
    )
    if not trials:
        return None
    settings = study.user_attrs["settings"]
    if settings["folds_digest"] != folds_digest:
        raise UserError(
            f"{journal} is of other folds ({settings['folds_digest'][:12]}) than there are now "
            f"({folds_digest[:12]}): put the study's own file back, or move {journal.parent} away"
        )
    return Study(settings["fold"], trials)
