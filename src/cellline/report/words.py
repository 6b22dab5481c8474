"""Words for numbers."""

from collections.abc import Sequence

from cellline.errors import Caution


def count(number: int, what: str) -> str:
    """Such as '1 trial' or '12 trials'."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def name_folds(folds: list[int]) -> str:
    """Such as 'fold 0' or 'folds 0, 1 and 4'."""
    *others, last = map(str, folds)
    return f"folds {', '.join(others)} and {last}" if others else f"fold {last}"


def split_warnings(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines as a verb prints them: those that are no warnings, and what the warnings say."""
    said = [sentence(line) for line in lines if not isinstance(line, Caution)]
    return said, [sentence(line) for line in lines if isinstance(line, Caution)]


def sentence(line: str) -> str:
    """A line as a verb prints it, with a capital and a full stop."""
    return f"{line[0].upper()}{line[1:]}."
