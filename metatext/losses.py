"""One loss per kind, each the mean query loss of every episode; the meta-loss is their sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

if TYPE_CHECKING:
    from .heads import Logits


def classification(logits: Logits, query_y: Tensor, query_mask: Tensor, outside: Tensor) -> Tensor:
    """Cross-entropy over the rows of the episode's classes; where there are outside rows, also that of "none of them".

    Args:
        logits: values (b, q, w) and none (b, q).
        query_y: (b, q) the way of each row, -1 for padded and outside rows.
        query_mask: (b, q) bool, False where padded.
        outside: (b, q) bool, rows of no class of the episode.

    Returns:
        (b,) mean over the rows of each episode, float32 or wider.
    """
    values = logits.values if logits.values.dtype == torch.float64 else logits.values.float()
    none = logits.none.to(values.dtype)
    inside = query_mask & ~outside
    rows = cross_entropy(values.mT, query_y.clamp_min(0), reduction="none")  # (b, w, q), (b, q) -> (b, q)
    loss = _mean(rows, inside)
    seen = binary_cross_entropy_with_logits(none, outside.to(values.dtype), reduction="none")
    has_outside = outside.any(1)
    return loss + torch.where(has_outside, _mean(seen, query_mask), torch.zeros_like(loss))


def multilabel(logits: Logits, query_y: Tensor, query_mask: Tensor, outside: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the labels of each row.

    Args:
        logits: values (b, q, w), the lowest number where a label is padded.
        query_y: (b, q, w) 1 where the row has the label.
        query_mask, outside: as of `classification`; no row is outside.

    Returns:
        (b,) mean over the rows of each episode, float32 or wider.
    """
    values = logits.values if logits.values.dtype == torch.float64 else logits.values.float()
    there = values > torch.finfo(logits.values.dtype).min
    values = torch.where(there, values, 0.0)
    cells = torch.where(there, binary_cross_entropy_with_logits(values, query_y.to(values.dtype), reduction="none"), 0.0)
    return _mean(cells.sum(-1) / there.sum(-1).clamp_min(1), query_mask)


def regression(logits: Logits, query_y: Tensor, query_mask: Tensor, outside: Tensor) -> Tensor:
    """Squared error of standardised scores.

    Args:
        logits: values (b, q, 1), the scores.
        query_y: (b, q, 1) in units of the standard deviation of the task's scores.
        query_mask, outside: as of `classification`; no row is outside.

    Returns:
        (b,) mean over the rows of each episode, float32 or wider.
    """
    values = logits.values if logits.values.dtype == torch.float64 else logits.values.float()
    return _mean((values - query_y.to(values.dtype)).square()[..., 0], query_mask)


def span(logits: Logits, query_y: Tensor, query_mask: Tensor, outside: Tensor) -> Tensor:
    """Cross-entropy of the first and of the last token among the tokens of a window, half each (Devlin et al. 2019, section 4.2).

    Args:
        logits: values (b, q, t, 2), very low where a token cannot be chosen.
        query_y: (b, q, t, 2) one-hot over t, the first token where there is no answer.
        query_mask: (b, q, t) bool; a padded window has no token.
        outside: not used: a question without an answer is labelled so.

    Returns:
        (b,) mean over the windows of each episode, float32 or wider.
    """
    values = logits.values if logits.values.dtype == torch.float64 else logits.values.float()
    likely = torch.where(query_mask[..., None], values.log_softmax(2), 0.0)
    return _mean(-(query_y.to(values.dtype) * likely).sum(2).mean(-1), query_mask.any(-1))


def meta_loss(episode_losses: Tensor) -> Tensor:
    """(b,) mean query losses -> their sum, the objective of an outer step."""
    return episode_losses.sum()


def cosine_drift(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared difference of the cosines between all texts of an episode, as two encoders see them (cf. Park et al. 2019, eq. 4).

    Args:
        student: (b, n, d) unit vectors of the texts, and (b, n) bool, which of them are there.
        teacher: the same of the other encoder; its d may differ.

    Returns:
        (b,), over pairs of two different texts; 0 for an episode of one text.
    """
    (x, mask), (fixed, _) = student, teacher
    pairs = mask[:, None] & mask[..., None] & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    difference = (x @ x.mT - fixed @ fixed.mT).square()  # (b, n, d) @ (b, d, n) -> (b, n, n)
    return torch.where(pairs, difference, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)


def _mean(rows: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, rows, 0.0).sum(1) / mask.sum(1).clamp_min(1)
