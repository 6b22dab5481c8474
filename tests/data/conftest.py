"""Fixtures of the tests on data."""

from pathlib import Path

import pytest
from tiny_input import Input, make_input


@pytest.fixture
def given(tmp_path: Path) -> Input:
    """A sound input, not written yet."""
    return make_input(tmp_path / "input")


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A folder that does not exist, in one that does not either."""
    return tmp_path / "new" / "cache"
