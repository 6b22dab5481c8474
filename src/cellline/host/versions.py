"""The versions that a result was computed with: this program's code and the packages below it."""

import hashlib
import importlib.metadata
import platform
from functools import cache

from cellline.host.sources import source_files

PACKAGES = ["torch", "torchvision", "timm", "numpy", "pandas", "pillow", "albumentations", "optuna"]
PACKAGES += ["scikit-learn", "scipy", "matplotlib"]


@cache
def code_version() -> str:
    """SHA-256 of the names and contents of all source files, in hexadecimal."""
    whole = hashlib.sha256()
    for name, path in source_files().items():
        content = path.read_bytes()
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def package_versions() -> dict[str, str]:
    """The version of Python, and of each package that a result depends on."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **versions}
