"""Scores in words."""

from cellline.scoring.bootstrap import Estimate


def percent(score: float) -> str:
    """Format a share, such as '84.2 %'."""
    return f"{100 * score:.1f} %"


def with_interval(score: Estimate) -> str:
    """Format a score, such as '84.2 % [82.1, 86.0]'."""
    return f"{percent(score.value)} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def points(difference: Estimate) -> str:
    """Format a difference of scores in percentage points, such as '+1.8 [0.4, 3.2]'.

    A second digit appears where an end of the interval would otherwise round to 0.
    """
    value, low, high = (100 * x for x in (difference.value, *difference.interval))
    digits = 2 if any(0 < abs(end) < 0.05 for end in (low, high)) else 1
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
