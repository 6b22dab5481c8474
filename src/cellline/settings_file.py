"""The settings of a competition, which `competition.toml` in its input folder may hold."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from cellline.config import Augmentation, Reading, Training, broken_rule
from cellline.errors import UserError, first_line

AnySettings = TypeVar("AnySettings")

# File in the input folder with settings of the competition, named as their flags.
COMPETITION = "competition.toml"
# Its keys: settings of reading, dealing and training. Folders, run, fold and hardware change from
# one command to the next and stay on the command line.
NAMES_OF_READING = [each.name for each in fields(Reading)]
KEYS = {
    *("folds", "overlaps", "public_share", "recipe"),
    *(each.name for owner in (Reading, Training, Augmentation) for each in fields(owner)),
} - {"augmentation"}


@dataclass(frozen=True)
class OwnSettings:
    """The settings of a competition: the content of its competition.toml, by name."""

    path: Path = Path(COMPETITION)
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_reading(self) -> dict[str, Any]:
        """Settings about reading the input."""
        return {key: self.values[key] for key in self.values if key in NAMES_OF_READING}

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
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or nested deeply
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
