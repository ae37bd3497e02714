"""What every head is, and the two small pieces that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..representation import Support

Params = dict[str, Tensor]


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
        """Logits of (b, q, d) queries; rows where ``query_mask`` (b, q) is False may hold anything."""
        ...


class Temperature(nn.Module):
    """Factor of the logits, ``log T = a + b log(1 + k) + c log w``: more shots or ways ask for another sharpness."""

    def __init__(self, start: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([start, 1.0, 1.0]).log())

    def forward(self, count: Tensor, class_mask: Tensor) -> Tensor:
        """(b, w) rows per class and their mask -> (b,)."""
        ways = class_mask.sum(1).clamp_min(1).to(count.dtype)
        shots = (count * class_mask).sum(1) / ways
        a, b, c = self.log_scale
        return (a + b * torch.log1p(shots) + c * ways.log()).clamp(-5, 7).exp()


class Novelty(nn.Module):
    """Log-odds that a query belongs to none of the classes, from its largest cosine to a class embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.5))  # log
        self.threshold = nn.Parameter(torch.tensor(0.35))

    def forward(self, cosine: Tensor, class_mask: Tensor) -> Tensor:
        """(b, q, w) cosines and (b, w) mask -> (b, q)."""
        nearest = cosine.masked_fill(~class_mask[:, None], -1.0).amax(-1)
        return self.slope.clamp(max=5).exp() * (self.threshold - nearest)


def mask_classes(values: Tensor, class_mask: Tensor) -> Tensor:
    """(b, q, w) logits with padded classes at the lowest number."""
    return values.masked_fill(~class_mask[:, None], torch.finfo(values.dtype).min)
