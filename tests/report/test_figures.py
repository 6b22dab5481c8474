import re
import warnings

import pytest

from cellline.host.names import LONGEST
from cellline.report.figures import draw_intervals
from cellline.scoring.metrics import Estimate

RECALL = Estimate(0.5, 0.4, 0.6, 0.05)


def texts(svg: str) -> dict[str, float]:
    """The texts of a figure and where they are anchored."""
    found = re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>([^<]*)</text>', svg)
    return {text: float(x) for x, text in found}


def test_a_long_name_leaves_room_for_the_figure() -> None:
    names = ["x" * LONGEST, "y" * 300, "W" * LONGEST]
    shown = texts(draw_intervals("long", names, "recall", [RECALL] * 3, "recall, %"))
    assert {"x" * LONGEST, "y" * 15 + "..." + "y" * 15} <= shown.keys()
    assert any(re.fullmatch(r"W{4,}\.\.\.W{4,}", text) for text in shown)
    # The lines of the grid still have the width that the axis' labels need.
    starts = [x for text, x in shown.items() if text.isdigit()]
    assert max(starts) - min(starts) > 100


@pytest.mark.parametrize("name", ["細胞株一二三四", "세포주", "😀😀😀", "細" * 300])
def test_a_name_in_any_script_has_room(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = texts(draw_intervals("wide", [name], "recall", [RECALL], "recall, %"))
    [(text, end)] = [(text.strip(), x) for text, x in shown.items() if name[0] in text]
    # It ends there, and its characters are as wide as they are high: 10.5 units.
    wide = len(text.replace(".", ""))
    assert end > 10.5 * wide


def test_the_legend_is_as_wide_as_it_needs() -> None:
    names = ["x" * LONGEST]
    svg = draw_intervals(
        "legend", names, "recall", [RECALL], "recall, %", line=(0.5, "BAC, their mean")
    )
    # It takes about 85 of the figure's 360 units.
    assert texts(svg)["BAC, their mean"] < 360 - 85
