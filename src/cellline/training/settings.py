"""Where a run's learning rate and batch size come from."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cellline.config import DEFAULT_BATCH_SIZE, DEFAULT_LR, Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.files import read_json
from cellline.runs.folds import Folds
from cellline.runs.run_folder import Chosen

# A rate that suits one network, its start, image size or optimizer says little about another's.
TUNED_FOR = ("network", "weights", "image_size", "optimizer")


# In the folder `tuning` under the OOF folder.
BEST = "best.json"


@dataclass(frozen=True)
class Tuned:
    """What `make tune` found: the content of best.json."""

    lr: float
    batch_size: int
    bac: float
    """Held-out, after the trial's last epoch."""
    fold: int
    """The fold whose held-out part was looked at."""
    trials: int
    """How many times it was looked at."""
    settings: dict[str, Any]
    """The other settings of the trials."""
    input_digest: str
    folds_digest: str
    code: str
    """The version of the program that finished the study; for the record."""


def read_tuned(oof_dir: Path) -> Tuned | None:
    """What `make tune` left in the OOF folder; None when it has not run.

    Raises UserError when it is damaged.
    """
    path = oof_dir / "tuning" / BEST
    if not path.exists():
        return None
    return Tuned(**read_json(path))


def settle(
    training: Training,
    recorded: dict[str, Any] | None,
    oof_dir: Path,
    competition: Competition,
    folds: Folds,
) -> tuple[Training, str, Chosen | None]:
    """The settings with a learning rate and a batch size, a line that says whence, and the tuning.

    What the command line gives goes first, then what the run's config.json `recorded`, then what
    was tuned and `suits`, then the defaults. The tuning is None where nothing was taken from it
    now. Raises UserError when it was tuned on other input or folds.
    """
    found: dict[str, Any] = {"lr": DEFAULT_LR, "batch_size": DEFAULT_BATCH_SIZE}
    source, chosen = "default", None
    if recorded is not None:
        found, source = recorded["settings"], "as the run began"
    elif training.lr is None or training.batch_size is None:
        tuned = read_tuned(oof_dir)
        if tuned is not None and suits(tuned, training):
            check_data(oof_dir / "tuning" / BEST, tuned, competition, folds)
            found = asdict(tuned)
            source = f"tuned; trials that looked at fold {tuned.fold}: {tuned.trials}"
            chosen = Chosen(tuned.fold, tuned.trials)
        elif tuned is not None:
            source = "default; what was tuned is for other settings"
    settled = replace(
        training,
        lr=found["lr"] if training.lr is None else training.lr,
        batch_size=found["batch_size"] if training.batch_size is None else training.batch_size,
    )

    def whence(given: float | None) -> str:
        return source if given is None else "given"

    line = (
        f"learning rate {settled.lr:g} ({whence(training.lr)}), "
        f"batch size {settled.batch_size} ({whence(training.batch_size)})"
        f"{describe_resizing(training, competition.train_images.shape[2:])}"
    )
    return settled, line, chosen


def describe_resizing(training: Training, image_shape: tuple[int, ...]) -> str:
    """Such as ', images of 64x80 pixels resized to 64x64, then 96x96'; empty if they stay."""
    sides = [training.image_size] if training.image_size else []
    if training.start_size:
        sides.insert(0, training.start_size)
    height, width = image_shape
    if {(side, side) for side in sides} <= {(height, width)}:
        return ""
    resized = ", then ".join(f"{side}x{side}" for side in sides)
    return f", images of {width}x{height} pixels resized to {resized}"


def check_data(path: Path, tuned: Tuned, competition: Competition, folds: Folds) -> None:
    """Raise UserError that names both sides when best.json is of other input or folds."""
    for what, then, now in (
        ("input", tuned.input_digest, competition.digest),
        ("folds", tuned.folds_digest, folds.digest),
    ):
        if then != now:
            raise UserError(
                f"{path} was tuned on other {what} ({then[:12]}) than there is now ({now[:12]}): "
                f"move {path.parent} away, or give --lr and --batch-size"
            )


def suits(tuned: Tuned, training: Training) -> bool:
    """Whether what was tuned is for the same of all settings in `TUNED_FOR`."""
    return all(tuned.settings.get(name) == getattr(training, name) for name in TUNED_FOR)
