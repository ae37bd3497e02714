"""Questions with their contexts as an encoder reads them: in windows, when a context is long, and answers as places in these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .loading import EncoderError
from .losses import MAX_ANSWER, span_scores
from .tokens import Tokens

if TYPE_CHECKING:
    from .encoder import Encoder

CHUNK = 2000  # questions tokenized at a time: a tokenizer's own objects are large
CELLS = 20_000_000  # spans scored at a time
NONE = 0  # the token that stands for "no answer in this window": the first, which is no part of the context


@dataclass(frozen=True)
class Windows:
    """m windows of n rows, each a question and as much of its context as fits.

    Attributes:
        tokens: of the windows, special tokens included.
        row: (m,) the row of each, ascending; a row has one window at least.
        begin, end: (tokens in all,) the characters of the context that a token covers; -1 where it is no part of the context.
    """

    tokens: Tokens
    row: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def ranges(self, n: int) -> np.ndarray:
        """(n + 1,) where the windows of each row begin, and m."""
        return np.searchsorted(self.row, np.arange(n + 1))

    def places(self, windows: np.ndarray) -> np.ndarray:
        """(..., t) where the tokens of windows, numbers of any shape, stand in ``begin`` and ``end``; -1 where padded or the
        number is -1."""
        length = np.where(windows >= 0, self.tokens.lengths[windows], 0)[..., None]
        column = np.arange(length.max(initial=0))
        return np.where(column < length, self.tokens.start[windows][..., None] + column, -1)


def read_windows(encoder: Encoder, questions: Sequence[str], contexts: Sequence[str], max_length: int | None = None) -> Windows:
    """Tokenize questions jointly with their contexts, those that are too long in windows that overlap by a quarter.

    Args:
        encoder: its tokenizer, prompt and length are used.
        questions, contexts: n texts each. A question is cut where it takes more than half of a window.
        max_length: tokens of a window; None: as many as the encoder reads.

    Raises:
        EncoderError: its tokenizer does not say which characters a token covers.
    """
    if not encoder.tokenizer.is_fast:
        raise EncoderError(
            f"the encoder {encoder.config.name!r}: its tokenizer ({type(encoder.tokenizer).__name__}) does not say which characters a token "
            f"covers, so answers cannot be found in a context; choose an encoder with a fast tokenizer"
        )
    length = min(max_length or encoder.max_length, encoder.max_length)
    if length < 16:
        raise EncoderError(f"max_length: windows of {length} tokens have no room for a question and a context; give at least 16")
    parts, row, begin, end = [], [], [], []
    for at in range(0, len(questions), CHUNK):
        asked = [encoder.cut(encoder.prompt + question, length // 2 - 4) for question in questions[at : at + CHUNK]]
        read = encoder.tokenizer(
            asked,
            [encoder.plain(context) for context in contexts[at : at + CHUNK]],
            truncation="only_second",
            max_length=length,
            stride=length // 4,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=encoder.reads_segments,
            verbose=False,
        )
        parts.append(encoder.as_tokens(read))
        row.append(at + np.asarray(read["overflow_to_sample_mapping"], np.int64))
        offsets = np.array([pair for window in read["offset_mapping"] for pair in window], np.int32).reshape(-1, 2)
        second = np.array([part == 1 for window in read.encodings for part in window.sequence_ids])
        begin.append(np.where(second, offsets[:, 0], -1))
        end.append(np.where(second, offsets[:, 1], -1))
    if not parts:
        none = np.zeros(0, np.int64)
        return Windows(Tokens.from_lists([], None, 0), none, none, none)
    return Windows(Tokens.concatenate(parts), *(np.concatenate(values) for values in (row, begin, end)))


def locate(windows: Windows, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where answers are, in tokens.

    Args:
        windows: m of them.
        spans: (n, 2) first and end character of each row's answer, -1 where it has none.

    Returns:
        (m, 2) the first and the last token of the answer in every window that holds more than half of it, else `NONE` twice; and (n,)
        for each row the window that holds most of it, with most context on both sides; of a row without an answer its first.
    """
    if not len(windows):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    parts = [_locate(windows, np.arange(at, min(at + CHUNK, len(windows))), spans) for at in range(0, len(windows), CHUNK)]
    labels, overlap, margin = (np.concatenate(values) for values in zip(*parts))
    order = np.lexsort((-np.arange(len(windows)), margin, overlap, windows.row))
    return labels, order[windows.ranges(len(spans))[1:] - 1]  # the last of each row


def _locate(windows: Windows, numbers: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of some windows: the tokens of `locate`, how many characters of the answer they hold, and how many more on both sides."""
    place = windows.places(numbers)  # (m, t)
    begin, end = (np.where(place >= 0, values[place], -1) for values in (windows.begin, windows.end))
    inside = begin >= 0
    first, last = (spans[windows.row[numbers]][:, [i]] for i in (0, 1))  # (m, 1)
    low, high = np.where(inside, begin, np.iinfo(np.int32).max).min(1), end.max(1)
    overlap = np.minimum(last[:, 0], high) - np.maximum(first[:, 0], low)
    covered = inside & (end > first) & (begin < last) & (first >= 0)
    held = (2 * overlap > (last - first)[:, 0]) & covered.any(1)
    labels = np.stack([covered.argmax(1), covered.shape[1] - 1 - covered[:, ::-1].argmax(1)], 1)
    labels[~held] = NONE
    margin = np.minimum(first[:, 0] - low, high - last[:, 0])
    return labels, np.where(held, overlap, 0), np.where(held, margin, 0)


@dataclass(frozen=True)
class Spans:
    """The n-best answers to r rows, best first; arrays (r, n).

    Attributes:
        begin, end: characters of the context; both 0 where a row has no more candidates.
        score: probability of the answer in its window, that there be none included; 0 where there is no candidate.
        answered: (r,) log-odds of the best answer against none at all.
        none: (r,) probability that its window has no answer.
    """

    begin: np.ndarray
    end: np.ndarray
    score: np.ndarray
    answered: np.ndarray
    none: np.ndarray


def decode(logits: np.ndarray, windows: Windows, shown: np.ndarray, owner: np.ndarray, rows: int, n: int = 1) -> Spans:
    """The best spans of rows whose windows were scored. Windows of a row are compared by how far a span is above no answer, since
    the scores of a window have no zero of their own.

    Args:
        logits: (v, t, 3) of the windows, see `losses.span_scores`.
        windows: where the tokens stand in the contexts.
        shown: (v,) numbers of the windows, -1 where padded.
        owner: (v,) the row, 0 to ``rows`` - 1, of each.
        rows: r.
        n: answers per row.
    """
    place = windows.places(shown)
    t, low = logits.shape[1], float(np.finfo(np.float32).min) / 4
    place = np.pad(place, ((0, 0), (0, t - place.shape[1])), constant_values=-1)
    begin, end = (np.where(place >= 0, values[place], -1) for values in (windows.begin, windows.end))
    allowed = begin >= 0
    allowed[:, NONE] = shown >= 0
    values = np.concatenate([np.where(allowed[..., None], logits[..., :2], low), logits[..., 2:]], -1, dtype=np.float32)
    m = min(t, MAX_ANSWER)
    total, none = np.zeros(len(shown), np.float32), values[:, NONE, :2].sum(-1)
    best, pair = np.full((len(shown), n), -np.inf), np.zeros((len(shown), n), np.int64)
    size = max(1, CELLS // (t * m))
    for at in range(0, len(shown), size):
        part = slice(at, at + size)
        scores = span_scores(torch.from_numpy(values[part])).flatten(1)  # (p, t m)
        total[part] = scores.logsumexp(1)
        scores[:, NONE * m : (NONE + 1) * m] = low
        found, top = scores.topk(min(n, t * m), 1)
        best[part, : found.shape[1]], pair[part, : found.shape[1]] = found, top
    gap = np.where(best > low / 2, best - none[:, None], -np.inf).reshape(-1)  # (v * n,)
    owners, pair = np.repeat(owner, n), pair.reshape(-1)
    window = np.repeat(np.arange(len(shown)), n)
    order = np.lexsort((-gap, owners))
    order = order[np.isfinite(gap[order])]
    if not len(order):
        nothing = np.zeros((rows, n), np.int64)
        return Spans(nothing, nothing, np.zeros((rows, n)), np.full(rows, -np.inf), np.ones(rows))
    start = np.searchsorted(owners[order], np.arange(rows + 1))
    pick = start[:-1, None] + np.arange(n)  # (r, n)
    there = pick < start[1:, None]
    pick = order[np.where(there, pick, 0)]
    first, which = pair[pick] // m, window[pick]
    last = first + pair[pick] % m
    nothing = none[which] - total[which]  # log-probability that a window has no answer
    return Spans(
        begin=np.where(there, begin[which, first], 0),
        end=np.where(there, end[which, last], 0),
        score=np.where(there, np.exp(gap[pick] + nothing), 0.0),
        answered=np.where(there[:, 0], gap[pick[:, 0]], -np.inf),
        none=np.where(there[:, 0], np.exp(nothing[:, 0]), 1.0),
    )
