"""Channels of an image as colours, for a person to look at."""

from collections.abc import Sequence

import numpy as np

# The channels of a colour image.
NATURAL = ("red", "green", "blue")
# Of three other channels, those shown as red, green and blue: microtubules, reticulum, nuclei.
FALSE_COLOURS = [1, 2, 0]


def order_colours(channels: Sequence[str]) -> list[int] | None:
    """Indices of the channels that are shown as red, green and blue; None if shown in grey."""
    if len(channels) != len(NATURAL):
        return None
    return [0, 1, 2] if tuple(channels) == NATURAL else FALSE_COLOURS


def colour(image: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """Colours [height, width, 3] of an image uint8 [channel, height, width] of these channels.

    If there are not three channels, their mean in grey [height, width].
    """
    order = order_colours(channels)
    if order is not None:
        return image[order].transpose(1, 2, 0)
    grey: np.ndarray = np.rint(image.mean(axis=0)).astype(np.uint8)
    return grey
