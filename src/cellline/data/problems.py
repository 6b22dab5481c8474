"""Problems of the input, collected so that all of them are reported at once."""

from collections.abc import Collection
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from cellline.errors import UserError
from cellline.host.names import printable

LONGEST = 255  # characters of a name in a message, as of a file's name on most systems
NAMED = 5  # examples: enough to see the pattern, few enough to see the next problem


# Subjects of faults.
IMAGE_IS = ("image is", "images are")
SAMPLE_HAS = ("sample has", "samples have")
ROW_HAS = ("row has", "rows have")
ID_IS = ("id is", "ids are")
ID_HAS = ("id has", "ids have")


class Fault(NamedTuple):
    """A fault that several ids or names may share."""

    subject: tuple[str, str]
    """Noun and verb, for one and for several."""
    what: str
    """The rest of the sentence."""
    advice: str = ""
    """What to do about it."""


class Problems:
    """The problems of one input folder: a line each, grouped and counted."""

    def __init__(self, input_dir: Path) -> None:
        self._input_dir = input_dir
        self._problems: list[tuple[str, str]] = []
        self._advice: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._problems)

    def note(self, where: str, what: str, advice: str = "") -> None:
        """Note a problem of `where`, a file or folder in the input folder, as a whole."""
        self._problems.append((printable(where), what))
        if advice:
            self._advice[advice] = None

    def count(self, where: str, fault: Fault, which: Collection[int | str]) -> None:
        """Note a fault of these ids or names in `where`; nothing if there are none."""
        if which:
            self.note(where, describe_fault(fault, which), fault.advice)

    def check(self) -> None:
        """Raise UserError if there is a problem; its lines are sorted by file."""
        if not self._problems:
            return
        count = f"{len(self._problems)} problem{'s' if len(self._problems) > 1 else ''}"
        lines = [f"The input in {printable(str(self._input_dir))} has {count}:"]
        by_file = sorted(self._problems, key=itemgetter(0))
        lines += [f"  {where}: {what}" for where, what in by_file]
        raise UserError("\n".join([*lines, *self._advice]))


def describe_fault(fault: Fault, which: Collection[int | str]) -> str:
    """Return e.g. `3 samples have no channel red: 17, 33, 901`, naming the first NAMED of them."""
    culprits = sorted(which)
    named = ", ".join(printable(brief(str(culprit))) for culprit in culprits[:NAMED])
    more = f" and {len(culprits) - NAMED} more" if len(culprits) > NAMED else ""
    subject = fault.subject[len(culprits) > 1]
    return f"{len(culprits)} {subject} {fault.what}: {named}{more}"


def brief(text: str) -> str:
    """Cut out the middle of a text that is too long for a message."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}"
