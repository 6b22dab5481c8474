"""Speed and memory of decoding, beside a plain loop over Pillow.

Two sets are drawn: small crops as the challenge's, and photographs, which are stored at a small
size. `python -m benchmarks.decoding 2000` measures 2,000 photographs alone.
"""

import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import Figure, alternate, compare, peak_memory
from cellline.config import Reading
from cellline.data.competition import load_competition
from cellline.demo.drawing import Drawing, draw_competition
from cellline.host.processors import count_processors

SAMPLES = 300  # of three images each; a tenth of a second of the plain loop
SAMPLES_TEST = 9

PHOTOGRAPHS = 40
PHOTOGRAPHS_TEST = 10
SIZE = (2000, 1500)
STORED = 224  # pixels

PLAIN = "plain loop over Pillow"
CACHED = "decoded into the cache"
PLAIN_PHOTOGRAPHS = "photographs, plain loop over Pillow"
CACHED_PHOTOGRAPHS = "photographs, decoded into the cache"
NOTES = {
    PLAIN: "tarfile, Image.open, np.asarray of one image after the other; nothing is kept",
    CACHED: "ours, all of it: tables, names, checksums, decoding, writing, fsync, digests",
    PLAIN_PHOTOGRAPHS: f"JPEGs of 2000 x 1500, draft and resize to {STORED} x {STORED} pixels, in "
    "a thread for each core; nothing is kept",
    CACHED_PHOTOGRAPHS: "ours, all of it",
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


def draw_photographs(folder: Path, train: int, test: int) -> None:
    """Draw JPEGs of smooth colours and fine noise, about 600 kB each; eight are different."""
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(8):
        coarse = Image.fromarray(generator.integers(0, 256, (30, 40, 3), np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = smooth + generator.integers(-8, 9, smooth.shape, np.int16)
        file = BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        drawn.append(file.getvalue())
    ids = range(train + test)
    for split, rows in (("train", ids[:train]), ("test", ids[train:])):
        (folder / f"images_{split}").mkdir(parents=True)
        for row in rows:
            # The ending is what the input's names have; the bytes tell that it is a JPEG.
            (folder / f"images_{split}" / f"{row}.png").write_bytes(drawn[row % len(drawn)])
    for name, rows in (("y_train.csv", ids[:train]), ("sample_submission.csv", ids[train:])):
        lines = ["id,label", *(f"{row},{'ab'[row % 2]}" for row in rows)]
        (folder / name).write_text("\n".join(lines))


def plain_photograph(path: Path) -> np.ndarray:
    """Decode a JPEG, at a fraction of its size, to a small square."""
    with Image.open(path) as image:
        image.draft("RGB", (STORED, STORED))
        return np.asarray(image.resize((STORED, STORED), Image.Resampling.BILINEAR))


def plain_photographs(folder: Path) -> None:
    """Decode as anyone would write it who knows of threads."""
    with ThreadPoolExecutor(count_processors()) as pool:
        for _ in pool.map(plain_photograph, sorted(folder.glob("images_*/*"))):
            pass


def photographs_into_the_cache(folder: Path) -> None:
    """Decode as the first verb does."""
    with tempfile.TemporaryDirectory(dir=folder) as cache_dir, redirect_stdout(StringIO()):
        load_competition(folder, Path(cache_dir), Reading(channels=("",)), STORED)


def measure_photographs(rounds: int, train: int, test: int) -> list[Figure]:
    """The rows on photographs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "input"
        draw_photographs(folder, train, test)
        runs = {
            PLAIN_PHOTOGRAPHS: partial(plain_photographs, folder),
            CACHED_PHOTOGRAPHS: partial(photographs_into_the_cache, folder),
        }
        figures = compare_speed(runs, rounds, train + test)
        memory = peak_memory(photographs_into_the_cache, folder) / (1 << 20)
    return [*figures, Figure("photographs, most memory of the process", "MiB", (memory,))]


def compare_speed(
    runs: Mapping[str, Callable[[], object]], rounds: int, images: int
) -> list[Figure]:
    """Images per second of the plain loop and of ours, and how many times as fast ours is."""
    seconds = alternate(runs, rounds)
    plain, cached = (
        Figure(name, "images/s", tuple(images / each for each in seconds[name]), NOTES[name])
        for name in runs
    )
    return [plain, cached, compare(cached, plain)]


def measure(rounds: int) -> list[Figure]:
    """The rows on decoding: small images in tars that are in memory, and photographs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_competition(folder, Drawing(SAMPLES, SAMPLES_TEST))
        into_the_cache(folder)  # imports pandas
        runs = {PLAIN: partial(plain_loop, folder), CACHED: partial(into_the_cache, folder)}
        figures = compare_speed(runs, rounds, 3 * (SAMPLES + SAMPLES_TEST))
    return figures + measure_photographs(rounds, PHOTOGRAPHS, PHOTOGRAPHS_TEST)


if __name__ == "__main__":
    for figure in measure_photographs(3, int(sys.argv[1]), PHOTOGRAPHS_TEST):
        print(f"{figure.name}: {figure.median:.4g} {figure.unit} {figure.spread}")
