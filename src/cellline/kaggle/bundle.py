"""One zip with everything that Kaggle's machine lacks, and the notebook that runs it."""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cellline.errors import UserError
from cellline.host.files import atomic, digest_file, write_bytes
from cellline.host.progress import say
from cellline.host.versions import SOURCES, source_files

ROOT = SOURCES.parent
NAME = "cellline-kaggle"

# Kaggle's image (September 2026) has 3.12, Colab's 3.13; 3.11 is the oldest that we allow.
PYTHONS = ("3.11", "3.12", "3.13")

# Omitted, because they are large, and Colab's image (https://github.com/googlecolab/backend-info,
# June 2026), from which Kaggle's is made, has versions that pyproject.toml allows. Scikit-learn and
# matplotlib are included: Kaggle's have long been older (https://github.com/Kaggle/docker-python).
IN_IMAGE = frozenset(
    ("torch", "torchvision", "triton", "filelock", "fsspec", "mpmath", "networkx", "setuptools")
) | {"sympy", "numpy", "scipy", "pandas", "pillow", "opencv-python-headless"}
IN_IMAGE_PREFIXES = ("nvidia-", "cuda-")

# Linux with glibc from 2.17 to 2.28; the images' is newer.
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 29)))
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}

# The earliest time that a zip can hold, so that the same content gives the same bytes.
WHEN = (1980, 1, 1, 0, 0, 0)


def build_bundle(output: Path, pythons: Sequence[str], weights: Path | None) -> Path:
    """Write `cellline-kaggle.zip`, and `.ipynb` beside it, into a folder; return the zip's path.

    Raises UserError if the wheels can't be downloaded, or if `weights` is not a file that
    torchvision publishes.
    """
    notebook = render_notebook((ROOT / "kaggle" / "notebook.py").read_text(encoding="utf-8"))
    sources = [str(path.relative_to(ROOT)) for path in source_files()]
    sources += ["LICENSE", "README.md", "pyproject.toml", "requirements.txt"]
    members = {name: ROOT / name for name in sources}
    members["weights/README.txt"] = ROOT / "kaggle" / "weights.txt"
    if weights:
        # The layout of torch's own download folder.
        members[f"weights/hub/checkpoints/{check_weights(weights)}"] = weights
    path = output / f"{NAME}.zip"
    with tempfile.TemporaryDirectory() as folder:
        for python in pythons:
            say(f"downloading wheels for Python {python}")
            download_wheels(python, Path(folder))
        wheels = sorted(Path(folder).glob("*.whl"))
        say(f"{len(wheels)} wheels of {sum(one.stat().st_size for one in wheels) / 1e6:.0f} MB")
        members |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
        with atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
            for name, source in sorted(members.items()):
                archive.writestr(zipfile.ZipInfo(name, WHEN), source.read_bytes())
            archive.writestr(zipfile.ZipInfo(f"{NAME}.ipynb", WHEN), notebook)
    write_bytes(path.with_suffix(".ipynb"), notebook)
    say(f"wrote {path} ({path.stat().st_size / 1e6:.0f} MB)")
    return path


def list_pins(python: str) -> list[str]:
    """Pins of requirements.txt for a Python on Linux, `name==version`, less those in the images."""
    target = {**LINUX, "python_version": python, "python_full_version": f"{python}.0"}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [
        f"{pin.name}{pin.specifier}"
        for pin in map(Requirement, lines)
        if (pin.marker is None or pin.marker.evaluate(target)) and not in_image(pin.name)
    ]


def in_image(name: str) -> bool:
    """Tell if the images have a distribution."""
    name = canonicalize_name(name)
    return name in IN_IMAGE or name.startswith(IN_IMAGE_PREFIXES)


def download_wheels(python: str, folder: Path) -> None:
    """Download the pinned wheels for a Python on Linux. Raises UserError if pip fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={python}", *(f"--platform={name}" for name in PLATFORMS)]
    command += [f"--dest={folder}", *list_pins(python)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise UserError(
            f"can't download the wheels for Python {python}; check the connection:\n{done.stderr}"
        )


def check_weights(path: Path) -> str:
    """Return the file's name. Raises UserError unless torchvision published it under that name."""
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    if not (path.is_file() and digits and digest_file(path).startswith(digits[1])):
        raise UserError(
            f"--weights-file {path}: is not a file as torchvision publishes them, whose name ends "
            "in the first digits of its SHA-256, such as densenet161-8d451a50.pth"
        )
    return path.name


def render_notebook(source: str) -> bytes:
    """Jupyter notebook of a script whose cells begin with `# %%` or `# %% [markdown]`.

    Its format: https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    cells: list[dict[str, Any]] = []
    for cell in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        kind, text = cell.split("\n", 1)
        described: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": []}
        if kind == " [markdown]":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
            described = {"cell_type": "markdown"}
        lines = text.strip().splitlines(keepends=True)
        cells.append({**described, "metadata": {}, "source": lines})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
    return f"{json.dumps(notebook, indent=1, ensure_ascii=False)}\n".encode()
