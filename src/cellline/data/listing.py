"""The files of an input folder: images by name, and tables, those in archives included."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cellline.data.files import UnreadableError, is_packed, members
from cellline.data.ids import Id, drop_suffix, is_image, parse_number
from cellline.data.tables import Table, TableError, read_packed, read_table

# Archives that can't be read.
_UNPACK = re.compile(r"\.(7z|rar|tar\.(bz2|xz|zst)|\d{3})$", re.IGNORECASE)
MOST_TABLES = 50  # to read, besides those at the top


@dataclass(frozen=True, eq=False)
class Listing:
    """The files in an input folder, those in archives included."""

    images: Sequence[str] = ()
    """Paths of image files within the input folder."""
    tables: dict[str, Table] = field(default_factory=dict)
    broken: dict[str, TableError] = field(default_factory=dict)
    """Tables that can't be used."""
    places: Sequence[str] = ()
    """Folders and archives at the top."""
    unread: Sequence[str] = ()
    """Archives of kinds that can't be read."""

    def below(self, place: str) -> list[str]:
        """The names of images below a path."""
        start = "" if place == "." else f"{place}/"
        return [name[len(start) :] for name in self.images if name.startswith(start)]

    @cached_property
    def stems(self) -> set[Id]:
        """Names that an id with images can have: beginnings of file names, and their values."""
        found: set[Id] = set()
        for path in self.images:
            stem = drop_suffix(path.rpartition("/")[2])
            parts = [stem, *(stem[: at.start()] for at in re.finditer("_", stem))]
            for part in parts:
                found.add(part)
                if (number := parse_number(part)) is not None:
                    found.add(number)
        return found

    def count_known(self, fields: Iterable[str]) -> int:
        """Count the ids that seem to have images."""
        stems = (drop_suffix(text).rpartition("/")[2] for text in fields)
        return sum(stem in self.stems or parse_number(stem) in self.stems for stem in stems)


def list_input(input_dir: Path) -> Listing:
    """List images, and read tables, at any depth and in archives."""
    images: list[str] = []
    tables: dict[str, Table] = {}
    broken: dict[str, TableError] = {}
    places, unread = [], []

    def add(name: str, read: Callable[[], Table]) -> None:
        try:
            tables[name] = read()
        except TableError as error:
            broken[name] = error

    for entry in sorted(input_dir.iterdir()):
        top = entry.name
        if top.startswith("."):
            continue
        if top.lower().endswith(".csv"):
            add(top, lambda path=entry, name=top: read_table(path, name))  # type: ignore[misc]
        elif entry.is_dir() or is_packed(top):
            places.append(top)
            try:
                for member in members(entry):
                    path = f"{top}/{member.name}"
                    if is_image(path):
                        images.append(path)
                    elif (
                        path.lower().endswith(".csv")
                        and member.regular
                        and len(tables) < MOST_TABLES
                    ):
                        add(path, lambda one=member, name=path: read_packed(one, name))  # type: ignore[misc]
            except UnreadableError:
                pass  # whoever reads the images says so
        elif is_image(top):
            images.append(top)
        elif _UNPACK.search(top):
            unread.append(top)
    return Listing(images, tables, broken, places, unread)
