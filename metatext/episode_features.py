"""The tensors of episodes, as heads and losses take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .representation import Support


@dataclass(frozen=True)
class EpisodeFeatures:
    """What a head needs of b episodes of one kind: support, and query (b, q, d) with mask, targets and outside flags (b, q).

    The targets ``query_y`` are ways (b, q), or where labels are no classes, values (b, q, w). Of spans the rows are windows of t tokens:
    query and the support's x are (b, q, t, d), masks (b, q, t), targets (b, q, t, 2), one-hot over the tokens for the first and the last. Of
    texts to write, query (b, q, t) holds token numbers of `Layout.tokenize` and query_y (b, q, t) which of them are the target's.
    """

    support: Support
    query: Tensor
    query_mask: Tensor
    query_y: Tensor
    outside: Tensor
    kind: str = "classification"

    def select(self, episodes: Tensor) -> EpisodeFeatures:
        """Some of the episodes, by number."""
        support = Support(*(getattr(self.support, item.name)[episodes] for item in fields(Support)))
        return EpisodeFeatures(support, *(getattr(self, item.name)[episodes] for item in fields(self)[1:-1]), self.kind)

    @classmethod
    def concatenate(cls, parts: Sequence[EpisodeFeatures]) -> EpisodeFeatures:
        """The episodes of all parts, in order; they are padded alike."""
        support = Support(*(torch.cat([getattr(part.support, item.name) for part in parts]) for item in fields(Support)))
        tensors = (torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)[1:-1])
        return cls(support, *tensors, parts[0].kind)

    def to(self, dtype: torch.dtype) -> EpisodeFeatures:
        """The same with floating-point tensors of another type."""
        query = self.query.to(dtype) if self.query.is_floating_point() else self.query
        return replace(self, support=self.support.to(dtype), query=query)
