import re

from cellline.prediction.metrics import Estimate
from cellline.report.figures import LONGEST, draw_intervals


def test_a_long_name_leaves_room_for_the_figure() -> None:
    recalls = [Estimate(0.5, 0.4, 0.6, 0.05)] * 2
    svg = draw_intervals("long", ["x" * LONGEST, "y" * 300], "recall", recalls, "recall, %")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert "x" * LONGEST in texts
    assert "y" * (LONGEST - 1) + "…" in texts
    # The lines of the grid still have the width that the axis' labels need.
    starts = [float(x) for x in re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>\d+</text>', svg)]
    assert max(starts) - min(starts) > 100
