"""A text whose parts stand in several columns, as a ticket's subject and body do: joined, or said where a part is likely left out."""

from __future__ import annotations

import functools
import logging
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .catalogue import TITLE_COLUMNS, UNDER_TITLES
from .columns import Columns, check_columns, first_column, is_text
from .rows import DataError, as_list

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

JOIN = "\n"
"""What stands between the texts of several columns: a blank to most tokenizers. A full stop would double those that are there, and serves no
better where there are none: 80.1 beside 80.0 % (AG News, headline and text, 8 examples per class, general head)."""


def parts_of(given: Columns) -> list[str]:
    """The columns that `join_columns` joins: of a csv their cells are texts, also where all are numbers, as the next file may hold others."""
    return [column for named in given.values() if isinstance(named, (list, tuple)) and len(named) > 1 for column in named]


def join_columns(rows: Dataset, given: Columns, name: str) -> tuple[Dataset, dict[str, str | None], dict[str, tuple[str, ...]]]:
    """A table in which a text of several columns stands in one that is added.

    A row's texts are joined in the order of the columns, with `JOIN` between them; what is missing or blank is left out, so that a row
    without any has an empty text.

    Args:
        rows: the table.
        given: role -> column, or columns, as a caller names them.
        name: of the task, in messages.

    Returns:
        The table; role -> its one column, the added one where several are named; role -> these several.

    Raises:
        DataError: a column is missing or named twice, the role unknown or one of a single column, or a column to join holds no texts.
    """
    import pyarrow as pa

    hint = "give them in the order in which their texts are joined"
    several = {role: columns for role, columns in given.items() if isinstance(columns, Iterable) and not isinstance(columns, str)}
    several = {role: as_list(columns, f"task {name!r}: columns: {role}", "names", hint) for role, columns in several.items()}
    check_columns(rows.column_names, {**given, **several}, name)
    found = {**given, **{role: " + ".join(columns) for role, columns in several.items()}}
    joined = {role: tuple(columns) for role, columns in several.items() if len(columns) > 1}
    table = rows.with_format("arrow")[:] if joined else None
    for role, columns in joined.items():
        for column in columns:
            kind = table.column(column).type
            if not (is_text(rows, column) or pa.types.is_null(kind)):
                raise DataError(f"task {name!r}: column {column!r} (for the {role}) holds {kind}, expected texts")
        parts = zip(*(table.column(column).to_pylist() for column in columns), strict=True)
        texts = [JOIN.join(part for part in row if part and part.strip()) for row in parts]
        while found[role] in rows.column_names:
            found[role] += " +"
        rows = rows.add_column(found[role], pa.array(texts, pa.large_string()))
    return rows, found, joined


def say_second_text(rows: Dataset, columns: Mapping[str, str], name: str) -> None:
    """Warn where a column that nobody named the text of a task is read alone, and another one is likely part of it.

    Args:
        rows: the table.
        columns: role -> column, as they were found.
        name: of the task.
    """
    text, taken = columns["text"], {*columns.values()}
    others = [column for column in rows.column_names if column not in taken and is_text(rows, column)]
    under = text.lower() in TITLE_COLUMNS
    other = first_column(others, UNDER_TITLES if under else TITLE_COLUMNS)
    if other is not None:
        _warn_once(name, text, other, (text, other) if under else (other, text))


@functools.cache  # a command reads a file a second time once it knows its labels
def _warn_once(name: str, text: str, other: str, both: tuple[str, str]) -> None:
    logger.warning(
        "%s: the text is %r alone; to read %r too: columns={'text': %s} (--text_column %s in the shell)",
        name,
        text,
        other,
        list(both),
        shlex.join(both),
    )
