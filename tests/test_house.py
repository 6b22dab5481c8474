"""The rules of the house, read from the sources' syntax trees: see "Where things are" in README."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "src"
LIBRARY = SOURCES / "cellline"

# From top to bottom: a room imports only from those below it.
ROOMS = (
    *("demo", "kaggle", "explaining", "report", "exporting", "predicting", "submitting"),
    *("tuning", "training", "model", "audit", "runs", "scoring", "data", "host"),
)
ROOT = {"__init__", "__main__", "cli", "config", "errors", "seeding", "settings_file"}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Each source file and its syntax tree."""
    for path in sorted(SOURCES.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def imported_rooms(tree: ast.Module) -> Iterator[str]:
    """The rooms that a file imports from, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cellline."):
            yield str(node.module).split(".")[1]


def test_rooms_are_those_of_the_readme() -> None:
    assert {path.name for path in LIBRARY.iterdir() if path.name in ROOMS} == set(ROOMS)
    assert {path.stem for path in LIBRARY.glob("*.py")} == ROOT
    folders = {path.name for path in LIBRARY.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(ROOMS)
    page = (SOURCES.parent / "README.md").read_text(encoding="utf-8")
    table = page.split("## Where things are")[1].split("## ")[0]
    assert re.findall(r"`(\w+)/`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.M))) == list(
        ROOMS
    )


def test_imports_go_one_way() -> None:
    upward = []
    for path, tree in trees():
        own = path.relative_to(LIBRARY).parts[0] if path.is_relative_to(LIBRARY) else ""
        above = ROOMS[: ROOMS.index(own)] if own in ROOMS else ()
        upward += [f"{path} imports {room}" for room in imported_rooms(tree) if room in above]
    assert upward == []


def test_nobody_imports_a_verb() -> None:
    verbs = {path.stem for path in SOURCES.glob("*.py")}
    for path, tree in trees():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not verbs & set(names), path


@pytest.mark.parametrize(
    "word",
    [r"\bmake (folds|tune|train|submit|explain)", r"\b(RUN|FOLD|OOF|INPUT|ARGS|GPUS|FOLDS)="],
)
def test_the_library_does_not_know_the_makefile(word: str) -> None:
    for path, tree in trees():
        if path.is_relative_to(LIBRARY) and path.name != "cli.py":
            texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
            docstrings = {
                ast.get_docstring(node, clean=False)
                for node in ast.walk(tree)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            }
            said = [text for text in texts if isinstance(text, str) and text not in docstrings]
            assert not [text for text in said if re.search(word, text)], path


def test_functions_take_five_arguments_at_most() -> None:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                own = [each for each in every if each.arg not in ("self", "cls")]
                assert len(own) <= 5, f"{path}:{node.lineno} {node.name}"
