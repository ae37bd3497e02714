"""Start and end vectors that a task's examples move: one regularised Newton step on the support's cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Support
from .protocol import Logits, Params

RANK = 16  # of the map from a description to the vectors


class SpanHead(nn.Module):
    """A token begins (ends) the answer with log-odds ``s h.w_c``, h its vector, among the tokens of its window and a null token.

    The vectors have a Gaussian prior: its mean is what all tasks share plus a low-rank map of the task's description,
    ``w_0 + U V description``, its precision is learned. From there the support moves them by one Newton step on its negative log
    posterior,

        ``w = w_0 - eta (H + lambda 1)^-1 g``,

    g the gradient and H the Hessian of the summed cross-entropy of the support's windows at the prior mean (the first step of iteratively
    reweighted least squares, Bishop 2006, Eq. 4.92, with a softmax over tokens): closed form, differentiable, the same whatever the
    order of the examples. Without examples the answer is the prior's.

    Args:
        dim: d.
        config: nothing of it is used.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(2, dim) / dim**0.5)
        self.log_scale = nn.Parameter(torch.tensor(16.0).log())
        self.log_precision = nn.Parameter(torch.tensor(1600.0).log())
        self.log_step = nn.Parameter(torch.tensor(0.0))
        self.down = nn.Linear(dim, RANK, bias=False)
        self.up = nn.Linear(RANK, 2 * dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def adapt(self, support: Support) -> Params:
        """``vectors`` (b, 2, d), with their scale inside.

        Args:
            support: x (b, s, t, d), y (b, s, t, 2), row_mask (b, s, t), task_x (b, d) are read.
        """
        b, s, t, d = support.x.shape
        said = self.up(self.down(support.task_x)).reshape(b, 2, d) * support.task_mask[:, None, None]
        prior = self.log_scale.exp() * (self.vectors + said)
        if s * t == 0:
            return {"vectors": prior}
        x = (support.x * support.row_mask[..., None]).reshape(b, s * t, d)
        scores = (x @ prior.mT).reshape(b, s, t, 2)  # (b, s t, d) @ (b, d, 2)
        real = support.row_mask.any(-1)[..., None, None]  # (b, s, 1, 1)
        p = masked(scores, support.row_mask).softmax(2) * real
        y = support.y * real
        gradient = ((p - y).reshape(b, s * t, 2).mT @ x)[..., None]  # (b, 2, d, 1)
        weight = p.reshape(b, s * t, 2).mT[..., None]  # (b, 2, s t, 1)
        means = torch.einsum("bstc,bstd->bcsd", p, x.reshape(b, s, t, d))
        hessian = (weight * x[:, None]).mT @ x[:, None] - means.mT @ means  # (b, 2, d, d)
        # in units of the scaled vectors a precision of lambda is lambda / scale^2
        precision = (self.log_precision - 2 * self.log_scale).exp()
        ridge = hessian + precision * torch.eye(d, dtype=x.dtype, device=x.device)
        step = torch.cholesky_solve(gradient, torch.linalg.cholesky(ridge))[..., 0]
        return {"vectors": prior - self.log_step.exp() * step}

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """Scores of every token to be the first and the last.

        Args:
            params: of `adapt`.
            query: (b, q, t, d).
            query_mask: (b, q, t), False where a token is padded or no part of the context; the first token stands for no answer.

        Returns:
            ``values`` (b, q, t, 2), the lowest number where masked; ``none`` (b, q) by how much no answer is above the best first and
            the best last token.
        """
        b, q, t, d = query.shape
        values = masked((query.reshape(b, q * t, d) @ params["vectors"].mT).reshape(b, q, t, 2), query_mask)
        if not q * t:
            return Logits(values, values.new_zeros(b, q))
        return Logits(values, (values[:, :, 0] - values[:, :, 1:].amax(2)).sum(-1) if t > 1 else values.new_zeros(b, q))


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """(b, n, t, 2) scores with masked tokens (b, n, t) so low that none is chosen; finite, and so are sums of two of them."""
    return values.masked_fill(~mask[..., None], torch.finfo(values.dtype).min / 4)
