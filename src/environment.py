"""Say what the active Python lacks of what pyproject.toml asks for, or install it from a folder."""

import argparse
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """End with status 2 and a list when packages are missing or too old or new.

    Arguments name further groups of dependencies, such as dev. With `--find-links FOLDER` what is
    lacking is installed from the wheels there first, with what that needs in turn; what suits all
    of them stays as it is, and no network is needed. This runs before anything is installed, so it
    uses the standard library alone: of version ranges it understands what pyproject.toml has, `>=`,
    `<` and `==` of numbers.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*")
    parser.add_argument("--find-links", type=Path)
    arguments = parser.parse_args()
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    wanted = list(settings["project"]["dependencies"])
    for group in arguments.groups:
        wanted += settings["dependency-groups"][group]
    lacking = find_lacking(wanted)
    if lacking and arguments.find_links:
        print("installing", ", ".join(describe(lacking)), flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # Not compiled, which takes most of the time: Python compiles what is imported.
        command += ["--no-compile", "--no-index", f"--find-links={arguments.find_links}", *lacking]
        # What pip can't install is listed below, after its own words.
        subprocess.run(command, check=False)  # noqa: S603
        importlib.invalidate_caches()
        lacking = find_lacking(wanted)
    if lacking:
        print(f"error: {sys.executable} lacks", *describe(lacking), sep="\n  ", file=sys.stderr)
        quoted = " ".join(f"'{text}'" for text in lacking)
        print(f"Install them: {sys.executable} -m pip install {quoted}", file=sys.stderr)
        sys.exit(2)


def find_lacking(wanted: list[str]) -> dict[str, str]:
    """The requirements that are not met, each with what is wrong."""
    return {text: problem for text in wanted if (problem := check(text))}


def describe(lacking: dict[str, str]) -> list[str]:
    """Each requirement with what is wrong."""
    return [f"{text} ({problem})" for text, problem in lacking.items()]


def check(requirement: str) -> str:
    """What is wrong with the installed version; empty when nothing is."""
    name, bounds = re.findall(r"^([\w-]+)(?:\[\w+\])?(.*)$", requirement)[0]
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    for bound in bounds.split(","):
        sign, version = re.findall(r"^(>=|<|==)([\d.]+)$", bound)[0]
        order = (numbers(installed) > numbers(version)) - (numbers(installed) < numbers(version))
        if not {">=": order >= 0, "<": order < 0, "==": order == 0}[sign]:
            return f"{installed} is installed"
    return ""


def numbers(version: str) -> list[int]:
    """The release numbers of a version such as 2.14.1+cu130, three of them."""
    release = [int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3]]
    return release + [0] * (3 - len(release))


if __name__ == "__main__":
    main()
