"""Pools: the rows of tasks that episodes are drawn from, grouped by class, and whether they suffice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .config import EpisodeConfig
from .settings import MetatextError


class EpisodeError(MetatextError, ValueError):
    """A task cannot provide the episodes that were asked for."""


@dataclass(frozen=True)
class Pool:
    """Rows of t tasks grouped by class, every distinct text of a task once; and the names that labels may bear.

    Label names are numbered: label j of task i is ``i * l + j``, l the largest number of labels, and number j of the k-th way to
    name things without meaning is ``(t + k) * l + j``.

    Attributes:
        names: t task names, for messages.
        rows: (n,) row numbers, over all tasks, ordered by task and class.
        start: (t, c) where a class begins in ``rows``; c is the largest number of classes.
        count: (t, c) how many rows it has; 0 where a task has fewer classes.
        ways: (t,) how many labels a task has, where its rows are of no one class (multilabel, regression): they are then drawn from
            the task as a whole, which ``start`` and ``count`` know as its only class. None where labels are classes.
        label_ids: (t * c,) which of the l different label names a class has; -1 where it has none.
        lenders: (l,) for each of them one label name that is so; other classes may borrow it.
        styles: in how many ways every label name can be written, the first as it is.
        others: (t,) how many sets of other label names each task has; an episode that shows the first has ``styles`` for its style. None: they
            are not encoded.
        meaningless: how many ways there are to name things without meaning.
        unanswered: rows can also be asked so that they have no answer, see `metatext.spans`.
        row_tokens: (t,) how many tokens a row of each task has in the mean, where texts are read again and again; None: where they are not,
            and one row is as much work as another.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    start: np.ndarray
    count: np.ndarray
    label_ids: np.ndarray
    lenders: np.ndarray
    styles: int
    meaningless: int
    others: np.ndarray | None
    ways: np.ndarray | None = None
    unanswered: bool = False
    row_tokens: np.ndarray | None = None


def make_pool(
    names: Sequence[str],
    targets: Sequence[np.ndarray],
    text_ids: Sequence[np.ndarray],
    n_classes: Sequence[int],
    label_ids: np.ndarray | None = None,
    styles: int = 1,
    meaningless: int = 0,
    by_class: bool = True,
    row_tokens: np.ndarray | None = None,
    others: np.ndarray | None = None,
) -> Pool:
    """Group rows by task and class.

    Args:
        names: task names.
        targets: per task (n_i,) class numbers.
        text_ids: per task (n_i,) numbers that are equal where texts are equal. Only the first row of a text takes
            part, whatever its label: otherwise a text of the support could stand in the query.
        n_classes: per task how many classes, or labels, it has (some may have no row).
        label_ids: (t, c) numbers that are equal where label names are equal, -1 where there is none; None: none has.
        styles, meaningless, row_tokens, others: see `Pool`.
        by_class: whether labels are classes; else ``targets`` are all 0, and episodes take rows of the task as a whole.
    """
    ways = None if by_class else np.asarray(n_classes, np.int64)
    n_classes = n_classes if by_class else [1] * len(names)
    width = max(n_classes, default=0)
    start = np.zeros((len(names), width), np.int64)
    count = np.zeros((len(names), width), np.int64)
    rows, offset, filled = [], 0, 0
    for i, (y, ids) in enumerate(zip(targets, text_ids, strict=True)):
        first = np.unique(ids, return_index=True)[1]
        first.sort()
        order = first[np.argsort(y[first], kind="stable")]
        count[i, : n_classes[i]] = np.bincount(y[first], minlength=n_classes[i])
        start[i] = filled + np.cumsum(count[i]) - count[i]
        rows.append(order + offset)
        offset += len(y)
        filled += len(order)
    labels = np.full(start.size, -1) if label_ids is None else label_ids.reshape(-1).copy()
    named = np.flatnonzero(labels >= 0)
    _, first, labels[named] = np.unique(labels[named], return_index=True, return_inverse=True)
    lenders = named[first]
    all_rows = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    return Pool(tuple(names), all_rows, start, count, labels, lenders, styles, meaningless, others, ways, row_tokens=row_tokens)


def bounds(value: int | tuple[int, int]) -> tuple[int, int]:
    """A range as (lowest, highest)."""
    return value if isinstance(value, tuple) else (value, value)


def eligible_classes(pool: Pool, config: EpisodeConfig) -> np.ndarray:
    """(t, c) bool: the classes with rows enough for the fewest shots plus the query.

    Raises:
        EpisodeError: a task has too few of them for the fewest ways; the message names it and says what it has.
    """
    need = bounds(config.k_shot)[0] + config.n_query
    eligible = (pool.count >= need) & (pool.count > 0)
    lowest = 2 if config.fewer_ways else bounds(config.n_way)[0]
    have = eligible.sum(1)
    if (have < lowest).any():
        poor = int((have < lowest).argmax())
        counts = pool.count[poor][pool.count[poor] > 0]
        others = [pool.names[i] for i in np.flatnonzero(have < lowest)[1:]]
        also = f" So it is with {', '.join(others[:8])}{' ...' * (len(others) > 8)}." if others else ""
        if len(counts) < lowest:
            ways = (
                "a classifier needs two" if lowest == 2 else f"n_way asks for at least {lowest}: give a range, or set fewer_ways"
            )
            raise EpisodeError(
                f"task {pool.names[poor]!r}: it has {len(counts)} class{'es' * (len(counts) != 1)} with rows; {ways}.{also}"
            )
        few = f"; its smallest class has {counts.min()}" if len(counts) else ""
        raise EpisodeError(
            f"task {pool.names[poor]!r}: {have[poor]} of its {len(counts)} classes have the {need} distinct texts that an episode "
            f"needs (k_shot {bounds(config.k_shot)[0]} + n_query {config.n_query}){few}; n_way asks for at least {lowest} classes. "
            f"Lower k_shot, n_query or n_way, give n_way as a range{'' if config.fewer_ways else ', set fewer_ways'}, or leave this task out.{also}"
        )
    return eligible


def check_pool(pool: Pool, config: EpisodeConfig) -> None:
    """Raises `EpisodeError` where a task has too few classes or rows for such episodes."""
    if pool.ways is None:
        eligible_classes(pool, config)
        return
    need = bounds(config.k_shot)[0] + config.n_query
    poor = int(pool.count[:, 0].argmin())
    if pool.count[poor, 0] < need:
        raise EpisodeError(
            f"task {pool.names[poor]!r}: it has {pool.count[poor, 0]} distinct texts, an episode needs {need} (k_shot "
            f"{bounds(config.k_shot)[0]} + n_query {config.n_query}, which count all rows where labels are no classes). Lower k_shot or "
            f"n_query, or leave this task out."
        )
