"""What rows are labelled with, by kind: from values as a caller or a table gives them to arrays, and what is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import DataError, encode_labels, read_labels, readable

if TYPE_CHECKING:
    from datasets import Dataset

Targets = tuple[np.ndarray, tuple, tuple[str | None, ...]]
"""Targets of the rows, labels, and per label the text that the encoder reads, or None."""


def encode_label_sets(
    values: Sequence, label_names: Sequence[str] | Mapping[Any, str] | None = None, where: str = "targets"
) -> Targets:
    """Lists of labels, one list per row -> (n, w) bool, labels, names.

    Args:
        values: per row a list (or tuple, set, array) of str or int, empty where no label applies.
        label_names: as of `encode_labels`.
        where: how messages call the values.

    Raises:
        DataError: a row is no list, or holds what is no label, or an unknown one.
    """
    rows = []
    for i, value in enumerate(values):
        if value is None or isinstance(value, (str, bytes, int, float, Mapping)) or not hasattr(value, "__iter__"):
            raise DataError(f"{where}: row {i} has {value!r}; expected a list of labels, [] where none applies")
        rows.append(list(value))
    flat = [(i, label) for i, labels in enumerate(rows) for label in labels]
    if not flat and label_names is None:
        raise DataError(f"{where}: no row has a label, and label_names is not given")
    try:
        places, labels, names = encode_labels([label for _, label in flat], label_names, where)
    except DataError as error:
        raise DataError(_by_row(str(error), [i for i, _ in flat])) from None
    targets = np.zeros((len(rows), len(labels)), bool)
    targets[[i for i, _ in flat], places] = True
    return targets, labels, names


def _by_row(message: str, rows: Sequence[int]) -> str:
    """A message on label number j of all labels as one on the row that has it."""
    return re.sub(r"\brow (\d+)", lambda found: f"row {rows[int(found[1])]}", message)


def encode_scores(values: Sequence, label_names: Mapping[Any, str] | None = None, where: str = "targets") -> Targets:
    """Numbers on a task's own scale -> (n,) float64, the two ends of the scale, and their texts.

    Args:
        values: one number per row.
        label_names: {score: text} for two scores at least; the lowest and the highest are the ends of the scale. None: the ends
            are the lowest and the highest value, and have no text.
        where: how messages call the values.

    Raises:
        DataError: a value is no finite number, or lies beyond the scale; ``label_names`` does not name two scores.
    """
    scores = np.empty(len(values))
    for i, value in enumerate(values):
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DataError(f"{where}: row {i} has the score {value!r} ({type(value).__name__}); expected a finite number")
        scores[i] = value
    if label_names is None:
        if not len(scores):
            raise DataError(f"{where}: without scores the scale must be given: label_names={{lowest: text, highest: text}}")
        return scores, (float(scores.min()), float(scores.max())), (None, None)
    number = lambda key: isinstance(key, (int, float, np.number)) and not isinstance(key, bool)  # noqa: E731
    if not isinstance(label_names, Mapping) or len(label_names) < 2 or not all(map(number, label_names)):
        raise DataError(
            f"label_names: of a regression they name two scores of its scale at least, such as {{0: 'unlike', 5: 'alike'}}, got {label_names!r}"
        )
    ends = min(label_names), max(label_names)
    beyond = np.flatnonzero((scores < ends[0]) | (scores > ends[1]))
    if len(beyond):
        raise DataError(
            f"{where}: row {beyond[0]} has the score {scores[beyond[0]]:g}, the scale runs from {ends[0]} to {ends[1]}"
        )
    return scores, tuple(float(end) for end in ends), tuple(label_names[end] and str(label_names[end]) for end in ends)


ENCODERS: dict[str, Callable[..., Targets]] = {
    "classification": encode_labels,
    "multilabel": encode_label_sets,
    "regression": encode_scores,
}


def read_targets(
    kind: str, rows: Dataset, columns: Mapping[str, str], name: str, given: Any = None, known: Mapping[Any, str] | None = None
) -> Targets:
    """`ENCODERS` for the label column of a table; messages name the column.

    Args:
        kind: of the task.
        rows: the table.
        columns: role -> column; ``label`` must be there.
        name: of the task, for messages.
        given: label names of the caller.
        known: label names of the catalogue, for classification.
    """
    if kind == "classification":
        return read_labels(rows, columns, name, given, known or {})
    column = columns["label"]
    values, where = rows.with_format(None)[column][:], f"task {name!r}, column {column!r}"
    feature = rows.features[column]
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
    if kind == "multilabel" and hasattr(inner, "names"):
        order = inner.names
        values = [None if row is None else [order[number] for number in row] for row in values]
        if given is None:
            given = {label: readable(label) for label in order}
        elif not isinstance(given, Mapping):
            if len(given) != len(order):
                raise DataError(
                    f"task {name!r}: label_names has {len(given)} entries, the data has {len(order)} labels: {order[:20]}"
                )
            given = dict(zip(order, given, strict=True))
    return ENCODERS[kind](values, given, where)
