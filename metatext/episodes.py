"""Episodes: which rows of which task make up support and query. Pure functions of (labels, config, seed, step).

Nothing here knows texts, features or torch. The whole meta-batch is drawn at once with vectorised numpy, so the
episodes of a step do not depend on how many processes share them, and there is no sampler state to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from .config import EpisodeConfig
from .pools import EpisodeError, Pool, bounds, check_pool, eligible_classes


@dataclass(frozen=True)
class EpisodeBatch:
    """b episodes as padded arrays of numbers. ``batch[i:j]`` or ``batch[numbers]`` is a part of it with the same padding.

    Attributes:
        task: (b,) task numbers.
        classes: (b, w) class numbers of the task, -1 where padded.
        support, query: (b, s) and (b, q) row numbers, -1 where padded.
        support_y, query_y: the way (0..w-1) of each row; -1 where padded.
        outside: (b, q) bool, query rows of a class that is not in the episode (their way is -1).
        named: (b, w) bool, the head may see the name of this class.
        name: (b, w) the label name that it bears, numbered as in `Pool`; -1 where padded.
        style: (b,) in which way the names are written, 0 as they are; from ``Pool.styles`` on they are other names.
        described: (b,) bool, the head may see the task's name or description.
    """

    task: np.ndarray
    classes: np.ndarray
    support: np.ndarray
    support_y: np.ndarray
    query: np.ndarray
    query_y: np.ndarray
    outside: np.ndarray
    named: np.ndarray
    name: np.ndarray
    style: np.ndarray
    described: np.ndarray

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, part: slice | np.ndarray) -> EpisodeBatch:
        return EpisodeBatch(*(getattr(self, item.name)[part] for item in fields(self)))

    def without_support(self) -> EpisodeBatch:
        """The same before it has examples."""
        return replace(self, support=self.support[:, :0], support_y=self.support_y[:, :0])

    def without_query(self) -> EpisodeBatch:
        """The same before it is asked."""
        return replace(self, query=self.query[:, :0], query_y=self.query_y[:, :0], outside=self.outside[:, :0])

    def with_outside(self, rows: np.ndarray) -> EpisodeBatch:
        """The same with further query rows of no class, (b, o), -1 where padded."""
        return replace(
            self,
            query=np.concatenate([self.query, rows], 1),
            query_y=np.concatenate([self.query_y, np.full_like(rows, -1)], 1),
            outside=np.concatenate([self.outside, rows >= 0], 1),
        )

    def trimmed(self) -> EpisodeBatch:
        """The same without the columns that are padding in every episode: what a part of a batch does not need."""
        ways, support, query = ((rows >= 0).any(0) for rows in (self.classes, self.support, self.query))
        columns = {"classes": ways, "named": ways, "name": ways, "support": support, "support_y": support}
        columns |= {"query": query, "query_y": query, "outside": query}
        return replace(self, **{name: getattr(self, name)[:, keep] for name, keep in columns.items()})


def draw_episodes(pool: Pool, config: EpisodeConfig, tasks: np.ndarray, rng: np.random.Generator) -> EpisodeBatch:
    """One episode for each task number in ``tasks`` (b,): by classes, or where labels are no classes, of rows as they come.

    Raises:
        EpisodeError: see `check_pool`.
    """
    return (_draw_by_class if pool.ways is None else _draw_rows)(pool, config, tasks, rng)


def _draw_rows(pool: Pool, config: EpisodeConfig, tasks: np.ndarray, rng: np.random.Generator) -> EpisodeBatch:
    """`draw_episodes` of multilabel tasks and regressions: every label of a task takes part, ``k_shot`` and ``n_query`` count rows.
    The way of a row is 0, whatever its labels. Where a pool has questions without an answer, ``n_outside`` of them are query rows too."""
    check_pool(pool, config)
    b, have, ways = len(tasks), pool.count[tasks, 0], pool.ways[tasks]
    k_low, k_high = bounds(config.k_shot)
    most = k_high if config.max_support is None else max(k_low, min(k_high, config.max_support))
    shots = _log_uniform(rng, np.full(b, k_low + 1), np.minimum(most, have - config.n_query) + 1) - 1
    picks = _distinct(rng, have, shots + config.n_query)  # (b, m)
    column = np.arange(picks.shape[1])
    taken = column < (shots + config.n_query)[:, None]
    rows = pool.rows[np.where(taken, picks + pool.start[tasks], 0)][:, None]
    in_support = (column < shots[:, None])[:, None]
    way = np.zeros_like(rows)
    support, support_y = _compact(rows, way, in_support)
    query, query_y = _compact(rows, way, taken[:, None] & ~in_support)
    places = rng.random((b, config.n_outside if pool.unanswered else 0)) * have[:, None]
    unanswered = pool.rows[pool.start[tasks] + places.astype(np.int64)]
    label = np.arange(int(ways.max()))
    there = label < ways[:, None]  # (b, w)
    hide_names = np.where(shots > 0, rng.random(b), 1.0) < config.name_dropout
    style = np.where(rng.random(b) < config.name_variation, rng.integers(1, max(pool.styles, 2), b), 0) % pool.styles
    batch = EpisodeBatch(
        task=np.asarray(tasks),
        classes=np.where(there, label, -1),
        support=support,
        support_y=support_y,
        query=query,
        query_y=query_y,
        outside=np.zeros(query.shape, bool),
        named=there & ~hide_names[:, None],
        name=np.where(there, tasks[:, None] * int(pool.ways.max()) + label, -1),
        style=style,
        described=rng.random(b) >= config.description_dropout,
    )
    batch = replace(batch, style=_with_others(style, pool, config, tasks, rng))  # last: nothing else that is drawn depends on it
    return batch.with_outside(unanswered)


def _draw_by_class(pool: Pool, config: EpisodeConfig, tasks: np.ndarray, rng: np.random.Generator) -> EpisodeBatch:
    """`draw_episodes` of classifications.

    Support and query of an episode are disjoint in rows and in texts. Where a class is short of rows it gives fewer
    shots, never fewer than the range's lowest, and always ``n_query`` query rows.
    """
    eligible = eligible_classes(pool, config)[tasks]  # (b, c)
    b, have = len(tasks), eligible.sum(1)
    low, high = bounds(config.n_way)
    ways = _log_uniform(rng, np.minimum(low, have), np.minimum(high, have))  # (b,)
    w = int(ways.max())
    order = np.argsort(np.where(eligible, rng.random(eligible.shape), 2.0), axis=1)  # eligible classes first, shuffled
    in_episode = np.arange(w) < ways[:, None]  # (b, w)
    classes = order[:, :w]
    counts = pool.count[tasks[:, None], classes]

    shots = np.where(in_episode, _shots(config, ways, counts, rng), 0)
    sizes = np.where(in_episode, shots + config.n_query, 0)
    picks = _distinct(rng, counts.reshape(-1), sizes.reshape(-1)).reshape(b, w, -1)  # (b, w, m)
    starts = pool.start[tasks[:, None], classes]
    column = np.arange(picks.shape[2])
    rows = pool.rows[np.where(column < sizes[..., None], picks + starts[..., None], 0)]
    in_support = column < shots[..., None]
    in_query = (column < sizes[..., None]) & ~in_support
    way = np.broadcast_to(np.arange(w)[None, :, None], rows.shape)
    support, support_y = _compact(rows, way, in_support)
    query, query_y = _compact(rows, way, in_query)

    foreign = _foreign_rows(pool, tasks, order, ways, have, config.n_outside, rng)
    share = np.where(np.where(in_episode, shots, 1).min(1) > 0, rng.random(b), 1.0)  # a class without rows needs its name
    hide_names = share < config.name_dropout
    described = rng.random(b) >= config.description_dropout
    classes = np.where(in_episode, classes, -1)
    name = np.where(in_episode, tasks[:, None] * order.shape[1] + classes, -1)
    written, noisy = np.zeros(b, np.int64), np.zeros(0, np.int64)
    if config.needs_varied_names:
        if pool.styles < 2 or not pool.meaningless:
            raise EpisodeError("name_noise and name_variation need the names to be encoded for them: encode_tasks(..., episodes)")
        noisy = np.flatnonzero(~hide_names & (share < config.name_dropout + config.name_noise))
        name[noisy] = np.where(in_episode[noisy], _foreign_names(pool, name[noisy], have[noisy], rng), -1)
        other = rng.integers(1, pool.styles, b)
        written = np.where(rng.random(b) < config.name_variation, other, 0)
    if config.other_names and pool.others is None:
        raise EpisodeError("other_names need the names to be encoded for them: encode_tasks(..., episodes)")
    style = _with_others(written, pool, config, tasks, rng)
    # among other names two borrowed ones may be the same text, or one a class's own: they are distinct as they are
    style[noisy] = written[noisy]
    batch = EpisodeBatch(
        task=np.asarray(tasks),
        classes=classes,
        support=support,
        support_y=support_y,
        query=query,
        query_y=query_y,
        outside=np.zeros(query.shape, bool),
        named=in_episode & ~hide_names[:, None],
        name=name,
        style=style,
        described=described,
    )
    return batch.with_outside(foreign)


def _with_others(style: np.ndarray, pool: Pool, config: EpisodeConfig, tasks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(b,) styles of which the share `other_names`, in tasks that have such, is one of their sets of other names, each as often."""
    if not config.other_names or pool.others is None:  # nothing is drawn, so that episodes stay what they were
        return style
    sets = pool.others[tasks]
    shown = (rng.random(len(tasks)) < config.other_names) & (sets > 0)
    return np.where(shown, pool.styles + (rng.random(len(tasks)) * sets).astype(np.int64), style)


def _shots(config: EpisodeConfig, ways: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(b, w) shots of classes that have ``counts`` rows: of all classes of an episode alike, or each its own (`unbalanced`), as far as the
    query leaves rows."""
    b = len(ways)
    low, high = bounds(config.k_shot)
    most = np.full(b, high) if config.max_support is None else np.clip(config.max_support // ways, low, high)
    top = _log_uniform(rng, np.full(b, low + 1), most + 1)[:, None] - 1
    own = rng.integers(low, top + 1, counts.shape)
    return np.clip(np.where(rng.random((b, 1)) < config.unbalanced, own, top), 0, counts - config.n_query)


def _foreign_rows(
    pool: Pool, tasks: np.ndarray, order: np.ndarray, ways: np.ndarray, have: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(b, n) rows of classes that the episodes leave out; -1 where they leave out none.

    Args:
        tasks: (b,) of the episodes.
        order: (b, c) classes of the task, those of the episode first, then the others that have rows enough.
        ways, have: (b,) how many come first, and how many have rows enough.
    """
    rest = (have - ways)[:, None]
    pick = ways[:, None] + (rng.random((len(tasks), n)) * rest).astype(np.int64)
    other = tasks[:, None], _take(order, np.minimum(pick, order.shape[1] - 1))
    at = pool.start[other] + (rng.random(pick.shape) * pool.count[other]).astype(np.int64)
    return np.where(rest > 0, pool.rows[np.where(rest > 0, at, 0)], -1)


@dataclass(frozen=True)
class MetaBatch:
    """The episodes of one outer step, of tasks that come in g groups (one for each kind).

    Attributes:
        batches: g batches; the task numbers of each count the tasks of its group.
        group: (n,) the group of each episode, in the order of the step. In every group the episodes stand in that order too.
        size: (n,) how much work each is, ascending, see `Pool.row_tokens`.
    """

    batches: tuple[EpisodeBatch, ...]
    group: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    def part(self, numbers: np.ndarray) -> list[tuple[int, EpisodeBatch]]:
        """Some episodes of the step: the groups that have any of them, each with its own, `trimmed`."""
        found = []
        for number, batch in enumerate(self.batches):
            of_group = self.group == number
            own = (of_group.cumsum() - 1)[numbers[of_group[numbers]]]
            if len(own):
                found.append((number, batch[own].trimmed()))
        return found


def train_episodes(
    pools: Sequence[Pool], config: EpisodeConfig, weights: np.ndarray, n: int, *, seed: int, step: int
) -> MetaBatch:
    """The n episodes of one outer step: tasks drawn by ``weights`` over those of all pools, everything from (seed, step).

    Small episodes come first: the loss is a sum, so their order means nothing, and a part of them that is `trimmed` need
    not be padded to the size of the largest.
    """
    rng = np.random.default_rng([seed, step])
    tasks = rng.choice(len(weights), n, p=weights / weights.sum())
    ends = np.cumsum([len(pool.names) for pool in pools])
    group = np.searchsorted(ends, tasks, side="right")
    batches, sizes = [], np.zeros(n)
    for number, pool in enumerate(pools):
        own = np.flatnonzero(group == number)
        if len(own):
            batch = draw_episodes(pool, config, tasks[own] - (ends[number] - len(pool.names)), rng)
            row_tokens = 1 if pool.row_tokens is None else pool.row_tokens[batch.task]
            sizes[own] = row_tokens * ((batch.support >= 0).sum(1) + (batch.query >= 0).sum(1))
            batch = batch[np.argsort(sizes[own], kind="stable")]
        else:
            batch = EMPTY
        batches.append(batch)
    order = np.argsort(sizes, kind="stable")
    return MetaBatch(tuple(batches), group[order], sizes[order])


EMPTY = EpisodeBatch(
    *(np.zeros((0,) if item.name in ("task", "style", "described") else (0, 0), np.int64) for item in fields(EpisodeBatch))
)


def _foreign_names(pool: Pool, own: np.ndarray, have: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Names that tell nothing of the classes that bear them, distinct within each of b episodes.

    Half of the episodes borrow names of other classes, of any task; the rest, and those for which too few are left,
    number their classes, in a random order.

    Args:
        pool: its names.
        own: (b, w) the classes' own names, -1 where padded.
        have: (b,) how many classes the task has; numbers stay below.

    Returns:
        (b, w) names, numbered as in `Pool`.
    """
    b, w = own.shape
    c = pool.count.shape[1]
    numbers = np.argsort(rng.random((b, c)) + (np.arange(c) >= have[:, None]), axis=1)[:, :w]
    invented = (len(pool.names) + rng.integers(pool.meaningless, size=(b, 1))) * c + numbers
    n = len(pool.lenders)
    if not n:
        return invented
    order = np.full((b, max(n, w) + 1), 2.0)
    order[:, :n] = rng.random((b, n))
    ids = np.where(own >= 0, pool.label_ids[own], -1)
    order[np.arange(b)[:, None], ids] = 2.0  # its own names; -1 is the last column, which stands for no name
    borrowed = pool.lenders[np.minimum(np.argsort(order, axis=1)[:, :w], n - 1)]
    enough = (order < 2).sum(1) >= (own >= 0).sum(1)
    return np.where((enough & (rng.random(b) < 0.5))[:, None], borrowed, invented)


def _log_uniform(rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whole numbers from ``low`` to ``high`` (n,), w with a probability in proportion to log((w + 1) / w).

    Every doubling of the ways is as likely as any other: drawn evenly from 2 to 150, one episode in forty would have
    fewer than six ways, and most of the work would go into the widest.
    """
    if (low == high).all():
        return high.copy()
    share = rng.random(len(low))
    return np.clip((low * ((high + 1) / low) ** share).astype(np.int64), low, high)


def _distinct(rng: np.random.Generator, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """For each pair i, ``sizes[i]`` distinct numbers below ``counts[i]`` in random order; (p, max size).

    Robert Floyd's algorithm, one vector operation per column instead of a loop over pairs, then a shuffle (Floyd's
    choice is a uniform set, not a uniform sequence).
    """
    width = int(sizes.max())
    column = np.arange(width)[:, None]
    last = np.maximum(counts - sizes + column, 0)  # (m, p)
    chosen = (rng.random(last.shape) * (last + 1)).astype(np.int64)
    for j in range(1, width):
        taken = (chosen[:j] == chosen[j]).any(0)
        chosen[j] = np.where(taken, last[j], chosen[j])
    chosen = np.where(column < sizes, chosen, -1).T
    shuffle = np.argsort(np.where(sizes[:, None] > column.T, rng.random(chosen.shape), 2.0), axis=1)
    return _take(chosen, shuffle)


def _take(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n, m), (n, k) -> (n, k): of each row these columns."""
    return values[np.arange(len(values))[:, None], columns]


def _compact(rows: np.ndarray, way: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(b, w, m) rows to (b, r): kept ones first, in order, -1 behind; r is the most that any episode keeps."""
    b = len(rows)
    keep = keep.reshape(b, -1)
    order = np.argsort(~keep, axis=1, kind="stable")[:, : int(keep.sum(1).max(initial=0))]
    kept = _take(keep, order)
    return tuple(np.where(kept, _take(a.reshape(b, -1), order), -1) for a in (rows, way))
