"""The importance of each channel to a run's networks, and where they looked."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cellline.config import Config
from cellline.data.ids import are_numbers, parse_id
from cellline.data.images import name_channel
from cellline.data.problems import name_first
from cellline.errors import UserError
from cellline.explaining.attribution import attribute
from cellline.explaining.importance import permute, predict_permuted
from cellline.explaining.pictures import write_picture
from cellline.host.device import Device, choose_device
from cellline.host.locking import one_writer
from cellline.host.names import align
from cellline.host.progress import progress_bar, say
from cellline.model.views import Predictor
from cellline.report.explanations import name_harm, tabulate_falls
from cellline.report.page import open_finished
from cellline.report.samples import list_shown
from cellline.runs.explained import (
    read_all_permuted,
    read_attributed,
    read_permuted,
    write_attributed,
    write_permuted,
)
from cellline.runs.run import Run
from cellline.submitting.inference import Placed, open_model, place_network
from cellline.training.memory import explain_full_memory


def explain(config: Config, ids: Sequence[str], output: Path) -> list[Path]:
    """Explain a run and print the importance of its channels; return the pictures of `ids`.

    Results are kept in the folds' folders, for the report; those that are there are not computed
    again. Samples that the report shows are explained, too. Pictures are written to `output`.
    Raises UserError as `open_finished` does, and for ids without a prediction.
    """
    run = open_finished(config)
    asked = find_asked(run, ids)
    rows = np.union1d(asked, list_shown(run))
    device = choose_device(config.machine)
    for fold in run.finished:
        explain_fold(run, fold, rows[run.folds.fold[rows] == fold].tolist(), device)
    for line in describe_importance(run):
        say(line)
    attributions = read_attributed(run, run.finished)
    paths = [write_picture(run, row, attributions[row], output) for row in asked.tolist()]
    for path in paths:
        say(f"wrote {path}")
    return paths


def find_asked(run: Run, ids: Sequence[str]) -> np.ndarray:
    """Rows of the training samples with these ids, int64 [n].

    Raises UserError for ids that are not a training sample's, or of a fold that is not finished.
    """
    known = run.competition.train_ids
    row_of = {known_id: row for row, known_id in enumerate(known.tolist())}
    found = {one: row_of.get(parse_id(one, numeric=are_numbers(known))) for one in ids}
    if unknown := [one for one, row in found.items() if row is None]:
        raise UserError(f"--ids: no training samples: {name_first(unknown)}")
    rows = np.array(list(found.values()), np.int64)
    if missing := sorted(set(run.folds.fold[rows].tolist()) - set(run.finished)):
        raise UserError(
            "--ids: only the network that held a sample out explains it; train these folds first:"
            "\n  " + name_first([run.command(fold) for fold in missing], "\n  ")
        )
    return rows


def explain_fold(run: Run, fold: int, rows: Sequence[int], device: Device) -> None:
    """Keep what a fold's network says of its held-out samples, and of `rows` among them."""
    with one_writer(run.fold_folder(fold), "explaining"):
        # A single channel has no other to be compared with.
        permuting = len(run.competition.channels) > 1 and read_permuted(run, fold) is None
        attributions = read_attributed(run, [fold])
        new = [row for row in rows if row not in attributions]
        if not permuting and not new:
            return
        opened = open_model(run, fold)
        assert opened is not None  # it is finished
        placed = place_network(opened[0], run.competition.train_images.shape[1:], device)
        with explain_full_memory():
            if permuting:
                write_permuted(run, fold, permute_channels(run, fold, placed.predictor))
            if new:
                attributions |= attribute_rows(run, fold, new, placed)
                write_attributed(run, fold, attributions)


def permute_channels(run: Run, fold: int, predictor: Predictor) -> np.ndarray:
    """A fold's predictions [channel, held-out row, class] with each channel permuted."""
    images, held_out = run.competition.train_images, run.folds.held_out_rows(fold)
    prob = []
    for number, channel in enumerate(run.competition.channels):
        title = f"{run.name}, fold {fold}, {name_channel(channel)} permuted"
        pairs = held_out, permute(held_out, run.config.training.seed, number)
        with progress_bar(title, len(held_out), "sample") as advance:
            prob.append(predict_permuted(predictor, images, pairs, number, advance))
    return np.stack(prob)


def attribute_rows(
    run: Run, fold: int, rows: Sequence[int], placed: Placed
) -> dict[int, np.ndarray]:
    """Attributions [channel, height, width] to the predicted class, by row."""
    images = run.competition.train_images
    predicted = dict(zip(run.oof.rows.tolist(), run.oof.predicted.tolist(), strict=True))
    found = {}
    with progress_bar(f"{run.name}, fold {fold}, where it looked", len(rows), "sample") as advance:
        for row in rows:
            found[row] = attribute(placed.predictor, images[row], predicted[row], placed.views)
            advance(1)
    return found


def describe_importance(run: Run) -> Iterator[str]:
    """Yield lines: the table of the report, in columns."""
    permuted = read_all_permuted(run)
    if permuted is None:
        yield "a single channel: none to compare it with"
        return
    head, *rows = tabulate_falls(run, permuted)
    metric = run.folds.metric
    yield (
        f"{name_harm(metric)} of {metric.title}, and fall of recalls in points, with a channel "
        "permuted:"
    )
    columns = [align(column) for column in zip(head, *rows, strict=True)]
    yield from ("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
