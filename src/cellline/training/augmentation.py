"""Random variation of training images, a pure function of (seed, epoch, sample)."""

import os
import random
from typing import TYPE_CHECKING

import numpy as np

from cellline.config import Training
from cellline.seeding import AUGMENT, derive_seed

if TYPE_CHECKING:
    import albumentations


class Augmenter:
    """albumentations' transforms, seeded anew for every image.

    In albumentations 2.0.8, forked loader workers repeat each other's draws unless each call is
    seeded; with a seed for each image, neither the number of workers nor their order matters.
    `set_random_state` makes all transforms draw from one generator in turn. `set_random_seed` would
    give each its own generator with the same seed, so that two transforms of a kind draw alike (an
    image would be mirrored both ways or not at all).
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.transforms: albumentations.Compose | None = None

    def __call__(self, image: np.ndarray, epoch: int, sample: int) -> np.ndarray:
        """Vary one image, uint8 [channel, height, width]; `sample` is its id's number."""
        # Built at the first use, in the process that uses them: importing albumentations takes a
        # second, and its objects need not travel to the loader's workers.
        if self.transforms is None:
            square = image.shape[1] == image.shape[2]
            self.transforms = build_transforms(self.training, square=square)
        seed = derive_seed(self.training.seed, AUGMENT, epoch, sample)
        self.transforms.set_random_state(np.random.default_rng(seed), random.Random(seed))
        varied = self.transforms(image=np.ascontiguousarray(image.transpose(1, 2, 0)))["image"]
        result: np.ndarray = varied.transpose(2, 0, 1)
        return result


def build_transforms(training: Training, *, square: bool) -> "albumentations.Compose":
    """The transforms, for images uint8 [height, width, channel] of one shape.

    Those of the symmetry come first; `model.views.choose_views` has the same ones for prediction.
    Images that are not square are only mirrored: quarter turns would change their shape.
    """
    # Without this, albumentations asks a server for newer versions on import.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations
    import cv2

    # At 64 pixels OpenCV's threads cost more than they gain, and starve those of training.
    cv2.setNumThreads(0)
    settings = training.augmentation
    mirror = albumentations.HorizontalFlip(p=0.5)
    flips = [mirror, albumentations.VerticalFlip(p=0.5)]
    turns = [albumentations.D4(p=1)] if square else flips
    return albumentations.Compose(
        [
            *{"d4": turns, "flips": flips, "mirror": [mirror], "none": []}[training.symmetry],
            albumentations.Affine(
                rotate=(-settings.rotate, settings.rotate),
                scale=(1 - settings.scale, 1 + settings.scale),
                translate_percent=(-settings.translate, settings.translate),
                # Cells continue beyond the crop: a mirrored border looks like that, black doesn't.
                border_mode=cv2.BORDER_REFLECT_101,
                p=1,
            ),
            albumentations.MultiplicativeNoise(
                multiplier=(1 - settings.gain, 1 + settings.gain), per_channel=True, p=1
            ),
            albumentations.AdditiveNoise(
                noise_type="uniform",
                spatial_mode="constant",
                noise_params={"ranges": [(-settings.offset, settings.offset)]},
                p=1,
            ),
        ]
    )
