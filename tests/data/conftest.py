"""Fixtures of the tests on data."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas  # noqa: F401  # now, since `bounded` would count its memory
import pytest
from tiny_input import Input, make_input

SECONDS = 120
BYTES = 160 << 20  # unless the fixture's parameter says otherwise


@pytest.fixture
def given(tmp_path: Path) -> Input:
    """A sound input, not written yet."""
    return make_input(tmp_path / "input")


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A folder that does not exist, in one that does not either."""
    return tmp_path / "new" / "cache"


class Hang(BaseException):
    """The test took so long that it may never end."""


@pytest.fixture
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give the test little memory and time: where an attack succeeds, it fails and does no harm."""

    def give_up(*_: object) -> None:
        raise Hang

    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs to know this process's memory, as Linux tells it")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, give_up)
    resource.setrlimit(resource.RLIMIT_AS, (used + getattr(request, "param", BYTES), before[1]))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)
