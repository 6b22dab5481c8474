"""Pairs of samples of one group as pictures, for a user to judge the search by."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cellline.audit.groups import LARGEST, MIXED, Shown
from cellline.data.colours import colour
from cellline.data.competition import Competition
from cellline.host.files import write_bytes

FOLDER = "audit"  # in the folder of folds.csv
NAMES = (LARGEST, *MIXED)
SIDE = 256  # pixels, at least: a sample of 28 is hard to see


def write_pictures(oof_dir: Path, competition: Competition, pairs: Sequence[Shown]) -> None:
    """Write each pair of training samples, side by side, as a PNG in `FOLDER`.

    Those of folds that were dealt before are deleted.
    """
    for name in NAMES:
        (oof_dir / FOLDER / name).unlink(missing_ok=True)
    for pair in pairs:
        rows = np.searchsorted(competition.train_ids, np.array(pair.ids))
        images = [colour(image, competition.channels) for image in competition.train_images[rows]]
        zoom = -(-SIDE // images[0].shape[0])
        gap = np.full_like(images[0][:, :1], 255)
        joined = np.concatenate([images[0], gap, images[1]], axis=1)
        file = io.BytesIO()
        larger = joined.repeat(zoom, axis=0).repeat(zoom, axis=1)
        Image.fromarray(larger).save(file, format="PNG", optimize=True)
        write_bytes(oof_dir / FOLDER / pair.name, file.getvalue())
