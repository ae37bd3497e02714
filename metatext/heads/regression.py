"""Kernel ridge regression of scores, whose prior is what is known of scales: the text of its ends, and how alike two texts are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support, alike_direction
from .gp import NOISE_ROW, grouped_rows, kernel
from .protocol import Logits, Params


class RegressionGPHead(nn.Module):
    """The mean of a Gaussian process over features and two directions that tasks share.

    Of a row two numbers are read besides its feature x: ``f_1 = x.l``, l the direction from the text of the scale's lower end to
    that of its upper (or its only text), and ``f_2 = x.u``, how alike the two texts of a pair are (`alike_direction`). With scores z,
    standardised by mean and deviation of the support, and f centred on the support,

    - prior mean ``m(x) = sum_j beta_j f_j(x)``,
    - kernel ``k(a, b) = alpha exp(2 (a.b - 1)) + sum_j gamma_j f_j(a) f_j(b)``, noise on its diagonal,
    - ``A = K^-1 (z - m)``, score ``= mean + deviation (m(q) + k(q, Z) A)`` (Rasmussen and Williams 2006, Eq. 2.38, 2.41).

    beta, gamma, alpha and the noise are learned over tasks. The answer follows any change of the scale's unit or zero. Without rows it
    is ``m(q)``, in the units that the caller takes for standard; with one row, whose deviation says nothing, too.

    Args:
        dim: d.
        config: ``rank`` of the residual map.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank, learned=False)
        self.slope = nn.Parameter(torch.tensor([1.0, 1.5]))  # beta
        self.log_spread = nn.Parameter(torch.tensor([2.0, 2.0]).log())  # gamma
        self.log_alpha = nn.Parameter(torch.tensor(1.0).log())
        self.log_noise = nn.Parameter(torch.tensor(3 * NOISE_ROW).log())
        self.centre = nn.Parameter(torch.tensor([0.0, 0.0]))  # of f, where no row is there

    def adapt(self, support: Support) -> Params:
        """``rows`` (b, n, d), ``label`` (b, d), ``told`` (b, n, 2) the numbers f of the rows, ``centre`` (b, 1, 2), ``dual`` (b, n, 1),
        ``mean`` and ``deviation`` (b, 1, 1)."""
        label = self.representation.label_features(support)[:, 0]  # (b, d)
        x = self.representation.features(support.x)
        rows, y, size = grouped_rows(x, support.y, support.row_mask)
        n = size.sum(1)[:, None, None]
        average = lambda values: (values * size[..., None]).sum(1, keepdim=True) / n.clamp_min(1)  # noqa: E731
        mean = average(y)
        deviation = average((y - mean).square()).sqrt()
        deviation = torch.where(deviation > 1e-6, deviation, 1.0)
        told = self._told(rows, label)
        centre = torch.where(n > 0, average(told), self.centre)
        real = size > 0
        target = ((y - mean) / deviation - self._prior(told - centre)) * real[..., None]
        gram = self._kernel(rows @ rows.mT, told - centre, told - centre) * (real[:, None] & real[..., None])
        noise = torch.where(real, self.log_noise.exp() / size.clamp_min(1), 1.0)
        dual = torch.linalg.solve(gram + torch.diag_embed(noise), target)
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
