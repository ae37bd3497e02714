"""Tasks whose answers are texts that a language model writes, and the tensors of their episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .episodes import EpisodeBatch
from .language import LanguageModel
from .layout import PADDED
from .pools import Pool, make_pool
from .representation import Support
from .store import FeatureStore, TokenStore, VectorTable, text_keys
from .tasks import Task, by_task


@dataclass(frozen=True)
class GenerationFeatures:
    """Tasks of inputs and targets: what episodes are drawn from and gathered from.

    Attributes:
        tasks: the tasks, in order.
        store: holds the vectors, or the tokens, of (input, target) read jointly, and of the descriptions.
        pool: rows by task, every input once: its first row.
        rows: (n,) numbers in the store of the pairs of these rows; -1 for further rows of an input.
        prompts: (t,) numbers in the store of the tasks' descriptions or names.
        inputs: (n,) which of all different inputs of all tasks a row has.
    """

    tasks: tuple[Task, ...]
    store: FeatureStore | TokenStore | VectorTable
    pool: Pool
    rows: np.ndarray
    prompts: np.ndarray
    inputs: np.ndarray

    kind = "generation"
    row_size = 256  # a row is as much work as so many vectors

    def gather(self, batch: EpisodeBatch, device: torch.device | str = "cpu") -> GenerationTexts:
        """The episodes as texts: a model reads them with its encoder and its language model."""
        return GenerationTexts(self, batch, device)

    def encoded(self, batch: EpisodeBatch) -> GenerationFeatures:
        """The same tasks with the vectors of these episodes, as the encoder reads them at this moment."""
        if not isinstance(self.store, TokenStore):
            return self
        return replace(self, store=self.store.encoded(self.ids_of(batch)))

    def ids_of(self, batch: EpisodeBatch) -> np.ndarray:
        """(n,) numbers in the store of all that the encoder reads of these episodes, ascending."""
        ids = np.unique(np.concatenate([self.row_ids(batch.support).reshape(-1), self.prompts[batch.task]]))
        return ids[ids >= 0]

    def row_ids(self, rows: np.ndarray) -> np.ndarray:
        """Numbers in the store of row numbers of any shape; -1 where a row is -1."""
        return np.where(rows >= 0, self.rows[np.maximum(rows, 0)], -1)

    def texts(self, rows: np.ndarray) -> tuple[list[str], list[str]]:
        """Inputs and targets of (n,) row numbers."""
        found = np.empty((2, len(rows)), object)
        for here, task, own in by_task(self.tasks, rows):
            part = task.select(own)
            found[0, here], found[1, here] = part.inputs(), part.targets
        return found[0].tolist(), found[1].tolist()

    def judged(self, answers: np.ndarray, part: EpisodeBatch, metric: str) -> Iterator[tuple[list[str], list[list[str]]]]:
        """The answers to each of b episodes and, per row, the targets of all rows with the same input: what metrics take.

        Args:
            answers: (b, q) object, texts.
            part: the episodes.
            metric: its name; all take the same.
        """
        targets, order, start = self._right
        for i in range(len(part)):
            real = part.query[i] >= 0
            same = self.inputs[part.query[i, real]]
            yield answers[i, real].tolist(), [targets[order[start[j] : start[j + 1]]].tolist() for j in same]

    @cached_property
    def _right(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Targets of all rows, the rows ordered by input, and where each input begins in that order."""
        order = np.argsort(self.inputs, kind="stable")
        start = np.searchsorted(self.inputs[order], np.arange(self.inputs.max(initial=-1) + 2))
        return np.concatenate([task.targets for task in self.tasks]), order, start


@dataclass(frozen=True)
class GenerationTexts:
    """Episodes of texts that are read when a model gets them.

    Attributes:
        source: the tasks.
        batch: b episodes of them.
        device: of the tensors.
    """

    source: GenerationFeatures
    batch: EpisodeBatch
    device: torch.device | str

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def n_texts(self) -> int:
        """How many texts are read, by either model."""
        return len(self.source.ids_of(self.batch)) + int((self.batch.query >= 0).sum())

    def read(self, encoder: Encoder, language: LanguageModel) -> EpisodeFeatures:
        """Their tensors, with gradients to an encoder that learns; see `EpisodeFeatures` for the query."""
        source, batch = self.source, self.batch
        ids = source.ids_of(batch)
        if isinstance(source.store, TokenStore):
            vectors = encoder.learn(source.store.tokens(ids))
        else:
            vectors = torch.from_numpy(source.store.gather(ids)).to(self.device)
        take = VectorTable(encoder, ids, vectors).take
        described = torch.from_numpy(batch.described).to(self.device)
        real = batch.query >= 0
        rows, target = language.layout.tokenize(*source.texts(batch.query[real]))
        query = np.full((*real.shape, rows.shape[1]), PADDED, np.int64)
        query_y = np.zeros(query.shape, bool)
        query[real], query_y[real] = rows, target
        return EpisodeFeatures(
            support=as_support(
                take(source.row_ids(batch.support)), torch.from_numpy(batch.support >= 0).to(self.device),
                take(source.prompts[batch.task]) * described[:, None], described,
            ),
            query=torch.from_numpy(query).to(self.device),
            query_mask=torch.from_numpy(real).to(self.device),
            query_y=torch.from_numpy(query_y).to(self.device),
            outside=torch.zeros(real.shape, dtype=torch.bool, device=self.device),
            kind=source.kind,
        )  # fmt: skip


def as_support(x: Tensor, row_mask: Tensor, task_x: Tensor, task_mask: Tensor) -> Support:
    """A support without labels: (b, s, d) features of pairs of input and target with their mask (b, s), (b, d) of descriptions with
    theirs (b,)."""
    b, s, d = x.shape
    none = torch.zeros(b, 0, dtype=torch.bool, device=x.device)
    return Support(
        x=x, y=x.new_zeros(b, s, 0), label_x=x.new_zeros(b, 0, d), task_x=task_x,
        row_mask=row_mask, class_mask=none, label_mask=none, task_mask=task_mask,
    )  # fmt: skip


def encode_generation(store: FeatureStore | TokenStore, tasks: Sequence[Task]) -> GenerationFeatures:
    """Encode, or tokenize, the first (input, target) of every input, and the descriptions."""
    inputs, rows, ids, at = [], [], [], 0
    for task in tasks:
        texts = task.inputs()
        _, first, same = np.unique(text_keys(texts), return_index=True, return_inverse=True)
        same = same.reshape(-1)
        found = np.full(len(task), -1, np.int64)
        found[first] = store.add([(texts[i], task.targets[i]) for i in first])
        rows.append(found)
        ids.append(same)
        inputs.append(at + same)
        at += len(first)
    nothing = [np.zeros(len(task), np.int64) for task in tasks]
    size = (
        np.array([store.lengths(found).sum() / (found >= 0).sum() for found in rows]) if isinstance(store, TokenStore) else None
    )
    pool = make_pool([task.name for task in tasks], nothing, ids, [1] * len(tasks), by_class=False, row_tokens=size)
    prompts = store.add([task.prompt for task in tasks])
    return GenerationFeatures(tuple(tasks), store, pool, np.concatenate(rows), prompts, np.concatenate(inputs))
