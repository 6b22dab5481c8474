"""Samples as small pictures in the page."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cellline.data.colours import NATURAL, colour, order_colours
from cellline.data.images import name_channel
from cellline.report.content import Tile
from cellline.runs.run import Run

# Larger images are shrunk to this side, so that a page of a hundred pictures opens on a phone.
SIDE = 128


def describe_colours(channels: Sequence[str]) -> str:
    """A sentence on the colours that pictures show channels in."""
    order = order_colours(channels)
    if order is None:
        return (
            "Pictures show the mean of all channels." if len(channels) > 1 else "Pictures are grey."
        )
    if tuple(channels) == NATURAL:
        return "Pictures show their own colours."
    red, green, blue = (name_channel(channels[index]) for index in order)
    return f"Pictures show channel {red} in red, {green} in green and {blue} in blue."


def encode(image: np.ndarray) -> str:
    """A picture uint8 [height, width] or [height, width, 3] as the data: address of a PNG."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def make_tile(run: Run, row: int, *caption: str) -> Tile:
    """The picture of a training sample, by its row; the sample's id heads the caption."""
    sample = str(run.competition.train_ids[row])
    picture = colour(run.competition.train_images[row], run.competition.channels)
    return Tile(row, encode(picture), (sample, *caption))


def whole_percent(share: float) -> str:
    """Format a share, such as '87 %', with a space that does not break."""
    return f"{100 * share:.0f}\u00a0%"
