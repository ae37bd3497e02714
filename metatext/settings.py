"""What a setting is: a field with its help and bounds, and how values are converted and checked."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, Union

Range = Union[int, tuple[int, int]]
"""One whole number, or an inclusive range (lowest, highest) from which each episode draws."""
Names = Union[str, tuple[str, ...]]
"""One name, as it stands, or several in a list; a name may have blanks and commas."""


class MetatextError(Exception):
    """What metatext raises where the caller can mend something; the message says what. Commands print it without a traceback."""


class ConfigError(MetatextError, ValueError):
    """A setting that is unknown, of the wrong type, or outside what is allowed."""


def option(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    low: float | None = None,
    high: float | None = None,
    empty: bool = True,
):
    """A dataclass field with its help text, the name it bears as a flag, the bounds of its value (inclusive), and whether a list may be
    empty."""
    return field(default=default, metadata={"help": help, "flag": flag, "low": low, "high": high, "empty": empty})


def is_none(value: Any) -> bool:
    """Whether a text says that there is no value."""
    return isinstance(value, str) and value.lower() in ("none", "null")


def convert(value: Any, hint: Any, key: str) -> Any:
    """``value`` as the annotated type ``hint`` of setting ``key``.

    Raises:
        ConfigError: it cannot be read as that type, or is not one of the choices.
    """

    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()

    def refuse(expected: str, hint: str = ""):
        raise ConfigError(f"{key}: expected {expected}, got {value!r} ({type(value).__name__}){hint}")

    if hint == Range:
        parts = value.replace("..", " ").replace(",", " ").split() if isinstance(value, str) else value
        if isinstance(parts, (list, tuple)):
            if len(parts) not in (1, 2):
                refuse("a whole number or a range [lowest, highest]")
            ends = [convert(part, int, key) for part in parts]
            if len(ends) == 1:
                return ends[0]
            if ends[0] > ends[1]:
                refuse("a range whose first number is not above its second")
            return tuple(ends)
        return convert(value, int, key)
    if hint == Names:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not names:
            refuse("a name or a list of names")
        names = tuple(convert(name, str, key) for name in names)
        return names if len(names) > 1 else names[0]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):  # only `X | None` is used, where X may be one of the two above
        if value is None or is_none(value):
            return None
        return convert(value, Union[tuple(a for a in arguments if a is not type(None))], key)
    if origin is Literal:
        if value not in arguments:
            refuse("one of " + ", ".join(map(repr, arguments)), nearest(value, map(str, arguments)))
        return value
    if origin is tuple:  # tuple[X, ...]
        items = value.replace(",", " ").split() if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            refuse("a list")
        return tuple(convert(item, arguments[0], key) for item in items)
    if hint is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
            return value.lower() in ("true", "yes")
        refuse("true or false")
    if hint in (int, float) and not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            number = float(value)
        except ValueError:
            refuse("a whole number" if hint is int else "a number")
        if hint is float and number == number:
            return number
        if hint is int and number.is_integer():
            return int(number)
    if hint is str and isinstance(value, str) and value:
        return value
    refuse({int: "a whole number", float: "a number", str: "text"}.get(hint, str(hint)))


def check_is(value: Any, expected: type | tuple[type, ...], name: str, hint: str, error: type[Exception] = ConfigError) -> None:
    """Raises ``error`` where an argument is of none of the expected types; ``hint``: what to write instead."""
    if not isinstance(value, expected):
        words = {str: "a text", Mapping: "a dict", type(None): "None"}
        allowed = [words.get(one, one.__name__) for one in (expected if isinstance(expected, tuple) else (expected,))]
        got = repr(value) if isinstance(value, (str, int, float, type(None))) else f"one {type(value).__name__}"
        raise error(f"{name}: expected {' or '.join(allowed)}, got {got}; {hint}")


def nearest(word: Any, known, end: str = "") -> str:
    """``"; did you mean 'x'?"`` for the known word closest to ``word``, or ``end``."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else end


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class Checked:
    """Converts and checks every field of a frozen dataclass when it is made."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for item in dataclasses.fields(self):
            flag = item.metadata["flag"]
            called = f"{flag} ({item.name} of {type(self).__name__})" if flag else item.name
            value = convert(getattr(self, item.name), hints[item.name], called)
            if value == () and not item.metadata["empty"]:
                raise ConfigError(f"{called}: expected at least one value, got an empty list")
            low, high = item.metadata["low"], item.metadata["high"]
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, (int, float)) and not isinstance(number, bool):
                    if (low is not None and number < low) or (high is not None and number > high):
                        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                        raise ConfigError(f"{called}: must be {bounds}, got {value!r}")
            object.__setattr__(self, item.name, value)


def to_dict(config: Any) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}


def from_dict(cls: type, values: Mapping[str, Any], where: str = "settings"):
    """A config of class ``cls`` from a mapping.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named) or a value does not fit.
    """
    known = [item.name for item in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(key, known, end='.')} Known keys: {', '.join(known)}")
    return cls(**values)
