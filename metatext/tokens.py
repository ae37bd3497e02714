"""Texts as token numbers: one flat array, and padded batches of it without a loop over rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BATCH = 1 / 8  # of the budget: what a batch costs beyond its tokens, measured with a small encoder on a CPU


def activation_room(device: torch.device) -> float:
    """Bytes that activations may take where nothing else is configured: 4 GiB, or 2/5 of a CUDA GPU's memory."""
    return 0.4 * torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 4 * 2**30


@dataclass(frozen=True)
class Tokens:
    """The token numbers of n texts, one text after the other, special tokens included.

    Attributes:
        flat: (m,) token numbers.
        start: (n + 1,) where each text begins in ``flat``, and m.
        second: (n,) how many tokens of a text stand before its second segment; all of them where it has none.
        filler: the number of the padding token.
    """

    flat: np.ndarray
    start: np.ndarray
    second: np.ndarray
    filler: int

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]], segments: Sequence[Sequence[int]] | None, filler: int) -> Tokens:
        """From what a tokenizer returns: token numbers and, where it has them, 0 or 1 per token for the segment."""
        start = np.cumsum([0, *map(len, rows)])
        flat = np.fromiter((number for row in rows for number in row), np.int32, start[-1])
        second = [len(row) - sum(ones) for row, ones in zip(rows, segments, strict=True)] if segments else np.diff(start)
        return cls(flat, start, np.asarray(second, np.int32), filler)

    @classmethod
    def concatenate(cls, parts: Sequence[Tokens]) -> Tokens:
        """The texts of all parts, in order."""
        start = np.cumsum(np.concatenate([[0], *(part.lengths for part in parts)]))
        flat, second = (np.concatenate([getattr(part, name) for part in parts]) for name in ("flat", "second"))
        return cls(flat, start, second, parts[0].filler)

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each text."""
        return np.diff(self.start)

    def __getitem__(self, rows: np.ndarray | slice) -> Tokens:
        """These texts, in this order."""
        start = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        return Tokens(self.flat[self.places(rows)], start, self.second[rows], self.filler)

    def places(self, rows: np.ndarray | slice) -> np.ndarray:
        """Where the tokens of these texts stand in ``flat``, one text after the other."""
        begin, length = self.start[:-1][rows], self.lengths[rows]
        return np.repeat(begin - np.cumsum(length) + length, length) + np.arange(length.sum())

    def padded(self, rows: np.ndarray | Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Token numbers, attention mask and segments of these texts, (b, t) int64 each, padded on the right."""
        rows = np.asarray(rows, np.int64)
        length = self.lengths[rows][:, None]
        column = np.arange(length.max(initial=0))
        mask = column < length
        ids = np.where(mask, self.flat[np.where(mask, self.start[rows][:, None] + column, 0)], self.filler)
        segments = mask & (column >= self.second[rows][:, None])
        return tuple(torch.from_numpy(part.astype(np.int64)).to(device, non_blocking=True) for part in (ids, mask, segments))

    def batches(self, budget: int) -> Iterator[np.ndarray]:
        """Text numbers in batches of at most ``budget`` padded tokens (one text at least), longest texts first; see `batches`."""
        return batches(self.lengths, budget)


def batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Numbers of rows in batches of at most ``budget`` padded tokens (one row at least), longest rows first.

    Of all ways to cut the sorted rows where their length changes the one that costs least is taken, by dynamic programming: every
    padded token costs one, every batch `BATCH` of the budget besides.
    """
    order = np.argsort(-lengths, kind="stable")
    length, count = np.unique(lengths, return_counts=True)
    length, count = np.maximum(length[::-1], 1), count[::-1]  # (l,) longest first
    end = np.cumsum(count)
    start, most = end - count, np.maximum(budget // length, 1)  # rows of a batch
    least, last = np.zeros(len(length) + 1), np.zeros(len(length), np.int64)
    for i in reversed(range(len(length))):  # least cost of all rows from this length on, and where its first cut is
        rows = end[i:] - start[i]
        cost = rows * length[i] + BATCH * budget * -(-rows // most[i]) + least[i + 1 :]
        last[i] = i + cost.argmin()
        least[i] = cost.min()
    i = 0
    while i < len(length):
        for first in range(start[i], end[last[i]], most[i]):
            yield order[first : min(first + most[i], end[last[i]])]
        i = last[i] + 1
