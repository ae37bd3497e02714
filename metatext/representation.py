"""Task representation: support features, support labels, label names and the task's own text -> embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# How far label names are trusted. Found on development corpora and not learned: to close the gate on names that say nothing is
# worth five points of accuracy at one shot but a hundredth of a nat, which training gives away for names that say little.
SHARPNESS, GATE_SLOPE, GATE_THRESHOLD, GATE_LOWEST = 15.0, 14.0, 0.12, 0.02  # training goes to NaN where the gate reaches 0


@dataclass(frozen=True)
class Support:
    """What a head may see of b tasks. Shapes: s support rows, w ways, d features.

    Attributes:
        x: (b, s, d) support features, unit length.
        y: (b, s, w) float: one-hot, multi-hot, soft, or standardised scores with w = 1.
        label_x: (b, w, d) features of the label names.
        task_x: (b, d) features of the task's description or name.
        row_mask: (b, s) bool, False where padded.
        class_mask: (b, w) bool, False where padded.
        label_mask: (b, w) bool, False where a class has no name (or it is hidden).
        task_mask: (b,) bool, False where there is no description.
    """

    x: Tensor
    y: Tensor
    label_x: Tensor
    task_x: Tensor
    row_mask: Tensor
    class_mask: Tensor
    label_mask: Tensor
    task_mask: Tensor

    def to(self, dtype: torch.dtype | torch.device) -> Support:
        """The same with floating-point tensors of another type, or all tensors on another device."""
        is_type = isinstance(dtype, torch.dtype)
        return Support(*(t if is_type and not t.is_floating_point() else t.to(dtype) for t in vars(self).values()))


def class_means(support: Support, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean feature and number of rows of each class: (b, w, d), (b, w); zero where a class has no row.

    Args:
        support: gives labels and masks.
        x: (b, s, d) the features to average.
    """
    y = support.y * support.row_mask[..., None]
    count = y.sum(1)  # (b, w)
    return (y.mT @ x) / count.clamp_min(1)[..., None], count  # (b, w, s) @ (b, s, d) -> (b, w, d)


def likelihood_gain(scores: Tensor, y: Tensor, classes: Tensor) -> Tensor:
    """``1 - mean divergence / log w`` of labelled rows: 1 when all are sure and right, 0 at chance, not below -1; (b,).

    The divergence of a row is that of its labels, each with an equal share (Kullback and Leibler 1951): of one label the negative
    log-likelihood.

    Args:
        scores: (b, s, w) logits of the rows.
        y: (b, s, w) labels, as many times as the row counts; zero for rows that do not.
        classes: (b, w) bool, the classes that can be chosen.
    """
    ways = classes.sum(1).clamp_min(2).to(scores.dtype)
    scores = scores.masked_fill(~classes[:, None], torch.finfo(scores.dtype).min)
    shares = y / y.sum(-1, keepdim=True).clamp_min(1e-12)
    divergence = (torch.xlogy(y, shares) - torch.log_softmax(scores, -1) * y).sum((1, 2))
    return (1 - divergence / y.sum((1, 2)).clamp_min(1) / ways.log()).clamp_min(-1)


def names_explain(cosine: Tensor, y: Tensor, named: Tensor) -> Tensor:
    """How well the label names explain the support: `likelihood_gain` of its rows under 15 x the cosine to each name, centred.

    Args:
        cosine: (b, s, w) of rows to names.
        y: (b, s, w) labels, as many times as the row counts; zero where padded.
        named: (b, w) bool, classes that have a name.

    Returns:
        (b,), 1 where no row has a named class, 0 where no class has a name.
    """
    judged = y * named[:, None]  # rows of named classes
    n = judged.sum((1, 2))
    mean = (cosine * judged.sum(-1, keepdim=True)).sum(1, keepdim=True) / n.clamp_min(1)[:, None, None]
    explained = torch.where(n > 0, likelihood_gain(SHARPNESS * (cosine - mean), judged, named), torch.ones_like(n))
    return torch.where(named.any(1), explained, torch.zeros_like(n))


def gate(explained: Tensor) -> Tensor:
    """Trust in the label names, ``sigmoid(14 (u - 0.12))`` of what `names_explain` says, at least 0.02; (b,)."""
    return torch.sigmoid(GATE_SLOPE * (explained - GATE_THRESHOLD)).clamp_min(GATE_LOWEST)


def unit(x: Tensor) -> Tensor:
    """(..., d) at unit length; zero stays zero, with finite derivatives of any order (the second of a norm is not finite there)."""
    return x * x.square().sum(-1, keepdim=True).clamp_min(1e-12).rsqrt()


def alike_plane(features: Tensor) -> Tensor:
    """(2, d) orthonormal: where the features of pairs say how alike their two texts are, made for features of length d.

    Along the first of its directions pairs are in the order of the cosines of their texts (`features.combine_pair`).
    """
    angles = torch.arange(1, features.shape[-1] + 1, dtype=torch.float64).square()  # as good as random, and the same everywhere
    first, second = torch.sin(angles), torch.cos(angles)
    second = second - (first @ second) / (first @ first) * first
    return torch.stack([first / first.norm(), second / second.norm()]).to(features)


def alike_direction(features: Tensor) -> Tensor:
    """(d,) the first direction of the `alike_plane`."""
    return alike_plane(features)[0]


@dataclass(frozen=True)
class TaskRepresentation:
    """What a head learns of b tasks before it makes their parameters.

    Attributes:
        x: (b, s, d) support features.
        y: (b, s, w) their labels, zero where padded.
        count: (b, w) rows of each class.
        names: (b, w, d) label names, unit length, zero where a class has none.
        explained, trust: (b,) how well the names explain the support, and the `gate` that follows.
        classes: (b, w, d) class embeddings, unit length, zero for a class with neither row nor name.
        task: (b, d) task embeddings.
        ways, shots: (b,) number of classes, and log(1 + rows per class).
        class_mask: (b, w) bool, False where padded.
    """

    x: Tensor
    y: Tensor
    count: Tensor
    names: Tensor
    explained: Tensor
    trust: Tensor
    classes: Tensor
    task: Tensor
    ways: Tensor
    shots: Tensor
    class_mask: Tensor


class Representation(nn.Module):
    """Features to task representation, with few learned numbers so that it carries over to other data sets.

    A class embedding is the unit-length mixture of the mean of its rows and of its label name, the name weighing as much
    as ``g alpha(k)`` rows: ``unit(k mean + g alpha(k) name)``, ``log alpha`` linear in ``log(1 + k)``, g the `gate`: names
    count as far as they explain the support. The name is read against the task: ``name + gamma * task``, gamma starting
    below zero, for what a name shares with the task's own text does not tell its classes apart. With ``rank`` > 0 every
    feature first passes a learned low-rank residual map, ``unit(x + U V x)``, U starting at zero.

    Args:
        dim: d.
        rank: of the residual map; 0: none.
        learned: whether alpha and gamma are; else they keep their start, a name weighs as one row, and at rank 0 no gradient
            flows through what is made of features alone.
    """

    def __init__(self, dim: int, rank: int = 0, learned: bool = True):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([0.0, 0.0]), requires_grad=learned)
        self.gamma = nn.Parameter(torch.tensor(-0.2), requires_grad=learned)
        self.down = nn.Linear(dim, rank, bias=False) if rank else None
        self.up = nn.Linear(rank, dim, bias=False) if rank else None
        if rank:
            nn.init.zeros_(self.up.weight)

    def features(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d): through the residual map, where there is one."""
        return x if self.down is None else unit(x + self.up(self.down(x)))

    def label_features(self, support: Support) -> Tensor:
        """(b, w, d) label names against the task's text, unit length, zero where a class has no name."""
        task = self.features(support.task_x) * support.task_mask[:, None]
        names = self.features(support.label_x) + self.gamma * task[:, None]
        return unit(names) * support.label_mask[..., None]

    def name_weight(self, count: Tensor) -> Tensor:
        """alpha(k): how many rows the label name is worth beside k rows."""
        return (self.alpha[0] + self.alpha[1] * torch.log1p(count)).clamp(-6, 6).exp()

    def forward(self, support: Support) -> TaskRepresentation:
        """What is read in the support sets of b tasks."""
        x, names, mask = self.features(support.x), self.label_features(support), support.class_mask
        y = support.y * support.row_mask[..., None]
        mean, count = class_means(support, x)
        explained = names_explain(x @ names.mT, y, support.label_mask)
        trust = gate(explained)
        weight = trust[:, None] * self.name_weight(count)
        classes = unit(count[..., None] * mean + weight[..., None] * names) * mask[..., None]
        ways = mask.sum(1).clamp_min(1).to(x.dtype)
        shots = torch.log1p((count * mask).sum(1) / ways)
        text = self.features(support.task_x) * support.task_mask[:, None]
        task = classes.sum(1) / ways[:, None] + self.gamma * text
        return TaskRepresentation(x, y, count, names, explained, trust, classes, task, ways, shots, mask)
