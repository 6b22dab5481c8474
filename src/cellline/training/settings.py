"""A run's learning rate, batch size and schedule, and where they come from."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cellline.config import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_LR,
    Config,
    MetricName,
    Training,
    list_differences,
)
from cellline.data.competition import Competition
from cellline.errors import Caution, UserError
from cellline.host.files import read_json
from cellline.runs.folds import Folds, check_data
from cellline.runs.run import Fitted, Tuning
from cellline.scoring.metrics import Metric

# A rate that suits one network, its initial weights, image size or optimizer says little about
# another's.
TUNED_FOR = {"network", "weights", "weights_digest", "image_size", "optimizer"}

# The settings that --fit-minutes chooses.
SCHEDULE = ("epochs", "image_size", "start_share")

# In the folder `tuning` under the OOF folder.
BEST = "best.json"


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning: the content of best.json."""

    lr: float
    batch_size: int
    score: float
    """Held-out score after the trial's last epoch."""
    metric: MetricName
    fold: int
    """The fold whose held-out rows scored the trials."""
    trials: int
    """Number of trials they scored."""
    settings: dict[str, Any]
    """The other settings of the trials."""
    input_digest: str
    folds_digest: str
    code: str
    """The version of the program that finished the study, for the record."""
    weights_digest: str | None = None
    """SHA-256 of the file that the trials started from; None from scratch."""


def read_tuned(oof_dir: Path) -> Tuned | None:
    """The result of tuning in an OOF folder; None if there is none, UserError if it is damaged."""
    path = oof_dir / "tuning" / BEST
    return Tuned(**read_json(path)) if path.exists() else None


@dataclass(frozen=True)
class Settled:
    """Training settings with learning rate, batch size and class weights."""

    training: Training
    line: str
    """The values and their sources, for a person."""
    tuning: Tuning | None
    """The tuning that a value was taken from now; None if none was."""


def settle(
    config: Config,
    recorded: dict[str, Any] | None,
    folds: Folds,
    weights_digest: str | None = None,
    fitted: Fitted | None = None,
) -> Settled:
    """Settle a run's learning rate, batch size, class weights and `fitted` schedule.

    The command line decides first, then the run's `recorded` config.json, then a tuning that
    `suits`, then the defaults; for class weights the metric. `weights_digest` is the SHA-256 of the
    file that the run starts from; None from scratch. Raises UserError if that tuning used other
    input or folds, and for --fit-minutes if the run was begun without it.
    """
    training, oof_dir = config.training, config.folders.oof_dir
    found: dict[str, Any] = {"lr": DEFAULT_LR, "batch_size": DEFAULT_BATCH_SIZE}
    source, tuning = "default", None
    if recorded is not None:
        found, source = recorded["settings"], "as the run began"
    elif training.lr is None or training.batch_size is None:
        tuned = read_tuned(oof_dir)
        asked = {**asdict(training), "weights_digest": weights_digest}
        if tuned is not None and suits(tuned, asked, folds.metric):
            found, path = asdict(tuned), oof_dir / "tuning" / BEST
            advice = f"move {path.parent} away, or give --lr and --batch-size"
            check_data(folds, found, f"{path} was tuned", advice)
            source = f"tuned by {tuned.trials} trials on fold {tuned.fold}"
            tuning = Tuning(tuned.fold, tuned.trials)
        elif tuned is not None:
            source = "default; the tuning had other settings or another metric"
    values, sources = {}, {}
    for name in ("lr", "batch_size"):
        given = getattr(training, name)
        values[name] = found[name] if given is None else given
        sources[name] = source if given is None else "given"
    if training.class_weights == "auto" and recorded is not None:
        values["class_weights"] = found["class_weights"]
    else:
        balanced = weighs_classes(training, folds.metric)
        values["class_weights"] = "balanced" if balanced else "none"
    if recorded is not None:
        values |= keep_schedule(config, recorded["settings"], fitted)
    training = replace(training, **values)
    line = (
        f"learning rate {values['lr']:g} ({sources['lr']}), "
        f"batch size {values['batch_size']} ({sources['batch_size']}), "
        f"class weights {values['class_weights']}"
        f"{describe_resizing(training, folds.competition.train_images.shape[2:])}"
    )
    if fitted is not None:
        line += f", {training.epochs} epochs ({describe_fitted(fitted)})"
    return Settled(training, line, tuning)


def keep_schedule(config: Config, found: dict[str, Any], fitted: Fitted | None) -> dict[str, Any]:
    """The recorded settings that --fit-minutes had chosen when the run began.

    A setting that has yet another value now is not restored: `check_unchanged` refuses it. Raises
    UserError for --fit-minutes if the run was begun without it, or with another time.
    """
    given, minutes = vars(config.training), config.machine.fit_minutes
    if minutes is not None and (fitted is None or fitted.minutes != minutes):
        begun = "without it" if fitted is None else describe_fitted(fitted)
        raise UserError(
            f"--fit-minutes {minutes:g}: run {config.run_name} was begun {begun}, with "
            f"{found['epochs']} epochs. Omit it, or begin another run (--run)"
        )
    if fitted is None:
        return {}
    # --epochs can't be given beside --fit-minutes.
    kept = {"epochs"} if minutes is not None else set()
    kept |= {name for name, old in fitted.replaced.items() if given[name] == old}
    return {name: found[name] for name in kept}


def describe_fitted(fitted: Fitted) -> str:
    """Words such as 'from --fit-minutes 60 for 5 folds'."""
    folds = "1 fold" if fitted.n_folds == 1 else f"{fitted.n_folds} folds"
    return f"from --fit-minutes {fitted.minutes:g} for {folds}"


def describe_resizing(training: Training, image_shape: tuple[int, ...]) -> str:
    """', images of 64x80 pixels resized to 64x64, then 96x96', for example; empty if they stay."""
    own = f"{image_shape[1]}x{image_shape[0]}"
    sides = (training.first_size, training.image_size)
    seen = list(dict.fromkeys(f"{side}x{side}" if side else own for side in sides))
    return "" if seen == [own] else f", images of {own} pixels resized to {', then '.join(seen)}"


def describe_enlarging(training: Training, competition: Competition) -> list[Caution]:
    """A Caution if images that were stored smaller than they are would be enlarged again."""
    stored = competition.train_images.shape[-1]
    if not competition.resized or (training.image_size or 0) <= stored:
        return []
    return [
        Caution(
            f"images are stored at {stored} x {stored} pixels: --image-size {training.image_size} "
            f"only enlarges these. To see more detail, deal folds with --image-size "
            f"{training.image_size} into another folder (--oof-dir)"
        )
    ]


def weighs_classes(training: Training, metric: Metric) -> bool:
    """True if the loss weights all classes equally; by default, if the metric does."""
    if training.class_weights == "auto":
        return metric.balanced
    return training.class_weights == "balanced"


def suits(tuned: Tuned, asked: dict[str, Any], metric: Metric) -> bool:
    """True if the tuning was for this metric, and for `asked` in all settings of `TUNED_FOR`."""
    trials = {**tuned.settings, "weights_digest": tuned.weights_digest}
    differing = {name for name, *_ in list_differences(trials, asked)}
    return not differing & TUNED_FOR and tuned.metric == metric.name
