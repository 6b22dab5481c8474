"""One zip that holds all that Kaggle's machine lacks, and the notebook that runs what is in it."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
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

# What wheels are carried for: Kaggle's image (September 2026) has Python 3.12, Colab's has 3.13;
# and 3.11 is the oldest that pyproject.toml takes.
PYTHONS = ("3.11", "3.12", "3.13")

# What is not carried, because the images have it in versions that pyproject.toml takes, and it is
# large: torch with what it needs, and what Colab's image, from which Kaggle's is made, has of the
# rest (numpy 2.0, scipy 1.16, pillow 11, OpenCV 4.13; https://github.com/googlecolab/backend-info,
# June 2026). Scikit-learn and matplotlib are carried: Kaggle's has long had older ones than we need
# (https://github.com/Kaggle/docker-python, kaggle_requirements.txt).
IN_IMAGE = frozenset(
    ("torch", "torchvision", "triton", "filelock", "fsspec", "mpmath", "networkx", "setuptools")
) | {"sympy", "numpy", "scipy", "pillow", "opencv-python-headless"}
IN_IMAGE_PREFIXES = ("nvidia-", "cuda-")

# glibc from 2.17 to 2.28; the images' is newer.
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 29)))

# The earliest that a zip can say: the same content gives the same bytes at any time.
WHEN = (1980, 1, 1, 0, 0, 0)


def build_bundle(output: Path, pythons: Sequence[str], weights: Path | None) -> Path:
    """Write `cellline-kaggle.zip`, and `.ipynb` beside it, into a folder; the zip's path.

    Raises UserError when the wheels can't be downloaded, or `weights` is not a file that
    torchvision publishes.
    """
    notebook = render_notebook((ROOT / "kaggle" / "notebook.py").read_text(encoding="utf-8"))
    members = {name: ROOT / name for name in sources()}
    members["weights/README.txt"] = ROOT / "kaggle" / "weights.txt"
    if weights:
        # As torch's own folder of downloads is laid out.
        members[f"weights/hub/checkpoints/{check_weights(weights)}"] = weights
    with tempfile.TemporaryDirectory() as folder:
        for python in pythons:
            say(f"downloading wheels for Python {python}")
            download_wheels(pins(python), python, Path(folder))
        wheels = sorted(Path(folder).glob("*.whl"))
        size = sum(path.stat().st_size for path in wheels)
        say(f"{len(wheels)} wheels of {size / 1e6:.0f} MB")
        path = output / f"{NAME}.zip"
        members |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
        write_zip(path, members, {f"{NAME}.ipynb": notebook})
    write_bytes(path.with_suffix(".ipynb"), notebook)
    say(f"wrote {path} ({path.stat().st_size / 1e6:.0f} MB)")
    return path


def sources() -> list[str]:
    """The files that a run needs, by their paths in the repository."""
    code = [str(path.relative_to(ROOT)) for path in source_files()]
    return [*code, "LICENSE", "README.md", "pyproject.toml", "requirements.txt"]


def pins(python: str) -> list[str]:
    """What requirements.txt pins for a Python on Linux, `name==version`, but what images have."""
    target = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [
        f"{pin.name}{pin.specifier}"
        for pin in map(Requirement, lines)
        if (pin.marker is None or pin.marker.evaluate(target)) and not in_image(pin.name)
    ]


def in_image(name: str) -> bool:
    """Whether a distribution is left to the image."""
    name = canonicalize_name(name)
    return name in IN_IMAGE or name.startswith(IN_IMAGE_PREFIXES)


def download_wheels(pinned: Iterable[str], python: str, folder: Path) -> None:
    """Download wheels of exactly these for a Python on Linux. Raises UserError where pip fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={python}", *(f"--platform={name}" for name in PLATFORMS)]
    command += [f"--dest={folder}", *pinned]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(
            f"the wheels for Python {python} can't be downloaded:\n"
            + "\n".join(f"  {line}" for line in errors or done.stderr.splitlines()[-3:])
        )


def check_weights(path: Path) -> str:
    """The file's name. Raises UserError unless it is what torchvision published under that name."""
    if not path.is_file():
        raise UserError(f"--weights-file {path}: no such file")
    # The names end in the first digits of the file's SHA-256.
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    if not digits:
        raise UserError(
            f"--weights-file {path}: must have the name that torchvision looks for, such as "
            "densenet161-8d451a50.pth"
        )
    if not digest_file(path).startswith(digits[1]):
        raise UserError(f"--weights-file {path}: its content is not what its name says")
    return path.name


def render_notebook(source: str) -> bytes:
    """A Jupyter notebook of a script whose cells begin with `# %%` or `# %% [markdown]`.

    Its format: https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    cells: list[dict[str, Any]] = []
    for cell in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        kind, text = cell.split("\n", 1)
        if kind == " [markdown]":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
            described: dict[str, Any] = {"cell_type": "markdown"}
        else:
            described = {"cell_type": "code", "execution_count": None, "outputs": []}
        lines = text.strip().splitlines(keepends=True)
        cells.append({**described, "metadata": {}, "source": lines})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    return f"{json.dumps(notebook, indent=1, ensure_ascii=False)}\n".encode()


def write_zip(path: Path, files: dict[str, Path], texts: dict[str, bytes]) -> None:
    """Write files and texts under these names; the same ones give the same bytes."""
    with atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted({*files, *texts}):
            member = zipfile.ZipInfo(name, WHEN)
            member.external_attr = 0o644 << 16
            packed = name.endswith((".whl", ".pth"))
            member.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            if name in texts:
                archive.writestr(member, texts[name])
            else:
                with files[name].open("rb") as source, archive.open(member, "w") as target:
                    shutil.copyfileobj(source, target)
