"""What rows are labelled with, by kind: from values as a caller or a table gives them to arrays, and what is wrong with them."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import NUMBER, read_labels
from .rows import DataError, encode_labels, is_missing, listed_names, readable, squad_answer

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

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
    label_names = listed_names(label_names)
    for i, value in enumerate(values):
        value = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        if value is None or isinstance(value, (str, bytes, int, float, Mapping)) or np.ndim(value) != 1:
            raise DataError(f"{where}: row {i} has {value!r}; expected a list of labels, [] where none applies", row=i)
        labels = [v.item() if isinstance(v, np.generic) else v for v in value]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None or any(isinstance(label, bool) for label in labels):
            said = "bools" if twice is None else f"the label {twice!r} twice"
            raise DataError(
                f"{where}: row {i} has {said}; expected the labels that apply, not a flag for each: {labels[:8]}", row=i
            )
        rows.append(labels)
    numbers = [i for i, labels in enumerate(rows) for _ in labels]
    flat = [label for labels in rows for label in labels]
    if not flat and not label_names:
        raise DataError(f"{where}: no row has a label, and label_names names none")
    places, labels, names = encode_labels(flat, label_names, where, numbers)
    targets = np.zeros((len(rows), len(labels)), bool)
    targets[numbers, places] = True
    return targets, labels, names


def encode_scores(values: Sequence, label_names: Mapping[Any, str] | None = None, where: str = "targets") -> Targets:
    """Numbers on a task's own scale -> (n,) float64, the two ends of the scale, and their texts.

    Args:
        values: one number per row.
        label_names: {score: text} for two scores at least; the lowest and the highest are the ends of the scale. None: the ends
            are not known, labels and names are empty.
        where: how messages call the values.

    Raises:
        DataError: a value is no finite number, or lies beyond the scale; ``label_names`` does not name two scores.
    """
    scores = np.empty(len(values))
    for i, value in enumerate(values):
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e150 < value < 1e150:  # squares are finite too
            raise DataError(
                f"{where}: row {i} has the score {value!r} ({type(value).__name__}); expected a finite number{_hint(value)}",
                row=i,
            )
        scores[i] = value
    if label_names is None:
        if not len(scores):
            raise DataError(f"{where}: without scores the scale must be given: label_names={{lowest: text, highest: text}}")
        return scores, (), ()
    if not isinstance(label_names, Mapping) or len(label_names) < 2 or not all(map(_is_finite, label_names)):
        raise DataError(
            f"label_names: of a regression they name two scores of its scale at least, such as {{0: 'unlike', 5: 'alike'}}, got {label_names!r}"
        )
    ends = min(label_names), max(label_names)
    beyond = np.flatnonzero((scores < ends[0]) | (scores > ends[1]))
    if len(beyond):
        raise DataError(
            f"{where}: row {beyond[0]} has the score {scores[beyond[0]]:g}, the scale runs from {ends[0]} to {ends[1]}",
            row=int(beyond[0]),
        )
    texts = (label_names[end] for end in ends)
    return scores, tuple(float(end) for end in ends), tuple(None if is_missing(text) else str(text) for text in texts)


def _is_finite(key: Any) -> bool:
    return isinstance(key, (int, float, np.number)) and not isinstance(key, bool) and math.isfinite(key)


def _hint(value: Any) -> str:
    """What to do about a score that is no number."""
    if is_missing(value):
        return "; drop the row or score it"
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        return ""
    return f"; write {value.strip().replace(',', '.')}, with a point" if "," in value else ", not a text"


def _number(value: Any) -> Any:
    """A text that is a number as a number, and any other value as it is: one n/a makes texts of the scores beside it."""
    return float(value) if isinstance(value, str) and "," not in value and NUMBER.fullmatch(value) else value


def encode_answers(values: Sequence, contexts: Sequence[str], where: str = "answers") -> np.ndarray:
    """Answers as SQuAD gives them -> (n, 2) int64, the first and the end character of each row's first answer in its context; -1, -1
    where it has none.

    Args:
        values: per row ``{"text": [...], "answer_start": [...]}``, both empty where the context does not answer the question.
        contexts: n texts.
        where: how messages call the values.

    Raises:
        DataError: a row has no such entry, or an answer that its context does not have at its place.
    """
    spans = np.full((len(values), 2), -1, np.int64)
    for i, (value, context) in enumerate(zip(values, contexts, strict=True)):
        parts = [value.get(key) for key in ("text", "answer_start")] if isinstance(value, Mapping) else [None, None]
        texts, starts = (part.tolist() if isinstance(part, np.ndarray) else part for part in parts)
        if not isinstance(texts, (list, tuple)) or not isinstance(starts, (list, tuple)) or len(texts) != len(starts):
            raise DataError(
                f"{where}: row {i} has {value!r}; expected {{'text': [answer, ...], 'answer_start': [its first character, ...]}}, "
                f"as many of both, [] where there is no answer",
                row=i,
            )
        starts = [start.item() if isinstance(start, np.generic) else start for start in starts]
        for text, start in zip(texts, starts, strict=True):
            if not isinstance(text, str) or not text.strip() or isinstance(start, bool) or not isinstance(start, int):
                raise DataError(
                    f"{where}: row {i} has the answer {text!r} at {start!r}; expected a text and a whole number", row=i
                )
            if start == -1 and text not in context:
                other = re.search(re.escape(text), context, re.IGNORECASE)
                there = f"; it has {other.group()!r}" if other else ""
                raise DataError(
                    f"{where}: row {i} has the answer {text!r}, which its context does not have word by word{there}", row=i
                )
            if start < 0 or context[start : start + len(text)] != text:
                place = context.find(text)
                there = f"has {context[max(0, start) : max(0, start) + len(text)]!r} there" + (
                    f", the answer at {place} (characters count from 0)" if place >= 0 else " and the answer nowhere"
                )
                raise DataError(f"{where}: row {i} has the answer {text!r} at {start}, but its context {there}", row=i)
        if texts:
            spans[i] = starts[0], starts[0] + len(texts[0])
    return spans


def place_answers(rows: Dataset, columns: Mapping[str, str], name: str | None = None) -> Dataset:
    """A table of spans whose answers are texts, as a csv has them, with answers as SQuAD has them; another one as it is.

    Args:
        rows: the table.
        columns: role -> column.
        name: of the task, in what is logged of answers that stand at several places or are missing; None: nothing is.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    if getattr(rows.features[columns["answers"]], "dtype", "") not in ("string", "large_string"):
        return rows
    table = rows.with_format("arrow")[:]
    texts, contexts = (table.column(columns[role]).to_pylist() for role in ("answers", "context"))
    placed = [squad_answer(text or "", context) for text, context in zip(texts, contexts, strict=True)]
    several = name and sum((context or "").count(text) > 1 for one, context in zip(placed, contexts) for text in one["text"])
    if several:
        logger.warning("%s: of %d rows the answer stands in its context more than once; the first place is taken", name, several)
    if none := name and sum(not one["text"] for one in placed):
        logger.info("%s: %d of %d rows have no answer in their context", name, none, len(placed))
    kind = pa.struct({"text": pa.list_(pa.string()), "answer_start": pa.list_(pa.int64())})
    place = table.column_names.index(columns["answers"])
    table = table.replace_schema_metadata(None).set_column(place, columns["answers"], pa.array(placed, kind))
    return Dataset(InMemoryTable(table))


def encode_texts(values: Sequence, label_names: None = None, where: str = "targets") -> Targets:
    """Texts that are to be written -> (n,) object, no labels, no names.

    Args:
        values: per row a text.
        label_names: there are none.
        where: how messages call the values.

    Raises:
        DataError: a row has no text, or label names are given.
    """
    if label_names is not None:
        raise DataError(f"label_names: texts that are written have no labels, got {label_names!r}; leave it out")
    texts = np.empty(len(values), object)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{where}: row {i} has {value!r} ({type(value).__name__}); expected the text to write", row=i)
        if not value.strip():
            raise DataError(f"{where}: row {i} is empty; drop the row or fill it in", row=i)
        texts[i] = value
    return texts, (), ()


def scale_of(ends: Sequence[float], scores: np.ndarray) -> tuple[float, float]:
    """What scores are standardised by: the middle of the scale and a quarter of its length; of a scale whose ends are not known, ``()``,
    mean and deviation of the scores."""
    if ends:
        middle, unit = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 4
    else:
        middle, unit = float(scores.mean()), float(scores.std())
    least = 1e-9 * max(1.0, abs(middle))  # the deviation of equal numbers need not be 0
    return middle, unit if unit > least else (abs(middle) or 1.0) / 4


ENCODERS: dict[str, Callable[..., Targets]] = {
    "classification": encode_labels,
    "multilabel": encode_label_sets,
    "regression": encode_scores,
    "generation": encode_texts,
}


def read_targets(
    kind: str, rows: Dataset, columns: Mapping[str, str], name: str, given: Any = None, known: Mapping[Any, str] | None = None
) -> Targets:
    """`ENCODERS` for the label column of a table; messages name the column.

    Args:
        kind: of the task.
        rows: the table.
        columns: role -> column; ``label`` must be there, or what `columns.ROLES` says of the kind.
        name: of the task, for messages.
        given: label names of the caller.
        known: label names of the catalogue, for classification.
    """
    if kind in ("classification", "multilabel"):
        given = listed_names(given)
    if kind == "classification":
        return read_labels(rows, columns, name, given, known or {})
    if kind == "span":
        table, where = rows.with_format(None), f"task {name!r}, column {columns['answers']!r}"
        return encode_answers(table[columns["answers"]][:], table[columns["context"]][:], where), (), ()
    column = columns["target" if kind == "generation" else "label"]
    values, where = rows.with_format(None)[column][:], f"task {name!r}, column {column!r}"
    if kind == "multilabel" and getattr(rows.features[column], "dtype", "") in ("string", "large_string"):  # a csv has no lists
        values = [[part.strip() for part in (value or "").split(";") if part.strip()] for value in values]
    scores = ENCODERS[kind] is encode_scores
    values = [*map(_number, values)] if scores else values
    feature = rows.features[column]
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
    if kind == "multilabel" and hasattr(inner, "names"):
        order = inner.names
        for i, row in enumerate(values):
            if any(number is None or not 0 <= number < len(order) for number in row or ()):
                raise DataError(f"{where}: row {i} has {row!r}; expected numbers of the {len(order)} labels {order[:20]}", row=i)
        values = [None if row is None else [order[number] for number in row] for row in values]
        if given is None:
            given = {label: readable(label) for label in order}
        elif not isinstance(given, Mapping):
            if len(given) != len(order):
                raise DataError(
                    f"task {name!r}: label_names has {len(given)} entries, the data has {len(order)} labels: {order[:20]}"
                )
            given = dict(zip(order, given, strict=True))
    targets, labels, names = ENCODERS[kind](values, given, where)
    if scores and not labels:  # of a whole table the lowest and the highest score are the ends
        labels, names = (float(targets.min()), float(targets.max())), (None, None)
    return targets, labels, names
