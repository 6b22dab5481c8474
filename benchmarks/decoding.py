"""How fast images are decoded, beside a plain loop over PIL."""

import tarfile
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import Figure, alternate, compare
from cellline.data.competition import load_competition
from cellline.demo.drawing import Drawing, draw_competition

SAMPLES = 300  # of three images each; a tenth of a second of the plain loop
SAMPLES_TEST = 9
IMAGES = 3 * (SAMPLES + SAMPLES_TEST)

PLAIN = "plain loop over PIL"
CACHED = "decoded into the cache"
NOTES = {
    PLAIN: "tarfile, Image.open, np.asarray of one image after the other; nothing is kept",
    CACHED: "ours, all of it: tables, names, checksums, decoding, writing, fsync, digests",
}


def plain_loop(folder: Path) -> None:
    """Decode as anyone would write it."""
    for split in ("train", "test"):
        with tarfile.open(folder / f"images_{split}.tar") as tar:
            for member in tar:
                if (file := tar.extractfile(member)) is not None:  # a folder
                    np.asarray(Image.open(file))


def into_the_cache(folder: Path) -> None:
    """Decode as the first verb does with an input that it does not know."""
    with tempfile.TemporaryDirectory(dir=folder) as cache_dir:
        load_competition(folder, Path(cache_dir))


def measure(rounds: int) -> list[Figure]:
    """The rows on decoding, of images that are drawn for it, in tars that are in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_competition(folder, Drawing(SAMPLES, SAMPLES_TEST))
        into_the_cache(folder)  # imports pandas
        runs = {PLAIN: partial(plain_loop, folder), CACHED: partial(into_the_cache, folder)}
        seconds = alternate(runs, rounds)
    plain, cached = (
        Figure(name, "images/s", tuple(IMAGES / each for each in seconds[name]), note)
        for name, note in NOTES.items()
    )
    return [plain, cached, compare(cached, plain)]
