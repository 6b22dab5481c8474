"""Execute a notebook's cells as Jupyter does: `python execute.py NOTEBOOK SETTINGS`.

One after the other, in one namespace. SETTINGS are lines of Python, run after the first cell of
code, which is where a user edits them.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    notebook = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate([cells[0], sys.argv[2], *cells[1:]]):
        exec(compile(cell, f"cell {number}", "exec"), namespace)


if __name__ == "__main__":
    main()
