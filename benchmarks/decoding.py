"""How fast images are decoded, beside a plain loop over PIL."""

import tarfile
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import Figure, alternate, compare
from cellline.data.archives import members
from cellline.data.competition import load_competition
from cellline.data.decoding import Encoded, decode
from cellline.data.listing import MAX_BYTES
from cellline.demo.drawing import Drawing, draw_competition

SAMPLES = 300  # of three images each; a tenth of a second of the plain loop
SAMPLES_TEST = 9
SIZE = 64
IMAGES = 3 * SAMPLES

PLAIN = "plain loop over PIL"
NOTES = {
    PLAIN: "tarfile, Image.open, np.asarray of one image after the other; nothing is kept",
    "decoded by 1 thread": "ours from the tar to pixels, all checksums checked; nothing is kept",
    "decoded by 2 threads": "the same",
    "decoded into the cache": "ours, all of it: names and headers of all images first, then "
    "decoding by 1 thread a processor, writing, fsync, digests",
}


def plain_loop(archive: Path) -> None:
    """What anyone would write."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if (file := tar.extractfile(member)) is not None:  # a folder
                np.asarray(Image.open(file))


def our_loop(archive: Path, workers: int) -> None:
    """Our decoding of the same, without what finds out which image is whose."""
    found = members(archive, "images_train")
    encoded = (Encoded("train", at, member.read(MAX_BYTES)) for at, member in enumerate(found))
    for image in decode(encoded, (SIZE, SIZE), workers):
        assert image.pixels is not None


def into_the_cache(folder: Path) -> None:
    """What the first verb does with an input that it does not know."""
    with tempfile.TemporaryDirectory(dir=folder) as cache_dir:
        load_competition(folder, Path(cache_dir))


def measure(rounds: int) -> list[Figure]:
    """The rows on decoding, of images that are drawn for it, in a tar that is in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_competition(folder, Drawing(SAMPLES, SAMPLES_TEST, size=SIZE))
        archive = folder / "images_train.tar"
        runs = [
            partial(plain_loop, archive),
            partial(our_loop, archive, 1),
            partial(our_loop, archive, 2),
            partial(into_the_cache, folder),
        ]
        seconds = alternate(dict(zip(NOTES, runs, strict=True)), rounds)
    seen = dict.fromkeys(NOTES, IMAGES) | {"decoded into the cache": IMAGES + 3 * SAMPLES_TEST}
    plain, *ours = (
        Figure(name, "images/s", tuple(seen[name] / each for each in seconds[name]), note)
        for name, note in NOTES.items()
    )
    return [plain, *ours, *(compare(figure, plain) for figure in ours)]
