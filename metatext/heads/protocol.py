"""What every head is, and the small pieces that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..representation import Support, TaskRepresentation

Params = dict[str, Tensor]
CELLS = 10_000_000  # numbers that a head may hold at a time while it answers: one for a query and a support row, some for a query and a class


@dataclass(frozen=True)
class Logits:
    """A head's answer to b episodes of q queries.

    Attributes:
        values: (b, q, w) logits, temperature inside; the lowest number where a class is padded.
        none: (b, q) evidence (log-odds) that the row belongs to none of the classes.
    """

    values: Tensor
    none: Tensor


class Head(Protocol):
    """Task parameters are values: `adapt` makes them, `logits` applies them, nothing is stored in between.

    Any n_way, any shots (0 too, where a class has a name), unbalanced supports, padded batches of episodes in one call.
    Queries never see each other.
    """

    def adapt(self, support: Support) -> Params:
        """The parameters of b tasks; every value has b as its first dimension."""
        ...

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """Logits of (b, q, d) queries; rows where ``query_mask`` (b, q) is False may hold any finite numbers."""
        ...


class Temperature(nn.Module):
    """Factor of the logits, ``log T = a + b log(1 + k) + c log w``: more shots or ways ask for another sharpness."""

    def __init__(self, start: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([start, 1.0, 1.0]).log())

    def forward(self, task: TaskRepresentation) -> Tensor:
        """-> (b,)."""
        a, b, c = self.log_scale
        return (a + b * task.shots + c * task.ways.log()).clamp(-5, 7).exp()


class Novelty(nn.Module):
    """Log-odds that a query belongs to none of the classes.

    A query is known as far as it is close to a class embedding, measured by how close the class's own rows are to it, and as
    far as the classifier's evidence for its best class is large:
    ``none = slope (threshold(k, w) - max_c (cos_c - beta cohesion_c) - gamma max_c evidence_c)``, the threshold linear in
    ``log(1 + k)`` and ``log w``. `adapt` makes the task's part of it, `forward` applies it.
    """

    # Found on development corpora and not learned: cross-entropy against classes of the same corpus draws both towards 0.2,
    # which costs a point of AUROC against rows of no corpus.
    beta, gamma = 0.5, 0.6

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.0))  # log
        self.threshold = nn.Parameter(torch.tensor([0.3, 0.0, 0.0]))
        self.alone = nn.Parameter(torch.tensor(0.6))  # cohesion of a class without rows

    def adapt(self, task: TaskRepresentation) -> Params:
        """The task's parameters: ``classes`` (b, w, d), ``level`` (b, w) to be exceeded by a cosine, ``class_mask`` (b, w)."""
        own = ((task.x @ task.classes.mT) * task.y).sum(1) / task.count.clamp_min(1)  # (b, s, w) -> (b, w)
        cohesion = torch.where(task.count > 0, own, self.alone)
        base, by_shots, by_ways = self.threshold
        level = base + by_shots * task.shots + by_ways * task.ways.log()  # (b,)
        return {"classes": task.classes, "level": level[:, None] + self.beta * cohesion, "class_mask": task.class_mask}

    def forward(self, params: Params, query: Tensor, evidence: Tensor) -> Tensor:
        """-> (b, q).

        Args:
            params: of `adapt`.
            query: (b, q, d) features as the head sees them.
            evidence: (b, q, w) what the classifier says for each class, before its temperature.
        """
        mask, lowest = params["class_mask"][:, None], torch.finfo(evidence.dtype).min
        near = (query @ params["classes"].mT - params["level"][:, None]).masked_fill(~mask, lowest).amax(-1)
        best = evidence.masked_fill(~mask, lowest).amax(-1)
        return -self.slope.clamp(max=5).exp() * (near + self.gamma * best)


def mask_classes(values: Tensor, class_mask: Tensor) -> Tensor:
    """(b, q, w) logits with padded classes at the lowest number."""
    return values.masked_fill(~class_mask[:, None], torch.finfo(values.dtype).min)
