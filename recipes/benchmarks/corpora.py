"""The eleven unseen classifications of a folder of corpora, and the episodes of them that every method answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

import metatext as mt
from metatext.episodes import EpisodeBatch
from metatext.evaluation import draw_for
from metatext.features import TaskFeatures, encode_tasks
from metatext.pools import Pool
from metatext.store import TokenStore

TASKS = (  # those with the shortest supports first: a run that is cut off has measured most of them
    "poem_sentiment", "trec", "absa_laptops", "tweet_stance", "tweet_emotion", "financial_phrasebank", "stackoverflow",
    "intent_banking77", "fewrel_semeval", "ohsumed", "reuters_fewshot",
)  # fmt: skip
WAYS = 10  # a task with fewer classes plays with all of its own
QUERY = 30  # query rows per class, where a task has as many


def load(folder: str, names: Sequence[str] = TASKS, max_rows: int | None = None) -> list[mt.Task]:
    """The tasks ``names`` of a folder of corpora, in their order.

    Args:
        folder: of corpora, one folder each.
        names: of the tasks.
        max_rows: at most so many rows of a task, of each class in proportion; None: all.

    Raises:
        DataError: one is not there.
    """
    missing = [name for name in names if not (Path(folder) / name).exists()]
    if missing:
        raise mt.DataError(
            f"tasks_dir: {folder} holds no corpus {missing[0]!r} ({len(missing)} of {len(names)} are missing); expected a folder with "
            f"{', '.join(names)}, one folder each; --tasks names fewer"
        )
    tasks = mt.load_tasks([str(Path(folder) / name) for name in names])
    return [task.sample(max_rows) for task in tasks] if max_rows else tasks


def tokenized(encoder: mt.Encoder, tasks: Sequence[mt.Task]) -> list[TaskFeatures]:
    """Each task alone, as episodes are drawn from it; nothing is encoded."""
    store = TokenStore(encoder)
    return [encode_tasks(store, [task]) for task in tasks]


def shape(pool: Pool, k: int, most: int = QUERY) -> mt.EpisodeConfig:
    """Episodes of `WAYS` classes, or all of a task's, with as many query rows per class as these have beside k, at most ``most``.

    Raises:
        EpisodeError: there are no rows beside the k.
    """
    counts = np.sort(pool.count[0])[::-1]
    ways = min(WAYS, int((counts > 0).sum()))
    return mt.EpisodeConfig(n_way=WAYS, fewer_ways=True, k_shot=k, n_query=int(np.clip(counts[ways - 1] - k, 1, most)))


def draws(features: TaskFeatures, k: int, numbers: Sequence[int]) -> EpisodeBatch:
    """One episode of the only task of ``features`` for each number: it stays the same whatever the other numbers are."""
    parts = [draw_for(features, shape(features.pool, k), 1, number) for number in numbers]
    return EpisodeBatch(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(EpisodeBatch)))
