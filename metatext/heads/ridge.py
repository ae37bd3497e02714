"""Ridge regression in closed form, with the label-name classifier as its prior (Bertinetto et al. 2019, Eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support
from .protocol import Logits, Novelty, Params, Temperature, mask_classes
from .solving import solve


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
        task = self.representation(support)
        x, mask, named = task.x * support.row_mask[..., None], task.class_mask, support.label_mask
        lam = (self.log_lambda[0] + self.log_lambda[1] * task.shots).clamp(-6, 6).exp()[:, None, None]
        beta = (self.log_beta[0] + self.log_beta[1] * task.shots).clamp(-6, 6).exp()
        centre = task.names.sum(1, keepdim=True) / named.sum(1).clamp_min(1)[:, None, None]
        prior = (task.trust * beta)[:, None, None] * (task.names - centre) * named[..., None]  # (b, w, d)
        residual = task.y - 1 / task.ways[:, None, None] - x @ prior.mT  # (b, s, w)
        residual = residual * support.row_mask[..., None] * mask[:, None]
        s, d = x.shape[1:]
        if s <= d:  # the solve in its (s, s) dual
            gram = x @ x.mT + lam * torch.eye(s, dtype=x.dtype, device=x.device)
            weights = prior + (x.mT @ solve(gram, residual)).mT
        else:
            gram = x.mT @ x + lam * torch.eye(d, dtype=x.dtype, device=x.device)
            weights = prior + solve(gram, x.mT @ residual).mT
        return {"weights": weights, "scale": self.temperature(task), **self.novelty.adapt(task)}

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        query = self.representation.features(query)
        scores = query @ params["weights"].mT  # (b, q, d) @ (b, d, w) -> (b, q, w)
        values = mask_classes(params["scale"][:, None, None] * scores, params["class_mask"])
        return Logits(values, self.novelty(params, query, scores))
