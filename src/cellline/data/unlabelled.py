"""New images: a folder or archive without labels or a template, for networks that are trained."""

from pathlib import Path

from cellline.data.cache import DecodedSplit, open_images
from cellline.data.competition import Competition, describe_blank
from cellline.data.decoding import Form
from cellline.data.files import UnreadableError, members
from cellline.data.ids import is_image
from cellline.data.images import SplitReader
from cellline.data.naming import ImageNames
from cellline.data.problems import Problems
from cellline.data.rows import Rows
from cellline.errors import Caution, UserError
from cellline.host.progress import say


def open_unlabelled(place: Path, competition: Competition, cache_dir: Path) -> DecodedSplit:
    """Open all images in a folder or archive, in the form of a competition's training images.

    A sample's id is the name of its files without the channel; its path, if names are repeated.
    Where training images are squares of one size, images of other sizes are resized to it, and a
    line says so. Raises UserError with every problem found, and if there are no images.
    """
    place = place.resolve()
    if not place.exists():
        raise UserError(f"there is no folder or archive {place}")
    channels = competition.reading.channels or ("",)
    ids = list_samples(place, channels)
    if not ids:
        pattern = ImageNames(channels, numeric=False).pattern
        raise UserError(
            f"no images in {place}: expected files named {pattern} as in training"
            + (f" (channels: {', '.join(channels)})" if any(channels) else "")
        )
    problems = Problems(place.parent)
    rows = Rows(place.name, numeric=False, ids={one: one for one in ids})
    names = ImageNames(channels, numeric=False, ids=rows.ids)
    reader = SplitReader("new", place, rows, names, problems)
    _, _, height, width = competition.train_images.shape
    scales = [competition.scales.get(channel) for channel in competition.channels]
    form = Form(
        channels,
        width if width == height else None,
        competition.reading.resize,
        (width, height),
        competition.channels,
        deep=bool(competition.scales),
        scales=tuple(scales) if competition.scales else (),
        final=True,
    )
    images = open_images(cache_dir, [reader], problems, form)["new"]
    for caution in describe_blank(place.name, images):
        say(caution)
    if images.resized and not competition.resized:
        say(
            Caution(
                f"{place.name}: images of other sizes than the training images' {width} x {height} "
                "pixels were resized to it, so what they show appears at another scale"
            )
        )
    return images


def list_samples(place: Path, channels: tuple[str, ...]) -> list[str]:
    """Ids of the samples in a folder or archive. Raises UserError if it can't be read."""
    names = ImageNames(channels, numeric=False)
    try:
        paths = [member.name for member in members(place) if is_image(member.name)]
    except UnreadableError as error:
        raise UserError(f"{place} can't be read: {error}. {error.advice}") from error
    except OSError as error:
        raise UserError(f"{place} can't be read: {error.strerror}") from error
    samples = {head for path in paths for head, _ in names.cut(path)}
    short = {head.rpartition("/")[2] for head in samples}
    return sorted(short if len(short) == len(samples) else samples)
