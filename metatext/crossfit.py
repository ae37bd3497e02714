"""Who judges whom in fine-tuning: rows held out, folds, and losses of rows under a head that adapted without them.

A head has seen its support: on those rows it errs less than it will on others, and would leave nothing to learn. So the loss of each
example is taken with the parameters of a head that adapted without its fold (cross-fitting, as in stacking; Wolpert 1992).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .changes import take_rows
from .encoder import Encoder
from .features import read_inputs
from .heads import Head, Logits
from .representation import Support
from .residual import corrected

FOLDS = 5
CHUNK = 4096  # rows answered at a time: each is compared with every row of the support


def same_rows(rows: Sequence) -> np.ndarray:
    """(n,) numbers of the distinct rows in the order in which they first stand there: a row that is repeated is not two, one of which
    could judge what was learned from the other."""
    numbers: dict = {}
    return np.array([numbers.setdefault(row, len(numbers)) for row in rows], np.int64)


def hold_out(y: np.ndarray, share: float, seed: int, same: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to train on, and of those held out: ``share`` of every class, one at least where it has two.

    Args:
        y: (n,) classes.
        share: of the distinct rows.
        seed: of the draw.
        same: (n,) of `same_rows`, rows of one number stay together (a text with several labels counts for its first); None: all differ.
    """
    _, first, group = np.unique(np.arange(len(y)) if same is None else same, return_index=True, return_inverse=True)
    rng, held = np.random.default_rng(seed), []
    for c in np.unique(y[first]):
        own = rng.permutation(np.flatnonzero(y[first] == c))
        held.append(own[: max(1, round(share * len(own))) if len(own) > 1 else 0])
    is_held = np.isin(group, np.concatenate(held))
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def assign_folds(y: np.ndarray, seed: int, same: np.ndarray | None = None) -> np.ndarray:
    """(n,) fold of each row, 0 to `FOLDS` - 1, no class wholly in one; `FOLDS` for the only row of a class, which none leaves out.

    Args:
        y, seed, same: see `hold_out`.
    """
    _, first, group = np.unique(np.arange(len(y)) if same is None else same, return_index=True, return_inverse=True)
    rng, fold = np.random.default_rng([seed, 1]), np.full(len(first), FOLDS)
    for c in np.unique(y[first]):
        own = rng.permutation(np.flatnonzero(y[first] == c))
        if len(own) > 1:
            fold[own] = (np.arange(len(own)) + c) % FOLDS
    return fold[group]


@dataclass(frozen=True)
class Reading:
    """The task as the encoder reads it at some moment.

    Attributes:
        support: all n examples.
        params: a head's parameters without the rows of each of `FOLDS` folds, and as the last those of all rows to train on.
        values: (n, w) logits of each example, of a head that adapted without its fold.
    """

    support: Support
    params: list[dict[str, Tensor]]
    values: Tensor


class TaskLoss(nn.Module):
    """From examples to the sum of their weighted losses: all that DDP and autocast have to see.

    Args:
        head: makes logits of task parameters; frozen.
        residual: task parameters that learn.
        encoder: an encoder that learns; None: rows are features.
    """

    def __init__(self, head: Head, residual: Mapping[str, Tensor], encoder: Encoder | None):
        super().__init__()
        self.head, self.encoder = head, encoder
        self.w = residual["residual_bias"].shape[1]
        self.residual = nn.ParameterDict({name: nn.Parameter(tensor.clone()) for name, tensor in residual.items()})

    def logits(self, values: Tensor, query: Tensor) -> Tensor:
        """(q, w) logits of a head and (q, d) features -> (q, w)."""
        return corrected(Logits(values[None], values.new_zeros(1, len(values))), self.residual, query[None]).values[0]

    def forward(
        self, rows: Tensor | list, values: Tensor | None, fold: np.ndarray, params: Sequence[dict], y: Tensor, weight: Tensor
    ):
        """A scalar, 0 without rows.

        Args:
            rows: q texts or pairs of texts, (q, d) features where no encoder learns.
            values: (q, w) logits of the head; None: made here, for they change with the encoder.
            fold: (q,) fold of each row.
            params: of each fold.
            y: (q,) classes.
            weight: (q,) how much each row counts.
        """
        query = (
            rows if self.encoder is None else read_inputs(lambda texts: self.encoder.learn(self.encoder.tokenize(texts)), rows)
        )
        with torch.autocast(query.device.type, enabled=False):
            query = query.to(weight.dtype)
            values = head_logits(self.head, params, fold, query, self.w) if values is None else values
            loss = (weight * cross_entropy(self.logits(values, query), y, reduction="none")).sum()
        # a process without a row must not leave the others waiting for its gradients
        return loss + sum((0.0 * p).sum() for p in self.parameters() if p.requires_grad)


def head_logits(head: Head, params: Sequence[dict[str, Tensor]], fold: np.ndarray, query: Tensor, w: int) -> Tensor:
    """(q, d) features, each answered with the parameters of its fold -> (q, w)."""
    values = query.new_zeros(len(query), w)
    for f in np.unique(fold):
        place = torch.from_numpy(np.flatnonzero(fold == f)).to(query.device)
        there = torch.ones(1, len(place), dtype=torch.bool, device=query.device)
        values = values.index_put((place,), head.logits(params[f], query[place][None], there).values[0])
    return values


@torch.no_grad()
def cross_fit(head: Head, support: Support, train: np.ndarray, fold: np.ndarray) -> Reading:
    """What a head makes of the rows ``train`` of a support of n rows, without those of each of `FOLDS` folds and with all; ``fold``: (n,)."""
    device, dtype = next(head.parameters()).device, next(head.parameters()).dtype
    support = support.to(device)
    params = []
    with torch.autocast(device.type, enabled=False):
        for f in range(FOLDS + 1):
            params.append(head.adapt(take_rows(support, train[fold[train] != f] if f < FOLDS else train).to(dtype)))
        x, w = support.x[0].to(dtype), support.y.shape[2]
        values = [head_logits(head, params, fold[i : i + CHUNK], x[i : i + CHUNK], w) for i in range(0, len(x), CHUNK)]
    return Reading(support, params, torch.cat(values))
