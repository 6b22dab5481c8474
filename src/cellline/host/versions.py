"""The versions that a result was computed with: this program's code and the packages below it."""

import hashlib
import importlib.metadata
import platform
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]

PACKAGES = ["torch", "torchvision", "numpy", "pandas", "albumentations", "optuna"]
PACKAGES += ["scikit-learn", "scipy", "matplotlib"]


@cache
def code_version() -> str:
    """SHA-256 of the names and contents of all source files, in hexadecimal."""
    whole = hashlib.sha256()
    for path in source_files():
        content = path.read_bytes()
        whole.update(f"{path.relative_to(SOURCES)}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def package_versions() -> dict[str, str]:
    """The version of Python, and of each package that a result depends on."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **versions}


def source_files() -> list[Path]:
    """Every file under `src`, sorted, except links and what Python or an editor left there."""
    return sorted(
        path
        for path in SOURCES.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not any(
            part == "__pycache__" or part.startswith(".")
            for part in path.relative_to(SOURCES).parts
        )
    )
