"""The rows of a file that are asked of a task's model, and what the file says is right."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .columns import (
    INPUTS,
    ROLES,
    Columns,
    check_texts,
    find_columns,
    is_text,
    read_from,
    role_columns,
    text_columns,
    with_defaults,
)
from .csvs import with_numbers
from .folders import READERS, reader
from .rows import DataError
from .sources import read_file
from .targets import place_answers, read_targets
from .tasks import Task
from .text_parts import join_columns
from .usable import usable, usable_rows

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What is asked of a task's model.

    Attributes:
        rows: texts, pairs of texts, or of a kind with several columns of its own (`columns.INPUTS`) dicts of them.
        table: the same rows with every column of their file; cells of a csv are the texts that stand there.
        targets: their right answers as the file has them, None of a row where it does not say; None where it has no such column.
    """

    rows: list
    table: Dataset
    targets: list | None


def load_inputs(
    path: str | Path,
    columns: Columns | None = None,
    pairs: bool = False,
    kind: str = "classification",
    skip_bad_rows: bool = False,
    encoding: str = "utf-8",
    default_columns: Columns | None = None,
) -> Inputs:
    """The rows of a file, which need no label.

    Args:
        path: csv, tsv, json, jsonl or parquet.
        columns: as of `load_task`; a column of labels need not be there.
        pairs: two texts per row are wanted.
        kind: of the task.
        skip_bad_rows: leave out rows with an empty text, with a warning that counts them, instead of an error.
        encoding, default_columns: as of `load_task`.

    Raises:
        DataError: no such file or column, or an empty text.
    """
    if not Path(path).is_file() or not reader(Path(path)):
        raise DataError(f"{path} does not exist or is none of {', '.join(READERS)}")
    rows, name = read_file(Path(path), encoding), Path(path).stem
    own = rows.column_names
    answer = "label" if kind not in ROLES else ROLES[kind][-1]
    unlabelled = (columns or {}).get(answer) not in (None, *own)  # no other column may stand in for it
    given = {role: column for role, column in (columns or {}).items() if role != answer or column in own}
    given = with_defaults(own, given, default_columns or {}, name)
    rows, given, joined = join_columns(rows, given, name)
    asked = {role: column for role, column in given.items() if role != answer}
    if kind in INPUTS:
        found = role_columns(rows.column_names, asked, name, INPUTS[kind])
    else:
        found = text_columns(rows.column_names, asked, name)
        if pairs != ("text_pair" in found):
            raise DataError(
                f"{path}: {'pairs of texts' if pairs else 'single texts'} expected, found the columns {', '.join(found.values())}"
            )
    logger.info("%s: %s", name, read_from({**found, **{role: joined[role] for role in found if role in joined}}))
    said = with_numbers([rows])[0] if reader(Path(path)) == "csv" else rows
    texts = {part for parts in joined.values() for part in parts} - {given.get(answer)}
    said = said.remove_columns(list(texts))  # one called "type" or "category" is no label of these rows
    if skip_bad_rows:
        good = usable(rows, lambda part: check_texts(part, found, name), name)
        rows, said = rows.select(good), said.select(good)
    check_texts(rows, found, name)
    table = rows.with_format("arrow")[:]
    read = {role: table.column(column).to_pylist() for role, column in found.items()}
    if len(INPUTS.get(kind, ())) > 1:
        listed = [dict(zip(read, row)) for row in zip(*read.values(), strict=True)]
    else:
        listed = list(zip(read["text"], read["text_pair"], strict=True)) if pairs else next(iter(read.values()))
    return Inputs(listed, rows.select_columns(own), None if unlabelled else known_answers(said, given, name, kind))


def known_answers(rows: Dataset, given: Mapping[str, str], name: str, kind: str) -> list | None:
    """What a table says is right, row by row as `Task.answers` has it (of spans as SQuAD has it, of generation all right answers), None
    of a row where it does not say; None where it has no such column."""
    import pyarrow.compute as pc

    try:
        columns = find_columns(rows, given, name, kind, gaps=True)
    except DataError:
        return None
    column = columns["answers" if kind == "span" else "target" if kind == "generation" else "label"]
    values = rows.with_format("arrow")[:].column(column)
    missing = pc.is_null(values, nan_is_null=True)
    if is_text(rows, column):
        missing = pc.or_(missing, pc.equal(pc.fill_null(pc.utf8_trim_whitespace(values), ""), ""))
    rows = place_answers(rows, columns) if kind == "span" else rows
    there = np.flatnonzero(~np.asarray(missing))  # at once: many rows without a label are no errors to look for
    try:
        good, error = usable_rows(rows.select(there), lambda part: read_targets(kind, part, columns, name))
        good = there[good]
        targets = read_targets(kind, part := rows.select(good), columns, name) if len(good) else None
    except DataError as error_of_all:  # the file was asked all the same
        logger.warning("the answers are not judged: %s", error_of_all)
        return None
    if len(good) < len(rows):
        first = ""
        if error is not None:  # it counts the rows that are labelled, the reader those of the file
            said = str(error).replace(f"row {error.row} ", f"row {there[error.row]} ", 1)
            first = f"; the first that cannot: {said}"
        blank = f"; {len(rows) - len(there)} with nothing in {column!r}" if len(there) < len(rows) else ""
        if blank and kind in ("multilabel", "span"):
            blank += " (here: not known; among examples: that there is none)"
        logger.warning("%s: %d of %d rows can be judged%s%s", name, len(good), len(rows), first, blank)
    if targets is None:
        return None
    answers = part.with_format(None)[column][:] if kind == "span" else Task(name, kind, part, *targets).answers()
    if kind == "generation":
        answers = right_texts(part.with_format(None)[columns["input"]][:], answers)
    found = dict(zip(good.tolist(), answers, strict=True))
    return [found.get(i) for i in range(len(rows))]


def right_texts(inputs: Sequence[str], targets: Sequence[str]) -> list[list[str]]:
    """All right answers to the input of each row: those of every row of the same input."""
    right: dict[str, list[str]] = {}
    for text, target in zip(inputs, targets, strict=True):
        right.setdefault(text, []).append(target)
    return [right[text] for text in inputs]
