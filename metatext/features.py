"""Tasks whose texts are encoded, or tokenized for an encoder that learns, and the tensors of their episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from .config import EpisodeConfig
from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .episodes import EpisodeBatch
from .generation import GenerationFeatures, encode_generation
from .kinds import KINDS
from .label_names import MEANINGLESS, STYLES
from .pools import Pool, make_pool
from .representation import Support, alike_plane, unit
from .spans import SpanFeatures, encode_spans
from .store import FeatureStore, TokenStore, VectorTable
from .targets import scale_of
from .tasks import Task

CHUNK = 50_000  # rows read from a data set at a time


@dataclass(frozen=True)
class TaskFeatures:
    """Tasks whose texts are encoded: what episodes are drawn from and gathered from.

    Attributes:
        tasks: the tasks, in order.
        store: holds the vectors; a `TokenStore`: the tokens, for an encoder that learns.
        pool: rows by task and class, every distinct text once.
        rows: (n, 3) numbers in the store: a text and -1, -1, or a pair's joint reading, first text and second text;
            (n, 1) where no task has pairs.
        names: (v, m) numbers of the vectors of label names, numbered as in `Pool`, in v styles (see `EpisodeBatch.style`); -1 where a
            class has no name.
        prompts: (t,) numbers of the vectors of the tasks' descriptions or names.
        values: (n, w) what each row is labelled with, float32, where labels are no classes: 1 for every label that it has, or its
            standardised score. None for classifications.
        scales: (t, 2) what the scores of regressions were standardised by, see `targets.scale_of`; else 0 and 1.
        opposites: (v, t) numbers of the vectors of the texts of a scale's lower end, of which ``names`` has the upper; -1: none.
    """

    tasks: tuple[Task, ...]
    store: FeatureStore | TokenStore | VectorTable
    pool: Pool
    rows: np.ndarray
    names: np.ndarray
    prompts: np.ndarray
    values: np.ndarray | None
    scales: np.ndarray
    opposites: np.ndarray

    @property
    def kind(self) -> str:
        """The kind of all these tasks."""
        return self.tasks[0].kind

    @property
    def row_size(self) -> int:
        """How many vectors a row is."""
        return 1

    @property
    def labels(self) -> np.ndarray:
        """(t, l) numbers of the vectors of the label names as they are, -1 where a label has no name."""
        width = self.pool.count.shape[1] if self.pool.ways is None else int(self.pool.ways.max())
        return self.names[0, : len(self.tasks) * width].reshape(-1, width)

    def name_text(self, number: int, style: int) -> str | None:
        """The label name with a number as in `Pool`, in a style of `EpisodeBatch.style`; None where a class has no name."""
        place, label = divmod(number, self.labels.shape[1])
        written = style < self.pool.styles  # else other names are shown, as they are
        if place >= len(self.tasks):
            name = MEANINGLESS[place - len(self.tasks)](label)
        else:
            names = label_set(self.tasks[place], -1 if written else style - self.pool.styles)
            name = names[-1 if KINDS[self.kind].scored else label]
        return STYLES[style](name) if name and written else name

    def gather(self, batch: EpisodeBatch, device: torch.device | str = "cpu") -> EpisodeFeatures | EpisodeTexts:
        """The tensors of a batch of episodes; of texts in a `TokenStore`, what a model needs to make them."""
        if isinstance(self.store, TokenStore):
            return EpisodeTexts(self, batch, device)
        return self.assemble(batch, lambda ids: torch.from_numpy(self.store.gather(ids)).to(device), device)

    def assemble(self, batch: EpisodeBatch, take: Callable[[np.ndarray], Tensor], device: torch.device | str) -> EpisodeFeatures:
        """The tensors of a batch of episodes from vectors.

        Args:
            batch: the episodes.
            take: numbers in the store, of any shape -> their vectors (..., d) on ``device``, zeros for -1.
            device: of the tensors.
        """
        w, s = batch.classes.shape[1], batch.support.shape[1]
        names, opposites = self._name_ids(batch), self._opposite_ids(batch)
        if self.values is None:
            way = torch.from_numpy(batch.support_y).to(device)
            support_y = (way[..., None] == torch.arange(w, device=device)).float()
            query_y = torch.from_numpy(batch.query_y).to(device)
        else:
            support_y, query_y = (
                torch.from_numpy(self.targets(rows)[..., :w]).to(device) for rows in (batch.support, batch.query)
            )
        rows = self.row_vectors(np.concatenate([batch.support, batch.query], 1), take)  # (b, s + q, d)
        label_x = take(names)  # (b, w + 1, d)
        if (opposites >= 0).any():  # a scale points from its lower end to its upper
            label_x = torch.cat([unit(label_x[:, :1] - take(opposites)[:, None]), label_x[:, 1:]], 1)
        named = torch.from_numpy(names >= 0).to(device)
        support = Support(
            x=rows[:, :s],
            y=support_y,
            label_x=label_x[:, :w],
            task_x=label_x[:, w],
            row_mask=torch.from_numpy(batch.support >= 0).to(device),
            class_mask=torch.from_numpy(batch.classes >= 0).to(device),
            label_mask=named[:, :w],
            task_mask=named[:, w],
        )
        return EpisodeFeatures(
            support=support,
            query=rows[:, s:],
            query_mask=torch.from_numpy(batch.query >= 0).to(device),
            query_y=query_y,
            outside=torch.from_numpy(batch.outside).to(device),
            kind=self.kind,
        )

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """(..., w) `values` of row numbers of any shape, 0 where a row is -1."""
        return np.where(rows[..., None] >= 0, self.values[np.maximum(rows, 0)], np.float32(0))

    def judged(self, answers: np.ndarray, part: EpisodeBatch, metric: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Answers and targets of the query rows of each of b episodes of one task, as the functions of `metrics` take them; scores are
        on the task's own scale.

        Args:
            answers: (b, q, w) of `Kind.answer`.
            part: the episodes.
            metric: its name.
        """
        inside = (part.query >= 0) & ~part.outside
        targets = part.query_y if self.values is None else self.targets(part.query)
        if KINDS[self.kind].scored:
            middle, unit = self.scales[part.task[0]]
            answers, targets = ((middle + unit * x.astype(np.float64)).clip(*self.tasks[0].labels) for x in (answers, targets))
        for i in range(len(part)):
            yield answers[i][inside[i]], targets[i][inside[i]]

    def _name_ids(self, batch: EpisodeBatch) -> np.ndarray:
        """(b, w + 1) numbers in the store of the label names and the description of each episode, -1 where it has none."""
        named = batch.named
        if self.values is not None and not KINDS[self.kind].scored:  # a label without a row needs its name
            named = named | ((batch.classes >= 0) & ~self.targets(batch.support)[..., : named.shape[1]].any(1))
        labels = np.where(named, self.names[batch.style[:, None], batch.name], -1)
        prompts = np.where(batch.described, self.prompts[batch.task], -1)
        return np.concatenate([labels, prompts[:, None]], 1)

    def _opposite_ids(self, batch: EpisodeBatch) -> np.ndarray:
        """(b,) numbers in the store of the texts of the scales' lower ends, where the upper ends are named; else -1."""
        return np.where(batch.named[:, 0], self.opposites[batch.style, batch.task], -1)

    def row_vectors(self, rows: np.ndarray, take: Callable[[np.ndarray], Tensor]) -> Tensor:
        """Features of row numbers of any shape, (..., d); zeros where a row is -1. ``take`` as in `assemble`."""
        parts = self.row_ids(rows)  # (..., 1 or 3)
        vectors = take(parts[..., 0])
        if parts.shape[-1] == 3 and (pairs := parts[..., 1] >= 0).any():
            first, second = (take(parts[pairs][:, i]) for i in (1, 2))
            pairs = torch.from_numpy(pairs).to(vectors.device)
            vectors = vectors.masked_scatter(pairs[..., None], combine_pair(vectors[pairs], first, second))
        return vectors

    def row_ids(self, rows: np.ndarray) -> np.ndarray:
        """(..., 3 or 1) numbers in the store, as in ``rows``, of row numbers of any shape; -1 where a row is -1."""
        return np.where(rows[..., None] >= 0, self.rows[np.maximum(rows, 0)], -1)

    def text_ids(self, batch: EpisodeBatch) -> np.ndarray:
        """(n,) numbers in the store of all distinct texts that these episodes show, ascending."""
        rows = self.row_ids(np.concatenate([batch.support, batch.query], 1))
        ids = np.unique(np.concatenate([rows.reshape(-1), self._name_ids(batch).reshape(-1), self._opposite_ids(batch)]))
        return ids[ids >= 0]

    def encoded(self, batch: EpisodeBatch) -> TaskFeatures:
        """The same tasks with the vectors of the texts of these episodes, as the encoder reads them at this moment."""
        if not isinstance(self.store, TokenStore):
            return self
        return replace(self, store=self.store.encoded(self.text_ids(batch)))


@dataclass(frozen=True)
class EpisodeTexts:
    """Episodes whose texts are read when a model gets them, each distinct text once, with gradients to the encoder.

    Attributes:
        source: tasks in a `TokenStore`.
        batch: b episodes of them.
        device: of the tensors.
    """

    source: TaskFeatures
    batch: EpisodeBatch
    device: torch.device | str

    @cached_property
    def ids(self) -> np.ndarray:
        """(n,) numbers of their distinct texts in the store, ascending."""
        return self.source.text_ids(self.batch)

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def n_texts(self) -> int:
        """How many texts are read."""
        return len(self.ids)

    def __getitem__(self, part: slice | np.ndarray) -> EpisodeTexts:
        """Some of the episodes, with the same padding."""
        return replace(self, batch=self.batch[part])

    def without_queries(self) -> EpisodeTexts:
        """What a task shows before it asks."""
        return replace(self, batch=self.batch.without_query())

    def read(self, encoder: Encoder, weights: Mapping[str, Tensor] | None = None, share: float = 1.0) -> EpisodeFeatures:
        """Their tensors; ``weights`` and ``share`` as of `Encoder.learn`."""
        ids = self.ids
        vectors = encoder.learn(self.source.store.tokens(ids), weights, share)
        return self.source.assemble(self.batch, VectorTable(encoder, ids, vectors).take, self.device)


def encode_tasks(
    store: FeatureStore | TokenStore, tasks: Sequence[Task], episodes: EpisodeConfig = EpisodeConfig()
) -> TaskFeatures | SpanFeatures | GenerationFeatures:
    """Encode, or tokenize, all texts, label names and descriptions of tasks that the store does not hold yet.

    Args:
        store: keeps the vectors, or the tokens.
        tasks: t of them, of one kind.
        episodes: that are to be drawn: of label names what these show is encoded. With ``name_variation`` or ``name_noise`` it is every name
            in every way of `STYLES`, and `MEANINGLESS` names, about ten times as many; with ``other_names`` other label names.
    """
    kind = KINDS[tasks[0].kind]
    if kind.name == "span":
        return encode_spans(store, tasks)
    if kind.written:
        return encode_generation(store, tasks)
    rows = [_task_rows(store, task) for task in tasks]
    text_ids = [ids[:, 0] for ids in rows]
    if any(task.is_pair for task in tasks):
        rows = [np.pad(ids, ((0, 0), (0, 3 - ids.shape[1])), constant_values=-1) for ids in rows]
    ways = [1 if kind.scored else len(task.labels) for task in tasks]
    width = max(ways)
    names = [name for task, w in zip(tasks, ways) for name in (*task.label_names[-w:], *[None] * (width - w))]
    label_ids = np.unique([name.casefold() if name else "" for name in names], return_inverse=True)[1]
    label_ids = np.where([bool(name) for name in names], label_ids, -1)
    meaningless = MEANINGLESS if episodes.needs_varied_names else ()
    invented = [invent(number) for invent in meaningless for number in range(width)]
    styles = STYLES if episodes.needs_varied_names else STYLES[:1]
    others = np.array([len(task.other_label_names) for task in tasks]) if episodes.other_names else None

    def shown(number: int) -> tuple[list[str | None], list[str | None]]:
        """Label names, and the lower ends of scales, of set ``number`` of other names, -1 and where a task has no such set its own."""
        sets = [label_set(task, number) for task in tasks]
        names = [name for own, w in zip(sets, ways) for name in (*own[-w:], *[None] * (width - w))]
        return names + invented, [own[0] if kind.scored and all(own) else None for own in sets]

    written = [[[write(name) if name else None for name in part] for part in shown(-1)] for write in styles]
    written += [shown(number) for number in range(0 if others is None else others.max())]
    texts = [text for names, ends in written for text in (*names, *ends)]
    ids = store.add([*filter(None, texts), *(task.prompt for task in tasks)])
    table = np.full(len(texts), -1, np.int64)
    table[[bool(text) for text in texts]] = ids[: -len(tasks)]
    table, opposites = np.split(table.reshape(len(written), -1), [-len(tasks)], axis=1)
    targets = [task.targets if kind.by_class else np.zeros(len(task), np.int64) for task in tasks]
    size = np.array([store.lengths(ids).sum(1).mean() for ids in rows]) if isinstance(store, TokenStore) else None
    pool = make_pool(
        [t.name for t in tasks], targets, text_ids, ways, label_ids, len(styles), len(meaningless), kind.by_class, size, others
    )
    values, scales = (None, np.tile([0.0, 1.0], (len(tasks), 1))) if kind.by_class else _values(tasks, width)
    return TaskFeatures(tuple(tasks), store, pool, np.concatenate(rows), table, ids[-len(tasks) :], values, scales, opposites)


def label_set(task: Task, number: int) -> tuple[str | None, ...]:
    """Set ``number`` of a task's other label names; its own at -1, and where it has no such set."""
    return task.other_label_names[number] if 0 <= number < len(task.other_label_names) else task.label_names


def _values(tasks: Sequence[Task], width: int) -> tuple[np.ndarray, np.ndarray]:
    """`TaskFeatures.values` and ``scales`` of tasks whose labels are no classes."""
    values, scales = np.zeros((sum(map(len, tasks)), width), np.float32), np.tile([0.0, 1.0], (len(tasks), 1))
    end = 0
    for number, task in enumerate(tasks):
        start, end = end, end + len(task)
        targets = task.targets.reshape(len(task), -1).astype(np.float64)
        if KINDS[task.kind].scored:
            scales[number] = scale_of(task.labels, task.targets)
        values[start:end, : targets.shape[1]] = (targets - scales[number, 0]) / scales[number, 1]
    return values, scales


def _task_rows(store: FeatureStore | TokenStore, task: Task) -> np.ndarray:
    """(n, 1) store numbers of a task's texts; (n, 3) of joint reading, first and second text of its pairs."""
    chunks = (task.inputs(start, min(start + CHUNK, len(task))) for start in range(0, len(task), CHUNK))
    return np.concatenate([_row_ids(store, chunk) for chunk in chunks])


def combine_pair(joint: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The feature of a pair, of unit length and of length d like that of a text: every head serves pairs as it serves texts.

    Half of every cosine between two pairs is how alike their texts are, for a frozen encoder that reads both texts as one is at chance
    on paraphrase and entailment: with c the cosine of the two texts, read apart, from 0 to 1, it is ``(-cos(pi c), sin(pi c))`` in the
    `alike_plane`, half a turn from texts that share nothing to texts that are the same. So pairs are near those that are as alike as
    they are, wherever on this scale, and the first of the two numbers rises with c. The other half is what the joint reading says and
    what the first text says that the second does not, ``first - second``, in equal parts.

    One weight serves no task best: stance and answers to questions gain by more of the cosine, aspects, whose second text is a word of
    the first, by less.

    Args:
        joint, first, second: unit vectors (n, d) of the joint reading and of either text.

    Returns:
        (n, d).
    """
    plane = alike_plane(joint)
    turn = torch.pi * (first * second).sum(-1, keepdim=True).clamp(0, 1)
    alike = turn.sin() * plane[1] - turn.cos() * plane[0]

    def beside(x: Tensor) -> Tensor:
        return unit(x - x @ plane.mT @ plane)

    return (beside(beside(joint) + unit(first - second)) + alike) / 2**0.5


def encode_inputs(encoder: Encoder, inputs: Sequence[str | tuple[str, str]], progress: bool = False) -> Tensor:
    """Features (n, d) of texts or pairs, nothing kept; the same values as through a store, up to rounding."""
    return read_inputs(partial(encoder.encode, progress=progress), inputs)


def read_inputs(read: Callable[[Sequence], Tensor], inputs: Sequence[str | tuple[str, str]]) -> Tensor:
    """`encode_inputs` by a function that gives the vectors of texts, or of the joint reading of pairs."""
    if not len(inputs) or not isinstance(inputs[0], tuple):
        return read(inputs)
    singles = read([text for pair in inputs for text in pair])
    return combine_pair(read(inputs), singles[::2], singles[1::2])


def _row_ids(store: FeatureStore | TokenStore, inputs: list) -> np.ndarray:
    ids = store.add(inputs)[:, None]
    if isinstance(inputs[0], tuple):
        ids = np.concatenate([ids, store.add([text for pair in inputs for text in pair]).reshape(-1, 2)], 1)
    return ids
