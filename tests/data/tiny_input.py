"""A tiny competition input in the making."""

import csv
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cellline.config import Reading
from cellline.data.competition import load_competition
from cellline.errors import UserError

CHANNELS = ("blue", "red", "yellow")
LABELS = {1: "RT4", 2: "HeLa", 17: "RT4", 30: "A549"}
TEST_IDS = (5, 901)

Id = int | str


def png(pixels: np.ndarray, mode: str = "L") -> bytes:
    """Encode pixels, uint8 [height, width]."""
    data = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(data, "PNG")
    return data.getvalue()


@dataclass
class Input:
    """The input folder's content: change it, then write it."""

    folder: Path
    pixels: dict[Id, np.ndarray]  # id -> uint8 [channel, 8, 6], what the images were made from
    images: dict[str, dict[str, bytes]] = field(default_factory=dict)  # split -> name -> PNG
    y_train: bytes = b""
    sample_submission: bytes = b""

    def write(self, form: str = "", *, prefix: bool = True, reverse: bool = False) -> Path:
        """Write the four files; `form` is the images' suffix, "" is a folder."""
        self.folder.mkdir(exist_ok=True)
        for split, images in self.images.items():
            stem = f"images_{split}"
            named = [(f"{stem}/{name}" if prefix else name, png) for name, png in images.items()]
            if reverse:
                named.reverse()
            path = self.folder / f"{stem}{form}"
            if form == ".zip":
                with zipfile.ZipFile(path, "w") as archive:
                    archive.mkdir(stem)
                    for name, data in named:
                        archive.writestr(name, data)
            elif form:
                path.write_bytes(tar(named, "w" if form == ".tar" else "w:gz"))
            else:
                for name, data in images.items():
                    target = path / stem / name if prefix else path / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
        (self.folder / "y_train.csv").write_bytes(self.y_train)
        (self.folder / "sample_submission.csv").write_bytes(self.sample_submission)
        return self.folder


def tar(named: Sequence[tuple[str, bytes]], mode: str = "w") -> bytes:
    """Pack files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in named:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def make_input(
    folder: Path,
    channels: Sequence[str] = CHANNELS,
    labels: Mapping[int, str] | Mapping[str, str] = LABELS,
    test_ids: Sequence[Id] = TEST_IDS,
) -> Input:
    """Draw a sound input of random 8 x 6 images, numbers zero-padded in the images' names."""
    rng = np.random.default_rng(0)
    ids: list[Id] = [*labels, *test_ids]
    pixels = {i: rng.integers(0, 256, (len(channels), 8, 6), dtype=np.uint8) for i in ids}
    made = Input(folder, pixels)
    for split, members in (("train", labels), ("test", test_ids)):
        made.images[split] = {
            f"{i:05d}_{channel}.png" if isinstance(i, int) else f"{i}_{channel}.png": png(plane)
            for i in members
            for channel, plane in zip(channels, pixels[i], strict=True)
        }
    made.y_train = table(labels.items())
    made.sample_submission = table((i, "RT4") for i in test_ids)
    return made


def table(rows: Iterable[tuple[Id, str]]) -> bytes:
    """A CSV of ids and labels."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file_id", "cell_line"), *rows])
    return text.getvalue().encode()


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return what changes when anything in a folder does."""
    stats = ((str(path), path.lstat()) for path in folder.rglob("*"))
    return sorted((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def refusal(folder: Path, cache_dir: Path, channels: Sequence[str] = CHANNELS) -> list[str]:
    """Load what must be refused; return the message's lines, having seen that nothing is left."""
    before = listing(folder)
    with pytest.raises(UserError) as raised:
        load_competition(folder, cache_dir, Reading(channels=channels))
    assert listing(folder) == before
    assert set(cache_dir.glob("*")) <= {cache_dir / ".lock"}
    lines = str(raised.value).splitlines()
    problems = [line for line in lines if line.startswith("  ")]
    plural = "" if len(problems) == 1 else "s"
    assert lines[0] == f"The input in {folder} has {len(problems)} problem{plural}:"
    return lines[1:]
