"""Which rows of a table can be used, where the caller would rather leave out the others than mend them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .rows import DataError

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


def usable_rows(rows: Dataset, check: Callable[[Dataset], object]) -> tuple[np.ndarray, DataError | None]:
    """The rows that pass, found by halving: a few bad ones among many cost a few looks at the whole table.

    Args:
        rows: the table.
        check: raises `DataError` with the number of a ``row`` where one cannot be used.

    Returns:
        The numbers of the rows that can be used, and the error of the first that cannot, or None.

    Raises:
        DataError: of ``check``, where it names no row.
    """
    first = None

    def good(part: np.ndarray) -> list[np.ndarray]:
        nonlocal first
        try:
            check(rows.select(part))
            return [part]
        except DataError as error:
            if error.row is None:
                if len(part) == len(rows):
                    raise
                return [part]  # what is wrong with a part as a whole, no label in it for one, is no row's fault
            first = first or error
        half = len(part) // 2
        return [kept for some in (part[:half], part[half:]) if len(part) > 1 for kept in good(some)]

    found = good(np.arange(len(rows))) if len(rows) else []
    return np.concatenate([np.zeros(0, np.int64), *found]), first


def usable(rows: Dataset, check: Callable[[Dataset], object], name: str) -> Sequence[int]:
    """The numbers of the rows that pass `usable_rows`; how many do not is logged."""
    good, error = usable_rows(rows, check)
    if error is None:
        return range(len(rows))
    logger.warning("%s: left out %d of %d rows; the first: %s", name, len(rows) - len(good), len(rows), error)
    return good
