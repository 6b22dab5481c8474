"""Class names that a person reads as one and the program as several."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from decimal import Decimal

from cellline.data.problems import NAMED, brief
from cellline.errors import Caution

# Greek and Cyrillic letters that look like the Latin ones below them, and punctuation: the common
# ones of Unicode's confusables.txt (UTS 39). The Greek mu is among them for those who write uM.
_LATIN = str.maketrans(
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϺαγικμνορυχϲϳАВЕЅІЈКМНОРСТУХЗҮԌԚԜӀаеікмнорстухһԁԛԝѕјӏ",
    "ABEZHIKMNOPTYXCMayikuvopuxcjABESIJKMHOPCTYX3YGQWlaeikmhopctyxhdqwsjl",
)
_PUNCTUATION = str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2018\u2019\u201a\u2032\u02bc`\u201c\u201d\u2033_",
    "-------''''''\"\"\" ",
)
# Of one shape in many fonts.
_SHAPES = str.maketrans("01I|", "Olll")
# Joiners, variation selectors and fillers show nothing. Other such characters are refused.
_UNSEEN = re.compile("[͏ᅟᅠ឴឵᠋-᠏​-‏⁠⠀ㅤ︀-️ﾠ]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?")
# A number within a name, with zeros that don't count; the parts of a version (1.0.2) count.
_PADDED = re.compile(r"(?<![\d.])0*(\d+?)(?:\.0+)?(?![\d.]*\d)")
# Between digits a space counts: '1 1' is not '11'.
_SPACES = re.compile(r"(?<!\d)\s+|\s+(?!\d)")


def find_alike(classes: Sequence[str]) -> list[list[str]]:
    """Return the classes that read alike, in groups of two or more."""
    groups: list[list[str]] = []
    for read in (_ignore_letters, _ignore_case, _ignore_shapes):
        alike = defaultdict(list)
        for name in classes:
            alike[read(name)].append(name)
        groups += [
            names
            for names in alike.values()
            if len(names) > 1 and not any(set(names) <= set(found) for found in groups)
        ]
    return groups


def describe_alike(where: str, labels: Sequence[str]) -> list[Caution]:
    """A Caution for each group of classes that read alike among the labels [n] of a file."""
    count = Counter(labels)
    groups = find_alike(sorted(count))
    lines = []
    for names in groups[:NAMED]:
        shown = " and ".join(f"{_escape(name)} ({count[name]} x)" for name in names)
        marks = {mark for name in names for mark in _difference(name, names)}
        why = f", which differ in {', '.join(sorted(marks)[:NAMED])}" if marks else ""
        lines.append(
            f"{where}: {len(names)} classes read alike{why}: {shown}; if they are one class, write "
            "it in one way"
        )
    if len(groups) > NAMED:
        lines.append(f"{where}: {len(groups) - NAMED} more groups of classes read alike")
    return list(map(Caution, lines))


def describe_placeholder(
    template: str, placeholders: Collection[str], classes: Collection[str]
) -> list[Caution]:
    """A Caution if the template's placeholders are not classes."""
    strange = sorted(set(placeholders) - set(classes))
    if not strange:
        return []
    shown, known = (
        ", ".join(map(_escape, names[:NAMED])) + (", ..." if len(names) > NAMED else "")
        for names in (strange, sorted(classes))
    )
    return [
        Caution(
            f"{template} has placeholders that are not classes: {shown}; the classes are {known}, "
            "and the submission will contain those. Check which labels the host expects"
        )
    ]


def _ignore_case(name: str) -> str | Decimal:
    """Return the name without case, the forms of spaces and numbers, and what can't be seen."""
    text = unicodedata.normalize("NFKD", _plain(name).casefold())
    text = _SPACES.sub("", text.strip())
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    return re.sub(r"\s+", " ", _PADDED.sub(r"\1", text))


def _ignore_letters(name: str) -> str | Decimal:
    """Return the name as `_ignore_case` does, with Latin letters for those that look like them."""
    return _ignore_case(_plain(name).translate(_LATIN))


def _ignore_shapes(name: str) -> str:
    """Return the name with one letter for those of one shape; case counts."""
    return _SPACES.sub("", _plain(name).translate(_LATIN)).translate(_SHAPES)


def _plain(name: str) -> str:
    """Return the name decomposed, with plain punctuation, without what can't be seen."""
    return unicodedata.normalize("NFKD", _UNSEEN.sub("", name)).translate(_PUNCTUATION)


def _difference(name: str, names: Sequence[str]) -> list[str]:
    """Name the characters that not all of the names have, if they are hard to see or tell apart."""
    own = Counter(name)
    odd = {
        one for other in names for one in own - Counter(other) if not one.isascii() or one.isspace()
    }
    return [unicodedata.name(one, ascii(one)).lower() for one in odd]


def _escape(name: str) -> str:
    """Quote a name in ASCII, so that characters that look alike differ."""
    return brief(ascii(name))
