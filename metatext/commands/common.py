"""What several commands do alike: tasks and heads by name, tables, the words for shots."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..corpora import STARTER, load_tasks
from ..folders import READERS
from ..heads import is_untrained
from ..launch import best_device
from ..model import MetaModel, load_head
from ..readings import READINGS
from ..report import Report
from ..rows import DataError
from ..settings import ConfigError, check_is, nearest
from ..tasks import Task
from ..yaml_files import read_yaml

logger = logging.getLogger(__name__)


def load_model(name: str) -> MetaModel:
    """A saved head, or one that is named: untrained, on the embedded encoder."""
    return load_head(name).to(best_device())


def column_name(name: str) -> str:
    return f"untrained_{name}" if is_untrained(name) else Path(name).name


def sources(names: Sequence[str], tasks_dir: str | None, skip_bad_rows: bool = False, encoding: str = "utf-8") -> list[Task]:
    """Tasks by name; plain names are looked up in ``tasks_dir`` first.

    Raises:
        ConfigError: ``tasks_dir`` is no folder.
        DataError: see `load_tasks`.
    """
    if tasks_dir and not Path(tasks_dir).is_dir():
        raise ConfigError(f"tasks_dir: {tasks_dir} is no folder")
    if not names:
        return []
    found, elsewhere = [], []
    for name in names:
        reading, name = _reading(name)
        inside = _inside(name, tasks_dir)
        found.append(reading + (inside or name))
        if inside is None and "/" not in name and name != STARTER and not Path(name).exists():
            elsewhere.append(name)
            if tasks_dir is None and "." not in name:
                logger.warning(
                    "%s is taken for a Hub data set; name the folder of your corpora with --tasks_dir if it is one", name
                )
    try:
        return load_tasks(found, skip_bad_rows=skip_bad_rows, encoding=encoding)
    except DataError as error:
        if not tasks_dir or not elsewhere:
            raise
        known = [path.stem for path in Path(tasks_dir).iterdir()]
        raise DataError(f"{error} {tasks_dir} has no {elsewhere[0]!r} either{nearest(elsewhere[0], known, end='.')}") from error


def with_other_names(tasks: Sequence[Task], file: str) -> list[Task]:
    """The tasks with the other label names of a YAML file, {task: {label: [text, text]}}; those that it does not name as they are.

    Raises:
        DataError: it holds no such names, or none for these tasks.
    """
    found = read_yaml(file, DataError)
    check_is(found, Mapping, file, "write task: and below it label: [text, text]", DataError)
    for name, others in found.items():
        check_is(others, Mapping, f"{file}: {name}", "write label: [text, text] below it", DataError)
    named = {str(name): others for name, others in found.items() if others}
    without = [task.name for task in tasks if task.name not in named]
    if len(without) == len(tasks):
        raise DataError(
            f"{file}: none of these tasks has names in it, {', '.join(without)[:200]}; it has {', '.join(named)[:200] or 'nothing'}"
        )
    logger.info(
        "other label names for %d of %d tasks%s",
        len(tasks) - len(without),
        len(tasks),
        f"; their own ones alone: {', '.join(without)}" * bool(without),
    )
    return [task.with_other_label_names(named[task.name]) if task.name in named else task for task in tasks]


def public_name(name: str, tasks_dir: str | None) -> str:
    """A source as a card may name it: a path of this machine by its last part alone, in ``path/to``."""
    reading, name = _reading(name)
    path, at, column = name.partition("@")
    by_name = path.partition("/")[0] == STARTER or (not Path(path).is_absolute() and _inside(name, tasks_dir))
    if not by_name and Path(path).exists():
        path = f"path/to/{Path(path).resolve().name}"
    return f"{reading}{path}{at}{column}"


def _reading(name: str) -> tuple[str, str]:
    """What a task is read as, "scale=" or "joined=" or "", and its source."""
    reading, is_reading, rest = name.partition("=")
    return (f"{reading}=", rest) if is_reading and reading in READINGS else ("", name)


def _inside(name: str, tasks_dir: str | None) -> str | None:
    """A corpus of ``tasks_dir``, a folder or a file with or without its suffix, and what follows its name; None where there is none."""
    name, at, column = name.partition("@")
    for suffix in ("", *READERS) if tasks_dir else ():
        path = Path(tasks_dir) / f"{name}{suffix}"
        if path.exists():
            return f"{path}{at}{column}"
    return None


def print_report(report: Report, title: str, reference: Sequence[str]) -> None:
    print(f"\n{title}:\n{report}")
    to = report.reference(reference)
    if to is not None and len(report.methods) > 1:
        print(f"\n{report.differences(to)}")
    if report.judged:
        print(f"\n{report.calibration()}\nover all query rows together")


def of_shots(k: int, by_class: bool = True) -> str:
    return f"{k} example{'s' * (k != 1)}{' per class' * by_class}"


def texts_of(row: str | tuple[str, str] | dict[str, str]) -> tuple[str, ...]:
    """The texts of a row of any kind."""
    return (row,) if isinstance(row, str) else tuple(row.values()) if isinstance(row, dict) else row


def log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "httpx2", "filelock", "datasets", "fsspec", "accelerate"):
        logging.getLogger(name).setLevel(logging.WARNING)
