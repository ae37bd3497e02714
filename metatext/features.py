"""Tasks whose texts are encoded, and the tensors of their episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .encoder import Encoder
from .episodes import EpisodeBatch, Pool, make_pool
from .label_names import MEANINGLESS, STYLES
from .representation import Support
from .store import FeatureStore
from .tasks import Task

CHUNK = 50_000  # rows read from a data set at a time


@dataclass(frozen=True)
class TaskFeatures:
    """Tasks whose texts are encoded: what episodes are drawn from and gathered from.

    Attributes:
        tasks: the tasks, in order.
        store: holds the vectors.
        pool: rows by task and class, every distinct text once.
        rows: (n, 3) numbers in the store: a text and -1, -1, or a pair's joint reading, first text and second text;
            (n, 1) where no task has pairs.
        names: (v, m) numbers of the vectors of label names, numbered as in `Pool`, in v ways of writing; -1 where a class
            has no name.
        prompts: (t,) numbers of the vectors of the tasks' descriptions or names.
    """

    tasks: tuple[Task, ...]
    store: FeatureStore
    pool: Pool
    rows: np.ndarray
    names: np.ndarray
    prompts: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(t, c) numbers of the vectors of the label names as they are, -1 where a class has no name."""
        return self.names[0, : self.pool.count.size].reshape(self.pool.count.shape)

    def gather(self, batch: EpisodeBatch, device: torch.device | str = "cpu") -> EpisodeFeatures:
        """The tensors of a batch of episodes."""
        w, s = batch.classes.shape[1], batch.support.shape[1]
        label_ids = np.where(batch.named, self.names[batch.style[:, None], batch.name], -1)
        prompts = np.where(batch.described, self.prompts[batch.task], -1)
        way = torch.from_numpy(batch.support_y).to(device)
        rows = torch.from_numpy(self.row_vectors(np.concatenate([batch.support, batch.query], 1))).to(device)  # (b, s + q, d)
        names = torch.from_numpy(self.store.gather(np.concatenate([label_ids, prompts[:, None]], 1))).to(device)  # (b, w + 1, d)
        support = Support(
            x=rows[:, :s],
            y=(way[..., None] == torch.arange(w, device=device)).float(),
            label_x=names[:, :w],
            task_x=names[:, w],
            row_mask=torch.from_numpy(batch.support >= 0).to(device),
            class_mask=torch.from_numpy(batch.classes >= 0).to(device),
            label_mask=torch.from_numpy(label_ids >= 0).to(device),
            task_mask=torch.from_numpy(prompts >= 0).to(device),
        )
        return EpisodeFeatures(
            support=support,
            query=rows[:, s:],
            query_mask=torch.from_numpy(batch.query >= 0).to(device),
            query_y=torch.from_numpy(batch.query_y).to(device),
            outside=torch.from_numpy(batch.outside).to(device),
        )

    def row_vectors(self, rows: np.ndarray) -> np.ndarray:
        """Features of row numbers of any shape: float32 (..., d); zeros where a row is -1."""
        parts = np.where(rows[..., None] >= 0, self.rows[np.maximum(rows, 0)], -1)  # (..., 1 or 3)
        vectors = self.store.gather(parts[..., 0])
        if parts.shape[-1] == 3 and (pairs := parts[..., 1] >= 0).any():
            joint, first, second = vectors[pairs], *(self.store.gather(parts[pairs][:, i]) for i in (1, 2))
            vectors[pairs] = combine_pair(joint, first, second)
        return vectors


@dataclass(frozen=True)
class EpisodeFeatures:
    """What a head needs of b episodes: support, and query (b, q, d) with mask, ways (b, q) and outside flags (b, q)."""

    support: Support
    query: Tensor
    query_mask: Tensor
    query_y: Tensor
    outside: Tensor

    def to(self, dtype: torch.dtype) -> EpisodeFeatures:
        """The same with floating-point tensors of another type."""
        return EpisodeFeatures(self.support.to(dtype), self.query.to(dtype), self.query_mask, self.query_y, self.outside)


def encode_tasks(store: FeatureStore, tasks: Sequence[Task], *, vary_names: bool = False) -> TaskFeatures:
    """Encode all texts, label names and descriptions of tasks that the store does not hold yet.

    Args:
        store: keeps the vectors.
        tasks: t of them.
        vary_names: encode every label name in every way of `STYLES`, and `MEANINGLESS` names, which episodes with
            ``name_variation`` or ``name_noise`` show: about ten times as many names.
    """
    rows = [_task_rows(store, task) for task in tasks]
    text_ids = [ids[:, 0] for ids in rows]
    if any(task.is_pair for task in tasks):
        rows = [np.pad(ids, ((0, 0), (0, 3 - ids.shape[1])), constant_values=-1) for ids in rows]
    width = max(len(task.labels) for task in tasks)
    names = [name for task in tasks for name in (*task.label_names, *[None] * (width - len(task.labels)))]
    label_ids = np.unique([name.casefold() if name else "" for name in names], return_inverse=True)[1]
    label_ids = np.where([bool(name) for name in names], label_ids, -1)
    meaningless = MEANINGLESS if vary_names else ()
    names += [invent(number) for invent in meaningless for number in range(width)]
    styles = STYLES if vary_names else STYLES[:1]
    texts = [write(name) for write in styles for name in names if name]
    ids = store.add([*texts, *(task.prompt for task in tasks)])
    table = np.full((len(styles), len(names)), -1, np.int64)
    table[:, [bool(name) for name in names]] = ids[: len(texts)].reshape(len(styles), -1)
    classes = [len(task.labels) for task in tasks]
    targets = [task.targets for task in tasks]
    pool = make_pool([t.name for t in tasks], targets, text_ids, classes, label_ids, len(styles), len(meaningless))
    return TaskFeatures(tuple(tasks), store, pool, np.concatenate(rows), table, ids[len(texts) :])


def _task_rows(store: FeatureStore, task: Task) -> np.ndarray:
    """(n, 1) store numbers of a task's texts; (n, 3) of joint reading, first and second text of its pairs."""
    chunks = (task.inputs(start, min(start + CHUNK, len(task))) for start in range(0, len(task), CHUNK))
    return np.concatenate([_row_ids(store, chunk) for chunk in chunks])


def combine_pair(joint: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The feature of a pair, unit length: its joint reading, and how alike its two texts are.

    A frozen encoder that reads both texts as one is at chance on paraphrase and entailment; the cosine of the two texts,
    read apart, is what it knows about them. It is added to the joint reading along one fixed direction, as
    ``4 (cosine - 0.7)``: the feature keeps its length d, so every head serves pairs as it serves texts.

    Args:
        joint, first, second: unit vectors (n, d) of the joint reading and of either text.

    Returns:
        (n, d) float32.
    """
    cosine = (first * second).sum(-1, keepdims=True)
    direction = np.sin(np.arange(1, joint.shape[-1] + 1, dtype=np.float64) ** 2)  # as good as random, and the same everywhere
    direction = (direction / np.linalg.norm(direction)).astype(np.float32)
    feature = joint + 4 * (cosine - 0.7) * direction
    return feature / np.linalg.norm(feature, axis=-1, keepdims=True)


def encode_inputs(encoder: Encoder, inputs: Sequence[str | tuple[str, str]]) -> Tensor:
    """Features (n, d) of texts or pairs, nothing kept; the same values as through a store, up to rounding."""
    if not len(inputs) or not isinstance(inputs[0], tuple):
        return encoder.encode(inputs)
    singles = encoder.encode([text for pair in inputs for text in pair]).numpy()
    return torch.from_numpy(combine_pair(encoder.encode(inputs).numpy(), singles[::2], singles[1::2]))


def _row_ids(store: FeatureStore, inputs: list) -> np.ndarray:
    ids = store.add(inputs)[:, None]
    if isinstance(inputs[0], tuple):
        ids = np.concatenate([ids, store.add([text for pair in inputs for text in pair]).reshape(-1, 2)], 1)
    return ids
