import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from cellline.report.figures import LONGEST, draw_intervals
from cellline.report.svg import BLUE, COLOURS, INK, draw
from cellline.scoring.bootstrap import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RECALL = Estimate(0.5, 0.4, 0.6, 0.05)
NAMES = [
    "<script>alert(1)</script>",
    "$x_{",
    "$x$",
    r"\frac",
    'a"b',
    "#010101",
    '<g id="patch_1"',
    "é&amp;",
]


class Reader(HTMLParser):
    """The tags and the texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)


def paint(axes: "Axes") -> None:
    axes.plot([1, 2, 3], [1, 2, 1], "o-", color=BLUE, label="line")
    axes.text(1, 1, "marked", color=INK)
    axes.set_yticks(range(len(NAMES)), NAMES)
    axes.legend()


def test_any_name_is_shown_as_it_is() -> None:
    reader = Reader(draw("names", paint))
    assert set(NAMES) <= set(reader.texts)
    assert "script" not in {tag for tag, _ in reader.tags}


def test_colours_are_the_pages() -> None:
    tags = "".join(re.findall(r"<[^<>]+>", draw("colours", paint)))
    assert {"var(--blue)", "var(--muted)", "currentColor"} <= set(re.findall(r"[\w()-]+", tags))
    assert not any(colour in tags for colour in COLOURS)
    # Nothing is drawn in a colour of its own, which might not be seen on a dark page.
    assert not re.findall(r"#[0-9a-f]{6}", tags)


def test_two_figures_share_a_page() -> None:
    first, second = (Reader(draw(name, paint)) for name in ("first", "second"))
    ids, others = (
        [tag[1]["id"] for tag in reader.tags if "id" in tag[1]] for reader in (first, second)
    )
    assert ids
    assert not set(ids) & set(others)
    # What is referred to is there.
    values = [str(value) for _, attributes in first.tags for value in attributes.values()]
    links = [found for value in values for found in re.findall(r"^#(\w+)$|url\(#(\w+)\)", value)]
    assert links
    assert {link or clip for link, clip in links} <= set(ids)
    assert not {"style", "metadata", "title"} & {tag for tag, _ in first.tags}
    [(_, root)] = [tag for tag in first.tags if tag[0] == "svg"]
    assert set(root) == {"viewbox"}


def anchors(svg: str) -> dict[str, float]:
    """The texts of a figure and where they are anchored."""
    found = re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>([^<]*)</text>', svg)
    return {text: float(x) for x, text in found}


def test_a_long_name_leaves_room_for_the_figure() -> None:
    names = ["y" * 300, "W" * LONGEST]
    shown = anchors(draw_intervals("long", dict.fromkeys(names, RECALL), "recall, %", 0.5))
    assert {"y" * 9 + "..." + "y" * 9, "W" * LONGEST} <= shown.keys()
    # The lines of the grid still have the width that the axis' labels need.
    starts = [x for text, x in shown.items() if text.isdigit()]
    assert max(starts) - min(starts) > 100
