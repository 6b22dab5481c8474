"""Check that the active Python has what pyproject.toml requires, or install it from a folder."""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """End with status 2 and a list if packages are missing or have a wrong version.

    Arguments name more groups of dependencies, such as dev. `--find-links FOLDER` first installs
    the missing ones from wheels there, without a network. This runs before anything is installed,
    so it uses the standard library alone and reads only the ranges that pyproject.toml has.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*")
    parser.add_argument("--find-links", type=Path)
    arguments = parser.parse_args()
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    groups = [settings["dependency-groups"][group] for group in arguments.groups]
    wanted = sum(groups, settings["project"]["dependencies"])
    lacking = find_lacking(wanted)
    pip = [sys.executable, "-m", "pip", "install"]
    if lacking and arguments.find_links:
        print("installing", ", ".join(lacking.values()), flush=True)
        # Not compiled, which takes most of the time: Python compiles what is imported.
        flags = ["--quiet", "--disable-pip-version-check", "--no-compile", "--no-index"]
        # If pip fails, the list below names what is still missing.
        flags.append(f"--find-links={arguments.find_links}")
        subprocess.run([*pip, *flags, *lacking], check=False)  # noqa: S603
        lacking = find_lacking(wanted)
    if lacking:
        print(f"error: {sys.executable} lacks", *lacking.values(), sep="\n  ", file=sys.stderr)
        quoted = " ".join(f"'{requirement}'" for requirement in lacking)
        print(f"Install them: {' '.join(pip)} {quoted}", file=sys.stderr)
        sys.exit(2)


def find_lacking(wanted: list[str]) -> dict[str, str]:
    """Requirements that are not met; each again with the reason."""
    return {text: f"{text} ({problem})" for text in wanted if (problem := check(text))}


def check(requirement: str) -> str:
    """Problem of the installed version; empty if there is none."""
    name, bounds = re.findall(r"^([\w-]+)(?:\[\w+\])?(.*)$", requirement)[0]
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    for sign, version in re.findall(r"(>=|<|==)([\d.]+)", bounds):
        has, limit = numbers(installed), numbers(version)
        if not {">=": has >= limit, "<": has < limit, "==": has == limit}[sign]:
            return f"{installed} is installed"
    return ""


def numbers(version: str) -> list[int]:
    """Release numbers of a version such as 2.14.1+cu130, three of them."""
    release = re.findall(r"\d+", version.split("+")[0])
    return [int(part) for part in (*release, 0, 0)][:3]


if __name__ == "__main__":
    main()
