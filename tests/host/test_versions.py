import os
import re
import subprocess
from pathlib import Path

import pytest

from cellline.host.versions import code_version, package_versions

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_code_has_the_name_that_git_gives_it(tmp_path: Path) -> None:
    # What is there now, committed or not, in an index and a store of its own.
    environment = {
        **os.environ,
        "GIT_INDEX_FILE": str(tmp_path / "index"),
        "GIT_OBJECT_DIRECTORY": str(tmp_path),
    }

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    code_version.cache_clear()
    git("add", "src")
    assert code_version() == git("write-tree", "--prefix=src/")


def test_versions_are_numbers() -> None:
    versions = package_versions()
    assert {"python", "torch", "optuna"} <= versions.keys()
    assert all(re.match(r"\d+\.\d+", version) for version in versions.values())
