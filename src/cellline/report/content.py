"""Building blocks of the page: plain data, which the template lays out.

A str is a paragraph, a list of them a bulleted list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Table:
    """A table; its first column heads the rows."""

    kind: ClassVar[str] = "table"
    note: str
    """Advice on what to look for."""
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: frozenset[int] = frozenset({0})
    """Columns of text, which are set flush left."""
    title: str = ""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix."""

    kind: ClassVar[str] = "matrix"
    title: str
    note: str
    classes: Sequence[str]
    rows: Sequence[Sequence[tuple[int, float]]]
    """Samples by class, then by predicted class, and their share of the class from 0 to 1."""


@dataclass(frozen=True)
class Figure:
    """A drawing."""

    kind: ClassVar[str] = "figure"
    title: str
    note: str
    svg: str
    """An <svg> element, which the page holds as it is."""
    alternative: str = ""
    """The numbers in words, read out with the title to a reader who can't see the drawing."""


@dataclass(frozen=True)
class Tile:
    """A picture of a sample."""

    row: int
    """The training sample's."""
    source: str
    """A data: address."""
    caption: Sequence[str]
    """Lines, the sample's id first."""
    beside: str = ""
    """That of a second picture: where the network looked."""


@dataclass(frozen=True)
class Grid:
    """Pictures of samples."""

    kind: ClassVar[str] = "grid"
    title: str
    note: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Columns:
    """Figures and tables side by side, where the page is wide enough."""

    kind: ClassVar[str] = "columns"
    blocks: Sequence[Figure | Table]


Block = str | list[str] | Table | Matrix | Figure | Grid | Columns


@dataclass(frozen=True)
class Section:
    """A part of the page, with a line in its table of contents."""

    name: str
    """The name of its anchor."""
    title: str
    blocks: Sequence[Block]
    cautions: Sequence[str] = ()
    """Sentences that the head of the page repeats."""
