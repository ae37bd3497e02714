"""Rows as a caller hands them over: texts, pairs and questions, checked, and labels as numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from numbers import Integral
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


def is_missing(value: Any) -> bool:
    """Whether a value says nothing: None, a blank text, or what numpy and pandas write for a gap."""
    return not value.strip() if isinstance(value, str) else value is None or str(value) in ("nan", "NaT", "<NA>")


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
        DataError: a label is missing (None, NaN), of another type than the rest, or not among ``label_names``, which are no list of texts and
            no dict of labels.
    """
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    numbers = range(len(values)) if numbers is None else numbers
    _check_labels(values, numbers, where)
    given = check_label_names(label_names)
    if given is None:
        given = {label: readable(label) if isinstance(label, str) else None for label in sorted(set(values))}
    labels = tuple(given)
    if label_names is not None and not isinstance(label_names, Mapping) and values and not isinstance(values[0], str):
        outside = next((i for i, v in enumerate(values) if not 0 <= v < len(labels)), None)
        if outside is not None:
            raise DataError(
                f"{where}: row {numbers[outside]} has the label {values[outside]!r}; with {len(labels)} label_names it must be 0 to {len(labels) - 1}",
                row=int(numbers[outside]),
            )
        values = [labels[v] for v in values]
    index = {label: i for i, label in enumerate(labels)}
    for i, value in zip(numbers, values, strict=True):
        if value not in index:
            raise DataError(
                f"{where}: row {i} has the label {value!r}, which is not among label_names {list(labels)[:20]}{nearest(value, map(str, labels))}",
                row=i,
            )
    return np.array([index[v] for v in values], np.int64), labels, tuple(given.values())


def check_label_names(label_names: Sequence[str] | Mapping[Any, str] | None) -> dict[Any, str | None] | None:
    """Label names as a caller gives them -> {label: the text that the encoder reads, or None}; in a list they are labels themselves.

    Raises:
        DataError: they are neither a list of texts nor a dict of labels, or one stands there twice.
    """
    given = listed_names(label_names)
    if given is None:
        return None
    labels = [label.item() if isinstance(label, np.generic) else label for label in given]
    if isinstance(given, Mapping):
        _check_labels(labels, range(len(labels)), "label_names", "entry")
        return {label: None if is_missing(text) else str(text) for label, text in zip(labels, given.values())}
    strange = next((i for i, label in enumerate(labels) if not isinstance(label, str) or is_missing(label)), None)
    if strange is not None:
        raise DataError(
            f"label_names: entry {strange} is {labels[strange]!r}, and a list is of texts; give a dict {{label: text}}, "
            f"or {{label: None}} for a label without a name"
        )
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise DataError(f"label_names: {twice!r} stands there twice")
    return {label: readable(label) for label in labels}


def _check_labels(values: Sequence, numbers: Sequence[int], where: str, unit: str = "row") -> None:
    """Raises `DataError` where a value is no label, or of another type than the first."""

    def refuse(i: int, why: str):
        raise DataError(f"{where}: {unit} {i} has {why}", row=i if unit == "row" else None)

    for i, value in zip(numbers, values, strict=True):
        if not isinstance(value, int) and is_missing(value):
            refuse(i, f"no label ({value!r}); drop the {unit} or label it")
        if not isinstance(value, (str, int)):
            several = isinstance(value, (list, tuple, set, np.ndarray))
            other = "multilabel" if several else "regression" if isinstance(value, float) else None
            hint = f"; for {'lists of labels' if several else 'scores'} give kind={other!r}" if other and unit == "row" else ""
            refuse(i, f"the label {value!r} ({type(value).__name__}); labels are str or int{hint}")
        if isinstance(value, str) != isinstance(values[0], str):
            refuse(i, f"the label {value!r}, {unit} {numbers[0]} {values[0]!r}; labels must be all text or all numbers")


def as_list(
    values: Any,
    where: str = "inputs",
    what: str = "texts",
    hint: str = "of a table give one column, as in list(table['text'])",
    mappings: bool = False,
) -> list:
    """What a caller hands over one by one: a sequence, an array, a column of a table, a generator.

    Args:
        where: how messages call it.
        what: what is expected.
        hint: what to write instead.
        mappings: an entry may be one, so that what gives its rows as such (`datasets.Dataset`) will do.

    Raises:
        DataError: it is one text, a set, which has no order, a table, or nothing that has entries.
    """
    if isinstance(values, (str, bytes)):
        file = "; metatext.load_task reads the rows of a file" if os.path.isfile(values) else ""
        raise DataError(f"{where}: expected a list of {what}, got one text; write [text]{file}")
    # iterating a table gives the names of its columns, which are texts as well
    table = isinstance(values, Mapping) or hasattr(values, "columns") or (hasattr(values, "column_names") and not mappings)
    try:
        entries = None if table or isinstance(values, (set, frozenset)) else iter(values)
    except TypeError:
        entries = None
    if entries is None:
        raise DataError(
            f"{where}: expected a list of {what}, got {'None' if values is None else f'one {type(values).__name__}'}; {hint}"
        )
    return list(entries)


def as_known(targets: Sequence, labels: Sequence) -> list:
    """Targets as a classifier's labels have them: a file in which all labels are numbers is read as numbers, one with an n/a among them as texts."""
    known, texts = set(labels), {str(label): label for label in labels}
    plain = (str, int, np.generic)  # a gap is no label, were one called None
    return [texts.get(str(target), target) if isinstance(target, plain) and target not in known else target for target in targets]


def check_whole(number: Any, name: str, low: int = 1) -> None:
    """Raises `DataError` where an argument is no whole number, or a lower one."""
    if isinstance(number, bool) or not isinstance(number, Integral) or number < low:
        raise DataError(f"{name}: expected a whole number of at least {low}, got {number!r}")


def listed_names(label_names: Any) -> list | Mapping | None:
    """Label names as a list or a dict; what stands in it is not looked at.

    Raises:
        DataError: they are neither.
    """
    if label_names is None or isinstance(label_names, Mapping):
        return label_names
    return as_list(label_names, "label_names", "texts, or a dict {label: text}", "give them in the order of the classes")


def list_targets(targets: Any, n: int, called: str) -> list:
    """What n rows are labelled with, one by one.

    Raises:
        DataError: there are more or fewer, or they are no list; an array has a row of flags or numbers for each.
    """
    if getattr(targets, "ndim", 1) == 2:
        raise DataError(
            f"{called}: targets: got a table of {' x '.join(map(str, targets.shape))}; expected one target per input, where several labels "
            f"apply a list of those, not a flag for each"
        )
    targets = as_list(
        targets, f"{called}: targets", "one target per input", "of a table give one column, as in list(table['label'])"
    )
    if len(targets) != n:
        raise DataError(f"{called}: {n} inputs but {len(targets)} targets")
    return targets


def check_inputs(inputs: Sequence) -> list:
    """Texts, or pairs of texts, as a list.

    Raises:
        DataError: it is one text, or a table; a row is not a text (or two), is empty, or is a pair among single texts.
    """
    rows = [tuple(row) if isinstance(row, (tuple, list)) else row for row in as_list(inputs)]
    for i, row in enumerate(rows):
        parts = row if isinstance(row, tuple) else (row,)
        if len(parts) != (2 if parts is row else 1) or not all(isinstance(p, str) for p in parts):
            one = isinstance(row, (tuple, np.ndarray)) and len(row) == 1
            hint = "; of a table give one column, flattened" if one else ""
            raise DataError(f"inputs: row {i} must be a text or a pair of texts, got {row!r}{hint}", row=i)
        if not all(p.strip() for p in parts):
            raise DataError(f"inputs: row {i} is empty", row=i)
        if isinstance(row, tuple) != isinstance(rows[0], tuple):
            raise DataError(f"inputs: row {i} and row 0 differ: all rows must be single texts, or all pairs", row=i)
    return rows


def check_questions(inputs: Sequence, answered: bool = False) -> list[dict[str, Any]]:
    """Rows of a span task as dicts of ``question``, ``context`` and, where they are ``answered``, ``answers``.

    Raises:
        DataError: a row is no dict, or lacks one of them, or has another that is no text or empty.
    """
    what = "{'question': ..., 'context': ...}"
    rows = as_list(inputs, what=what, hint="write [row]; of a table give table.to_dict('records')", mappings=True)
    needed = ("question", "context", *(["answers"] if answered else []))
    for i, row in enumerate(rows):
        missing = [name for name in needed if name not in row] if isinstance(row, Mapping) else [*needed]
        if missing:
            raise DataError(
                f"inputs: row {i} has no {' and no '.join(map(repr, missing))}; expected a dict of {', '.join(needed)}", i
            )
        for name in needed[:2]:
            if not isinstance(row[name], str) or not row[name].strip():
                raise DataError(f"inputs: row {i} has the {name} {row[name]!r}; expected a text that is not empty", i)
    listed = [{name: row[name] for name in needed} for row in rows]
    return [{**row, "answers": squad_answer(row["answers"], row["context"])} for row in listed] if answered else listed


def squad_answer(value: Any, context: Any) -> Any:
    """An answer that is a text as SQuAD has it, at its first place in the context, -1 where that does not have it; a blank one is no
    answer. Anything else stays as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    place = context.find(text) if isinstance(context, str) else -1
    return {"text": [text], "answer_start": [place]} if text else {"text": [], "answer_start": []}
