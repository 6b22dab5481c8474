"""Words for numbers."""

from collections.abc import Sequence


def count(number: int, what: str) -> str:
    """Such as '1 trial' or '12 trials'."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def name_folds(folds: list[int]) -> str:
    """Such as 'fold 0' or 'folds 0, 1 and 4'."""
    *others, last = map(str, folds)
    return f"folds {', '.join(others)} and {last}" if others else f"fold {last}"


def split_warnings(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines as a verb prints them: those that are no warnings, and what the warnings say."""
    mark = "warning: "
    said = [sentence(line) for line in lines if not line.startswith(mark)]
    return said, [sentence(line.removeprefix(mark)) for line in lines if line.startswith(mark)]


def sentence(line: str) -> str:
    """A line as a verb prints it, with a capital and a full stop."""
    return f"{line[0].upper()}{line[1:]}."
