"""The report's section on the importance of each channel, and where the networks looked."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cellline.cli import make_command
from cellline.data.colours import colour
from cellline.data.images import name_channel
from cellline.report.content import Figure, Grid, Section, Table, Tile
from cellline.report.figures import draw_intervals
from cellline.report.scores import in_words
from cellline.report.tiles import encode, whole_percent
from cellline.report.words import name_folds
from cellline.runs.explained import Permuted, read_all_permuted, read_attributed
from cellline.runs.run import Run
from cellline.scoring.metrics import Metric
from cellline.scoring.words import points

# Pixels beside each other get attributions of both signs: smoothed, places show, not pixels. A
# deviation of 1/32 of the side is 2 of 64 pixels.
SMOOTHING = 1 / 32
# This share of the pixels reaches the brightest colour, so that a single one dims no picture.
BRIGHTEST = 0.005


def explanations_section(run: Run) -> Section:
    """The importance of each channel; without it, how to get it."""
    title = "What the network relies on"
    permuted = read_all_permuted(run)
    if permuted is None:
        if len(run.competition.channels) == 1 and read_attributed(run, run.finished):
            return Section("explanations", title, [])  # there is no other to compare it with
        command = make_command("explain", run.config)
        text = f"Which channel decides, and where the network looked, is not known yet: {command}"
        return Section("explanations", title, [text])
    metric = run.folds.metric
    names = map(name_channel, run.competition.channels)
    falls = {name: fall.gain for name, fall in zip(names, permuted.falls, strict=True)}
    unit, factor = (", points", 100) if metric.is_share else ("", 1)
    figure = Figure(
        "Importance of each channel",
        f"The {name_harm(metric)} of {metric.title} if a channel is permuted: each held-out sample "
        f"of {name_folds(sorted(set(permuted.oof.fold.tolist())))} gets it from another, and keeps "
        "its other channels (one view, each sample decided by itself). An interval that includes 0 "
        "shows no use of the channel. Channels that carry the same information can replace each "
        "other, so falls do not add up.",
        draw_intervals(
            "channels", falls, f"{name_harm(metric)} of {metric.title}{unit}", 0, factor
        ),
        in_words(falls, metric.show_gain),
    )
    head, *rows = tabulate_falls(run, permuted)
    note = (
        f"The first row is {metric.title}, the others are recalls, in points. A class that odd "
        "images fall into keeps its recall, however much it needs the channel. Intervals count "
        "groups of related pictures, and are paired; they leave out other permutations."
    )
    return Section("explanations", title, [figure, Table(note, head, rows)])


def name_harm(metric: Metric) -> str:
    """Word for a change of the metric to the worse."""
    return "fall" if metric.higher_is_better else "rise"


def tabulate_falls(run: Run, permuted: Permuted) -> list[Sequence[str]]:
    """Head and rows: the fall of the metric, then of each class's recall; a column a channel."""
    metric = run.folds.metric
    head = ["", *map(name_channel, run.competition.channels)]
    first = [metric.title, *(metric.show_gain(fall.gain) for fall in permuted.falls)]
    return [
        head,
        first,
        *(
            [name, *(points(fall.recalls[label]) for fall in permuted.falls)]
            for label, name in enumerate(run.class_names)
        ),
    ]


def share_channels(attribution: np.ndarray) -> np.ndarray:
    """Share of each channel, float [channel], in the absolute attribution [channel, y, x]."""
    total = np.abs(attribution).sum(axis=(1, 2))
    # 0 where a network ignores the image, or sees the baseline itself.
    shares: np.ndarray = total / max(total.sum(), np.finfo(np.float32).tiny)
    return shares


def smooth(attribution: np.ndarray) -> np.ndarray:
    """Attributions [channel, height, width] smoothed and scaled to at most 1, for display."""
    # Imported here, because it takes time.
    from scipy.ndimage import gaussian_filter

    sigma = SMOOTHING * max(attribution.shape[1:])
    smoothed = gaussian_filter(attribution, (0, sigma, sigma))
    bright = np.quantile(np.abs(smoothed), 1 - BRIGHTEST)
    scaled: np.ndarray = np.clip(smoothed / max(bright, np.finfo(np.float32).tiny), -1, 1)
    return scaled


def add_attribution(tile: Tile, run: Run, attribution: np.ndarray) -> Tile:
    """A sample's tile with a second picture: where its network looked, and in which channel."""
    channels = run.competition.channels
    # Places that count for and against cancel if they are not made positive before. The square
    # darkens what counts little: many places do.
    strength = np.rint(255 * smooth(np.abs(attribution)) ** 2).astype(np.uint8)
    named = zip(map(name_channel, channels), share_channels(attribution), strict=True)
    shares = ", ".join(f"{name} {whole_percent(share)}" for name, share in named)
    return replace(tile, beside=encode(colour(strength, channels)), caption=(*tile.caption, shares))


def add_attributions(grid: Grid, run: Run, attributions: dict[int, np.ndarray]) -> Grid:
    """A grid whose tiles have the attributions that there are, by row."""
    tiles = [
        add_attribution(tile, run, attributions[tile.row]) if tile.row in attributions else tile
        for tile in grid.tiles
    ]
    return replace(grid, tiles=tiles)
