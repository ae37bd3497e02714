"""A classifier called as the text-classification pipeline of transformers is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .kinds import KINDS
from .rows import as_list, check_whole

if TYPE_CHECKING:
    from .adapted import AdaptedModel

BATCH = 4096  # rows read at a time


def answer_as_pipeline(
    self: AdaptedModel,
    inputs: str | tuple[str, str] | Mapping | Sequence,
    *,
    top_k: int | Literal[""] | None = "",
    batch_size: int = BATCH,
) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
    """Answers as the text-classification pipeline of transformers gives them, of labels and their probabilities.

    Args:
        inputs: one text, or a tuple of two, or ``{"text": ..., "text_pair": ...}``; or a list of them.
        top_k: so many labels of each row, the most probable first; None: all; not given: the most probable one.
        batch_size: rows read at a time; at most `BATCH`.

    Returns:
        A list with one ``{"label": ..., "score": ...}`` for each row; with ``top_k`` of one row a list of them, of a list of rows
        a list of such lists.

    Raises:
        DataError: the task has no probabilities of labels; the inputs are not what the examples were; a number below 1.
    """
    self._need("a call", KINDS[self.kind].column == "label")
    alone = top_k == ""
    top_k = 1 if alone else top_k
    if top_k is not None:
        check_whole(top_k, "top_k")
    check_whole(batch_size, "batch_size")
    one = isinstance(inputs, (str, tuple, Mapping))
    rows = [_row(row) for row in ([inputs] if one else as_list(inputs, mappings=True))]
    found = []
    for start in range(0, len(rows), batch_size):
        for scores in self.predict_proba(rows[start : start + batch_size]):
            best = np.argsort(-scores, kind="stable")[:top_k]
            found.append([{"label": self.labels[c], "score": float(scores[c])} for c in best])
    if alone:
        return [best for (best,) in found]
    return found[0] if one else found


def _row(row: Any) -> Any:
    """A row as a pipeline is given it: ``{"text": ..., "text_pair": ...}`` is a text or a pair."""
    if isinstance(row, Mapping) and "text" in row and set(row) <= {"text", "text_pair"}:
        return (row["text"], row["text_pair"]) if row.get("text_pair") is not None else row["text"]
    return row
