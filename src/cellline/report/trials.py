"""What `make tune` has tried: read from the study."""

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


def read_study(oof_dir: Path, folds_digest: str, where: str | None = None) -> Study | None:
    """The study in the OOF folder, or in the storage `where`; None when nothing was tried there.

    Raises UserError when it is damaged, can't be reached, or is of other folds than these, and when
    there is none in a storage that was named.
    """
    journal = oof_dir / "tuning" / "journal.log"
    if where is None and not journal.exists():
        return None
    # Imported where they are used: they take a second.
    import optuna

    from cellline.tuning.storage import STUDY, storage_to_read

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with storage_to_read(where or str(journal)) as (name, storage):
        # It is there before the study is in it.
        if STUDY not in [study.study_name for study in storage.get_all_studies()]:
            if where is None:
                return None
            raise UserError(f"there is no study in {name}: is it what make tune was told?")
        study = optuna.load_study(study_name=STUDY, storage=storage)
        settings, found = study.user_attrs.get("settings"), study.trials
    trials = tuple(
        Trial(
            number=trial.number,
            state=trial.state.name.lower(),
            lr=trial.params["lr"],
            batch_size=trial.params["batch_size"],
            bac=trial.value,
            epochs=len(trial.intermediate_values),
        )
        for trial in found
        # One that waits for its turn may have none yet.
        if "batch_size" in trial.params
    )
    if not trials:
        return None
    assert settings is not None
    if settings["folds_digest"] != folds_digest:
        raise UserError(
            f"{name} is of other folds ({settings['folds_digest'][:12]}) than there are now "
            f"({folds_digest[:12]}): put the study's own file back, or move it away"
        )
    return Study(settings["fold"], trials)
