"""Folders and archives of images: which part of the data each holds, and the labels they tell."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from os.path import commonpath
from pathlib import Path

from cellline.config import Reading
from cellline.data.ids import Id, cut_path, drop_suffix, parse_id
from cellline.data.listing import Listing, list_input
from cellline.data.problems import Problems, name_first
from cellline.data.rows import MOST, NEARLY_ALL, Rows, is_part, label_by_name, tells_labels

# Words in the paths of a split's files.
WORDS = {split: re.compile(rf"(?<![a-z]){split}", re.IGNORECASE) for split in ("train", "test")}
OTHER = {"train": "test", "test": "train"}


class Places:
    """The folders and archives in an input folder. Its methods note problems."""

    def __init__(self, input_dir: Path, reading: Reading, problems: Problems) -> None:
        self.input_dir = input_dir
        self.reading = reading
        self.problems = problems
        self.not_classes: set[str] = set()
        """Folders that were not taken for classes because of the name of one of them."""

    @cached_property
    def listing(self) -> Listing:
        """The files, listed when they are needed."""
        return list_input(self.input_dir)

    @property
    def listed(self) -> Listing:
        """The files, if they had to be listed to work something out; else none."""
        return self.listing if "listing" in self.__dict__ else Listing()

    def note_unread(self) -> None:
        """Note what can't be read, and may be what is missing."""
        for name, why in self.listing.unread.items():
            self.problems.note(name, why)

    def list_labelled_folders(self, test_ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the paths below which each class may have a folder, and those of named images."""
        wanted = self.reading.labels or self.reading.train_images
        below: dict[str, set[str]] = defaultdict(set)  # path -> its folders with images
        flat: dict[str, list[str]] = defaultdict(list)  # path -> names of the images in it
        for path in self.list_training_images(test_ids):
            parts = path.split("/")
            flat["/".join(parts[:-1]) or "."].append(parts[-1])
            for depth in range(len(parts) - 1):
                below["/".join(parts[:depth]) or "."].add(parts[depth])
        folders = []
        for path in (path for path, names in below.items() if len(names) > 1):
            like_parts = set(filter(is_part, below[path]))
            if path == wanted or not like_parts:
                folders.append(path)
            elif len(below[path] - like_parts) > 1:
                self.not_classes |= below[path]
        named = [path for path, names in flat.items() if tells_labels(names)]
        found = []
        for paths in (folders, named):
            meant = [path for path in paths if path == wanted or wanted is None]
            meant = prefer(meant, "train", bool)
            top = [path for path in meant if all(is_below(path, other) for other in meant)]
            found.append(top or meant)
        return found[0], found[1]

    def list_training_images(self, test_ids: Sequence[str]) -> list[str]:
        """Paths of the images that neither a setting nor the template makes test images."""
        tested = self.reading.test_images
        images = self.listing.images
        images = [path for path in images if tested is None or not is_below(tested, path)]
        if tested:
            return images
        ids = {drop_suffix(cut_path(text, 1)) for text in test_ids}
        of_folder: dict[str, list[str]] = defaultdict(list)
        for path in images:
            of_folder[path.rpartition("/")[0]].append(path)
        return [
            path
            for folder, paths in of_folder.items()
            if not WORDS["test"].search(folder)
            or not ids
            or sum(drop_suffix(cut_path(path, 1)) in ids for path in paths) < MOST * len(paths)
            for path in paths
        ]

    def find_labelled_folder(self, test_ids: Sequence[str]) -> str | None:
        """Return the path below which each class has a folder, or file names begin with the class.

        None if there is none, or if the choice is ambiguous (noted as a problem).
        """
        folders, named = self.list_labelled_folders(test_ids)
        found = folders or named
        if len(found) > 1:
            self.problems.doubt("labels", found, "--labels")
        return found[0] if len(found) == 1 else None

    def describe_unused(self, reading: Reading) -> Iterator[str]:
        """Yield lines on folders of images that no part uses, and on folders within classes."""
        used = [place for place in (reading.train_images, reading.test_images) if place]
        unused: Counter[str] = Counter()
        for path in self.listed.images:
            if not any(is_below(place, path) for place in used):
                parts = path.split("/")
                heads = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
                # The largest folder that has no image in use.
                unused[next(x for x in heads if not any(is_below(x, one) for one in used))] += 1
        if unused and None not in (reading.train_images, reading.test_images):
            counts = [f"{name} ({count} images)" for name, count in unused.most_common()]
            yield f"not used: {name_first(counts)}"
        if reading.labels == reading.train_images and reading.labels is not None:
            images = self.listed.below(reading.labels)
            if left := len(images) - len(label_by_name(images)):
                yield f"{left} images are left out: masks and the like of other images"
            within: dict[str, set[str]] = defaultdict(set)
            for path in images:
                parts = path.split("/")
                if len(parts) > 2:
                    within[parts[0]].add(parts[1])
            several = [name for name, folders in within.items() if len(folders) > 1]
            if several:
                yield (
                    f"classes are the folders in {reading.labels}; folders within them, such as "
                    f"those in {several[0]}, are not told apart"
                )

    def match(self, rows: Rows) -> dict[str, set[Id]]:
        """Return each folder that has images of these ids, with the ids found."""
        found: dict[str, set[Id]] = defaultdict(set)
        for path in self.listing.images:
            parts = drop_suffix(path).split("/")
            for start in range(len(parts)):
                sample = parse_id("/".join(parts[start:]), numeric=rows.numeric)
                if sample in rows.ids:
                    break
            else:
                start, stem = len(parts) - 1, parts[-1]
                heads = (stem[: at.start()] for at in re.finditer("_", stem))
                known = (parse_id(head, numeric=rows.numeric) for head in heads)
                sample = next((one for one in known if one in rows.ids), None)
            if sample is not None:
                found["/".join(parts[:start]) or "."].add(sample)
        return found

    def find_images(self, part: str, rows: Rows) -> str | None:
        """Return the path with a part's images; None, and a problem, if it isn't sure."""
        option = f"--{part}-images"
        wanted: str | None = getattr(self.reading, f"{part}_images")
        if wanted:
            if not (self.input_dir / wanted).exists() and not self.listing.below(wanted):
                self.problems.note(wanted, "missing", f"{option} names it.")
                return None
            return wanted
        found = self.match(rows)
        there = set().union(*found.values())
        chosen = prefer(
            found,
            part,
            lambda names: len(set().union(*(found[name] for name in names))) > MOST * len(there),
        )
        # Several that have each nearly all are copies, perhaps of another size.
        whole = [name for name in chosen if len(found[name]) > NEARLY_ALL * len(there)]
        if len(whole) > 1:
            self.problems.doubt(f"{part} images", whole, option)
            return None
        if not found:  # the only one that may be meant, so that all that is wrong is reported
            places = prefer(self.listing.places, part, bool)
            whole = [name for name in places if not WORDS[OTHER[part]].search(name)]
            whole = whole if len(whole) == 1 else []
        if not chosen and not whole:
            self.note_unread()
            self.problems.note(
                f"{part} images",
                "not found" + (": no image is named like an id" if self.listing.images else ""),
                f"Name their folder or archive with {option}.",
            )
            return None
        place = whole[0] if whole else commonpath(chosen) or "."
        # A folder that is all that a folder of its name holds.
        outer, _, inner = place.rpartition("/")
        doubled = outer.rpartition("/")[2] == inner
        alone = doubled and len(self.listing.below(outer)) == len(self.listing.below(place))
        return outer if alone else place


def is_below(top: str, path: str) -> bool:
    """Tell if a path is another one or below it."""
    return top in (".", path) or path.startswith(f"{top}/")


def prefer(names: Collection[str], part: str, enough: Callable[[list[str]], bool]) -> list[str]:
    """Return the names that contain the part's, if enough; else those without the other part's."""
    own = [name for name in names if WORDS[part].search(name)]
    rest = [name for name in names if not WORDS[OTHER[part]].search(name)]
    return next((found for found in (own, rest) if found and enough(found)), list(names))
