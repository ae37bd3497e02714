"""Kernel ridge regression of scores, whose prior is what is known of scales: the text of its ends, and how alike two texts are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support, alike_direction
from .gp import grouped, kernel
from .protocol import Logits, Params
from .solving import solve


class RegressionGPHead(nn.Module):
    """The mean of a Gaussian process over features and two directions that tasks share.

    Of a row two numbers are read besides its feature x: ``f_1 = x.l``, l the direction from the text of the scale's lower end to
    that of its upper (or its only text), and ``f_2 = x.u``, how alike the two texts of a pair are (`alike_direction`). Scores come in units
    of their scale (see `targets.scale_of`). The mean of n of them is taken as if a further rows were at 0, their variance as if b
    further rows had 1, the centre of f as if a rows were at a learned one; with z the scores so standardised and f so centred,

    - prior mean ``m(x) = sum_j beta_j f_j(x)``,
    - kernel ``k(a, b) = alpha exp(2 (a.b - 1)) + sum_j gamma_j f_j(a) f_j(b)``, noise on its diagonal,
    - ``A = K^-1 (z - m)``, score ``= mean + deviation (m(q) + k(q, Z) A)`` (Rasmussen and Williams 2006, Eq. 2.38, 2.41).

    All of a, b, alpha, beta, gamma and the noise are learned over tasks. Without rows the answer is ``m(q)``.

    Args:
        dim: d.
        config: ``rank`` of the residual map.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank, learned=False)
        self.slope = nn.Parameter(torch.tensor([1.0, 2.0]))  # beta
        self.log_spread = nn.Parameter(torch.tensor([2.0, 2.0]).log())  # gamma
        self.log_alpha = nn.Parameter(torch.tensor(0.5).log())
        self.log_noise = nn.Parameter(torch.tensor(0.5).log())
        self.log_rows = nn.Parameter(torch.tensor([6.0, 4.0]).log())  # a, b
        self.centre = nn.Parameter(torch.tensor([0.0, 0.2]))  # of f: scored pairs are rather alike than not

    def adapt(self, support: Support) -> Params:
        """``rows`` (b, n, d), ``label`` (b, d), ``told`` (b, n, 2) the numbers f of the rows, ``centre`` (b, 1, 2), ``dual`` (b, n, 1),
        ``mean`` and ``deviation`` (b, 1, 1)."""
        label = self.representation.features(support.label_x)[:, 0] * support.label_mask[:, :1]  # (b, d)
        x = self.representation.features(support.x)
        rows, y, size = grouped(x, support.y, support.row_mask, by_class=False)
        n = size.sum(1)[:, None, None]

        def total(values: Tensor) -> Tensor:
            return (values * size[..., None]).sum(1, keepdim=True)

        a, b = self.log_rows.exp()
        mean = total(y) / (n + a)
        spread = total((y - total(y) / n.clamp_min(1)).square())
        deviation = ((spread + b) / (n + b)).sqrt()
        told = self._told(rows, label)
        centre = (total(told) + a * self.centre) / (n + a)
        real = size > 0
        target = ((y - mean) / deviation - self._prior(told - centre)) * real[..., None]
        gram = self._kernel(rows @ rows.mT, told - centre, told - centre) * (real[:, None] & real[..., None])
        noise = torch.where(real, self.log_noise.exp() / size.clamp_min(1), 1.0)
        dual = solve(gram + torch.diag_embed(noise), target)
        return {"rows": rows, "label": label, "told": told, "centre": centre, "dual": dual, "mean": mean, "deviation": deviation}

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """``values`` (b, q, 1) are scores; ``none`` is 0: a score belongs to no class."""
        query = self.representation.features(query)
        told = self._told(query, params["label"]) - params["centre"]
        seen = self._kernel(query @ params["rows"].mT, told, params["told"] - params["centre"]) @ params["dual"]
        values = params["mean"] + params["deviation"] * (self._prior(told) + seen)
        return Logits(values, torch.zeros_like(values[..., 0]))

    def _told(self, x: Tensor, label: Tensor) -> Tensor:
        """(b, n, d), (b, d) -> (b, n, 2)."""
        return torch.stack([(x * label[:, None]).sum(-1), x @ alike_direction(x)], -1)

    def _prior(self, told: Tensor) -> Tensor:
        return (told * self.slope).sum(-1, keepdim=True)

    def _kernel(self, cosine: Tensor, told: Tensor, other: Tensor) -> Tensor:
        return self.log_alpha.exp() * kernel(cosine) + (told * self.log_spread.exp()) @ other.mT  # (b, q, 2) @ (b, 2, n)
