"""From trained runs and new images to a table of classes, probabilities and prediction sets."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cellline.audit.copies import find_copies
from cellline.audit.findings import read_findings
from cellline.config import Config
from cellline.data.cache import Images
from cellline.data.unlabelled import open_unlabelled
from cellline.host.device import Device, choose_device
from cellline.host.progress import say
from cellline.predicting.claims import Claims, judge_cultures, rank_claims, read_claims
from cellline.predicting.sets import ERROR, Held, Judged, Sets, fit_sets, judge_sets
from cellline.predicting.unlike import combine_ranks, rank_likeness
from cellline.predicting.words import describe_cultures, describe_likeness, describe_predictions
from cellline.runs.folds import Folds, open_folds
from cellline.runs.predictions import OutOfFold, common_samples
from cellline.runs.run import Run, check_trained, open_runs
from cellline.scoring.decisions import Correction, Decided, fit_correction
from cellline.scoring.metrics import Metric
from cellline.submitting.blend import blend
from cellline.submitting.inference import describe_models, open_model, predict_images
from cellline.submitting.pooling import count_pooled, pool, thin
from cellline.submitting.submission import (
    join_names,
    list_probabilities,
    render_columns,
    write_submission,
)
from cellline.training.checkpoint import Checkpoint

# Between the classes of a set.
BETWEEN = " | "


@dataclass(frozen=True)
class NewImages:
    """New images, and how to decide them."""

    place: Path
    """Folder or archive."""
    pooled: bool = False
    """Decide samples of one picture, found as by `folds`, together."""
    claimed: Path | None = None
    """Table of claimed labels, see `read_claims`."""


@dataclass(frozen=True, eq=False)
class Known:
    """Calibration and sets for new predictions, learnt from out-of-fold ones."""

    correction: Correction
    """Calibrates the blend of the runs; see `calibrate`."""
    sets: Sets
    judged: Judged
    held: Held


def predict(config: Config, names: Sequence[str], new: NewImages, output: Path) -> Path:
    """Predict new images with some runs, write a table to `output`, return its path.

    Raises UserError if a run is missing, of other data or not finished, and for images or claims
    that can't be used.
    """
    related = new.pooled or new.claimed is not None
    folds = open_folds(config.folders, config.reading, for_training=not related)
    classes = folds.competition.classes
    runs = open_runs(config, names, folds)
    check_trained(runs)
    images = open_unlabelled(new.place, folds.competition, config.folders.cache_dir)
    claims = read_claims(new.claimed, images.ids.tolist(), classes) if new.claimed else None
    device = choose_device(config.machine)
    predicted = [predict_new(run, images.pixels, device) for run in runs]
    likeness = combine_ranks([ranks for of in predicted for ranks in of.ranks])
    oof = common_samples([run.oof for run in runs])
    prob, of_oof = np.stack([of.prob for of in predicted]), np.stack([run.prob for run in oof])
    lines: list[str] = []
    if related:
        picture = find_pictures(images.pixels, folds, config.folders.cache_dir)
        lines.append(f"{count_pooled(picture)} of {len(picture)} samples share a picture")
    if new.pooled:
        own = thin(folds.picture[: len(folds.fold)], len(picture))[oof[0].rows]
        prob, of_oof = pool(prob, picture), pool(of_oof, own)
    known = learn(oof[0], blend(of_oof))
    decided = known.correction.apply(blend(prob))
    in_set = known.sets.hold(decided.prob)
    columns = list_columns(classes, decided, in_set, likeness)
    record: dict[str, Any] = {
        "runs": [of.described for of in predicted],
        "input_digest": folds.competition.digest,
        "images_digest": images.digest,
        "correction": asdict(known.correction),
        "sets": {"error": ERROR, **asdict(known.sets), **asdict(known.judged)},
        "pooled": new.pooled,
        "precision": device.precision,
    }
    lines += describe_predictions(classes, decided, in_set, known.sets, known.judged)
    lines.append(describe_likeness(likeness))
    if claims is not None:
        ranks = rank_claims(claims, decided.prob, known.held)
        cultures = list(judge_cultures(claims, decided.prob, ranks, picture, known.held))
        columns |= list_claims(classes, claims, ranks)
        record["claims_digest"] = claims.digest
        record["cultures"] = [of.describe(classes) for of in cultures]
        lines += describe_cultures(classes, cultures)
    name = join_names([new.place.resolve().stem, *(run.name for run in runs)])
    data = render_columns({"id": images.ids.tolist(), **columns})
    path = write_submission(output, name, data, record)
    for line in (*lines, f"wrote {path} ({len(images.ids)} rows)"):
        say(line)
    return path


@dataclass(frozen=True, eq=False)
class Predicted:
    """A run's predictions of new images, and what made them."""

    prob: np.ndarray
    """float32 [n, class], the mean over the folds"""
    ranks: Sequence[np.ndarray]
    """float64 [n] for each fold, see `rank_likeness`"""
    described: dict[str, Any]


def predict_new(run: Run, images: Images, device: Device) -> Predicted:
    """Predict images with every fold of a run."""
    probs, ranks, models = [], [], {}
    for checkpoint, digest in open_models(run):
        models[str(checkpoint.fold)] = digest
        title = f"{run.name}, fold {checkpoint.fold}"
        probs.append(predict_images(checkpoint, images, device, title))
        oof = run.oof.at(run.oof.fold == checkpoint.fold)
        ranks.append(rank_likeness(probs[-1], Held(oof.prob, oof.labels, oof.group)))
    return Predicted(blend(probs), ranks, describe_models(run, models))


def open_models(run: Run) -> Iterator[tuple[Checkpoint, str]]:
    """Yield each finished fold's checkpoint and its model's digest.

    No lock is taken: nobody writes to a finished fold, and `open_model` compares digests.
    """
    for fold in run.finished:
        opened = open_model(run, fold)
        assert opened is not None  # it is finished
        yield opened


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
        Held(calibrated, oof.labels, oof.group),
    )


def calibrate(prob: np.ndarray, labels: np.ndarray, metric: Metric) -> Correction:
    """The correction after which probabilities [n, class] are those that the metric counts by.

    These are of equally frequent classes if every class counts the same, as in balanced accuracy,
    else of classes as frequent as in training. The label is the likeliest class by them.
    """
    fitted = fit_correction(prob, labels)
    divided = 1.0 if metric.balanced else 0.0
    return replace(fitted, prior_share=fitted.prior_share - divided, power=0.0)


def list_columns(
    classes: Sequence[str], decided: Decided, in_set: np.ndarray, likeness: np.ndarray
) -> dict[str, Iterable[object]]:
    """Columns of the table: names, and a value for each sample."""
    named = np.array(classes, dtype=object)
    return {
        "label": named[decided.predicted],
        **list_probabilities(classes, decided.prob),
        "set": (BETWEEN.join(named[of]) for of in in_set),
        "likeness": map("{:.4f}".format, likeness),
        "unlike": mark(likeness <= ERROR),
    }


def list_claims(
    classes: Sequence[str], claims: Claims, ranks: np.ndarray
) -> dict[str, Iterable[object]]:
    """Columns of claimed labels."""
    return {
        "claimed": np.array(classes, dtype=object)[claims.labels],
        "likeness to claim": map("{:.4f}".format, ranks),
        "doubtful": mark(ranks <= ERROR),
    }


def mark(marked: np.ndarray) -> list[str]:
    """Fields of a column that marks some samples, bool [n]."""
    return ["yes" if of else "" for of in marked]
