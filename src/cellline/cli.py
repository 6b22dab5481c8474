"""The command line of a verb: parse settings, run, exit with the right status."""

import argparse
import errno
import gc
import inspect
import io
import os
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

# First, because importing it starts the clock.
from cellline.host.stopping import Stopped, stop_at_signals  # isort: split

import tyro

from cellline.config import (
    RECIPES,
    Augmentation,
    Config,
    Folders,
    Reading,
    Training,
    broken_rule,
    check_settings,
    flatten,
)
from cellline.errors import UserError, first_line
from cellline.host.names import printable

Settings = TypeVar("Settings", bound=Config)
AnySettings = TypeVar("AnySettings")

# File in the input folder with settings of the competition, named as their flags.
COMPETITION = "competition.toml"
# Its keys: settings of reading, dealing and training. Folders, run, fold and hardware change from
# one command to the next and stay on the command line.
KEYS = {
    *("folds", "overlaps", "public_share", "recipe"),
    *(each.name for owner in (Reading, Training, Augmentation) for each in fields(owner)),
} - {"augmentation"}

# Number of new container objects after which Python searches for reference cycles; the default is
# 700. Importing torch and torchvision creates 370,000 that stay, and searching them again and again
# took 0.9 of 4.7 seconds. A training step leaves no cycles.
GARBAGE_THRESHOLD = 100_000

# Errors of the machine, not of the program.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENOLCK, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG),
}


def run_verb(verb: Callable[[Settings], None], settings: type[Settings]) -> None:
    """Parse the command line into `settings` and run `verb` with it.

    A verb imports slow modules itself, so that neither --help nor a mistake waits for them. Exits
    with status 2 and one message on stderr for a user's mistake (an argument that can't be parsed
    included) and for a disk that is full or can't be written; with 128 plus the signal's number for
    Ctrl-C, SIGTERM and SIGHUP (130, 143, 129); and with 141, as `cat` does, if the reader of its
    output has left. Other exceptions pass through with their traceback.
    """
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
        # Otherwise Python fails again when it flushes its output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in NO_ROOM | NO_ACCESS:
            raise
        advice = "make room" if error.errno in NO_ROOM else "correct that, or name another folder"
        end(
            2,
            f"error: {error.filename or 'the output'}: {error.strerror}; {advice}. Files written "
            "before are intact; rerun the same command to resume",
        )


def parse_arguments(
    verb: Callable[[Settings], None], settings: type[Settings], arguments: Sequence[str]
) -> Settings:
    """The settings of a command line; --help and --help-all print theirs and exit."""
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
        return tyro.cli(
            type(usual),
            args=arguments,
            default=usual,
            description=inspect.getdoc(verb),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
    except SystemExit as ended:
        if more and ended.code == 0:
            print(more)
        raise


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
    parser.add_argument("--input-dir", "--input_dir", nargs="?", type=Path)
    given = parser.parse_known_args(arguments)[0]
    # The settings of a competition are for the verbs that read it.
    reads = {"folders", "input_dir"} & set(settings.uses)
    own = read_own(given.input_dir or Folders.input_dir) if reads else OwnSettings()
    recipe = given.recipe or own.apply(settings()).recipe
    # An unknown recipe is refused by the parser of all settings.
    return own.apply(settings(training=RECIPES.get(recipe, Training())))


@dataclass(frozen=True)
class OwnSettings:
    """The settings of a competition: the content of its competition.toml, by name."""

    path: Path = Path(COMPETITION)
    values: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, settings: AnySettings) -> AnySettings:
        """The settings, nested ones included, with the competition's values where it has any.

        Raises UserError for a value of another type and for one out of range.
        """
        assert is_dataclass(settings)
        changes = {}
        for each in fields(settings):
            usual = getattr(settings, each.name)
            if is_dataclass(usual):
                changes[each.name] = self.apply(usual)
            elif each.name in self.values:
                try:
                    changes[each.name] = convert(each.name, self.values[each.name], each.type)
                except ValueError as error:
                    raise UserError(f"{self.path}: {error}") from None
        return cast("AnySettings", replace(cast("Any", settings), **changes))


def read_own(input_dir: Path) -> OwnSettings:
    """The settings of the competition in an input folder; none if it has no competition.toml.

    Raises UserError if the file is not TOML or has an unknown key.
    """
    path = input_dir / COMPETITION
    if not path.is_file():
        return OwnSettings()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # not UTF-8, or not TOML
        raise UserError(f"{path} is not TOML: {first_line(error)}") from error
    values = {key.replace("-", "_"): value for key, value in values.items()}
    for key in values:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, 1)
            named = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(KEYS))}"
            raise UserError(f"{path}: a competition has no setting {key!r}; {named}")
    return OwnSettings(path, values)


def convert(name: str, value: Any, kind: Any) -> Any:
    """A TOML value as the type of its setting. Raises ValueError that says what is allowed."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if value == "None" and NoneType in kinds:  # as on the command line
        return None
    kind = kinds[0]
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        wanted = f"one of {', '.join(get_args(kind))}"
    elif get_origin(kind) is tuple:
        texts = value if isinstance(value, list) else [value]
        if all(isinstance(text, str) for text in texts):
            return tuple(texts)
        wanted = "a text, or a list of texts"
    else:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            wanted = {int: "a whole number", float: "a number", str: "a text, in quotes"}[kind]
        elif not (wanted := broken_rule(name, value)):
            return value
    raise ValueError(f"{name} = {value!r}: must be {wanted}")


def end(status: int, message: str) -> None:
    """Exit with a status and a message on stderr."""
    # Quoted names may come from a stranger's file.
    print("\n".join(map(printable, message.split("\n"))), file=sys.stderr)
    sys.exit(status)


def make_command(verb: str, config: Config, processes: int = 1, *, begun: bool = True) -> str:
    """The `make` command that runs a verb with these settings.

    It omits defaults and the settings of competition.toml. If the run has begun, it also omits
    learning rate, batch size and class weights, which the run keeps unless they are given.
    """
    usual = usual_settings(Config, [f"--input-dir={config.folders.input_dir}"])
    words = [f"make {verb}"]
    for name, path, usual_path in (
        ("INPUT", config.folders.input_dir, usual.folders.input_dir),
        ("OOF", config.folders.oof_dir, usual.folders.oof_dir),
    ):
        if path != usual_path:
            words.append(f"{name}={quote(_in_make(str(path)))}")
    words.append(f"RUN={config.run}")
    if config.fold is not None:
        words.append(f"FOLD={config.fold}")
    if processes > 1:
        words.append(f"GPUS={processes}")
    elsewhere = {"input_dir", "oof_dir", "submissions_dir", "run", "fold", "recipe"}
    if begun:
        kept = ("lr", "batch_size", "class_weights")
        elsewhere |= {name for name in kept if getattr(usual.training, name) in (None, "auto")}
    defaults = flatten(asdict(usual))
    changed = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {quote(str(value))}")
        for name, value in flatten(asdict(config)).items()
        if name not in elsewhere and value != defaults.get(name, value)
    ]
    if changed:
        joined = _in_make(" ".join(changed))
        # Double quotes read better, if they hold nothing special to the shell.
        plain = not set(joined) & set('"$`\\!')
        words.append(f'ARGS="{joined}"' if plain else f"ARGS={quote(joined)}")
    return " ".join(words)


def _in_make(value: str) -> str:
    """Escape a value for a variable of make."""
    return value.replace("$", "$$")
