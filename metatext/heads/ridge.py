"""Ridge regression in closed form, with the label-name classifier as its prior (Bertinetto et al. 2019, Eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support, gate, names_explain
from .protocol import Logits, Novelty, Params, Temperature, mask_classes


class RidgeHead(nn.Module):
    """``W = argmin ||X W - Y||^2 + lambda ||W - W0||^2``, solved exactly; differentiable in lambda and W0.

    ``Y`` is one-hot minus 1/w. ``W0`` is the classifier that the label names make: their features, centred over the
    classes, times a learned ``beta(k)`` and the `gate`, so that at 0 shots the names alone decide. ``lambda`` follows the number of
    shots, ``log lambda`` linear in ``log(1 + k)``. The prior is ours; the solver of the paper is the case W0 = 0.

    Args:
        dim: d.
        config: ``rank`` of the residual map.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank)
        self.log_lambda = nn.Parameter(torch.tensor([0.0, 0.0]))
        self.log_beta = nn.Parameter(torch.tensor([0.0, 0.0]))
        self.temperature = Temperature(start=10.0)
        self.novelty = Novelty()

    def adapt(self, support: Support) -> Params:
        """``weights`` (b, w, d), ``scale`` (b,), and what `Novelty.adapt` gives."""
        classes, _ = self.representation(support)
        mask = support.class_mask
        ways = mask.sum(1).clamp_min(1).to(classes.dtype)  # (b,)
        x = self.representation.features(support.x)
        known = self.novelty.adapt(support, x, classes)
        x = x * support.row_mask[..., None]
        y = (support.y - mask[:, None] / ways[:, None, None]) * support.row_mask[..., None] * mask[:, None]
        count = (support.y * support.row_mask[..., None]).sum(1)  # (b, w)
        shots = torch.log1p(count.sum(1) / ways)
        lam = (self.log_lambda[0] + self.log_lambda[1] * shots).clamp(-6, 6).exp()[:, None, None]
        beta = (self.log_beta[0] + self.log_beta[1] * shots).clamp(-6, 6).exp()[:, None, None]
        names = self.representation.label_features(support)
        named = support.label_mask.sum(1).clamp_min(1)[:, None, None]
        trust = gate(names_explain(x @ names.mT, support.y * support.row_mask[..., None], support.label_mask))[:, None, None]
        prior = trust * beta * (names - names.sum(1, keepdim=True) / named) * support.label_mask[..., None]  # (b, w, d)
        residual = y - x @ prior.mT  # (b, s, w)
        residual = residual * support.row_mask[..., None] * mask[:, None]
        s, d = x.shape[1:]
        if s <= d:  # the solve in its (s, s) dual
            gram = x @ x.mT + lam * torch.eye(s, dtype=x.dtype, device=x.device)
            weights = prior + (x.mT @ torch.linalg.solve(gram, residual)).mT
        else:
            gram = x.mT @ x + lam * torch.eye(d, dtype=x.dtype, device=x.device)
            weights = prior + torch.linalg.solve(gram, x.mT @ residual).mT
        return {"weights": weights, "scale": self.temperature(count, mask), **known}

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        query = self.representation.features(query)
        scores = query @ params["weights"].mT  # (b, q, d) @ (b, d, w) -> (b, q, w)
        values = mask_classes(params["scale"][:, None, None] * scores, params["class_mask"])
        return Logits(values, self.novelty(params, query, scores))
