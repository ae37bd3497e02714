"""One loss per kind, each the mean query loss of every episode; the meta-loss is their sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, pad

if TYPE_CHECKING:
    from .heads import Logits

MAX_ANSWER = 64  # tokens of a span


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
    values = _wide(logits.values)
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
    values = _wide(logits.values)
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
    values = _wide(logits.values)
    return _mean((values - query_y.to(values.dtype)).square()[..., 0], query_mask)


def span(logits: Logits, query_y: Tensor, query_mask: Tensor, outside: Tensor) -> Tensor:
    """Cross-entropy of the answer among all spans of a window and no answer at all.

    Args:
        logits: values (b, q, t, 3), see `span_scores`.
        query_y: (b, q, t, 2) one-hot over t, where the answer begins and ends; both at the first token where there is none. One of more
            than `MAX_ANSWER` tokens counts as its first so many.
        query_mask: (b, q, t) bool; a padded window has no token.
        outside: not used: a question without an answer is labelled so.

    Returns:
        (b,) mean over the windows of each episode, float32 or wider.
    """
    values = _wide(logits.values)
    if not values.shape[1] * values.shape[2]:
        return values.sum((1, 2, 3))
    scores = span_scores(values)  # (b, q, t, m)
    m = scores.shape[-1]
    first, last = query_y.argmax(2).unbind(-1)  # (b, q)
    place = first * m + (last - first).clamp(0, m - 1)
    rows = -scores.flatten(2).log_softmax(-1).gather(2, place[..., None])[..., 0]
    return _mean(rows, query_mask.any(-1))


def span_scores(values: Tensor) -> Tensor:
    """Scores of all spans of a window.

    Args:
        values: (..., t, 3) of every token to be the first and the last of the answer, and at place l - 1 of an answer to have l tokens.
            The first token is no part of a context: it stands for no answer, whose score has no part for its length.

    Returns:
        (..., t, m): of the span that begins at a token and has 1 to m tokens, m = min(t, `MAX_ANSWER`).
    """
    t = values.shape[-2]
    m = min(t, MAX_ANSWER)
    first, last, length = values.unbind(-1)
    last = pad(last, (0, m - 1), value=torch.finfo(values.dtype).min / 4)
    scores = first[..., None] + last.unfold(-1, m, 1) + length[..., None, :m]
    none = torch.full_like(scores[..., :1, :], torch.finfo(values.dtype).min / 2)
    none = torch.cat([(first + values[..., 1])[..., :1, None], none[..., 1:]], -1)
    return torch.cat([none, scores[..., 1:, :]], -2)


def generation(logits: Logits, query_y: Tensor, query_mask: Tensor, outside: Tensor) -> Tensor:
    """Cross-entropy of the tokens of each row's target, every token given those before it; the mean over them is the row's.

    Args:
        logits: values (b, q, t), the log-likelihood of every target token.
        query_y: (b, q, t) bool, which tokens are the target's.
        query_mask: (b, q) bool.
        outside: not used: no row is outside.

    Returns:
        (b,) mean over the rows of each episode, float32 or wider.
    """
    values = _wide(logits.values)
    rows = -torch.where(query_y, values, 0.0).sum(-1) / query_y.sum(-1).clamp_min(1)
    return _mean(rows, query_mask)


def meta_loss(episode_losses: Tensor) -> Tensor:
    """(b,) mean query losses -> their sum, the objective of an outer step."""
    return episode_losses.sum()


def cosine_drift(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared difference of the cosines between all texts of an episode, as two encoders see them (cf. Park et al. 2019, eq. 4).

    Args:
        student: (b, n, d) unit vectors of the texts, and (b, n) bool, which of them are there.
        teacher: the same of the other encoder; its d may differ, and texts may be missing.

    Returns:
        (b,), over pairs of two different texts; 0 for an episode of one text.
    """
    (x, mask), (fixed, known) = student, teacher
    mask = mask & known
    pairs = mask[:, None] & mask[..., None] & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    difference = (x @ x.mT - fixed @ fixed.mT).square()  # (b, n, d) @ (b, d, n) -> (b, n, n)
    return torch.where(pairs, difference, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)


def _wide(values: Tensor) -> Tensor:
    """In float32, or wider where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _mean(rows: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, rows, 0.0).sum(1) / mask.sum(1).clamp_min(1)
