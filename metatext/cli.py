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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .config import EncoderConfig, EpisodeConfig, FinetuneConfig, HeadConfig, LanguageConfig, TrainConfig
from .settings import Checked, ConfigError, MetatextError, Range, nearest, option

Settings = dict[type, Any]
ENCODING = "of csv and tsv files without a byte order mark, such as cp1252 or latin-1"


@dataclass(frozen=True)
class TrainData(Checked):
    """Which tasks are trained on, chosen on and measured on."""

    tasks: tuple[str, ...] = option(
        (),
        "what to train on: corpora of tasks_dir by name, folders of corpora, Hub ids (id:config), paths; none: all of tasks_dir that is not "
        "measured on, and where there is none, starter/train",
    )
    eval_tasks: tuple[str, ...] = option(
        (), "unseen tasks that choose the best head and stop early: names among `tasks` (then held out), or further sources"
    )
    test_tasks: tuple[str, ...] = option((), "unseen tasks to measure the final head on; they choose nothing")
    tasks_dir: str | None = option(None, "folder of corpora that plain names are looked up in")
    max_rows_per_task: int | None = option(
        None, "at most so many rows of a task, in proportion to its classes; the same whatever the seed", low=10
    )
    skip_bad_rows: bool = option(False, "leave out rows that cannot be used, with a warning, instead of an error")
    encoding: str = option("utf-8", ENCODING)
    warm_start: tuple[str, ...] = option(
        (), "saved models whose weights, head and encoder, training begins with: folders, names or Hub ids; of several their mean"
    )
    test_heads: tuple[str, ...] = option(
        (), "heads shown beside the trained one on test_tasks: saved folders, names of released heads, repos on the Hub"
    )
    test_shots: tuple[int, ...] = option((1, 5), "shots of the table on test_tasks")
    test_rows: tuple[int, ...] = option((4, 16), "the same where labels are no classes (multilabel, regression): rows in all")
    test_episodes: int = option(100, "episodes per test task and number of shots", low=2)
    cache_dir: str | None = option(None, "where features are kept; none: $METATEXT_CACHE, else the user's cache folder")


@dataclass(frozen=True)
class TestData(Checked):
    """Which heads are measured, on what, beside what."""

    model: str = option(
        "runs/metatext",
        "the main head: a saved folder, metatext-minilm-general or -intent, a repo on the Hub, or the name of a head (untrained, on the embedded encoder)",
    )
    heads: tuple[str, ...] = option(
        (),
        "further heads, each on its own encoder, named in the same ways",
    )
    tasks: tuple[str, ...] = option(
        ("starter/test",), "unseen tasks: corpora of tasks_dir by name, Hub ids (id:config), paths, 'starter/test'"
    )
    tasks_dir: str | None = option(None, "folder of corpora that plain names are looked up in")
    class_splits: str | None = option(
        None, "JSON {split: {'test': [classes]}}: each split's test classes become a task of their own"
    )
    n_way: Range = option(5, "classes per episode", low=2)
    fewer_ways: bool = option(True, "a task with fewer classes than n_way plays with all of its own")
    n_query: int = option(5, "query rows per class, or where labels are no classes, in all", low=1)
    max_rows_per_task: int | None = option(None, "at most so many rows of a task, in proportion to its classes", low=10)
    skip_bad_rows: bool = option(False, "leave out rows that cannot be used, with a warning, instead of an error")
    encoding: str = option("utf-8", ENCODING)
    shots: tuple[int, ...] = option(
        (1, 5), "support rows per class (where labels are no classes, in all), a table each; 0: the label names alone", low=0
    )
    metric: str | None = option(
        None,
        "the figure: accuracy, macro_f1 or mcc; multilabel_macro_f1 or multilabel_micro_f1; spearman, pearson or rmse; squad_f1 or "
        "squad_em, or where an answer may be that there is none, squad_v2_f1 or squad_v2_em; rouge_l or bleu; none: the first of its kind",
    )
    names: tuple[Literal["real", "numbered"], ...] = option(
        ("real",), "label names that are read, a table each: real; numbered: 'class 1', 'class 2' ... (not at 0 shots)"
    )
    n_episodes: int = option(600, "episodes per task and number of shots (with class_splits: over all splits)", low=2)
    seed: int = option(0, "of the episodes", low=0)
    baselines: tuple[str, ...] = option(
        ("untrained", "label_names", "nearest_centroid", "knn", "naive_mean", "logistic_regression", "logistic_regression_names"),
        "measured on the same episodes; also logistic_regression_pretrained (on the encoder before it learned) and setfit (slow; needs "
        "metatext[bench]); where labels are no classes the usual ones of the kind, fine_tuning of spans (slow), and prompted and copied of generation",
    )
    reference: tuple[str, ...] = option(
        ("logistic_regression", "label_names"), "the method that differences are to: the first of these that has an answer"
    )
    n_outside: int = option(
        0, "query rows per episode from the task's classes that are not in it; of spans, questions without an answer", low=0
    )
    outside: str | None = option(None, "a task whose rows belong to no class: further query rows of every episode")
    outside_rows: int | None = option(None, "how many of its rows an episode gets; none: all", low=1)
    output: str | None = option(None, "JSON file for the figures; none: only tables (with --plot: runs/meta_test.json)")
    plot: bool = option(False, "draw accuracy against shots, and errors against rows answered, beside the JSON file")
    cache_dir: str | None = option(None, "where features are kept; none: $METATEXT_CACHE, else the user's cache folder")


@dataclass(frozen=True)
class Asked(Checked):
    """Which columns of the files hold what, and which rows are asked; what adapt, finetune and predict share."""

    text_column: str | None = option(None, "column of the text; none: found when its name is usual")
    text_pair_column: str | None = option(None, "column of the second text of a pair")
    label_column: str | None = option(None, "column of the label, where the file has one; none: found when its name is usual")
    skip_bad_rows: bool = option(False, "leave out rows that cannot be used, with a warning, instead of an error")
    encoding: str = option("utf-8", ENCODING)
    predict: str | None = option(None, "file of rows to classify (a label column is not needed)")
    max_risk: float | None = option(
        None, "leave a row without a label where its answer is more often wrong than this share", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class AdaptData(Asked):
    """Which examples make a classifier, and what it is asked."""

    model: str = option(
        "metatext-minilm-general",
        "a saved head: a folder, metatext-minilm-general or -intent, or a repo on the Hub, owner/name; or the name of a head, gp for one (untrained, on the embedded encoder)",
    )
    examples: str | None = option(
        None,
        "labelled examples, a text and a label per row, or question, context and answers, or input and target: a csv, tsv, json, jsonl or parquet file, a folder of splits, or a data set on the Hub (id:config)",
    )
    split: str | None = option(None, "which split of them; none: all rows of all splits")
    kind: Literal["classification", "multilabel", "regression", "span", "generation"] | None = option(
        None,
        "kind of the task: one label per row, several, a score, answers in a context, or a text to write; none: found from the columns",
    )
    description: str | None = option(None, "one sentence on what the labels mean; it helps at few examples")
    output_dir: str = option("runs/adapted", "folder for the adapted classifier")
    predictions: str | None = option(None, "csv to write the predictions to; none: predictions.csv in output_dir")


@dataclass(frozen=True)
class PredictData(Asked):
    """Which classifier is asked what."""

    model: str = option("runs/adapted", "a classifier that adapt or finetune saved: a folder, or a repo on the Hub, owner/name")
    predictions: str | None = option(None, "csv to write the predictions to; none: <file>.predictions.csv in this folder")


@dataclass(frozen=True)
class FinetuneData(Asked):
    """Which head is fine-tuned on which examples, and what the classifier is asked."""

    model: str = option(
        "metatext-minilm-general",
        "a saved head, or a classifier whose head and labels are taken: a folder, metatext-minilm-general or -intent, or a repo on the Hub, owner/name; or the name of a head, gp for one (untrained, on the embedded encoder)",
    )
    examples: str | None = option(
        None,
        "labelled examples: a csv, tsv, json, jsonl or parquet file, a folder of splits, or a data set on the Hub (id:config)",
    )
    split: str | None = option(None, "which split of them; none: all rows of all splits")
    eval_examples: str | None = option(
        None, "labelled rows that stop and judge training; none: a share of every class's examples does, see eval_share"
    )
    eval_split: str | None = option(None, "which split of them; without eval_examples, of the examples' own data set")
    description: str | None = option(None, "one sentence on what the labels mean; it helps at few examples")
    output_dir: str = option("runs/finetuned", "folder for the classifier")
    predictions: str | None = option(None, "csv to write the predictions to; none: predictions.csv in output_dir")


@dataclass(frozen=True)
class PushData(Checked):
    """What is pushed to which repo on the Hub."""

    model: str = option("runs/metatext", "folder of a saved head or adapted classifier; a README.md in it is the card")
    repo_id: str | None = option(None, "the repo, owner/name; it is made where there is none")
    private: bool = option(False, "a repo that is made is private; one that is there must be")
    revision: str | None = option(None, "branch to push to, made where there is none; none: the main branch")
    create_pr: bool = option(False, "open a pull request against the main branch instead")
    metrics: str | None = option(
        None,
        "JSON of the figures for the card: metrics.json of a run, or what `metatext test --output` wrote; none: the folder's own",
    )
    datasets: tuple[str, ...] = option((), "Hub ids of what it was trained on, for the card")
    license: str = option("apache-2.0", "the Hub's name of its licence, for the card")
    commit_message: str = option("Push with metatext", "title of the commit")


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
"""Settings that a command also takes as its first or its last words, all of them, without their flags; of `EXAMPLES` a file of rows."""


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
            on = "; the same command goes on from the last checkpoint, if there is one" if command == "train" else ""
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
    )
    parser.add_argument("config", nargs="?", help="YAML file of the settings below; flags win over it")
    known: dict[str, tuple[type, str]] = {}
    for cls in classes:
        group = parser.add_argument_group(cls.__name__, (cls.__doc__ or "").split("\n")[0])
        hints = typing.get_type_hints(cls)
        for item in dataclasses.fields(cls):
            key = item.metadata["flag"] or item.name
            if key in known:  # a command's own setting hides one of the same name behind it
                continue
            known[key] = (cls, item.name)
            hint = hints[item.name]
            many = hint == Range or typing.get_origin(hint) is tuple
            choices = f" ({', '.join(typing.get_args(hint))})" if typing.get_origin(hint) is typing.Literal else ""
            options = {"nargs": "?", "const": "true"} if hint is bool else {"nargs": "+"} if many else {}
            shown = (
                " ".join(map(str, item.default))
                if isinstance(item.default, tuple)
                else str(item.default).lower()
                if item.default in (None, True, False)
                else item.default
            )
            text = f"{item.metadata['help']}{choices} [{shown}]".replace("%", "%%")
            group.add_argument(f"--{key}", default=argparse.SUPPRESS, help=text, metavar="X", **options)
    switches = [key for key, (cls, name) in known.items() if typing.get_type_hints(cls)[name] is bool]
    found, rest = parser.parse_known_args(_with_flags(list(arguments), WORDS.get(command, ()), switches))
    if rest:
        flag = rest[0].split("=")[0]
        raise ConfigError(f"unknown argument {rest[0]!r}{nearest(flag, [f'--{k}' for k in known])} See --help.")
    flags = vars(found)
    path = flags.pop("config")
    values = {**(_read_yaml(path) if path else {}), **flags}
    grouped: dict[type, dict[str, Any]] = {cls: {} for cls in classes}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(key, known)} Known keys: {', '.join(sorted(known))}")
        cls, name = known[key]
        grouped[cls][name] = value[0] if isinstance(value, list) and len(value) == 1 and _is_range(cls, name) else value
    return {cls: cls(**given) for cls, given in grouped.items()}


def _with_flags(arguments: list[str], names: Sequence[str], switches: Sequence[str]) -> list[str]:
    """The first words as the settings ``names``, where there are as many, or the last ones; one first word alone is a YAML file, as
    everywhere."""
    n = len(names)
    first = list(itertools.takewhile(_is_word, arguments))
    if names == EXAMPLES:
        rows = [part for part in first[:1] if Path(part).suffix.lower() in ROWS]
        return _flagged(names, rows) + arguments[1:] if rows else arguments
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


def _is_word(part: str) -> bool:
    return not part.startswith("-")


def _flagged(names: Sequence[str], words: Sequence[str]) -> list[str]:
    return [part for name, word in zip(names, words, strict=True) for part in (f"--{name}", word)]


def _is_range(cls: type, name: str) -> bool:
    return typing.get_type_hints(cls)[name] == Range


def _read_yaml(path: str) -> dict[str, Any]:
    import yaml

    rows = "; a file of rows is no settings" if Path(path).suffix.lower() in ROWS else ""
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; the first argument is a YAML file of settings") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder; the first argument is a YAML file of settings, a head or classifier is given by --model, corpora by --tasks_dir"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}{rows}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, got {type(values).__name__}{rows}")
    return values
