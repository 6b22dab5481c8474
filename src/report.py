"""make report: one HTML page that shows a run."""

from cellline.cli import run_verb
from cellline.config import Config
from cellline.report.page import write_report


def main(config: Config) -> None:
    """Show a run in one HTML file, oof/<run>/report.html: scores, curves, errors, the audit."""
    write_report(config, print)


if __name__ == "__main__":
    run_verb(main, Config)
