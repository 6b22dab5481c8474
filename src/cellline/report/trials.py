"""Trials of the tuning, read from its study."""

from dataclasses import dataclass
from pathlib import Path

from cellline.errors import UserError


@dataclass(frozen=True)
class TrialRow:
    """A trial of the study."""

    number: int
    state: str
    """complete, pruned, fail, running or waiting."""
    lr: float
    batch_size: int
    bac: float | None
    """Held-out, after its last epoch; None if no epoch ended."""
    epochs: int
    """Epochs after which it was scored on the held-out fold."""


@dataclass(frozen=True)
class TuningHistory:
    """The trials, and the fold that scored them."""

    fold: int
    trials: tuple[TrialRow, ...]

    @property
    def looks(self) -> int:
        """Number of trials that were scored on the fold at least once."""
        return sum(trial.epochs > 0 for trial in self.trials)


def read_study(oof_dir: Path, folds_digest: str, where: str | None = None) -> TuningHistory | None:
    """Read the study in the OOF folder, or in the storage `where`; None if it has no trials.

    Raises UserError if it is damaged, can't be reached or is of other folds, or `where` has none.
    """
    # Imported here, because it takes a second.
    from cellline.tuning.storage import JOURNAL, STUDY, load_study, name_storage

    journal = oof_dir / "tuning" / JOURNAL
    if where is None and not journal.exists():
        return None
    name = name_storage(where or str(journal))
    study = load_study(where or str(journal))
    if study is None and where is not None:
        raise UserError(f"there is no study {STUDY} in {name}")
    # A trial that waits, or has just begun, may have no parameters yet.
    drawn = [trial for trial in study.trials if "batch_size" in trial.params] if study else []
    if study is None or not drawn:
        return None
    settings = study.user_attrs["settings"]
    if settings["folds_digest"] != folds_digest:
        raise UserError(
            f"{name} is of other folds ({settings['folds_digest'][:12]}) than there are now "
            f"({folds_digest[:12]}): put the study's own file back, or move it away"
        )
    rows = (
        TrialRow(
            number=trial.number,
            state=trial.state.name.lower(),
            lr=trial.params["lr"],
            batch_size=trial.params["batch_size"],
            bac=trial.value,
            epochs=len(trial.intermediate_values),
        )
        for trial in drawn
    )
    return TuningHistory(settings["fold"], tuple(rows))
