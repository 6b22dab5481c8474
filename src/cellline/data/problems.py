"""Problems of the input, collected so that all of them are reported at once."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from cellline.errors import UserError
from cellline.host.names import printable

LONGEST = 255  # characters of a name in a message, as of a file's name on most systems
NAMED = 5  # examples: enough to see the pattern, few enough to see the next problem


class Fault(NamedTuple):
    """A fault that several samples or files may share."""

    noun: str
    """The word for one of them; empty for a fault of the whole."""
    what: str
    """The rest of the phrase."""
    advice: str = ""
    """A sentence on what to do about it."""


class Problems:
    """The problems of one input folder: a line each, grouped and counted."""

    def __init__(self, input_dir: Path) -> None:
        self._input_dir = input_dir
        self._found: dict[tuple[str, Fault], list[int | str]] = defaultdict(list)

    def name(self, path: Path) -> str:
        """Name a file or folder within the input folder, for a message."""
        within = path.relative_to(self._input_dir).as_posix()
        return "the input folder" if within == "." else within

    def note(self, where: str, what: str, advice: str = "") -> None:
        """Note a problem of `where`, a file or folder in the input folder, as a whole."""
        self._found[where, Fault("", what, advice)] = []

    def doubt(self, what: str, candidates: Collection[str], setting: str) -> None:
        """Note that one of several candidates must be chosen."""
        shown = sorted(candidates)
        more = f" or {len(shown) - NAMED} more" if len(shown) > NAMED else ""
        named = " or ".join(brief(name) for name in shown[:NAMED])
        self.note(what, f"could be {named}{more}", f"Say which with {setting}.")

    def count(self, where: str, fault: Fault, which: Collection[int | str]) -> None:
        """Note a fault of these ids or names in `where`, if any, beside those noted before."""
        if which:
            self._found[where, fault] += which

    def count_noted(self) -> int:
        """Number of different problems so far."""
        return len(self._found)

    def check(self) -> None:
        """Raise UserError if there is a problem; its lines are sorted, the advice follows."""
        if not self._found:
            return
        count = f"{len(self._found)} problem{'s' if len(self._found) > 1 else ''}"
        lines = sorted(
            f"  {printable(where)}: {describe_fault(fault, which)}"
            for (where, fault), which in self._found.items()
        )
        advice = {fault.advice: None for _, fault in self._found if fault.advice}
        head = f"The input in {printable(str(self._input_dir))} has {count}:"
        raise UserError("\n".join([head, *lines, *advice]))


def describe_fault(fault: Fault, which: Collection[int | str]) -> str:
    """Return e.g. `3 samples without channel red: 17, 33, 901`, naming the first NAMED of them."""
    if not which:
        return fault.what
    culprits = sorted(which)
    named = ", ".join(printable(brief(str(culprit))) for culprit in culprits[:NAMED])
    more = f" and {len(culprits) - NAMED} more" if len(culprits) > NAMED else ""
    plural = "s" if len(culprits) > 1 else ""
    return f"{len(culprits)} {fault.noun}{plural} {fault.what}: {named}{more}"


def name_first(names: Sequence[str], separator: str = ", ") -> str:
    """Join the first NAMED names, and count the others, such as 'a, b, c, d, e and 7 more'."""
    return separator.join(names[:NAMED]) + f" and {len(names) - NAMED} more" * (len(names) > NAMED)


def brief(text: str) -> str:
    """Cut out the middle of a text that is too long for a message."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}"
