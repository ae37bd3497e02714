"""Tasks whose answers are spans of a context (extractive question answering), and the tensors of their episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .episodes import EpisodeBatch
from .pools import Pool, make_pool
from .representation import Support
from .store import FeatureStore, TokenStore, text_keys
from .tasks import Task, by_task
from .tokens import Tokens
from .windows import NONE, Windows, decode, locate, read_windows


@dataclass(frozen=True)
class SpanFeatures:
    """Tasks of questions and contexts in windows of tokens: what episodes are drawn from and gathered from.

    Rows are numbered over all n rows of all tasks; row ``n + i`` is the question of row i with the context of another row of its
    task, which has no answer to it.

    Attributes:
        tasks: the tasks, in order.
        store: whose encoder reads them.
        pool: rows by task, every question with its context once.
        windows: of 2 n rows.
        ranges: (2 n + 1,) where the windows of each row begin.
        labels: (m, 2) first and last token of the answer in each window, see `windows.locate`.
        shown: (2 n,) the window of each row that teaches: it holds the answer.
        foreign: (n,) ``n + i``, or -1 where the task has no other context.
        prompts: the tokens of the tasks' descriptions or names.
        states: the vectors of all tokens of some windows, where they are computed; None: whoever gets the episodes reads them.
    """

    tasks: tuple[Task, ...]
    store: FeatureStore | TokenStore
    pool: Pool
    windows: Windows
    ranges: np.ndarray
    labels: np.ndarray
    shown: np.ndarray
    foreign: np.ndarray
    prompts: Tokens
    states: States | None = None

    kind = "span"

    @property
    def row_size(self) -> int:
        """How many vectors a row is, at most."""
        return int(self.windows.tokens.lengths.max() * np.diff(self.ranges).max())

    def gather(self, batch: EpisodeBatch, device: torch.device | str = "cpu") -> EpisodeFeatures | SpanTexts:
        """The episodes with all windows of their query rows, where the vectors are there; else texts that a model reads as it learns,
        a window for each row."""
        if self.states is None:
            return SpanTexts(self, batch, device)
        return self.assemble(batch, self.states, device, every=True)

    def encoded(self, batch: EpisodeBatch) -> SpanFeatures:
        """The same tasks with the vectors of these episodes, as the encoder reads them at this moment."""
        support, query, _ = self.windows_of(batch, every=True)
        return replace(self, states=read_states(self, self.store.encoder.frozen(), batch, support, query))

    def windows_of(self, batch: EpisodeBatch, every: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Windows (b, s) of the support and (b, v) of the query, -1 where padded, and (b, v) the column of the query row that each
        is of. ``every``: all windows of a query row, in order; else the one that teaches."""
        support = np.where(batch.support >= 0, self.shown[batch.support], -1)
        rows = np.where(batch.outside, self.foreign[batch.query], batch.query)
        rows = np.where(batch.query >= 0, rows, -1)
        column = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
        if not every:
            return support, np.where(rows >= 0, self.shown[rows], -1), column
        count = np.where(rows >= 0, np.diff(self.ranges)[rows], 0)
        end = count.cumsum(1)
        place = np.arange(end[:, -1].max(initial=0) if end.size else 0)
        owner = (place[None, :, None] >= end[:, None]).sum(-1)  # (b, v)
        real = owner < rows.shape[1]
        owner = np.minimum(owner, rows.shape[1] - 1)
        first, before = (np.take_along_axis(values, owner, 1) for values in (self.ranges[rows], end - count))
        return support, np.where(real, first + place - before, -1), owner

    def assemble(self, batch: EpisodeBatch, states: States, device: torch.device | str, every: bool) -> EpisodeFeatures:
        """The tensors of b episodes from the vectors of their tokens; ``every`` as of `windows_of`."""
        support, query, owner = self.windows_of(batch, every)
        (x, mask, y), (query_x, query_mask, query_y) = (self._tensors(windows, states, device) for windows in (support, query))
        b = len(batch)
        none = torch.zeros(b, 0, dtype=torch.bool, device=device)
        described = torch.from_numpy(batch.described).to(device)
        return EpisodeFeatures(
            support=Support(
                x=x,
                y=y,
                label_x=x.new_zeros(b, 0, x.shape[-1]),
                task_x=states.prompt(batch.task, device) * described[:, None],
                row_mask=mask,
                class_mask=none,
                label_mask=none,
                task_mask=described,
            ),
            query=query_x,
            query_mask=query_mask,
            query_y=query_y,
            outside=torch.from_numpy(np.take_along_axis(batch.outside, owner, 1) & (query >= 0)).to(device),
            kind=self.kind,
        )

    def _tensors(self, windows: np.ndarray, states: States, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
        """Of windows (b, v): vectors (b, v, t, d) of their tokens, (b, v, t) which of them an answer may begin or end with, `NONE`
        included, and (b, v, t, 2) where it does."""
        place = self.windows.places(windows)  # (b, v, t)
        mask = (place >= 0) & (self.windows.begin[place] >= 0)
        if mask.shape[-1]:
            mask[..., NONE] = windows >= 0
        labels = np.where((windows >= 0)[..., None], self.labels[windows], -1)  # (b, v, 2)
        y = labels[..., None, :] == np.arange(place.shape[-1])[:, None]  # (b, v, t, 2)
        return states.take(place, windows, device), torch.from_numpy(mask).to(device), torch.from_numpy(y).float().to(device)

    def judged(self, answers: np.ndarray, part: EpisodeBatch, metric: str) -> Iterator[tuple[list[str], list[list[str]]]]:
        """The answers to each of b episodes and what is right, as metrics take them: one text per row, "" where there is no answer,
        and the list of those that are right. An answer is "" only where the metric knows unanswerable questions (v2).

        Args:
            answers: (b, v, t, 3) scores of all windows of the query rows.
            part: the episodes.
            metric: its name.
        """
        _, query, owner = self.windows_of(part, every=True)
        abstains = "v2" in metric
        for i in range(len(part)):
            if np.isnan(answers[i]).any():  # the method has none
                yield [], []
                continue
            rows = part.query[i]  # a task of one context has no question without an answer
            real = (rows >= 0) & ~(part.outside[i] & (self.foreign[rows] < 0))
            found = decode(answers[i], self.windows, query[i], owner[i], len(real))
            outside, rows = part.outside[i, real], rows[real]
            texts, right = [], []
            asked = self._read(np.where(outside, self._other[rows], rows))
            for column, apart, (context, golds) in zip(np.flatnonzero(real), outside, asked, strict=True):
                says = not abstains or found.answered[column] > 0
                texts.append(context[found.begin[column, 0] : found.end[column, 0]].strip() if says else "")
                right.append([] if apart else golds)
            yield texts, right

    def _read(self, rows: np.ndarray) -> list[tuple[str, list[str]]]:
        """The contexts and the right answers of (n,) row numbers."""
        read: list = [None] * len(rows)
        for here, task, own in by_task(self.tasks, rows):
            found = task.rows.select(own)
            for i, context, answers in zip(here, found["context"], found["answers"], strict=True):
                read[i] = context, answers["text"]
        return read

    @cached_property
    def _other(self) -> np.ndarray:
        """(n,) the row whose context each question is asked of where it has no answer there; not meant where `foreign` is -1."""
        starts = np.cumsum([0, *map(len, self.tasks)])
        return np.concatenate([start + other_contexts(task) for start, task in zip(starts, self.tasks)])


@dataclass(frozen=True)
class States:
    """The vectors of all tokens of some windows, and of the descriptions of some tasks.

    Attributes:
        windows: (m,) numbers of the windows, ascending.
        start: (m,) where the tokens of each begin in ``flat``.
        origin: (m,) where they begin among the tokens of all windows.
        flat: (tokens + 1, d), the last one zero.
        tasks: numbers of the tasks, ascending.
        prompts: (their number, d).
    """

    windows: np.ndarray
    start: np.ndarray
    origin: np.ndarray
    flat: Tensor
    tasks: np.ndarray
    prompts: Tensor

    def take(self, place: np.ndarray, windows: np.ndarray, device: torch.device | str) -> Tensor:
        """(..., t, d) vectors of tokens, zero where padded.

        Args:
            place: (..., t) of `Windows.places`.
            windows: (...) the windows that they are of.
            device: of the vectors.
        """
        at = np.searchsorted(self.windows, np.maximum(windows, 0)).clip(0, max(len(self.windows) - 1, 0))
        shift = (self.start - self.origin)[at] if len(self.windows) else np.zeros(at.shape, np.int64)
        own = np.where(place >= 0, place + shift[..., None], len(self.flat) - 1)
        return self.flat[torch.from_numpy(own).to(self.flat.device)].to(device)

    def prompt(self, tasks: np.ndarray, device: torch.device | str) -> Tensor:
        """(b, d) vectors of the descriptions of task numbers (b,)."""
        return self.prompts[torch.from_numpy(np.searchsorted(self.tasks, tasks)).to(self.prompts.device)].to(device)


@dataclass(frozen=True)
class SpanTexts:
    """Episodes of questions that are read when a model gets them, each distinct window once, with gradients to the encoder.

    Attributes:
        source: the tasks.
        batch: b episodes of them.
        device: of the tensors.
    """

    source: SpanFeatures
    batch: EpisodeBatch
    device: torch.device | str

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def n_texts(self) -> int:
        """How many windows and descriptions are read."""
        support, query, _ = self.source.windows_of(self.batch, every=False)
        windows = np.unique(np.concatenate([support, query], 1))
        return int((windows >= 0).sum()) + len(np.unique(self.batch.task))

    def read(self, encoder: Encoder, weights: Mapping[str, Tensor] | None = None, share: float = 1.0) -> EpisodeFeatures:
        """Their tensors; ``weights`` and ``share`` as of `Encoder.learn`."""
        support, query, _ = self.source.windows_of(self.batch, every=False)
        states = read_states(self.source, encoder, self.batch, support, query, weights, share)
        return self.source.assemble(self.batch, states, self.device, every=False)


def read_states(
    source: SpanFeatures,
    encoder: Encoder,
    batch: EpisodeBatch,
    support: np.ndarray,
    query: np.ndarray,
    weights: Mapping[str, Tensor] | None = None,
    share: float = 1.0,
) -> States:
    """The vectors of windows of any number, each once, and of the descriptions of the episodes' tasks."""
    windows = np.unique(np.concatenate([support.reshape(-1), query.reshape(-1)]))
    windows, tasks = windows[windows >= 0], np.unique(batch.task)
    tokens = source.windows.tokens[windows]
    with torch.set_grad_enabled(torch.is_grad_enabled() and encoder.is_tuned):
        flat = encoder.learn(tokens, weights, share, pooled=False)
        prompts = encoder.learn(source.prompts[tasks], weights, share)
    flat = torch.cat([flat, flat.new_zeros(1, flat.shape[1])])
    return States(windows, tokens.start[:-1], source.windows.tokens.start[windows], flat, tasks, prompts)


def other_contexts(task: Task) -> np.ndarray:
    """(n,) for each row another one of the task, with another context; -1 where the task has only one. Always the same."""
    contexts = np.unique(task.rows.with_format("arrow")[:].column("context").to_pylist(), return_inverse=True)[1].reshape(-1)
    n = len(contexts)
    order = np.random.default_rng(0).permutation(n)
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    found = np.full(n, -1)
    for shift in range(1, n):
        missing = np.flatnonzero(found < 0)
        other = order[(rank[missing] + shift) % n]
        differs = contexts[other] != contexts[missing]
        found[missing[differs]] = other[differs]
        if differs.all() or contexts.max(initial=0) == 0:
            break
    return found


def encode_spans(store: FeatureStore | TokenStore, tasks: Sequence[Task]) -> SpanFeatures:
    """Tokenize questions with their contexts, in windows as long as the encoder reads, or as ``store.max_length`` says."""
    encoder, max_length = store.encoder, getattr(store, "max_length", None)
    questions, contexts, foreign, ids, at = [], [], [], [], 0
    for task in tasks:
        table = task.rows.with_format("arrow")[:]
        asked, read = (table.column(name).to_pylist() for name in ("question", "context"))
        keys = text_keys(zip(asked, read, strict=True))
        ids.append(np.unique(keys, return_inverse=True)[1].reshape(-1))
        other = other_contexts(task)
        foreign.append(np.where(other >= 0, at + other, -1))
        questions += asked
        contexts += read
        at += len(task)
    foreign = np.concatenate(foreign)
    paired = [contexts[i] if i >= 0 else "." for i in foreign]
    windows = read_windows(encoder, questions + questions, contexts + paired, max_length)
    none = np.full((at, 2), -1)
    labels, shown = locate(windows, np.concatenate([*(task.targets for task in tasks), none]))
    starts = np.cumsum([0, *map(len, tasks)])
    size = np.add.reduceat(windows.tokens.lengths[shown[:at]], starts[:-1]) / np.diff(starts)
    nothing = [np.zeros(len(task), np.int64) for task in tasks]
    pool = make_pool([task.name for task in tasks], nothing, ids, [1] * len(tasks), by_class=False, row_tokens=size)
    return SpanFeatures(
        tasks=tuple(tasks),
        store=store,
        pool=replace(pool, unanswered=True),
        windows=windows,
        ranges=windows.ranges(2 * at),
        labels=labels,
        shown=shown,
        foreign=np.where(foreign >= 0, at + np.arange(at), -1),
        prompts=encoder.tokenize([task.prompt for task in tasks]),
    )
