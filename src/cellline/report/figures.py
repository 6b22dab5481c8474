"""The page's figures. Colour alone carries no meaning: lines are dashed, markers differ."""

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from cellline.host.names import shorten_name
from cellline.report.svg import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, draw
from cellline.runs.run import Run, best_epoch
from cellline.scoring.bootstrap import Estimate
from cellline.scoring.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cellline.report.trials import TuningHistory

# Inches: a row of `draw_intervals`, and its axis.
ROW, AROUND_ROWS = 0.26, 0.7
# Columns of a name beside a row: even of the widest letters, they leave room for the intervals.
LONGEST = 22


def axis_of(metric: Metric) -> tuple[str, float]:
    """Label of an axis of scores, and the factor that they are multiplied by."""
    return (f"{metric.title}, %", 100) if metric.is_share else (metric.title, 1)


def draw_intervals(
    name: str,
    rows: Mapping[str, Estimate],
    axis: str,
    line: float,
    factor: float = 100,
) -> str:
    """A row for each named estimate: a dot with its 95 % interval; and a dashed line at a value.

    Estimates and line are multiplied by `factor`.
    """

    def paint(axes: "Axes") -> None:
        at = np.arange(len(rows))
        value, low, high = factor * np.array([(x.value, x.low, x.high) for x in rows.values()]).T
        axes.hlines(at, low, high, colors=BLUE, linewidth=1.6)
        axes.plot(value, at, "o", color=BLUE, markersize=5.5)
        axes.axvline(factor * line, color=INK, linewidth=1, linestyle="--")
        axes.set_yticks(at, [shorten_name(row, LONGEST) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(axis)

    return draw(name, paint, AROUND_ROWS + ROW * len(rows))


def legend_above(axes: "Axes") -> None:
    """A legend that covers nothing, in columns; the figure's, as axes may be narrower."""
    axes.figure.legend(loc="outside upper center", ncols=3, columnspacing=1.2, borderaxespad=0.2)


def draw_curves(run: Run, what: str, axis: str, factor: float = 1) -> str:
    """`train_<what>` and `held_out_<what>` of every finished fold by epoch, a colour for each fold.

    For "score" also the best epoch and the level of guessing. A dotted line marks the epoch after
    which images are larger. Values are multiplied by `factor`.
    """
    from matplotlib.ticker import MaxNLocator

    def paint(axes: "Axes") -> None:
        # Six markers beside five colours tell thirty folds apart.
        styles = zip(cycle((BLUE, ORANGE, GREEN, PURPLE, INK)), cycle("os^vPX"))
        for (fold, history), (colour, marker) in zip(run.histories.items(), styles, strict=False):
            epochs = [row["epoch"] for row in history]
            train = [factor * row[f"train_{what}"] for row in history]
            held_out = [factor * row[f"held_out_{what}"] for row in history]
            # One epoch makes no line.
            axes.plot(epochs, train, "." if len(epochs) == 1 else "--", color=colour, lw=1, ms=3)
            axes.plot(epochs, held_out, f"{marker}-", color=colour, ms=4, label=f"fold {fold}")
            axes.lines[-1].set_markevery(max(1, len(epochs) // 8))
            if what == "score":
                best = best_epoch(history, run.metric)
                x, y = best["epoch"], factor * best["held_out_score"]
                axes.plot(x, y, "D", color=colour, ms=9, mfc="none", mew=1.4)
        axes.plot([], [], "-", color=MUTED, label="held out")
        axes.plot([], [], "--", color=MUTED, lw=1, label="training")
        if what == "score":
            axes.plot([], [], "D", color=MUTED, ms=8, mfc="none", mew=1.4, label="best epoch")
            chance = factor * run.metric.guess(run.oof.labels)
            axes.axhline(chance, color=MUTED, lw=1, ls="-.", label="guessing")
        training = run.config.training
        if training.first_epochs and training.first_size != training.image_size:
            after = training.first_epochs + 0.5
            axes.axvline(after, color=MUTED, lw=1, ls=":", label="larger images")
        axes.set_xlabel("epoch")
        axes.set_ylabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_above(axes)

    return draw(what, paint)


def draw_trials(name: str, study: "TuningHistory") -> str:
    """Score of trials by learning rate; a marker for each batch size, hollow for pruned trials."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    trials = study.trials
    axis, factor = axis_of(study.metric)

    def paint(axes: "Axes") -> None:
        styles = [(BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (INK, "v")]
        sizes = sorted({trial.params["batch_size"] for trial in trials})
        for size, (colour, marker) in zip(sizes, cycle(styles), strict=False):
            for trial in trials:
                if trial.params["batch_size"] == size and trial.value is not None:
                    x, y = trial.params["lr"], factor * trial.value
                    face = colour if trial.state.name == "COMPLETE" else "none"
                    axes.plot(x, y, marker, color=colour, markerfacecolor=face)
            axes.plot([], [], marker, color=colour, label=f"batch size {size}")
        axes.set_xscale("log")
        # 1 and 3 of each power of ten: even a narrow range has a labelled one.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("learning rate")
        axes.set_ylabel(f"held-out {axis}")
        legend_above(axes)

    return draw(name, paint)


def draw_reliability(name: str, bins: np.ndarray) -> str:
    """Accuracy by confidence; the area of a dot is its bin's share of the samples.

    Of each bin [bin, 3]: samples, the sum of their confidence, and how many are right.
    """
    count, confidence, right = bins[bins[:, 0] > 0].T

    def paint(axes: "Axes") -> None:
        axes.plot([0, 100], [0, 100], "--", color=MUTED, linewidth=1)
        x, y = 100 * confidence / count, 100 * right / count
        axes.scatter(x, y, s=8 + 400 * count / count.sum(), color=BLUE, alpha=0.85)
        # Room for whole dots at 100 %.
        axes.set(xlim=(0, 106), ylim=(0, 106), xlabel="confidence, %", ylabel="correct, %")

    return draw(name, paint)
