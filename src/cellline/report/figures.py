"""The page's figures. Meaning is never in the colour alone: lines are dashed, markers differ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellline.host.names import LONGEST, shorten_name
from cellline.report.svg import BLUE, GREEN, HEIGHT, INK, MUTED, ORANGE, PAPER, PURPLE, WIDTH, draw
from cellline.report.trials import TrialRow
from cellline.runs.run import History, best_epoch
from cellline.scoring.metrics import Estimate
from cellline.submitting.calibration import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A row of `draw_intervals` in inches, and what axis and legend take.
ROW, ROUND_THE_ROWS = 0.26, 0.95
# Of a name beside a row: 60 % of the figure's width.
LONGEST_NAME = 0.6 * 72 * WIDTH


def draw_intervals(
    name: str,
    rows: Sequence[str],
    label: str,
    estimates: Sequence[Estimate],
    axis: str,
    *,
    line: tuple[float, str] | None = None,
    factor: float = 100,
) -> str:
    """Dots with their 95 % intervals, a row a name; values are multiplied by `factor`.

    `line` is a value to compare with and what it is called; beside it, the dots are the `label`.
    """

    def paint(axes: "Axes") -> None:
        at = np.arange(len(rows))
        value, low, high = (
            factor * np.array([getattr(one, end) for one in estimates], dtype=float)
            for end in ("value", "low", "high")
        )
        axes.hlines(at, low, high, colors=BLUE, linewidth=1.6)
        axes.plot(value, at, "o", color=BLUE, markersize=5.5, label=label)
        if line is not None:
            value_of_line, name_of_line = line
            axes.axvline(factor * value_of_line, color=INK, linewidth=1, linestyle="--")
            axes.plot([], [], color=INK, linewidth=1, linestyle="--", label=name_of_line)
            legend_above(axes)
        axes.set_yticks(range(len(rows)), [fit(name) for name in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(axis)

    return draw(name, paint, ROUND_THE_ROWS + ROW * len(rows))


def fit(name: str) -> str:
    """A name beside a row: as much of it as leaves room for the figure."""
    # Imported where they are used, as in `draw`.
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    for columns in range(LONGEST, 0, -1):
        short = shorten_name(name, columns)
        width, _, _ = text_to_path.get_text_width_height_descent(short, FontProperties(), False)
        if width <= LONGEST_NAME:
            break
    return short


def legend_above(axes: "Axes") -> None:
    """A legend that covers nothing, in two columns; of the figure, as axes may be narrower."""
    axes.figure.legend(loc="outside upper center", ncols=2, columnspacing=1.2, borderaxespad=0.2)


def draw_curves(
    name: str, histories: dict[int, History], what: str, axis: str, *, factor: float = 1
) -> str:
    """`train_<what>` and `held_out_<what>` of every fold by epoch; of a BAC the marks, too."""
    from matplotlib.ticker import MaxNLocator

    def paint(axes: "Axes") -> None:
        for index, history in enumerate(histories.values()):
            epochs = [row["epoch"] for row in history]
            # Named once in the legend.
            label = "" if index == 0 else "_"
            train = [factor * row[f"train_{what}"] for row in history]
            held_out = [factor * row[f"held_out_{what}"] for row in history]
            # One epoch makes no line.
            dot = "." if len(epochs) == 1 else ""
            axes.plot(epochs, train, "--", marker=dot, color=MUTED, label=f"{label}training")
            axes.plot(epochs, held_out, marker=dot, color=BLUE, label=f"{label}held out")
            if what == "bac":
                best = best_epoch(history)
                axes.plot(
                    best["epoch"],
                    factor * best["held_out_bac"],
                    "D",
                    markersize=8,
                    markerfacecolor=PAPER,
                    markeredgecolor=ORANGE,
                    markeredgewidth=1.6,
                    label=f"{label}best epoch",
                )
                axes.plot(
                    epochs[-1], held_out[-1], "o", color=BLUE, markersize=4.5, label=f"{label}kept"
                )
        axes.set_xlabel("epoch")
        axes.set_ylabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_above(axes)

    return draw(name, paint, HEIGHT)


def draw_trials(name: str, trials: Sequence[TrialRow]) -> str:
    """BAC of trials by learning rate; batch sizes by their markers, pruned trials hollow."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    def paint(axes: "Axes") -> None:
        styles = [(BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (INK, "v")]
        for index, size in enumerate(sorted({trial.batch_size for trial in trials})):
            colour, marker = styles[index % len(styles)]
            for trial in trials:
                if trial.batch_size == size and trial.bac is not None:
                    face = colour if trial.state == "complete" else "none"
                    axes.plot(trial.lr, 100 * trial.bac, marker, color=colour, markerfacecolor=face)
            axes.plot([], [], marker, color=colour, label=f"batch size {size}")
        axes.set_xscale("log")
        # 1 and 3 of each power of ten: even a narrow range has a labelled one.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("learning rate")
        axes.set_ylabel("held-out BAC, %")
        legend_above(axes)

    return draw(name, paint, HEIGHT)


def draw_reliability(name: str, table: Reliability) -> str:
    """Accuracy by confidence; the area of a dot is its bin's share of the samples."""

    def paint(axes: "Axes") -> None:
        axes.plot([0, 100], [0, 100], "--", color=MUTED, linewidth=1, label="perfect")
        filled = table.count > 0
        axes.scatter(
            100 * table.confidence[filled],
            100 * table.accuracy[filled],
            s=8 + 400 * table.count[filled] / table.count.sum(),
            color=BLUE,
            alpha=0.85,
            label="_",
        )
        # Room for whole dots at 100 %.
        axes.set_xlim(0, 106)
        axes.set_ylim(0, 106)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("right, %")

    return draw(name, paint, HEIGHT)
