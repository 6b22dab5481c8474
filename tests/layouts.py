"""Input folders of tiny images, as any competition may lay them out."""

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Files = Mapping[str, bytes | str]


def image(number: int, form: str = "JPEG") -> bytes:
    """An image whose brightness is its number, 12 x 9 pixels."""
    data = io.BytesIO()
    Image.fromarray(np.full((9, 12, 3), number, np.uint8)).save(data, form)
    return data.getvalue()


def images(pattern: str, names: Sequence[object], first: int = 0) -> dict[str, bytes]:
    """Images at `pattern`, a format string, numbered in their brightness from `first` on."""
    form = "PNG" if pattern.endswith("png") else "JPEG"
    return {pattern.format(name): image(first + at, form) for at, name in enumerate(names)}


def csv(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def write(files: Files, folder: Path = Path("input")) -> Path:
    """Write files; a name with an archive in its path is packed into that archive."""
    packed: dict[Path, dict[str, bytes]] = {}
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        parts = name.split("/")
        archive = next((at for at, part in enumerate(parts) if part.endswith((".zip", ".tar"))), -1)
        if archive >= 0:
            path = folder / "/".join(parts[: archive + 1])
            packed.setdefault(path, {})["/".join(parts[archive + 1 :])] = data
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    for path, content_of in packed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as file:
                for name, data in content_of.items():
                    file.writestr(name, data)
        else:
            with tarfile.open(path, "w") as file_of:
                for name, data in content_of.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    file_of.addfile(info, io.BytesIO(data))
    return folder
