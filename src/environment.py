"""Check that the active Python has what pyproject.toml requires, or install it from a folder."""

import argparse
import importlib.metadata
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ImportError:  # nothing is installed yet: pip's own copy
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]


def main() -> None:
    """End with status 2 and a list if packages are missing or have a wrong version.

    `--find-links FOLDER` installs them from wheels there, without a network.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--find-links")
    folder = parser.parse_args().find_links
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    wanted = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    lacking = [text for text in wanted if not is_met(Requirement(text))]
    pip = [sys.executable, "-m", "pip", "install"]
    if lacking and folder:
        print("installing", *lacking, flush=True)
        # Not compiled, which takes most of the time: Python compiles what is imported.
        flags = ["--quiet", "--no-compile", "--no-index", f"--find-links={folder}"]
        if subprocess.run([*pip, *flags, *lacking], check=False).returncode == 0:  # noqa: S603
            return
    if lacking:
        print(f"error: {sys.executable} lacks {', '.join(lacking)}", file=sys.stderr)
        print("Install them:", shlex.join([*pip, *lacking]), file=sys.stderr)
        sys.exit(2)


def is_met(requirement: Requirement) -> bool:
    """Tell if the installed version is one that is required."""
    found = importlib.metadata.distributions(name=requirement.name)
    return any(requirement.specifier.contains(each.version, prereleases=True) for each in found)


if __name__ == "__main__":
    main()
