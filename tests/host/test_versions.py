import re
import shutil
import subprocess
import sys
from pathlib import Path

from cellline.host.sources import VERBS
from cellline.host.versions import code_version, package_versions


def test_the_code_version_changes_with_any_source_and_with_nothing_else(tmp_path: Path) -> None:
    copy = tmp_path / "src"
    shutil.copytree(VERBS, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def version() -> str:
        code = "from cellline.host.versions import code_version; print(code_version())"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert version() == code_version()
    (copy / ".editor~").touch()
    # The bundle for Kaggle holds the same files: a link may lead to anything.
    (copy / "notes.py").symlink_to("/etc/passwd")
    assert version() == code_version()
    with (copy / "cellline" / "report" / "style.css").open("a") as file:
        file.write("\n")
    assert version() != code_version()


def test_versions_are_numbers() -> None:
    versions = package_versions()
    assert {"python", "torch", "optuna"} <= versions.keys()
    assert all(re.match(r"\d+\.\d+", version) for version in versions.values())
