"""Start and end vectors that a task's examples move: one regularised Newton step on the support's cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..config import HeadConfig
from ..losses import MAX_ANSWER
from ..representation import Support
from .protocol import Logits, Params
from .solving import solve

RANK = 16  # of the map from a description to the vectors


class SpanHead(nn.Module):
    """An answer from token i to j has the log-odds ``s h_i.w_1 + s h_j.w_2 + kappa log N(log l; mu, sigma)`` among all spans of its window
    and a null token, h the vectors of tokens and l = j - i + 1.

    The vectors w have a Gaussian prior: its mean is what all tasks share plus a low-rank map of the task's description,
    ``w_0 + U V description``, its precision is learned. From there the support moves them by one Newton step on its negative log
    posterior,

        ``w = w_0 - eta (H + lambda 1)^-1 g``,

    g the gradient and H the Hessian of the summed cross-entropy of the support's windows at the prior mean (the first step of iteratively
    reweighted least squares, Bishop 2006, Eq. 4.92, with a softmax over tokens): closed form, differentiable, the same whatever the
    order of the examples. Mean and variance of log l are those of the examples, as if a further answers had the learned ones: how long
    answers are is what few examples say most surely. Without examples all is the prior's.

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
        self.length = nn.Parameter(torch.tensor([1.3, -0.1]))  # mu, log sigma, about those of all train corpora
        self.log_rows = nn.Parameter(torch.tensor(4.0).log())  # a
        self.log_weight = nn.Parameter(torch.tensor(0.5).log())  # kappa
        self.down = nn.Linear(dim, RANK, bias=False)
        self.up = nn.Linear(RANK, 2 * dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def adapt(self, support: Support) -> Params:
        """``vectors`` (b, 2, d), with their scale inside, and ``length`` (b, m), the score of an answer to have 1 to m = `MAX_ANSWER` tokens.

        Args:
            support: x (b, s, t, d), y (b, s, t, 2), row_mask (b, s, t), task_x (b, d) are read.
        """
        b, s, t, d = support.x.shape
        said = self.up(self.down(support.task_x)).reshape(b, 2, d) * support.task_mask[:, None, None]
        prior = self.log_scale.exp() * (self.vectors + said)
        if s * t == 0:
            return {"vectors": prior, "length": self._length(prior.new_zeros(b, 0), support.row_mask.new_zeros(b, 0))}
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
        step = solve(ridge, gradient)[..., 0]
        first, last = support.y.argmax(2).unbind(-1)  # (b, s)
        length = self._length((last - first + 1).to(x.dtype), (first > 0) & support.row_mask.any(-1))
        return {"vectors": prior - self.log_step.exp() * step, "length": length}

    def _length(self, tokens: Tensor, answered: Tensor) -> Tensor:
        """(b, s) lengths of answers, and which rows have one -> (b, m)."""
        value = tokens.clamp(1, MAX_ANSWER).log()
        n, rows = answered.sum(1, keepdim=True), self.log_rows.exp()
        mu, deviation = self.length[0], self.length[1].exp()
        mean = ((value * answered).sum(1, keepdim=True) + rows * mu) / (n + rows)
        spread = ((value - mean).square() * answered).sum(1, keepdim=True) + rows * (deviation.square() + (mu - mean).square())
        variance = spread / (n + rows)
        places = torch.arange(1, MAX_ANSWER + 1, dtype=variance.dtype, device=variance.device).log()
        return self.log_weight.exp() * (-(places - mean).square() / variance - variance.log()) / 2

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """Scores of every token to be the first and the last, and of every length, see `losses.span_scores`.

        Args:
            params: of `adapt`.
            query: (b, q, t, d).
            query_mask: (b, q, t), False where a token is padded or no part of the context; the first token stands for no answer.

        Returns:
            ``values`` (b, q, t, 3), very low where masked; ``none`` (b, q) by how much no answer is above the best first and the best last
            token.
        """
        b, q, t, d = query.shape
        values = masked((query.reshape(b, q * t, d) @ params["vectors"].mT).reshape(b, q, t, 2), query_mask)
        length = pad(params["length"][:, :t], (0, max(0, t - MAX_ANSWER)))[:, None, :, None].expand(b, q, t, 1)
        some = values[:, :, 1:].amax(2) if t > 1 and q else values.new_zeros(b, q, 2)
        none = (values[:, :, 0] if t else some) - some
        return Logits(torch.cat([values, length], -1), none.sum(-1))


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """(b, n, t, 2) scores with masked tokens (b, n, t) so low that none is chosen; finite, and so are sums of two of them."""
    return values.masked_fill(~mask[..., None], torch.finfo(values.dtype).min / 4)
