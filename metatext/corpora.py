"""Many tasks: folders of corpora with what a catalogue says of them, the starter tasks, lists of names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .columns import kind_of
from .folders import are_splits, is_corpus, reader, split_files
from .readings import READINGS
from .rows import DataError
from .settings import nearest
from .sources import read_schema
from .storage import StorageError, read_json
from .task_loading import load_task
from .tasks import Task

logger = logging.getLogger(__name__)

STARTER, CATALOG = "starter", "catalog.json"


def load_tasks(
    source: str | Path | Sequence[str], split: str | None = None, skip_bad_rows: bool = False, encoding: str = "utf-8"
) -> list[Task]:
    """Load many tasks.

    Args:
        source: a folder of corpora (one folder per corpus with a file per split, or one file per corpus; a
            ``catalog.json`` in it or beside it may give each a ``description``, and a regression its ``scale``, {score: text}) or of one, "starter",
            "starter/train" or "starter/test" (the embedded classifications), "starter/<kind>/train" or "starter/<kind>/test" (those of
            another kind), "starter/test/travel_diary" (one of them), or a list of names as `load_task` takes them ("id:config" for
            a Hub configuration), of folders of corpora, and of those before. In a list, ``scale=<name>`` is a classification read as scores (`as_scale`), ``scale=<name>@<column>``
            a column of numbers, and ``joined=<name>`` the multilabel task that `joined` makes of a classification.
        split: None: all rows of all files of a corpus. Corpora of a folder that lack the split are left out with a
            warning, and so are those whose columns say nothing. A folder may hold several kinds: choose by ``task.kind``.
        skip_bad_rows, encoding: see `load_task`.

    Raises:
        DataError: see `load_task`, for all corpora at once; or nothing loadable was found.
    """
    options = {"split": split, "skip_bad_rows": skip_bad_rows, "encoding": encoding}
    if not isinstance(source, (str, Path)):
        tasks = _load_each([str(item) for item in source], lambda item: _load_item(item, options))
        if not tasks:
            raise DataError("no task: the list of names is empty")
        return tasks
    if str(source) == STARTER:
        return load_tasks("starter/train", **options) + load_tasks("starter/test", **options)
    folder = Path(source)
    if str(source).startswith(STARTER + "/"):
        folder = Path(__file__).parent / source
        if (file := folder.with_suffix(".jsonl")).is_file():  # one task of them
            return _load_item(str(file), options)
        if not folder.is_dir() and folder.parent.is_dir():
            known = {path.stem for path in folder.parent.iterdir() if not path.name.startswith("_") and path.name != CATALOG}
            raise DataError(f"there is no {source}{nearest(folder.name, known, end='.')} Known: {', '.join(sorted(known))}")
    if not folder.is_dir():
        raise DataError(f"{source} is not a folder; give a folder of corpora, 'starter', or a list of names")
    if is_corpus(folder):
        return _load_item(str(folder), options)
    return _load_folder(folder, options)


def _load_each(sources: list, load: Callable[[Any], list[Task]]) -> list[Task]:
    """The tasks of all sources. What is wrong with several comes in one error: a folder of a hundred corpora is mended once."""
    tasks, wrong = [], []
    for source in sources:
        try:
            tasks += load(source)
        except DataError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise DataError("\n  ".join([f"{len(wrong)} of {len(sources)} sources cannot be used:", *map(str, wrong)]))
    return tasks


def _load_item(item: str, options: Mapping[str, Any]) -> list[Task]:
    """What one name in a list of names stands for."""
    reading, is_reading, rest = item.partition("=")
    if is_reading and reading in READINGS:
        return [_read_as(reading, rest, options)]
    path = Path(item)
    if item == STARTER or item.startswith(STARTER + "/"):
        return load_tasks(item, **options)
    if path.name == CATALOG:
        logger.info("%s describes corpora and is none", item)
        return []
    if path.is_dir() and is_corpus(path) is False:
        return load_tasks(path, **options)
    if path.exists():
        return [load_task(item, **options, **_known_of(path, _catalog(path.parent)))]
    repo, _, config = item.partition(":")
    return [load_task(repo, config or None, **options)]


def _load_folder(folder: Path, options: Mapping[str, Any]) -> list[Task]:
    """The corpora of a folder; what is none, or lacks the split, is left out and said."""
    catalog, split = _catalog(folder), options["split"]
    corpora, left_out = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        try:
            files = split_files(path) if path.is_dir() else {}
        except DataError as error:
            left_out.append(f"{path.name} ({error})")
            continue
        if split is None and not are_splits(files):
            left_out.append(f"{path.name} ({', '.join(files)} are no splits of one data set)")
        elif not files and not (path.is_file() and reader(path) and path.name != CATALOG):
            continue
        elif path.is_dir() and split is not None and split not in files:
            left_out.append(f"{path.name} (no split {split!r})")
        else:
            corpora.append((path, next(iter(files.values())) if files else path))

    def load(corpus: tuple[Path, Path]) -> list[Task]:
        path, first = corpus
        if kind_of(read_schema(first, options["encoding"]))[0] is None:
            left_out.append(f"{path.name} (columns not recognised)")
            return []
        return [load_task(str(path), **options, **_known_of(path, catalog))]

    tasks = _load_each(corpora, load)
    if left_out:
        logger.warning("%s: left out %d corpora: %s", folder.name, len(left_out), ", ".join(left_out))
    if not tasks:
        raise DataError(
            f"{folder} holds no corpus that can be used: expected folders with <split>.parquet (csv, jsonl) or such files"
        )
    return tasks


def _read_as(reading: str, source: str, options: Mapping[str, Any]) -> Task:
    before, _, column = source.rpartition("@")
    if reading == "scale" and before:
        known = _known_of(Path(before), _catalog(Path(before).parent)) if Path(before).exists() else {}
        known |= {"kind": "regression", "columns": {"label": column}}
        return load_task(before, **options, **known)
    found = load_tasks([source], **options)
    if len(found) > 1:
        raise DataError(f"{reading}={source}: expected one task, found {len(found)}; name each by itself")
    return READINGS[reading](found[0])


def _name(path: Path) -> str:
    """What the catalogue calls a corpus: a folder by its name, a file without its suffix."""
    return path.name if path.is_dir() else path.stem


def _catalog(folder: Path) -> dict[str, Any]:
    """What a catalog.json in a folder, or beside it, says of its corpora."""
    for place in (folder / CATALOG, folder.parent / CATALOG):
        if place.is_file():
            try:
                return read_json(place)
            except StorageError as error:
                raise DataError(str(error)) from None
    return {}


def _known_of(path: Path, catalog: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `load_task` for a corpus, from its entry in a catalogue.

    Raises:
        DataError: its ``scale`` is no mapping of scores to texts, its ``description`` no text.
    """
    entry = catalog.get(_name(path))
    entry = {"description": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping):
        return {}
    if not isinstance(entry.get("description") or "", str):
        raise DataError(f"{CATALOG}: {_name(path)}: expected a text as description, got {entry['description']!r}")
    found = {"description": entry["description"]} if entry.get("description") else {}
    if "scale" in entry:
        try:
            found |= {"kind": "regression", "label_names": {float(score): str(text) for score, text in entry["scale"].items()}}
        except (AttributeError, ValueError):
            raise DataError(f"{CATALOG}: {_name(path)}: expected scale: {{score: text}}, got {entry['scale']!r}") from None
    return found
