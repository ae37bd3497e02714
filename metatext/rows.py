"""Rows as a caller hands them over: texts, pairs and questions, checked, and labels as numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .settings import MetatextError, nearest


class DataError(MetatextError, ValueError):
    """Rows, columns or labels that cannot be used; the message names which and what would be right.

    Attributes:
        row: the number of the row that cannot be used, where it is one.
    """

    def __init__(self, message: str, row: int | None = None):
        super().__init__(message)
        self.row = row


def readable(label: Any) -> str:
    """A label as text: ``Refund_not_showing_up`` and ``PlayMusic`` become words."""
    text = re.sub(r"[_#/]+|(?<=\w)-(?=\w)", " ", str(label))
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def encode_labels(
    values: Sequence,
    label_names: Sequence[str] | Mapping[Any, str] | None = None,
    where: str = "targets",
    numbers: Sequence[int] | None = None,
) -> tuple[np.ndarray, tuple, tuple[str | None, ...]]:
    """Labels as the caller gave them -> (class of each row, labels, text of each label).

    Args:
        values: str, int or bool per row (ints index ``label_names`` when that is a list).
        label_names: list of texts, or dict {label: text}; None: strings name themselves, numbers have no name.
        where: how messages call the values.
        numbers: the row that each value is of, where it is not its own place.

    Raises:
        DataError: a label is missing (None, NaN), of another type than the rest, or not among ``label_names``.
    """
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    numbers = range(len(values)) if numbers is None else numbers
    for i, value in zip(numbers, values, strict=True):
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{where}: row {i} has no label ({value!r}); drop the row or label it", row=i)
        if not isinstance(value, (str, int)):
            other = "multilabel" if isinstance(value, (list, tuple, set)) else "regression" if isinstance(value, float) else None
            hint = f"; for {'lists of labels' if other == 'multilabel' else 'scores'} give kind={other!r}" if other else ""
            raise DataError(
                f"{where}: row {i} has the label {value!r} ({type(value).__name__}); labels are str or int{hint}", row=i
            )
        if isinstance(value, str) != isinstance(values[0], str):
            raise DataError(
                f"{where}: row {i} has the label {value!r}, row {numbers[0]} {values[0]!r}; labels must be all text or all numbers",
                row=i,
            )
    if label_names is None:
        labels = tuple(sorted(set(values)))
        names = tuple(readable(label) if isinstance(label, str) else None for label in labels)
    elif isinstance(label_names, Mapping):
        labels = tuple(key.item() if isinstance(key, np.generic) else key for key in label_names)
        names = tuple(None if text is None else str(text) for text in label_names.values())
    else:
        if isinstance(label_names, str):
            raise DataError(f"label_names: expected a list or a dict of texts, got the text {label_names!r}")
        labels = tuple(name.item() if isinstance(name, np.generic) else name for name in label_names)
        if None in labels:
            raise DataError(
                f"label_names: entry {labels.index(None)} is None; give a dict {{label: None}} for a label without a name"
            )
        names = tuple(readable(label) for label in labels)
        if values and not isinstance(values[0], str):
            outside = next((i for i, v in enumerate(values) if not 0 <= v < len(labels)), None)
            if outside is not None:
                raise DataError(
                    f"{where}: row {numbers[outside]} has the label {values[outside]!r}; with {len(labels)} label_names it must be 0 to {len(labels) - 1}",
                    row=int(numbers[outside]),
                )
            values = [labels[v] for v in values]
    if len(set(labels)) != len(labels):
        raise DataError(f"label_names: {next(x for x in labels if labels.count(x) > 1)!r} stands there twice")
    index = {label: i for i, label in enumerate(labels)}
    for i, value in zip(numbers, values, strict=True):
        if value not in index:
            raise DataError(
                f"{where}: row {i} has the label {value!r}, which is not among label_names {list(labels)[:20]}{nearest(str(value), map(str, labels))}",
                row=i,
            )
    return np.array([index[v] for v in values], np.int64), labels, names


def check_inputs(inputs: Sequence, where: str = "inputs") -> list:
    """Texts, or pairs of texts, as a list.

    Raises:
        DataError: it is one text, or a table; a row is not a text (or two), is empty, or is a pair among single texts.
    """
    if isinstance(inputs, (str, bytes)):
        file = "; metatext.load_task reads the rows of a file" if Path(os.fsdecode(inputs)).is_file() else ""
        raise DataError(f"{where}: expected a list of texts, got one text; write [text]{file}")
    # iterating a table gives the names of its columns, which are texts as well
    is_table = isinstance(inputs, Mapping) or hasattr(inputs, "columns") or hasattr(inputs, "column_names")
    if is_table or not isinstance(inputs, Iterable) or getattr(inputs, "shape", None) == ():
        raise DataError(
            f"{where}: expected a list of texts, got one {type(inputs).__name__}; of a table give one column, as in list(table['text'])"
        )
    rows = [tuple(row) if isinstance(row, (tuple, list)) else row for row in inputs]
    for i, row in enumerate(rows):
        parts = row if isinstance(row, tuple) else (row,)
        if len(parts) != (2 if parts is row else 1) or not all(isinstance(p, str) for p in parts):
            raise DataError(f"{where}: row {i} must be a text or a pair of texts, got {row!r}", row=i)
        if not all(p.strip() for p in parts):
            raise DataError(f"{where}: row {i} is empty", row=i)
        if isinstance(row, tuple) != isinstance(rows[0], tuple):
            raise DataError(f"{where}: row {i} and row 0 differ: all rows must be single texts, or all pairs", row=i)
    return rows


def check_questions(inputs: Sequence, where: str = "inputs", answered: bool = False) -> list[dict[str, Any]]:
    """Rows of a span task as dicts of ``question``, ``context`` and, where they are ``answered``, ``answers``.

    Raises:
        DataError: a row is no dict, or lacks one of them, or has another that is no text or empty.
    """
    if isinstance(inputs, (str, bytes, Mapping)):
        raise DataError(
            f"{where}: expected a list of {{'question': ..., 'context': ...}}, got one {type(inputs).__name__}; write [row]"
        )
    rows, needed = list(inputs), ("question", "context", *(["answers"] if answered else []))
    for i, row in enumerate(rows):
        missing = [name for name in needed if name not in row] if isinstance(row, Mapping) else [*needed]
        if missing:
            raise DataError(
                f"{where}: row {i} has no {' and no '.join(map(repr, missing))}; expected a dict of {', '.join(needed)}", i
            )
        for name in needed[:2]:
            if not isinstance(row[name], str) or not row[name].strip():
                raise DataError(f"{where}: row {i} has the {name} {row[name]!r}; expected a text that is not empty", i)
    return [{name: row[name] for name in needed} for row in rows]
