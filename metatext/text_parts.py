"""A text whose parts stand in several columns, as a ticket's subject and body do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .columns import Columns, check_columns, is_text
from .rows import DataError, as_list

if TYPE_CHECKING:
    from datasets import Dataset

JOIN = "\n"
"""What stands between the texts of several columns: a blank to most tokenizers. A full stop would double those that are there, and serves no
better where there are none: 80.1 beside 80.0 % (AG News, headline and text, 8 examples per class, general head)."""


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
