"""What every verb does around its work: parse settings, and end as a command line should."""

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from cellline.config import Config, check_settings
from cellline.errors import UserError

Settings = TypeVar("Settings", bound=Config)


def run_verb(verb: Callable[[Settings], None], settings: type[Settings]) -> None:
    """Parse the command line into `settings` and run `verb` with it.

    Ends the process with status 2 and one message on stderr for a mistake of the user's (an
    argument that can't be parsed included), with 130 for Ctrl-C. Other exceptions pass through,
    with their traceback.
    """
    # The verb's docstring heads its --help; nested settings are flat on the command line.
    parsed = tyro.cli(
        settings,
        description=verb.__doc__,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    try:
        check_settings(parsed)
        verb(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
