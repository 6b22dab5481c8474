"""What a result was computed with: this program's code and the packages it stands on."""

import hashlib
import importlib.metadata
import platform
import stat
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "albumentations",
    "optuna",
    "scikit-learn",
    "scipy",
    "matplotlib",
)


@cache
def code_version() -> str:
    """The name that git gives the content of `src`, with or without git: 40 hexadecimal digits.

    `git log -t --find-object=<it>` finds the commits that hold this code.
    """
    return _tree(SOURCES).hex()


def package_versions() -> dict[str, str]:
    """Python's version, and those of the packages that a result depends on."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **versions}


def is_source(name: str) -> bool:
    """Whether a file or folder of this name is a source, not what Python or an editor left."""
    return name != "__pycache__" and not name.startswith(".")


def _tree(folder: Path) -> bytes:
    """The SHA-1 of a folder's tree object; git's format: https://git-scm.com/docs/gitformat-pack"""
    entries = []
    for path in folder.iterdir():
        if not is_source(path.name):
            continue
        if path.is_dir():
            # Git knows no folder without files, and sorts folders as if they ended in a slash.
            if (tree := _tree(path)) != _EMPTY:
                entries.append((f"{path.name}/", f"40000 {path.name}", tree))
        else:
            mode = "100755" if path.stat().st_mode & stat.S_IXUSR else "100644"
            blob = _object("blob", path.read_bytes())
            entries.append((path.name, f"{mode} {path.name}", blob))
    lines = [f"{head}\0".encode() + name for _, head, name in sorted(entries)]
    return _object("tree", b"".join(lines))


def _object(kind: str, content: bytes) -> bytes:
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).digest()


_EMPTY = _object("tree", b"")
