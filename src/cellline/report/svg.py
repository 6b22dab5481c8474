"""Matplotlib drawings as SVG that takes on the page's fonts, colours and width."""

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Drawn in the colour on the left, shown in the page's colour on the right, which differs in a dark
# page. Any six-digit colours work if nothing else is drawn in them. The style uses the first three.
COLOURS = {
    "#010101": "currentColor",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--blue)",
    "#050505": "var(--orange)",
    "#060606": "var(--green)",
    "#070707": "var(--purple)",
}
INK, MUTED, GRID, BLUE, ORANGE, GREEN, PURPLE = COLOURS
# Inches of 72 units. A phone shows such a figure at about its size: 360 pixels.
WIDTH, HEIGHT = 5.0, 3.2
STYLE = Path(__file__).with_name("figures.mplstyle")


def draw(name: str, paint: Callable[["Axes"], None], height: float = HEIGHT) -> str:
    """The <svg> element, as wide as the page, of what `paint` draws into one pair of axes.

    `name` must be unique on the page: ids within the figure are made from it.
    """
    # Imported here because it takes a second, which the other verbs need not spend.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": name}, STYLE), warnings.catch_warnings():
        # The font only measures: the page is shown in another.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height))
        paint(figure.subplots())
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    return inline(file.getvalue())


def inline(document: str) -> str:
    """The <svg> element of a matplotlib document, for a page that holds several.

    Removes what would clash there: the style sheet, which would apply to the whole page, ids of
    groups (figure_1), which repeat in every figure, and a size in points, which ignores the screen.
    """
    element = document[document.index("<svg") :]
    element = re.sub(r"<style.*?</style>", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = re.sub(r'^<svg.*?(viewBox="[^"]*").*?>', r"<svg \1>", element, flags=re.DOTALL)
    # Tags only: a class may be named like a colour. '<' and '>' are escaped in text.
    return re.sub(r"<[^<>]+>", recolour, element)


def recolour(tag: re.Match[str]) -> str:
    """A tag with the page's colours."""
    return re.sub(r"#(0[1-7])\1\1", lambda found: COLOURS[found[0]], tag[0])
