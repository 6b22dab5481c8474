"""The files of an input folder: images by name, and tables, those in archives included."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from cellline.data.files import UnreadableError, is_packed, members
from cellline.data.ids import Id, drop_suffix, is_image, parse_number
from cellline.data.tables import Table, TableError, read_packed, read_table

# Files at the top that may hold what is looked for, and can't be read.
_ARCHIVE = re.compile(r"\.(7z|rar|tar\.(bz2|xz|zst)|\d{3})$", re.IGNORECASE)
_NO_CSV = re.compile(r"\.(json|jsonl|xlsx?|ods|parquet|feather|pkl|sqlite)$", re.IGNORECASE)
_OTHER_IMAGE = re.compile(
    r"\.(gif|dcm|dicom|heic|svg|pgm|ppm|npy|nii|mhd|czi|nd2|lif)$", re.IGNORECASE
)
TABLE = re.compile(r"\.(csv|tsv)$", re.IGNORECASE)
MOST_TABLES = 50  # beyond these, only tables at the top are read


@dataclass(frozen=True, eq=False)
class Listing:
    """The files in an input folder, those in archives included."""

    images: Sequence[str] = ()
    """Paths of image files within the input folder."""
    tables: dict[str, Table] = field(default_factory=dict)
    broken: dict[str, TableError] = field(default_factory=dict)
    """Tables that can't be used."""
    places: Sequence[str] = ()
    """Folders at the top, and archives that have images or can't be read."""
    unread: dict[str, str] = field(default_factory=dict)
    """Files that are not read, by name, with the reason."""

    def below(self, place: str) -> list[str]:
        """The names of images below a path."""
        start = "" if place == "." else f"{place}/"
        return [name[len(start) :] for name in self.images if name.startswith(start)]

    @cached_property
    def stems(self) -> set[Id]:
        """Names that an id with images can have: beginnings of file names, and their values."""
        found: set[Id] = set()
        for path in self.images:
            stem = unicodedata.normalize("NFC", drop_suffix(path.rpartition("/")[2]))
            parts = [stem, *(stem[: at.start()] for at in re.finditer("_", stem))]
            for part in parts:
                found.add(part)
                if (number := parse_number(part)) is not None:
                    found.add(number)
        return found

    def count_known(self, fields: Iterable[str]) -> int:
        """Count the ids that seem to have images."""
        names = (re.split(r"[/\\]", drop_suffix(text))[-1] for text in fields)
        stems = (unicodedata.normalize("NFC", name) for name in names)
        return sum(stem in self.stems or parse_number(stem) in self.stems for stem in stems)


def list_input(input_dir: Path) -> Listing:
    """List images, and read tables, at any depth and in archives."""
    images: list[str] = []
    tables: dict[str, Table] = {}
    broken: dict[str, TableError] = {}
    places: list[str] = []
    unread: dict[str, str] = {}
    others: Counter[str] = Counter()

    def add(name: str, read: Callable[[], Table]) -> None:
        try:
            tables[name] = read()
        except TableError as error:
            broken[name] = error

    for entry in sorted(input_dir.iterdir()):
        top, before = entry.name, len(images)
        if top.startswith("."):
            continue
        if TABLE.search(top):
            add(top, partial(read_table, entry, top))
        elif entry.is_dir() or is_packed(top):
            try:
                for member in members(entry, whole=True):
                    path = f"{top}/{member.name}"
                    if is_image(path):
                        images.append(path)
                    elif TABLE.search(path) and member.regular and len(tables) < MOST_TABLES:
                        add(path, partial(read_packed, member, path))
                    elif found := _OTHER_IMAGE.search(path):
                        others[found[0].lower()] += 1
            except UnreadableError as error:
                unread[top] = f"can't be read: {error}"
            if entry.is_dir() or len(images) > before or top in unread:
                places.append(top)
        elif is_image(top):
            images.append(top)
        elif _ARCHIVE.search(top):
            unread[top] = "an archive of a kind that can't be read; unpack it"
        elif _NO_CSV.search(top):
            unread[top] = "not read; labels are read from CSV files"
        elif found := _OTHER_IMAGE.search(top):
            others[found[0].lower()] += 1
    for suffix, count in others.items():
        unread[f"{count} files {suffix}"] = (
            "of a kind that is not read; convert them to PNG or TIFF"
        )
    images, dropped = drop_copies(images, list(tables))
    known = set(images)
    images = [
        path for path in images if join_doubled(path) not in known or join_doubled(path) == path
    ]
    tables = {name: table for name, table in tables.items() if name not in dropped}
    return Listing(images, tables, broken, places, unread)


def drop_copies(images: list[str], tables: list[str]) -> tuple[list[str], set[str]]:
    """Drop what an archive holds that has been unpacked beside it; return it as well."""
    loose = {name for name in [*images, *tables] if not any(map(is_packed, name.split("/")))}
    dropped = set()
    for name in {*images, *tables} - loose:
        parts = name.split("/")
        at = next(at for at, part in enumerate(parts) if is_packed(part))
        before, stem = parts[:at], parts[at].partition(".")[0]
        rest = parts[at + 1 :]
        # Unpacked in place, into a folder of its name, or with that folder in it.
        beside = ("/".join([*before, *([stem] * times), *rest]) for times in range(3))
        if not loose.isdisjoint(beside):
            dropped.add(name)
    return [name for name in images if name not in dropped], dropped


def join_doubled(path: str) -> str:
    """Return a path without a folder in a folder of its name, which may be a copy of that."""
    return re.sub(r"(^|/)([^/]+)/\2/", r"\1\2/", path, count=1)
