"""A task loaded through `datasets` from wherever it lies."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .catalogue import ALIASES, KNOWN, Known
from .columns import KIND_NAMES, TEXTS, Columns, check_texts, drop_unlabelled, find_columns, is_text, with_defaults
from .rows import DataError
from .settings import check_is, nearest
from .sources import read_source
from .targets import Targets, place_answers, read_targets
from .tasks import Task
from .text_parts import join_columns, parts_of, say_second_text
from .usable import usable

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

LISTED = re.compile(r"\[.*\]|[^;]+;[^;]+")  # a label that looks like a list of them
COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")  # a number as it is written in much of Europe


def load_task(
    source: Any,
    config: str | None = None,
    split: str | None = "train",
    revision: str | None = None,
    kind: str | None = None,
    columns: Columns | None = None,
    label_names: Sequence[str] | Mapping[Any, str] | None = None,
    name: str | None = None,
    description: str | None = None,
    skip_bad_rows: bool = False,
    streaming: bool = False,
    max_rows: int | None = None,
    encoding: str = "utf-8",
    default_columns: Columns | None = None,
) -> Task:
    """Load one task.

    Args:
        source: a Hub id; a path of a csv, tsv, json, jsonl or parquet file, or of a folder with one such file per
            split; a `datasets.Dataset` or `DatasetDict`; an `IterableDataset`, of which ``max_rows`` are taken; a pandas DataFrame, a
            list of dicts, or a dict of columns.
        config: configuration of a Hub data set.
        split: which split; "full" counts as "train". None: all rows of all splits. Ignored for a single table.
        revision: branch, tag or commit on the Hub.
        kind: the kind of task; None: found from the columns: numbers with a fraction, or a column ``score``, ``rating`` or ``stars``
            where there is no label, are scores (regression), lists of labels are multilabel. Where "multilabel" is given, a text is
            labels with semicolons between them, as a csv may have them.
        columns: where what stands, e.g. ``{"text": "body", "label": "queue"}``; also ``text_pair`` and ``label_name``. A text, question or
            input of several columns, ``{"text": ["subject", "body"]}``, is read with a line break between them, without those that are blank; of a csv as
            its cells stand, numbers too.
        label_names: readable text per class: a list in the order of the classes, or a dict {label: text}. Labels
            without a row are allowed in a dict. Of a regression: {lowest score: text, highest score: text}.
        name: the task's name; None: from the source.
        description: one sentence on what the labels mean.
        skip_bad_rows: leave out the rows that cannot be used, with a warning that counts them and shows the first, instead of an error.
        streaming: of a Hub id or path, read the files that hold the first ``max_rows`` rows instead of all, and keep no copy on disk: for
            data sets that are larger than it. Rows may be sorted by class; for rows from all over a data set give a stream of it that
            is shuffled, ``load_dataset(..., streaming=True).shuffle(seed=0, buffer_size=10_000)``.
        max_rows: take the first so many rows, of any source; None: all.
        encoding: of a csv or tsv, such as "cp1252" or "latin-1", where it has no byte order mark that says it.
        default_columns: what is taken for ``columns`` that are not named, where the source has all of these: ``clf.columns``, for further examples of
            a classifier.

    Raises:
        DataError: a column is missing, a text is empty, a label is missing or unknown, a split does not exist, a stream without
            ``max_rows`` ...
    """
    if kind is not None and kind not in KIND_NAMES:
        raise DataError(f"unknown kind {kind!r}{nearest(kind, KIND_NAMES, end='.')} Known: {', '.join(KIND_NAMES)}")
    check_is(columns, (Mapping, type(None)), "columns", "write {'text': 'body', 'label': 'queue'}", DataError)
    check_is(default_columns, (Mapping, type(None)), "default_columns", "give those of a classifier, clf.columns", DataError)
    check_is(description, (str, type(None)), "description", "write one sentence, or leave it out", DataError)
    parts = parts_of({**(default_columns or {}), **(columns or {})})
    rows, found_name = read_source(source, config, split, revision, streaming, max_rows, encoding, parts)
    name = name or found_name
    known = _known(source if isinstance(source, str) else "", config, name)
    hints = known.columns if set(known.columns.values()) <= set(rows.column_names) else {}
    named = with_defaults(rows.column_names, columns or {}, default_columns or {}, name)
    rows, given, joined = join_columns(rows, {**hints, **named}, name)
    columns = find_columns(rows, given, name, kind, skip_bad_rows)
    kind = columns.pop("kind")
    of_source = {role: joined.get(role, column) for role, column in columns.items()}
    owners: dict[str, str] = {}
    for role, column in of_source.items():
        for one in (column,) if isinstance(column, str) else column:
            if (other := owners.setdefault(one, role)) != role:
                raise DataError(
                    f"task {name!r}: column {one!r} is named for the {other} and for the {role}; name one column for each"
                )
    if "text" in columns and "text" not in given and "text_pair" not in columns:
        say_second_text(rows, columns, name)
    rows = drop_unlabelled(rows, columns, known)
    rows = place_answers(rows, columns, name) if kind == "span" else rows

    def read(part: Dataset) -> Targets:
        check_texts(part, columns, name)
        return read_targets(kind, part, columns, name, label_names, known.label_names)

    rows = rows.select(usable(rows, read, name)) if skip_bad_rows else rows
    try:
        targets, labels, names = read(rows)
    except DataError as error:
        raise _hint_of_lists(error, kind, rows, columns) from None
    _warn_of_labels(name, kind, labels, in_a_cell="label" in columns and is_text(rows, columns["label"]))
    if kind == "classification" and max_rows is not None and len(np.unique(targets)) == 1:
        logger.warning(
            "%s: the first %d rows are all of the class %r; where a data set is sorted by class, load a stream of it that is shuffled",
            name,
            len(rows),
            labels[targets[0]],
        )
    kept = [role for role in (*TEXTS, "answers") if role in columns]
    rows = rows.select_columns([columns[role] for role in kept])
    rows = rows.rename_columns({columns[role]: role for role in kept if columns[role] != role})
    return Task(name, kind, rows, targets, labels, names, description or known.description, of_source)


def _hint_of_lists(error: DataError, kind: str, rows: Dataset, columns: Mapping[str, str]) -> DataError:
    """The error of a row without a label, with what to do about it where labels look like lists."""
    if kind != "classification" or "has no label" not in str(error) or not is_text(rows, columns["label"]):
        return error
    if not any(value and LISTED.fullmatch(value) for value in rows.with_format(None)[columns["label"]][:]):
        return error
    hint = "for several labels with semicolons between them, or none, give kind='multilabel' (--kind multilabel in the shell)"
    return DataError(f"{error}; {hint}", row=error.row)


def _warn_of_labels(name: str, kind: str, labels: Sequence, in_a_cell: bool) -> None:
    """Say where labels, or the ends of a scale, are read otherwise than they may be meant; ``in_a_cell``: all labels of a row are one text."""
    if kind == "regression" and labels[0] == labels[1]:
        logger.warning(
            "%s: every score is %g, and so will be every answer; name the ends of the scale, label_names={lowest: text, highest: text}",
            name,
            labels[0],
        )
    if kind not in ("classification", "multilabel"):
        return
    alike: dict[str, Any] = {}
    for label in labels:
        other = alike.setdefault(" ".join(str(label).split()).casefold(), label)
        if other is not label:
            logger.warning("%s: the labels %r and %r differ by blanks or capital letters alone, and are two", name, other, label)
            break
    texts = [label for label in labels if isinstance(label, str)]
    if kind == "multilabel":
        if in_a_cell and (apart := next((label for label in texts if set(label) & set(",|")), None)):
            logger.warning("%s: %r is read as one label; put semicolons between labels, a;b", name, apart)
        return
    if listed := next(filter(LISTED.fullmatch, texts), None):
        logger.warning(
            "%s: %r is read as one label; for several give lists (jsonl, parquet), or kind='multilabel' and semicolons between them",
            name,
            listed,
        )
    if len(texts) == len(labels) and all(map(COMMA.fullmatch, texts)):
        logger.warning("%s: labels such as %r are read as classes; write scores with a point", name, labels[0])


def _known(source: str, config: str | None, name: str) -> Known:
    source = ALIASES.get(source, source)
    for key in (f"{source}:{config}", source, name):
        if key in KNOWN:
            return KNOWN[key]
    return Known()
