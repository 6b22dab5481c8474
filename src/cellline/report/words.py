"""Words for numbers, and lines as sentences."""

from collections.abc import Sequence

from cellline.errors import Caution


def count(number: int, what: str) -> str:
    """Format a number of things, such as '1 trial' or '12 trials'."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def name_folds(folds: Sequence[int]) -> str:
    """Name folds, such as 'fold 0' or 'folds 0, 1 and 4'."""
    *others, last = map(str, folds)
    return f"folds {', '.join(others)} and {last}" if others else f"fold {last}"


def sentence(line: str) -> str:
    """A line as a sentence: with a capital and a full stop."""
    return f"{line[0].upper()}{line[1:]}."


def split_cautions(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sentences of the plain lines, and those of the cautions among them."""
    plain = [sentence(line) for line in lines if not isinstance(line, Caution)]
    return plain, [sentence(line) for line in lines if isinstance(line, Caution)]
