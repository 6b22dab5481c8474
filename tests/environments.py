"""Virtual environments that have some of this Python's packages, and nothing else."""

import importlib.metadata
import venv
from collections.abc import Callable
from pathlib import Path


def make_environment(folder: Path, has: Callable[[str], bool]) -> Path:
    """Make one whose packages are links to pip and to those that it `has`; its interpreter."""
    venv.create(folder, symlinks=True)
    for distribution in importlib.metadata.distributions():
        if distribution.name == "pip" or has(distribution.name):
            for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
                link = site_packages(folder) / top
                # Several distributions have their files under nvidia/.
                if not link.exists():
                    link.symlink_to(distribution.locate_file(top))
    return folder / "bin" / "python"


def installed(python: Path) -> dict[str, str]:
    """The versions of what is installed in an environment, by canonical names."""
    found = importlib.metadata.distributions(path=[str(site_packages(python.parents[1]))])
    return {found.name.lower().replace("_", "-"): found.version for found in found}


def site_packages(folder: Path) -> Path:
    [site] = folder.glob("lib/python*/site-packages")
    return site
