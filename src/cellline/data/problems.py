"""Everything that is wrong with the input, collected so that it is reported in one go."""

from collections.abc import Collection
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from cellline.errors import UserError
from cellline.host.names import printable

LONGEST = 255  # characters of a name in a message, as of a file's name on most systems
NAMED = 5  # so many culprits let a person find the pattern; a thousand hide the next problem


class Fault(NamedTuple):
    """What several ids or names may share, for one of them and for many, and what to do."""

    one: str
    many: str
    advice: str = ""


class Problems:
    """The problems of one input folder: a line each, grouped and counted.

    `where` is the file's or folder's name in the input folder, `advice` says what to do.
    """

    def __init__(self, input_dir: Path) -> None:
        self._input_dir = input_dir
        self._problems: list[tuple[str, str]] = []
        self._advice: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._problems)

    def note(self, where: str, what: str, advice: str = "") -> None:
        """Note one problem of a file as a whole."""
        self._problems.append((printable(where), what))
        if advice:
            self._advice[advice] = None

    def count(self, where: str, fault: Fault, which: Collection[int] | Collection[str]) -> None:
        """Note a fault of these ids or names; nothing if there are none."""
        if which:
            self.note(where, counted(fault, which), fault.advice)

    def check(self) -> None:
        """Raise UserError if there is a problem; its lines are sorted by file."""
        if not self._problems:
            return
        count = f"{len(self._problems)} problem{'s' if len(self._problems) > 1 else ''}"
        lines = [f"The input in {printable(str(self._input_dir))} has {count}:"]
        by_file = sorted(self._problems, key=itemgetter(0))
        lines += [f"  {where}: {what}" for where, what in by_file]
        raise UserError("\n".join([*lines, *self._advice]))


def counted(fault: Fault, which: Collection[int] | Collection[str]) -> str:
    """Return e.g. `3 samples lack channel red: 17, 33, 901`, at most NAMED of them named."""
    culprits: list[int | str] = sorted(which)
    named = ", ".join(printable(brief(str(culprit))) for culprit in culprits[:NAMED])
    more = f" and {len(culprits) - NAMED} more" if len(culprits) > NAMED else ""
    return f"{len(culprits)} {fault.one if len(culprits) == 1 else fault.many}: {named}{more}"


def brief(text: str) -> str:
    """Cut out the middle of what is too long to be shown."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}"
