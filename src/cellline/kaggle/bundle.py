"""One zip with everything that Kaggle's machine lacks, and the notebook that runs it."""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cellline.cli import list_changes, usual_settings
from cellline.config import Config, Training
from cellline.errors import Caution, UserError
from cellline.host.files import atomic, write_bytes
from cellline.host.progress import say
from cellline.host.sources import INSTALLED, VERBS, source_files
from cellline.model.network import build_backbone
from cellline.model.weights import (
    KAGGLE_INPUT,
    check_network,
    find_published,
    find_weights,
)

ROOT = VERBS.parent
NAME = "cellline-kaggle"

# Omitted, because they are large, and Colab's image (https://github.com/googlecolab/backend-info,
# June 2026), from which Kaggle's is made, has versions that pyproject.toml allows. Scikit-learn and
# matplotlib are included: Kaggle's have long been older (https://github.com/Kaggle/docker-python).
IN_IMAGE = {
    *("torch", "torchvision", "triton", "filelock", "fsspec", "mpmath", "networkx", "setuptools"),
    *("sympy", "numpy", "scipy", "pandas", "pillow", "opencv-python-headless"),
}
IN_IMAGE_PREFIXES = ("nvidia-", "cuda-")

# Linux with glibc from 2.17 to 2.28; the images' is newer.
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 29)))
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}

# The earliest time that a zip can hold, so that the same content gives the same bytes.
WHEN = (1980, 1, 1, 0, 0, 0)


def build_bundle(config: Config, output: Path, pythons: Sequence[str]) -> Path:
    """Write `cellline-kaggle.zip`, and `.ipynb` beside it, into a folder; return the zip's path.

    The notebook trains with the settings of `config`. Without ImageNet weights at hand it trains
    from scratch, and a warning says so before anything is packed. Raises UserError for an unknown
    network, for a file of weights that doesn't fit it, if the wheels can't be downloaded, and where
    pip has installed this program, which leaves out what the zip needs.
    """
    if INSTALLED:
        raise UserError(
            "`kaggle` packs the program's checkout, which pip does not install: run it in one"
        )
    weights, files = include_weights(config.training)
    script = (ROOT / "kaggle" / "notebook.py").read_text(encoding="utf-8")
    notebook = render_notebook(script, list_arguments(config, weights))
    members = {f"src/{name}": path for name, path in source_files().items()}
    for name in ("LICENSE", "README.md", "pyproject.toml", "requirements.txt"):
        members[name] = ROOT / name
    members["weights/README.txt"] = ROOT / "kaggle" / "weights.txt"
    members |= files
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
    held = ", ".join(file.name for file in files.values()) or "none"
    say(f"wrote {path} ({path.stat().st_size / 1e6:.0f} MB; weights: {held})")
    say(f"wrote {path.with_suffix('.ipynb')}")
    return path


def include_weights(training: Training) -> tuple[str, dict[str, Path]]:
    """The notebook's `--weights`, and the file to include by its name in the zip, if there is one.

    Raises UserError for an unknown network, and for a file that is not weights of it.
    """
    network = training.network
    check_network(network)
    try:
        path = find_weights(network, training.weights)
    except UserError as error:
        if training.weights != "imagenet":
            raise
        say(
            Caution(
                "the zip will hold no weights, and the notebook trains from scratch, which usually "
                f"scores lower: {error}\n"
                "  Or attach the weights on Kaggle, and change none to imagenet in the notebook's "
                "first cell."
            )
        )
        path = None
    if path is None:
        return "none", {}
    build_backbone(training, path)
    if training.weights != "imagenet":
        name = f"weights/{path.name}"
        return name, {name: path}
    names = find_published(network).names
    # Each repository of the hub calls its file model.safetensors, and a copy is sought by name.
    name = path.name if path.name in names else names[0]
    return "imagenet", {f"weights/hub/checkpoints/{name}": path}


def list_arguments(config: Config, weights: str) -> list[str]:
    """The settings that the notebook gives to every verb: `config`'s, with its own weights."""
    training = config.training
    chosen = [f"--recipe={config.recipe}", f"--weights={training.weights}"]
    # Kaggle's input has no competition.toml, so the settings of the one here are listed, too.
    usual = usual_settings(Config, [*chosen, f"--input-dir={KAGGLE_INPUT}"])
    omitted = {*asdict(config.folders), "network", "weights", "recipe"}
    words = ["--network", training.network, "--weights", weights, "--recipe", config.recipe]
    return words + list_changes(config, usual, omitted)


def list_pins(python: str) -> list[str]:
    """Pins of requirements.txt and their hashes for a Python on Linux, less those in the images."""
    target = {**LINUX, "python_version": python, "python_full_version": f"{python}.0"}
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", "")
    pins = []
    for line in text.splitlines():
        written, hashes = line.split("--hash=", 1)
        pin = Requirement(written)
        if (pin.marker is None or pin.marker.evaluate(target)) and not in_image(pin.name):
            pins.append(f"{pin.name}{pin.specifier} --hash={hashes}")
    return pins


def in_image(name: str) -> bool:
    """Tell if the images have a distribution."""
    name = canonicalize_name(name)
    return name in IN_IMAGE or name.startswith(IN_IMAGE_PREFIXES)


def download_wheels(python: str, folder: Path) -> None:
    """Download the pinned wheels for a Python on Linux. Raises UserError if pip fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={python}", *(f"--platform={name}" for name in PLATFORMS)]
    pins = folder / "requirements.txt"
    pins.write_text("\n".join(list_pins(python)), encoding="utf-8")
    command += [f"--dest={folder}", "--require-hashes", f"--requirement={pins}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise UserError(
            f"can't download the wheels for Python {python}; pip's reason:\n{done.stderr}"
        )


def render_notebook(source: str, arguments: Sequence[str]) -> bytes:
    """Jupyter notebook of a script whose cells begin with `# %%` or `# %% [markdown]`.

    `arguments` replace the script's ARGS. The format of a notebook:
    https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    written = json.dumps(arguments, ensure_ascii=False)
    source = re.sub(r"^ARGS = \[.*\]", lambda _: f"ARGS = {written}", source, flags=re.MULTILINE)
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
