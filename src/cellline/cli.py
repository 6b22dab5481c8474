"""The command line of a verb: parse settings, run, exit with the right status."""

import argparse
import errno
import gc
import inspect
import io
import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, field, fields, is_dataclass, make_dataclass, replace
from itertools import chain
from pathlib import Path
from shlex import join, quote
from typing import Any, TypeVar, cast

# First, because importing it starts the clock.
from cellline.host.stopping import Stopped, stop_at_signals  # isort: split

import tyro

from cellline.config import (
    FROM_SCRATCH,
    RECIPES,
    Config,
    Folders,
    Reading,
    Training,
    check_settings,
    flatten,
)
from cellline.errors import UserError, first_line
from cellline.host.names import printable
from cellline.host.sources import INSTALLED
from cellline.host.streams import open_closed, silence
from cellline.settings_file import AnySettings, OwnSettings, read_own

Settings = TypeVar("Settings", bound=Config)

# Number of new container objects after which Python searches for reference cycles; the default is
# 700. Importing torch and torchvision creates 370,000 that stay, and searching them again and again
# took 0.9 of 4.7 seconds. A training step leaves no cycles.
GARBAGE_THRESHOLD = 100_000

# What to do about an error of the system, if not to correct what it names.
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
}


def run_verb(verb: Callable[[Settings], None], settings: type[Settings]) -> None:
    """Parse the command line into `settings` and run `verb` with it.

    A verb imports slow modules itself, so that neither --help nor a mistake waits for them. Exits
    with status 2 and one message on stderr for a user's mistake (an argument that can't be parsed
    included) and for what the system refuses; with 128 plus the signal's number for Ctrl-C, SIGTERM
    and SIGHUP (130, 143, 129); and with 141, as `cat` does, if the reader of what it prints has
    left. Other exceptions pass through with their traceback.
    """
    open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A label may have characters that the terminal's encoding lacks, and a log is read
            # while it is written.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        parsed = parse_arguments(verb, settings, sys.argv[1:])
        with stop_at_signals():
            check_settings(parsed)
            gc.set_threshold(GARBAGE_THRESHOLD)
            verb(parsed)
            sys.stdout.flush()
    except UserError as error:
        end(2, f"error: {error}")
    except Stopped as stopped:
        end(stopped.status, f"{stopped.why}: stopped; rerun the same command to resume")
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        if error.errno is None and not isinstance(error.__cause__, OSError):  # a library's own
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        what = error.strerror or first_line(error)
        advice = ADVICE.get(error.errno or 0, "correct that, or name another folder")
        end(
            2,
            f"error: {where}{what}; {advice}. Files written before are intact; rerun the same "
            "command to resume",
        )
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # Python would fail again at exit, and change the status
                silence(stream)


def expand_home(argument: str) -> str:
    """Expand `~/` at the start of a value: in INPUT=~/cells the shells of make and zsh leave it."""
    option, equals, value = argument.partition("=") if argument[:2] == "--" else ("", "", argument)
    return option + equals + (str(Path(value).expanduser()) if value[:2] == "~/" else value)


def parse_arguments(
    verb: Callable[[Settings], None], settings: type[Settings], arguments: Sequence[str]
) -> Settings:
    """The settings of a command line; --help and --help-all print theirs and exit.

    Raises UserError if it has two settings that exclude each other.
    """
    arguments = list(map(expand_home, arguments))
    usual = usual_settings(settings, arguments)
    more = ""
    if "--help-all" in arguments:
        arguments = ["--help"]
    elif {"-h", "--help"} & set(arguments):
        own = {each.name for each in fields(settings)} - {each.name for each in fields(Config)}
        usual = hide_settings(usual, {*settings.uses, *own})
        more = "--help-all lists the other settings, which all verbs accept."
    try:
        # The verb's docstring heads its --help; nested settings are flat on the command line.
        parsed = tyro.cli(
            type(usual),
            args=arguments,
            prog=f"cellline {Path(sys.argv[0]).stem}" if INSTALLED else None,
            default=usual,
            description=inspect.getdoc(verb),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
    except SystemExit as ended:
        if more and ended.code == 0:
            print(more)
        raise
    minutes, epochs = parsed.machine.fit_minutes, parsed.training.epochs
    if minutes is not None and epochs != usual.training.epochs:
        raise UserError(
            f"--epochs {epochs} and --fit-minutes {minutes:g}: the second chooses the epochs; "
            "omit one of them"
        )
    return parsed


def hide_settings(settings: AnySettings, uses: Collection[str]) -> AnySettings:
    """The same settings, of a class whose help shows only the used ones, by name or by group."""
    assert is_dataclass(settings)
    suppress: Any = tyro.conf.Suppress  # for mypy, an index that is no type
    values, hidden = {}, []
    for each in fields(settings):
        value, kind = getattr(settings, each.name), each.type
        if each.name not in uses:
            if is_dataclass(value):
                value = hide_settings(value, uses)
                kind = type(value)
            else:
                kind = suppress[kind]
            default = field(default=each.default, default_factory=each.default_factory)
            hidden.append((each.name, kind, default))
        values[each.name] = value
    kept: Any = type(settings)
    own = {"__doc__": kept.__doc__}  # heads the group in the help
    shown = make_dataclass(kept.__name__, hidden, bases=(kept,), namespace=own, frozen=True)
    return cast("AnySettings", shown(**values))


def usual_settings(settings: type[Settings], arguments: Sequence[str]) -> Settings:
    """The default settings: those of the recipe, and over them those of competition.toml.

    Raises UserError for a mistake in that file.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", nargs="?")
    parser.add_argument("--weights", nargs="?")
    parser.add_argument("--input-dir", "--input_dir", nargs="?", type=Path)
    given = parser.parse_known_args(arguments)[0]
    # The settings of a competition are for the verbs that read it.
    reads = {"folders", "input_dir"} & set(settings.uses)
    own = read_own(given.input_dir or Folders.input_dir) if reads else OwnSettings()
    usual = own.apply(settings())
    recipes = FROM_SCRATCH if (given.weights or usual.training.weights) == "none" else RECIPES
    # An unknown recipe is refused by the parser of all settings.
    return own.apply(settings(training=recipes.get(given.recipe or usual.recipe, Training())))


def end(status: int, message: str) -> None:
    """Exit with a status and a message on stderr."""
    # Quoted names may come from a stranger's file.
    with suppress(OSError):  # the status says it as well
        print("\n".join(map(printable, message.split("\n"))), file=sys.stderr)
    sys.exit(status)


def make_command(verb: str, config: Config, processes: int = 1, *, begun: bool = True) -> str:
    """The command that runs a verb with these settings: `make`, or `cellline` if pip installed it.

    It omits defaults, the settings of competition.toml, and the run's name if the command without
    it gives the same. If the run has begun, it also omits learning rate, batch size and class
    weights, which the run keeps unless they are given. Verbs other than `train` are given no
    settings of training and machine.
    """
    start = f"--weights={config.training.weights}"
    usual = usual_settings(Config, [f"--input-dir={config.folders.input_dir}", start])
    if verb != "train":  # the others take them from the run that is named
        config = replace(config, training=usual.training, machine=usual.machine)
    input_dir, oof_dir = config.folders.input_dir, config.folders.oof_dir
    unnamed = replace(usual, training=config.training).run_name
    # Each with its variable in the Makefile; None if it need not be given.
    named = [
        ("INPUT", "--input-dir", input_dir if input_dir != usual.folders.input_dir else None),
        ("OOF", "--oof-dir", oof_dir if oof_dir != usual.folders.oof_dir else None),
        ("RUN", "--run", config.run_name if config.run_name != unnamed else None),
        ("FOLD", "--fold", config.fold),
        ("GPUS", "--gpus", processes if processes > 1 else None),
    ]
    elsewhere = {"input_dir", "oof_dir", "submissions_dir", "run", "fold", "recipe"}
    elsewhere |= {each.name for each in fields(Reading)}  # folds.json has them
    if begun:
        kept = ("lr", "batch_size", "class_weights")
        elsewhere |= {name for name in kept if getattr(usual.training, name) in (None, "auto")}
    if config.machine.fit_minutes is not None:
        elsewhere.add("epochs")  # chosen by it, or still to be
    changed = list_changes(config, usual, elsewhere)
    if INSTALLED:
        given = [(option, str(value)) for _, option, value in named if value is not None]
        return join(["cellline", verb, *chain(*given), *changed])
    words = [f"make {verb}"]
    of_make = [name for name in ("VENV", "PYTHON") if name in os.environ]
    words += [f"{name}={quote(os.environ[name])}" for name in of_make]
    words += [f"{name}={quote(str(value))}" for name, _, value in named if value is not None]
    if changed:
        joined = join(changed)
        # Double quotes read better, if they hold nothing special to the shell.
        plain = not set(joined) & set('"$`\\!')
        words.append(f'ARGS="{joined}"' if plain else f"ARGS={quote(joined)}")
    return " ".join(words)


def list_changes(config: Config, usual: Config, omitted: Collection[str]) -> list[str]:
    """Arguments that turn the usual settings into those of `config`, except the omitted ones."""
    defaults = flatten(asdict(usual))
    words: list[str] = []
    for name, value in flatten(asdict(config)).items():
        if name not in omitted and value != defaults.get(name, value):
            words.append(f"--{name.replace('_', '-')}")
            words += map(str, value if isinstance(value, tuple) else [value])
    return words
