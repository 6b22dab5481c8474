"""What the name of an image's file says: whose image it is, and of which channel."""

import re
import unicodedata
from collections.abc import Sequence

from cellline.data.ids import Id, parse_number, parse_text

UNKNOWN = -1  # a channel that is not among those of the competition

_NUMBERED = re.compile(r"([0-9]+)(?:_(.+))?\.png", re.ASCII)
_SUFFIX = ".png"


class ImageNames:
    """The names `<id>_<channel>.png` of the images of one competition.

    The channel "" is that of names without one, `<id>.png`. A text id may have underscores: the
    channel is the longest known one that the name ends with, or else what follows the last.
    """

    def __init__(self, channels: Sequence[str], *, numeric: bool) -> None:
        self.numeric = numeric
        channels = [unicodedata.normalize("NFC", channel) for channel in channels]
        self.suffixes = [f"_{channel}" if channel else "" for channel in channels]
        self._channels = channels
        self._by_length = sorted(enumerate(self.suffixes), key=lambda at: -len(at[1]))

    @property
    def pattern(self) -> str:
        """How a person is told that files must be named."""
        return f"<id>{_SUFFIX}" if self._channels == [""] else f"<id>_<channel>{_SUFFIX}"

    def parse(self, name: str) -> tuple[Id, int, int] | None:
        """Return id, channel's index or UNKNOWN, and a number's digits; None if it has no id."""
        name = unicodedata.normalize("NFC", name)
        return self._parse_numbered(name) if self.numeric else self._parse_text(name)

    def render(self, sample: Id, channel: int, digits: int) -> str:
        """Return the name that `parse` took apart; the channel must be known."""
        padded = f"{sample:0{digits}d}" if self.numeric else sample
        return f"{padded}{self.suffixes[channel]}{_SUFFIX}"

    def _parse_numbered(self, name: str) -> tuple[Id, int, int] | None:
        matched = _NUMBERED.fullmatch(name)
        sample = parse_number(matched[1]) if matched else None
        if matched is None or sample is None:
            return None
        channel = matched[2] or ""
        index = self._channels.index(channel) if channel in self._channels else UNKNOWN
        return sample, index, matched.end(1)

    def _parse_text(self, name: str) -> tuple[Id, int, int] | None:
        stem = name.removesuffix(_SUFFIX)
        if stem == name:
            return None
        for index, suffix in self._by_length:
            if stem.endswith(suffix):
                sample = parse_text(stem.removesuffix(suffix))
                if sample is not None:
                    return sample, index, 0
        sample = parse_text(stem.rpartition("_")[0] or stem)
        return None if sample is None else (sample, UNKNOWN, 0)


def name_channel(channel: str) -> str:
    """Return what a person is told of a channel, which may have no name of its own."""
    return channel or "image"
