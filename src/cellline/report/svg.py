"""Matplotlib's drawings as SVG that takes part in the page: its fonts, its colours, its width."""

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is drawn in the colour on the left is shown in the page's colour on the right, which is
# another in a dark page. Any six-digit colours do, as long as nothing else is drawn in them.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
BLUE, ORANGE, GREEN, PURPLE = "#040404", "#050505", "#060606", "#070707"
PAPER = "#080808"
COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    PAPER: "var(--paper)",
}
# Inches, of 72 units. A phone shows such a figure about as large as it is drawn: 360 pixels.
WIDTH, HEIGHT = 5.0, 3.2
# Typed loosely: which names there are, and so their type, differs between matplotlib's versions.
STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    # Measured in this font, shown in the page's, which is hardly ever wider.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "text.color": INK,
    # Class names are text: a '$' in one begins no formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


def draw(name: str, paint: Callable[["Axes"], None], height: float = HEIGHT) -> str:
    """What `paint` draws into one pair of axes, as an <svg> element of the page's width.

    `name` must be the figure's own on the page: its elements' ids are made from it.
    """
    # Imported where it is used: it takes a second, which the other verbs need not spend.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # It only measures: the page's fonts are those of the machine that shows it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height))
        paint(figure.subplots())
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    return inline(file.getvalue())


def inline(document: str) -> str:
    """The <svg> element of a document by matplotlib, for a page that holds several of them.

    Its own style sheet would be the whole page's, its groups' ids (figure_1) are those of every
    other figure, and its size in points would not give way to a narrow screen.
    """
    element = document[document.index("<svg") :]
    element = re.sub(r"<style.*?</style>", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = re.sub(r'^<svg.*?(viewBox="[^"]*").*?>', r"<svg \1>", element, flags=re.DOTALL)
    # Tags alone: what stands between them is text, and '<' and '>' are escaped in both.
    return re.sub(r"<[^<>]+>", recolour, element)


def recolour(tag: re.Match[str]) -> str:
    """A tag with the page's colours."""
    return re.sub(r"#(0[1-8])\1\1", lambda found: COLOURS[found[0]], tag[0])
