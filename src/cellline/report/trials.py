"""Trials of the tuning, read from its study."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellline.errors import UserError
from cellline.scoring.metrics import METRICS, Metric

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class TuningHistory:
    """The trials, and what scored them."""

    metric: Metric
    fold: int
    trials: Sequence["FrozenTrial"]
    """Each with parameters lr and batch_size. Its value and intermediate values are held-out
    scores; the value is that of the last epoch, None if no epoch ended."""


def read_study(oof_dir: Path, folds_digest: str, where: str | None = None) -> TuningHistory | None:
    """Read the study in the OOF folder, or in the storage `where`; None if it has no trials.

    Raises UserError if it is damaged, can't be reached or is of other folds, or `where` has none.
    """
    # Imported here, because it takes a second.
    from cellline.tuning.storage import JOURNAL, STUDY, load_study, name_storage

    journal = oof_dir / "tuning" / JOURNAL
    if where is None and not journal.exists():
        return None
    name = name_storage(where or journal)
    study = load_study(where or journal)
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
    return TuningHistory(METRICS[settings["metric"]], settings["fold"], drawn)
