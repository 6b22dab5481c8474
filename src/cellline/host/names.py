"""Names that strangers chose, of classes and files, as a person is shown them."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from unicodedata import category, east_asian_width

# Columns: half of a figure's width, and what leaves a terminal's line room for figures.
LONGEST = 34

# Of Unicode: control, format (invisible, or turning the direction of writing), line and paragraph
# separators, halves of characters. Scripts and emoji need the two joiners.
_UNWANTED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


def has_control(text: str) -> bool:
    """Whether a text has control or invisible characters, which no label, column or id may have."""
    # isprintable() is quick, and false for some that are wanted.
    return not text.isprintable() and any(
        category(char) in _UNWANTED and char not in _JOINERS for char in text
    )


def printable(text: str) -> str:
    """Escape what could break a line, drive the terminal, or turn around what is beside it.

    Labels need it no more: what must be escaped is refused in them.
    """
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def count_columns(text: str) -> int:
    """The width of a text in a terminal: characters of East Asian scripts and emoji take two."""
    return sum(2 if east_asian_width(one) in "FW" else 1 for one in text)


def shorten_name(name: str, longest: int = LONGEST) -> str:
    """A name of at most so many columns: of a longer one the beginning and the end."""
    if count_columns(name) <= longest:
        return name
    half = (longest - len("...")) // 2
    return f"{_begin(name, half)}...{_begin(name[::-1], half)[::-1]}"


def name_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes' names for a person: short, and numbered where that makes two alike."""
    shown = [shorten_name(name) for name in classes]
    alike = Counter(shown)
    return tuple(
        name if alike[name] == 1 else f"{name} ({number})" for number, name in enumerate(shown)
    )


def align(names: Sequence[str]) -> list[str]:
    """Names filled up with spaces to one width: the first column of a table in a terminal."""
    width = max(map(count_columns, names))
    return [name + " " * (width - count_columns(name)) for name in names]


def _begin(text: str, columns: int) -> str:
    """As much of a text's beginning as fits."""
    return text[: sum(width <= columns for width in accumulate(map(count_columns, text)))]
