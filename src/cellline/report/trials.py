"""What `make tune` has tried: read from the study's journal."""

from dataclasses import dataclass
from pathlib import Path

from cellline.training.settings import Tuned, read_tuned


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
    best: Tuned | None
    """What was found; None when the first call of `make tune` has not come to its end."""

    @property
    def looks(self) -> int:
        """Trials that were scored on the fold once or more."""
        return sum(trial.epochs > 0 for trial in self.trials)


def read_study(oof_dir: Path) -> Study | None:
    """The study in the OOF folder; None when nothing was tried there."""
    journal = oof_dir / "tuning" / "journal.log"
    if not journal.exists():
        return None
    # Imported where they are used: they take a second.
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(str(journal)))
    )
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
    return Study(study.user_attrs["settings"]["fold"], trials, read_tuned(oof_dir))
