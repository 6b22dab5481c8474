"""Channels of an image as colours, for a person to look at."""

import numpy as np

# Of three channels, those shown as red, green and blue: microtubules, reticulum, nuclei.
FALSE_COLOURS = [1, 2, 0]


def false_colour(image: np.ndarray) -> np.ndarray:
    """Colours [height, width, 3] of an image uint8 [channel, height, width] with three channels.

    Any other number of channels is shown in grey: their mean [height, width].
    """
    if len(image) == len(FALSE_COLOURS):
        return image[FALSE_COLOURS].transpose(1, 2, 0)
    grey: np.ndarray = np.rint(image.mean(axis=0)).astype(np.uint8)
    return grey
