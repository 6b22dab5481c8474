"""What must not be in the sources, whoever adds to them: found in their syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "src"


def calls() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Each call in the sources: where, of what, and its named arguments."""
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                named = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
                yield f"{path.name}:{node.lineno}", ast.unparse(node.func), named


def test_nothing_is_ever_unpickled() -> None:
    loads = [(where, named) for where, name, named in calls() if name == "torch.load"]
    assert loads
    assert [where for where, named in loads if named.get("weights_only") != "True"] == []
    assert [where for where, _, named in calls() if named.get("allow_pickle") == "True"] == []
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "shelve", "joblib", "dill"} & set(names), path


def test_no_decision_depends_on_the_time_of_day() -> None:
    # Durations are taken from clocks that nobody sets: monotonic() and perf_counter().
    of_day = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"}
    assert [where for where, name, _ in calls() if name in of_day] == []
