"""YAML file + flags -> dataclasses -> the functions of the library. The recipes and the command `metatext` are this file.

Every setting has one name: the key in a YAML file is the flag on the command line, flags win.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import os
import signal
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_settings import AdaptData, FinetuneData, PredictData, PushData, Settings, TestData, TrainData
from .config import EncoderConfig, EpisodeConfig, FinetuneConfig, HeadConfig, LanguageConfig, TrainConfig
from .settings import ConfigError, MetatextError, Names, Range, is_none, nearest
from .yaml_files import read_yaml

COMMANDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "train": (
        "meta-train a head on many tasks",
        (TrainData, EncoderConfig, HeadConfig, LanguageConfig, EpisodeConfig, TrainConfig),
    ),
    "test": ("measure a head on unseen tasks", (TestData,)),
    "adapt": ("make a classifier from a few labelled examples", (AdaptData,)),
    "finetune": ("fine-tune a classifier on labelled examples, where that pays", (FinetuneData, FinetuneConfig)),
    "predict": ("answer the rows of a file: metatext predict CLASSIFIER FILE", (PredictData,)),
    "push": ("share a head or a classifier on the Hub: metatext push FOLDER OWNER/NAME", (PushData,)),
}
EXAMPLES, ROWS = ("examples",), (".csv", ".tsv", ".jsonl", ".parquet")
WORDS = {"push": ("model", "repo_id"), "predict": ("model", "predict"), "adapt": EXAMPLES, "finetune": EXAMPLES}
"""Settings that a command also takes as its first or its last words, all of them, without their flags; of `EXAMPLES` a file of rows, wherever
it stands."""

ONE_OR_MORE = (Range, Names | None)
"""Types of settings that are one value or several; a flag may have as many."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: ``metatext train|test|adapt|finetune|predict|push [config.yaml] [--flag value ...]``."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  metatext {name:8} {text}" for name, (text, _) in COMMANDS.items())
        print(f"metatext: meta-learning on text\n\n{lines}\n\n`metatext COMMAND --help` explains every setting of a command.")
        return
    if arguments[0] == "--version":
        from . import __version__

        print(f"metatext {__version__}")
        return
    if arguments[0] not in COMMANDS:
        sys.exit(f"metatext: unknown command {arguments[0]!r}{nearest(arguments[0], COMMANDS)} Known: {', '.join(COMMANDS)}")
    run(arguments[0], arguments[1:])


def run(command: str, arguments: Sequence[str] | None = None, description: str | None = None) -> None:
    """Parse settings of ``command`` and carry it out; what a recipe calls.

    A mistake in the settings or the data ends in one line on standard error and exit status 1, without a traceback; so does Ctrl-C, with
    status 130, and SIGTERM while a head is trained, with 143.
    """
    settings: Settings = {}
    try:
        settings = parse(command, sys.argv[1:] if arguments is None else arguments, description)
        importlib.import_module(f"{__package__}.commands.{command}").main(settings)  # only now: --help must not wait for torch
    except MetatextError as error:
        counted = "" if getattr(error, "row", None) is None else " (the first row below a header is row 0)"
        sys.exit(f"metatext {command}: {str(error).removeprefix(f'{command}: ')}{counted}")
    except OSError as error:  # what the disk or the network refuses
        sys.exit(f"metatext {command}: {error}")
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":  # of the processes of a launch one speaks
            overwrites = any(getattr(part, "overwrite_output_dir", False) for part in settings.values())
            same = f"the same command{', without overwrite_output_dir,' * overwrites}"
            on = f"; {same} goes on from the last checkpoint, if there is one" if command in ("train", "finetune") else ""
            print(f"metatext {command}: {str(error) or f'interrupted{on}'}", file=sys.stderr)
        sys.exit(128 + getattr(error, "signal", signal.SIGINT))


def parse(command: str, arguments: Sequence[str], description: str | None = None) -> Settings:
    """The dataclasses of a command from a YAML file (first argument, optional) and flags.

    Raises:
        ConfigError: an unknown key or flag (the nearest known one is named), a value that does not fit, a bad YAML file.
    """
    classes = COMMANDS[command][1]
    parser = argparse.ArgumentParser(
        prog=f"metatext {command}" if description is None else None,
        description=description or COMMANDS[command][0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "config",
        nargs="?",
        help="YAML file of the settings below; flags win over it; where a flag takes several values, the word none empties the file's list",
    )
    known: dict[str, tuple[type, str]] = {}
    lists: dict[str, bool] = {}  # flags of settings that are one -> whether it may be empty
    for cls in classes:
        group = parser.add_argument_group(cls.__name__, (cls.__doc__ or "").split("\n")[0])
        hints = typing.get_type_hints(cls)
        for item in sorted(dataclasses.fields(cls), key=lambda item: item.name not in cls.__annotations__):  # its own ones first
            key = item.metadata["flag"] or item.name
            if key in known:  # a command's own setting hides one of the same name behind it
                continue
            known[key] = (cls, item.name)
            hint = hints[item.name]
            if typing.get_origin(hint) is tuple:
                lists[key] = item.metadata["empty"]
            many = hint in ONE_OR_MORE or key in lists
            choices = f" ({', '.join(typing.get_args(hint))})" if typing.get_origin(hint) is typing.Literal else ""
            options = {"nargs": "?", "const": "true"} if hint is bool else {"nargs": "+"} if many else {}
            shown = (
                " ".join(map(str, item.default)) or "none"
                if isinstance(item.default, tuple)
                else str(item.default).lower()
                if item.default in (None, True, False)
                else item.default
            )
            text = f"{item.metadata['help']}{choices} [{shown}]".replace("%", "%%")
            group.add_argument(f"--{key}", default=argparse.SUPPRESS, help=text, metavar="X", **options)
    switches = [key for key, (cls, name) in known.items() if typing.get_type_hints(cls)[name] is bool]
    try:
        found, rest = parser.parse_known_args(_with_flags(list(arguments), WORDS.get(command, ()), switches))
    except argparse.ArgumentError as error:  # a flag without a value
        flag = error.argument_name
        empty = f"; {flag} none is an empty list" if lists.get(flag.removeprefix("--")) else ""
        raise ConfigError(f"{flag}: {error.message}{empty}") from None
    if rest:
        flag = rest[0].split("=")[0]
        raise ConfigError(f"unknown argument {rest[0]!r}{nearest(flag, [f'--{k}' for k in known])} See --help.")
    flags = vars(found)
    path = flags.pop("config")
    flags |= {key: _as_list(key, flags[key]) for key in lists if key in flags}
    values = {**(_read_yaml(path) if path else {}), **flags}
    grouped: dict[type, dict[str, Any]] = {cls: {} for cls in classes}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(key, known)} Known keys: {', '.join(sorted(known))}")
        cls, name = known[key]
        one = isinstance(value, list) and len(value) == 1 and typing.get_type_hints(cls)[name] in ONE_OR_MORE
        grouped[cls][name] = value[0] if one else value
    return {cls: cls(**given) for cls, given in grouped.items()}


def _with_flags(arguments: list[str], names: Sequence[str], switches: Sequence[str]) -> list[str]:
    """The first words as the settings ``names``, where there are as many, or the last ones; one first word alone is a YAML file, as
    everywhere."""
    n = len(names)
    first = list(itertools.takewhile(_is_word, arguments))
    if names == EXAMPLES:
        return _with_examples(arguments, switches)
    if n and len(first) == 1 and n > 1 and Path(first[0]).is_dir():
        return _flagged(names[:1], first) + arguments[1:]
    if n and len(first) == n:
        return _flagged(names, first) + arguments[n:]
    last = list(itertools.takewhile(_is_word, reversed(arguments)))
    if not n or first or any(part.split("=")[0] in [f"--{name}" for name in names] for part in arguments):
        return arguments
    before = arguments[: len(arguments) - len(last)]
    # a switch need not have a value, any other flag has one at least
    own = 0 if before and (before[-1][2:] in switches or "=" in before[-1]) else 1
    return _flagged(names, last[n - 1 :: -1]) + arguments[:-n] if len(last) >= n + own else arguments


def _with_examples(arguments: list[str], switches: Sequence[str]) -> list[str]:
    """A file of rows that is no flag's value, or not its first, as the setting `EXAMPLES`."""
    if any(part.split("=")[0] == f"--{EXAMPLES[0]}" for part in arguments):
        return arguments
    for place, part in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        waits = before.startswith("--") and "=" not in before and before[2:] not in switches  # for a value
        if _is_word(part) and Path(part).suffix.lower() in ROWS and not waits:
            return [*_flagged(EXAMPLES, [part]), *arguments[:place], *arguments[place + 1 :]]
    return arguments


def _as_list(key: str, values: list[str]) -> list[str]:
    """The values of a flag; none where the word stands for them. Nothing behind a flag is an error instead: a shell variable that is
    empty by mistake must not take a list away."""
    if not any(map(is_none, values)):
        return values
    if len(values) > 1:
        raise ConfigError(f"--{key}: the word none is an empty list and stands alone, got {' '.join(values)!r}")
    return []


def _is_word(part: str) -> bool:
    return not part.startswith("-")


def _flagged(names: Sequence[str], words: Sequence[str]) -> list[str]:
    return [part for name, word in zip(names, words, strict=True) for part in (f"--{name}", word)]


def _read_yaml(path: str) -> dict[str, Any]:
    no_settings = "; a file of rows is no settings and goes behind its flag, --examples rows.json for one"
    rows = no_settings if Path(path).suffix.lower() in ROWS else ""
    try:
        values = read_yaml(path, ConfigError, rows)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; the first argument is a YAML file of settings") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder; the first argument is a YAML file of settings, a head or classifier is given by --model, corpora by --tasks_dir"
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} must hold `key: value` lines, got {type(values).__name__}{no_settings if isinstance(values, list) else rows}"
        )
    return values
