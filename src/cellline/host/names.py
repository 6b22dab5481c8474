"""Names chosen by strangers, of classes and files, as a person is shown them."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from unicodedata import category, east_asian_width

# Columns: half of a figure's width; in a terminal it leaves room for figures.
LONGEST = 34

# Unicode categories: control, format (invisible, or reversing the direction of text), line and
# paragraph separators, surrogates. Scripts and emoji need the two joiners.
_UNWANTED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


def has_control(text: str) -> bool:
    """True if a text has control or invisible characters, which no label, column or id may have."""
    # isprintable() is quick, but False for some characters that are wanted.
    return not text.isprintable() and any(
        category(char) in _UNWANTED and char not in _JOINERS for char in text
    )


def printable(text: str) -> str:
    """Escape characters that could break a line, drive the terminal, or reverse text."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def count_columns(text: str) -> int:
    """Width of a text in a terminal: East Asian characters and emoji take two columns."""
    return sum(2 if east_asian_width(one) in "FW" else 1 for one in text)


def shorten_name(name: str, longest: int = LONGEST) -> str:
    """Shorten a name to so many columns: keep its beginning and its end."""
    if count_columns(name) <= longest:
        return name
    half = (longest - len("...")) // 2
    return f"{_begin(name, half)}...{_begin(name[::-1], half)[::-1]}"


def name_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Short names of the classes, numbered where shortening makes two alike."""
    shown = [shorten_name(name) for name in classes]
    alike = Counter(shown)
    return tuple(
        name if alike[name] == 1 else f"{name} ({number})" for number, name in enumerate(shown)
    )


def align(names: Sequence[str]) -> list[str]:
    """Pad names with spaces to one width: the first column of a table in a terminal."""
    width = max(map(count_columns, names))
    return [name + " " * (width - count_columns(name)) for name in names]


def _begin(text: str, columns: int) -> str:
    """The longest beginning of a text that fits."""
    return text[: sum(width <= columns for width in accumulate(map(count_columns, text)))]
