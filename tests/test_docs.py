import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def test_every_fault_in_the_table_has_its_tests() -> None:
    table = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if re.match(r"\| (?!fault |-)", line)]
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"\(\.\./tests/([\w/]+\.py)#(\w+)\)", row)
        assert named, row
        for path, test in named:
            assert f"def {test}(" in (TESTS / path).read_text(encoding="utf-8"), (path, test)
