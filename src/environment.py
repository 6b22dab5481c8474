"""make VENV= ...: say what the active Python lacks of what pyproject.toml asks for."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """End with status 2 and a list when packages are missing or too old or new.

    Arguments name further groups of dependencies, such as dev. This runs before anything is
    installed, so it uses the standard library alone: of version ranges it understands what
    pyproject.toml has, `>=`, `<` and `==` of numbers.
    """
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    wanted = list(settings["project"]["dependencies"])
    for group in sys.argv[1:]:
        wanted += settings["dependency-groups"][group]
    lacking = [f"  {text} ({problem})" for text in wanted if (problem := check(text))]
    if lacking:
        print(f"error: {sys.executable} lacks", *lacking, sep="\n", file=sys.stderr)
        quoted = " ".join(f"'{line.split(' (')[0].strip()}'" for line in lacking)
        print(f"Install them: {sys.executable} -m pip install {quoted}", file=sys.stderr)
        sys.exit(2)


def check(requirement: str) -> str:
    """What is wrong with the installed version; empty when nothing is."""
    name, bounds = re.findall(r"^([\w-]+)(.*)$", requirement)[0]
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
