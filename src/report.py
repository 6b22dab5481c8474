"""make report: one HTML page that shows a run."""

from dataclasses import dataclass

from cellline.cli import run_verb
from cellline.config import Config
from cellline.report.page import write_report
from cellline.scoring.leaderboard import PUBLIC_SHARE


@dataclass(frozen=True)
class ReportConfig(Config):
    """Settings of `make report`."""

    uses = ("folders", "run")
    storage: str | None = None
    """The storage of the study, as given to `tune`; by default the OOF folder's own."""
    public_share: float = PUBLIC_SHARE
    """Share of the test samples that the public leaderboard scores."""


def main(config: ReportConfig) -> None:
    """Show a run in one HTML file, oof/<run>/report.html: scores, curves, errors, the audit."""
    write_report(config, config.storage, config.public_share)


if __name__ == "__main__":
    run_verb(main, ReportConfig)
