"""Samples as small pictures that are part of the page."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cellline.data.images import name_channel
from cellline.report.content import Tile
from cellline.runs.run import Run

# Larger images are shrunk to this side, so that a page of a hundred of them opens on a phone.
SIDE = 128
# Channels as red, green and blue, where there are three: microtubules, reticulum, nuclei.
FALSE_COLOURS = [1, 2, 0]


def false_colour(image: np.ndarray) -> np.ndarray:
    """An image uint8 [channel, height, width] as [height, width, 3], or the mean [height, width].

    Three channels become colours as in the picture of the demo's cells; other numbers of them are
    shown by their mean, in grey.
    """
    shown: np.ndarray
    if len(image) == len(FALSE_COLOURS):
        shown = image[FALSE_COLOURS].transpose(1, 2, 0)
    else:
        shown = np.rint(image.mean(axis=0)).astype(np.uint8)
    return shown


def describe_colours(channels: Sequence[str]) -> str:
    """What is seen in which colour."""
    if len(channels) != len(FALSE_COLOURS):
        return "Pictures show the mean of all channels, in grey."
    red, green, blue = (name_channel(channels[index]) for index in FALSE_COLOURS)
    return f"Pictures show channel {red} in red, {green} in green and {blue} in blue."


def encode(image: np.ndarray) -> str:
    """A picture uint8 [height, width] or [height, width, 3] as the data: address of a PNG."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def show(run: Run, row: int, *caption: str) -> Tile:
    """The training sample of a row of the competition; its id begins the caption."""
    sample = str(run.competition.train_ids[row])
    return Tile(encode(false_colour(run.competition.train_images[row])), (sample, *caption))


def show_errors(run: Run, at: Sequence[int] | np.ndarray) -> list[Tile]:
    """Predicted samples, with their labels, what they were taken for, and how surely."""
    return [
        show(
            run,
            int(run.oof.rows[i]),
            run.class_names[run.oof.labels[i]],
            f"taken for {run.class_names[run.oof.predicted[i]]},",
            whole_percent(run.oof.prob[i].max()),
        )
        for i in at
    ]


def whole_percent(share: float) -> str:
    """Such as '87 %', which no line is broken in."""
    return f"{100 * share:.0f}\u00a0%"
