"""The program's own files: those of a checkout, or those that pip has installed."""

from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1]
# In a checkout the verbs are beside the library; pip installs them into it, see pyproject.toml.
INSTALLED = (LIBRARY / "verbs").is_dir()
VERBS = LIBRARY / "verbs" if INSTALLED else LIBRARY.parent


def source_files() -> dict[str, Path]:
    """Every file of the program by its name in `src`, sorted, wherever it is.

    Links are left out, and what Python or an editor has added.
    """
    named = {f"{LIBRARY.name}/{path.relative_to(LIBRARY)}": path for path in LIBRARY.rglob("*")}
    if INSTALLED:
        named = {name: path for name, path in named.items() if VERBS not in path.parents}
    named |= {path.name: path for path in VERBS.iterdir()}
    return {
        name: path
        for name, path in sorted(named.items())
        if path.is_file()
        and not path.is_symlink()
        and not any(part == "__pycache__" or part.startswith(".") for part in name.split("/"))
    }
