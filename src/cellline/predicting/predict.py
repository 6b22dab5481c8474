"""From trained runs and new images to a table of classes, probabilities and prediction sets."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cellline.audit.copies import find_copies
from cellline.audit.findings import read_findings
from cellline.config import Config
from cellline.data.cache import DecodedSplit, Images
from cellline.data.problems import name_first
from cellline.data.unlabelled import open_unlabelled
from cellline.errors import UserError
from cellline.host.device import Device, choose_device
from cellline.host.files import render_csv
from cellline.host.locking import one_writer
from cellline.host.names import align, name_classes
from cellline.host.progress import say
from cellline.predicting.sets import ERROR, Judged, Sets, fit_sets, judge_sets
from cellline.runs.folds import Folds, open_folds
from cellline.runs.predictions import OutOfFold, common_samples
from cellline.runs.run import Run, open_runs
from cellline.scoring.decisions import Correction, Decided, fit_correction
from cellline.scoring.metrics import Metric
from cellline.scoring.recalls import mean_recall
from cellline.scoring.words import percent, with_interval
from cellline.submitting.blend import blend
from cellline.submitting.inference import describe_models, open_model, predict_images
from cellline.submitting.pooling import count_pooled, pool, thin
from cellline.submitting.submission import DIGITS, join_names, write_submission
from cellline.training.checkpoint import Checkpoint

# Between the classes of a set.
BETWEEN = " | "


@dataclass(frozen=True, eq=False)
class Known:
    """Calibration and sets for new predictions, learnt from out-of-fold ones."""

    correction: Correction
    """Calibrates the blend of the runs; see `calibrate`."""
    sets: Sets
    judged: Judged


def predict(
    config: Config, names: Sequence[str], place: Path, output: Path, pooled: bool = False
) -> Path:
    """Predict the images in `place` with some runs, write a table to `output`, return its path.

    `pooled`: samples of one picture, found as by `folds`, are decided together. Raises UserError if
    a run is missing, of other data or not finished, and for images that can't be used.
    """
    folds = open_folds(config.folders, config.reading, for_training=not pooled)
    runs = open_trained(config, names, folds)
    images = open_unlabelled(place, folds.competition, config.folders.cache_dir)
    device = choose_device(config.machine)
    probs, described = zip(*(predict_new(run, images.pixels, device) for run in runs), strict=True)
    oof = common_samples([run.oof for run in runs])
    prob, of_oof = np.stack(probs), np.stack([run.prob for run in oof])
    lines: list[str] = []
    if pooled:
        picture = find_pictures(images.pixels, folds, config.folders.cache_dir)
        own = thin(folds.picture[: len(folds.fold)], len(picture))[oof[0].rows]
        prob, of_oof = pool(prob, picture), pool(of_oof, own)
        lines.append(f"{count_pooled(picture)} of {len(picture)} samples share a picture")
    known = learn(oof[0], blend(of_oof))
    decided = known.correction.apply(blend(prob))
    held = known.sets.hold(decided.prob)
    data = render_predictions(folds, images, decided, held)
    record: dict[str, Any] = {
        "runs": described,
        "input_digest": folds.competition.digest,
        "images_digest": images.digest,
        "correction": asdict(known.correction),
        "sets": {"error": ERROR, **asdict(known.sets), **asdict(known.judged)},
        "pooled": pooled,
        "precision": device.precision,
    }
    name = join_names([place.resolve().stem, *(run.name for run in runs)])
    path = write_submission(output, name, data, record)
    lines += describe_predictions(folds, decided, held, known)
    for line in (*lines, f"wrote {path} ({len(images.ids)} rows)"):
        say(line)
    return path


def open_trained(config: Config, names: Sequence[str], folds: Folds) -> list[Run]:
    """The runs of these names; see `open_runs`. Raises UserError, too, if a fold is not trained."""
    runs = open_runs(config, names, folds)
    if missing := [run.command(fold) for run in runs for fold in run.missing]:
        raise UserError("these folds are not trained:\n  " + name_first(missing, "\n  "))
    return runs


def predict_new(run: Run, images: Images, device: Device) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities [n, class] of images, the mean over a run's folds, and what made them."""
    probs, models = [], {}
    for fold, checkpoint, digest in open_finished(run, "predicting new images"):
        models[str(fold)] = digest
        probs.append(predict_images(checkpoint, images, device, f"{run.name}, fold {fold}"))
    return blend(probs), describe_models(run, models)


def open_finished(run: Run, doing: str) -> Iterator[tuple[int, Checkpoint, str]]:
    """Yield each finished fold with its checkpoint and its model's digest; `doing` names the work.

    Raises UserError as `open_model` does.
    """
    for fold in run.finished:
        with one_writer(run.fold_folder(fold), doing):
            opened = open_model(run, fold)
        assert opened is not None  # it is finished
        yield fold, *opened


def find_pictures(images: Images, folds: Folds, scratch: Path) -> np.ndarray:
    """First row, int64 [n], of each sample's picture, by the tests that training images passed."""
    strictness = read_findings(folds.record).trust.strictness
    copies = find_copies(images, scratch=scratch, overlaps=strictness is not None)
    return copies.keep(copies.strictness >= (strictness or 0)).group


def learn(oof: OutOfFold, prob: np.ndarray) -> Known:
    """Fit calibration and sets to out-of-fold probabilities [n, class] of the samples of `oof`."""
    correction = calibrate(prob, oof.labels, oof.folds.metric)
    calibrated = correction.apply(prob).prob
    return Known(
        correction,
        fit_sets(calibrated, oof.labels, oof.group),
        judge_sets(calibrated, oof.labels, oof.group, oof.fold),
    )


def calibrate(prob: np.ndarray, labels: np.ndarray, metric: Metric) -> Correction:
    """The correction after which probabilities [n, class] are those that the metric counts by.

    These are of equally frequent classes if every class counts the same, as in balanced accuracy,
    else of classes as frequent as in training. The label is the likeliest class by them.
    """
    fitted = fit_correction(prob, labels)
    divided = 1.0 if metric.balanced else 0.0
    return replace(fitted, prior_share=fitted.prior_share - divided, power=0.0)


def render_predictions(
    folds: Folds, images: DecodedSplit, decided: Decided, held: np.ndarray
) -> bytes:
    """The CSV: a row for each sample in ascending order of ids."""
    classes = np.array(folds.competition.classes, dtype=object)
    header = ("id", "label", *(f"p({name})" for name in classes), "set")
    rows = zip(
        images.ids.tolist(),
        classes[decided.predicted],
        *(map(DIGITS.format, column) for column in decided.prob.T.tolist()),
        (BETWEEN.join(classes[of]) for of in held),
        strict=True,
    )
    return render_csv(header, rows)


def describe_predictions(
    folds: Folds, decided: Decided, held: np.ndarray, known: Known
) -> Iterator[str]:
    """Yield lines: how often each class was predicted, and what the sets promise."""
    classes = name_classes(folds.competition.classes)
    counts = np.bincount(decided.predicted, minlength=len(classes))
    for name, count in zip(align(classes), counts.tolist(), strict=True):
        yield f"{name} {count:7d} {count / max(1, len(held)):7.1%}"
    judged, groups = known.judged, known.sets.groups
    worst = min(range(len(classes)), key=lambda label: judged.coverage[label].value)
    fewest = min(range(len(classes)), key=groups.__getitem__)
    covered = mean_recall(judged.coverage)
    yield (
        f"sets hold {held.sum(axis=1).mean():.2f} classes on average. On held-out samples, sets "
        f"made from the other folds hold {judged.size:.2f}, and the true one in "
        f"{percent(covered.value)} ({classes[worst]}, the lowest: "
        f"{with_interval(judged.coverage[worst])})"
    )
    few = known.sets.thresholds[fewest] == 0
    yield (
        f"the class of the fewest groups is {classes[fewest]}: {groups[fewest]}"
        + (", too few to leave it out of any set" if few else "")
    )
