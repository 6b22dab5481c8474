"""Samples to look at: likely label errors, confident errors, the hardest pairs of classes."""

import numpy as np

from cellline.report.content import Block, Grid, Section
from cellline.report.explanations import add_attributions
from cellline.report.label_errors import LabelErrors, find_label_errors
from cellline.report.scores import count_confusions, hardest_pairs
from cellline.report.tiles import describe_colours, make_tile, whole_percent
from cellline.report.words import count
from cellline.runs.explained import read_attributed
from cellline.runs.predictions import OutOfFold
from cellline.runs.run import Run
from cellline.scoring.words import percent, with_interval

# Pictures in a grid: at least two rows of a wide page, and a page below a megabyte.
LABEL_ERRORS, CONFIDENT_ERRORS = 24, 16
PAIRS, EXAMPLES = 4, 8
ATTRIBUTED = (
    " Beside a sample is where the network that held it out looked: the brighter, the more a place "
    "counted, for or against the predicted class, in the colour of the channel that it counted in "
    "(integrated gradients); and each channel's share of it."
)


def samples_section(run: Run) -> Section:
    """Pictures that are worth a look."""
    found = find_label_errors(run.oof.labels, run.oof.prob, run.oof.picture)
    attributions = read_attributed(run, run.finished)
    grids = show_samples(run, found)
    blocks: list[Block] = [add_attributions(grid, run, attributions) for grid in grids]
    cautions = []
    if found is not None:
        summary = describe_label_errors(found)
        if found.evidence:
            cautions.append(summary)
        blocks.insert(0, summary)
    # A network that is never wrong, or too weak to judge labels, may leave nothing to show.
    if blocks:
        beside = ATTRIBUTED if attributions else ""
        blocks.insert(0, describe_colours(run.competition.channels) + beside)
    return Section("samples", "Samples worth a look", blocks, cautions)


def list_shown(run: Run) -> np.ndarray:
    """Rows of the samples that the section shows, int64 [n], ascending."""
    found = find_label_errors(run.oof.labels, run.oof.prob, run.oof.picture)
    rows = [tile.row for grid in show_samples(run, found) for tile in grid.tiles]
    return np.unique(np.array(rows, np.int64))


def show_samples(run: Run, found: LabelErrors | None) -> list[Grid]:
    """Label errors, confident errors, and the pairs of classes that cost the most recall."""
    label_errors = [show_label_errors(run, found)] if found is not None and found.evidence else []
    return [*label_errors, *show_confident_errors(run), *show_pairs(run)]


def describe_label_errors(found: LabelErrors) -> str:
    """Sentences on the label errors, and on samples that could not be judged."""
    if found.evidence:
        text = (
            f"About {len(found.rows)} of {found.n:,} labels may be wrong "
            f"({with_interval(found.rate)})."
        )
    else:
        text = (
            f"No sign of label errors among {found.n:,} labels. Up to {percent(found.rate.high)} "
            "could be wrong without showing, and more if all pictures of a group share the error."
        )
    if found.mixed:
        text += f" {count(found.mixed, 'sample')} in groups whose labels differ are left out."
    return text


def show_label_errors(run: Run, found: LabelErrors) -> Grid:
    """The likeliest label errors."""
    oof, names = run.oof, run.class_names
    tiles = []
    likeliest = list(zip(found.rows, found.suggested, found.score, strict=True))
    for i, k, score in likeliest[:LABEL_ERRORS]:
        words = f"labelled {names[oof.labels[i]]}", f"looks like {names[k]},", whole_percent(score)
        tiles.append(make_tile(run, oof.rows[i], *words))
    note = (
        "The likeliest first, with the probability that the label is wrong. Compare each with "
        "pictures of both classes before you change a label."
    )
    return Grid("Likely label errors", note, tiles)


def surest(oof: OutOfFold, chosen: np.ndarray) -> np.ndarray:
    """The most confident of the samples bool [n] of each picture, most confident first, as rows."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(-oof.prob[rows].max(axis=1), kind="stable")]
    _, first = np.unique(oof.picture[rows], return_index=True)
    picked: np.ndarray = rows[np.sort(first)]
    return picked


def show_confident_errors(run: Run) -> list[Grid]:
    """The samples of which the network is surest, and wrong; nothing without errors."""
    oof, names = run.oof, run.class_names
    tiles = []
    for i in surest(oof, oof.predicted != oof.labels)[:CONFIDENT_ERRORS]:
        words = names[oof.labels[i]], f"taken for {names[oof.predicted[i]]},"
        tiles.append(make_tile(run, oof.rows[i], *words, whole_percent(oof.prob[i].max())))
    note = (
        "One of each picture: a wrong label, an empty or blurred picture, or the network's habit."
    )
    return [Grid("Most confident errors", note, tiles)] if tiles else []


def show_pairs(run: Run) -> list[Grid]:
    """The pairs of classes that cost the most recall."""
    oof, names = run.oof, run.class_names
    confusion = count_confusions(oof)
    grids = []
    for label, taken_for, lost in hardest_pairs(confusion)[:PAIRS]:
        title = (
            f"{names[label]} taken for {names[taken_for]}: "
            f"{count(confusion[label, taken_for], 'sample')}, "
            f"{percent(lost)} of the class"
        )
        rows = surest(oof, (oof.labels == label) & (oof.predicted == taken_for))[:EXAMPLES]
        tiles = [make_tile(run, oof.rows[i], whole_percent(oof.prob[i].max())) for i in rows]
        grids.append(Grid(title, "The most confident first, one of each picture.", tiles))
    return grids
