import pytest
from scenes import Scenes
from torment import HEADER


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Of verbs that are forked from a process with the packages: for the quick tests."""
    return Scenes(tmp_path_factory.mktemp("forked"), forked=True)


@pytest.fixture(scope="session")
def real_scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Of verbs that are started by `python`, as a user does."""
    return Scenes(tmp_path_factory.mktemp("started"), forked=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of what was killed, and what became of it."""
    tolls = [
        value
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for name, value in report.user_properties
        if name == "toll"
    ]
    if tolls:
        terminalreporter.section("kills")
        for line in [HEADER, *tolls]:
            terminalreporter.write_line(line)
