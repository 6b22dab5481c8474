"""Names of image files: the sample and the channel that a file shows."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from cellline.data.ids import Id, drop_suffix, is_image, parse_id
from cellline.data.problems import Fault
from cellline.data.rows import Rows

# An ending of file names is a channel if so large a share of the samples has a file of it.
CHANNEL_SHARE = 0.5


class ImageNames:
    """The names `<id>_<channel>.png`, or of other formats, of the images of one competition.

    The channel "" stands for names without one, `<id>.png`. A text id may have underscores: the
    channel is the longest one that ends the name. An id may begin in the folders above the file, as
    `cat/17` does: the longest of `ids` that ends the path wins.
    """

    def __init__(
        self,
        channels: Sequence[str],
        *,
        numeric: bool,
        ids: Collection[Id] = frozenset(),
        omit_extra: bool = False,
    ) -> None:
        self.channels = tuple(channels)
        self.numeric = numeric
        self.ids = ids
        self.omit_extra = omit_extra
        self.pattern = "<id>.png" if self.channels == ("",) else "<id>_<channel>.png"
        shown = ", ".join(channel or repr("") for channel in channels)
        self.stray = Fault(
            "file",
            f"not named {self.pattern} (channels: {shown})",
            'If the channels have other names, set --channels (--channels "" for files <id>.png).',
        )
        endings = [f"_{channel}" if channel else "" for channel in channels]
        composed = enumerate(unicodedata.normalize("NFC", ending) for ending in endings)
        self._endings = sorted(composed, key=lambda at: -len(at[1]))

    def parse(self, name: str) -> tuple[Id, int] | None:
        """Return the id and the channel's index; None for another name."""
        if not is_image(name):
            return None
        for path, index in self.cut(name):
            sample = self._find(path)
            if sample is not None:
                return sample, index
        return None

    def cut(self, name: str) -> Iterator[tuple[str, int]]:
        """Yield the name without its channel, and the channel's index, for each that may be."""
        stem = drop_suffix(unicodedata.normalize("NFC", name))
        for index, ending in self._endings:
            if stem.endswith(ending):
                yield stem.removesuffix(ending), index

    def know(self, sample: Id) -> bool:
        """Tell if an id is known, or begins with a known one, as `17_mask` does."""
        if isinstance(sample, int):
            return sample in self.ids
        heads = (sample[: at.start()] for at in re.finditer("_|$", sample))
        return any(parse_id(head, numeric=self.numeric) in self.ids for head in heads)

    def _find(self, path: str) -> Id | None:
        parts = path.split("/")
        for start in range(len(parts)):
            sample = parse_id("/".join(parts[start:]), numeric=self.numeric)
            if sample is not None and sample in self.ids:
                return sample
        return parse_id(parts[-1], numeric=self.numeric)


def find_channels(names: Iterable[str], rows: Rows) -> tuple[str, ...]:
    """Return the channels, sorted, that the names of the rows' images end in; ("",) for none."""
    ids, numeric = rows.ids.keys(), rows.numeric
    whole = ImageNames(("",), numeric=numeric, ids=ids)
    of_channel: dict[str, set[Id]] = defaultdict(set)
    alone = set()
    for name in names:
        parsed = whole.parse(name)
        if parsed is not None and parsed[0] in ids:
            alone.add(parsed[0])
            continue
        stem = drop_suffix(unicodedata.normalize("NFC", name.rpartition("/")[2]))
        for at in (match.start() for match in re.finditer("_", stem)):
            sample = parse_id(stem[:at], numeric=numeric)
            if sample is not None and sample in ids:
                of_channel[stem[at + 1 :]].add(sample)
    most = max(map(len, of_channel.values()), default=0)
    if len(alone) >= most:
        return ("",)
    return tuple(
        sorted(name for name in of_channel if len(of_channel[name]) > CHANNEL_SHARE * most)
    )
