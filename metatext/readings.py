"""Classifications read as tasks of another kind: classes in order as scores, rows of several classes as one."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .rows import DataError

if TYPE_CHECKING:
    from .tasks import Task

logger = logging.getLogger(__name__)


def as_scale(task: Task) -> Task:
    """A classification whose classes stand in order, from the lowest to the highest, as scores 0, 1, 2, ... The order is logged: labels
    that are texts without numbers stand in that of the alphabet.

    Raises:
        DataError: the task is no classification.
    """
    if task.kind != "classification":
        raise DataError(f"task {task.name!r}: expected a classification to read as scores, got kind {task.kind}")
    logger.info("%s as scores: %s", task.name, " < ".join(map(str, task.labels)))
    names, *others = ((names[0], names[-1]) for names in (task.label_names, *task.other_label_names))
    return dataclasses.replace(
        task,
        name=f"{task.name} as scores",
        kind="regression",
        targets=task.targets.astype(float),
        labels=(0.0, float(len(task.labels) - 1)),
        label_names=names,
        other_label_names=tuple(others),
    )


def joined(task: Task, n_rows: int = 2000, parts: tuple[int, int] = (2, 3), n_labels: int = 10, seed: int = 0) -> Task:
    """A multilabel task made of a classification of single texts: rows of different classes joined, labelled with all of them.

    No row is used twice, or a text of the support could stand in the query.

    Args:
        task: has at least as many classes with rows as parts.
        n_rows: of the new task; fewer where the rows of its classes do not last.
        parts: how many rows are joined, inclusive; each number as often.
        n_labels: so many of the classes, drawn at random; all where there are fewer.
        seed: of the draw.

    Raises:
        DataError: the task is no classification of single texts, or has too few classes.
    """
    from datasets import Dataset

    full = np.flatnonzero(np.bincount(task.targets, minlength=len(task.labels))) if task.kind == "classification" else []
    if task.kind != "classification" or task.is_pair or min(len(full), n_labels) < parts[1]:
        raise DataError(
            f"task {task.name!r}: expected a classification of single texts with at least {parts[1]} classes to join rows of, got "
            f"{task!r}{' of pairs' if task.is_pair else ''}"
        )
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(full)[:n_labels])
    order = rng.random((n_rows, len(kept))).argsort(1)[:, : parts[1]]  # different classes for every row
    used = np.arange(parts[1]) < rng.integers(parts[0], parts[1] + 1, n_rows)[:, None]
    picked = np.full(order.shape, -1)
    for number, c in enumerate(kept):
        wanted, own = np.nonzero((order == number) & used), rng.permutation(np.flatnonzero(task.targets == c))
        first = slice(0, min(len(wanted[0]), len(own)))
        picked[wanted[0][first], wanted[1][first]] = own[first]
    lasted = ((picked >= 0) | ~used).all(1)
    order, used, picked = order[lasted], used[lasted], picked[lasted]
    texts = task.inputs()
    rows = [" ".join(texts[i] for i in row[mine]) for row, mine in zip(picked, used, strict=True)]
    targets = np.zeros((len(rows), len(kept)), bool)
    np.put_along_axis(targets, order, used, 1)
    return dataclasses.replace(
        task,
        name=f"{task.name} joined",
        kind="multilabel",
        rows=Dataset.from_dict({"text": rows}),
        targets=targets,
        labels=tuple(task.labels[c] for c in kept),
        label_names=tuple(task.label_names[c] for c in kept),
        other_label_names=tuple(tuple(names[c] for c in kept) for names in task.other_label_names),
    )


READINGS: dict[str, Callable[[Task], Task]] = {"scale": as_scale, "joined": joined}
"""How a list of tasks asks for one of them: ``scale=sst5``."""
