"""Prototypes: a class is one unit vector, a query's logit its cosine to it (Snell et al. 2017, with label names)."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support
from .protocol import Logits, Novelty, Params, Temperature, mask_classes


class PrototypeHead(nn.Module):
    """Weights are the class embeddings of the `Representation`; a learned temperature scales their cosine.

    Args:
        dim: d.
        config: ``rank`` of the residual map.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank)
        self.temperature = Temperature(start=20.0)
        self.novelty = Novelty()

    def adapt(self, support: Support) -> Params:
        """``scale`` (b,), and what `Novelty.adapt` gives: ``classes`` (b, w, d), ``level``, ``class_mask`` (b, w)."""
        task = self.representation(support)
        return {"scale": self.temperature(task), **self.novelty.adapt(task)}

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        query = self.representation.features(query)
        cosine = query @ params["classes"].mT  # (b, q, d) @ (b, d, w) -> (b, q, w)
        values = params["scale"][:, None, None] * cosine
        return Logits(mask_classes(values, params["class_mask"]), self.novelty(params, query, cosine))
