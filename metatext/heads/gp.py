"""Kernel ridge regression (the mean of a Gaussian process) whose prior is the label names, as far as they explain the support."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support
from .protocol import Logits, Novelty, Params, Temperature, mask_classes

ROWS = 4096  # support rows in the solve; beyond, rows of a class are averaged in groups


class GPHead(nn.Module):
    """Few learned numbers, so that it carries over to other data sets.

    With unit features x, label names l, kernel ``k(a, b) = exp(tau (a.b - 1))`` and Z = support rows and label names:

    - ``u``: how well the names explain the support, 1 + mean log-likelihood of the rows under the label-name classifier
      (``sharpness`` x cosine, centred over the rows) over ``log w``; 1 without rows, at most 1, 0 at chance.
    - gate ``g = sigmoid(slope (u - threshold))``, at least 0.02: training goes to NaN where it reaches 0.
    - prior mean ``m_c(z) = g (offset + u^2) (z.l_c - its mean over the classes)``.
    - ``A = (k(Z, Z) + diag(row noise, name noise / g))^-1 (Y - 1/w - m(Z))``.
    - logits ``T(k, w) (m(q) + k(q, Z) A)``.

    The dual solve is Bertinetto et al. 2019, Eq. 6, with a kernel; prior and gate are ours.

    Args:
        dim: d.
        config: ``rank`` of the residual map.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank)
        self.log_tau = nn.Parameter(torch.tensor(2.0).log())
        self.log_noise = nn.Parameter(torch.tensor([0.1, 0.3]).log())  # of rows, of names
        self.gate = nn.Parameter(torch.tensor([14.0, 0.12]))  # slope, threshold
        self.offset = nn.Parameter(torch.tensor(0.2))
        self.log_sharpness = nn.Parameter(torch.tensor(15.0).log())
        self.temperature = Temperature(start=8.0)
        self.novelty = Novelty()

    def adapt(self, support: Support) -> Params:
        """``z`` (b, n, d), ``dual`` (b, n, w), ``names`` (b, w, d) scaled by their weight, ``classes``, ``scale``, ``class_mask``."""
        mask, named = support.class_mask, support.label_mask
        classes, _ = self.representation(support)
        names = self.representation.label_features(support)
        x = self.representation.features(support.x)
        y = support.y * support.row_mask[..., None]
        count = y.sum(1)  # (b, w)
        explained = self._explained(x, y, names, named)  # (b,)
        gate = torch.sigmoid(self.gate[0] * (explained - self.gate[1])).clamp_min(0.02)
        weight = gate * (self.offset + explained.square())

        rows, row_y, size = _grouped(x, y, support.row_mask)
        ways = mask.sum(1).clamp_min(1).to(x.dtype)[:, None, None]
        z = torch.cat([rows, names], 1)  # (b, n, d)
        y = torch.cat([row_y, torch.diag_embed(named.to(x.dtype))], 1)  # (b, n, w)
        noise_row, noise_name = self.log_noise.exp()
        noise = torch.cat([noise_row / size.clamp_min(1), (noise_name / gate)[:, None].expand_as(count)], 1)
        real = torch.cat([size > 0, named], 1)  # (b, n)
        prior = _centred(weight[:, None, None] * (z @ names.mT), named)
        target = (y - 1 / ways - prior) * real[..., None] * mask[:, None]
        gram = self._kernel(z, z) * (real[:, None] & real[..., None])
        gram = gram + torch.diag_embed(torch.where(real, noise, torch.ones_like(noise)))
        return {
            "z": z,
            "dual": torch.linalg.solve(gram, target),
            "names": weight[:, None, None] * names,
            "named": named,
            "classes": classes,
            "scale": self.temperature(count, mask),
            "class_mask": mask,
        }

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        query = self.representation.features(query)
        prior = _centred(query @ params["names"].mT, params["named"])  # (b, q, d) @ (b, d, w) -> (b, q, w)
        values = prior + self._kernel(query, params["z"]) @ params["dual"]  # (b, q, n) @ (b, n, w) -> (b, q, w)
        none = self.novelty(query @ params["classes"].mT, params["class_mask"])
        return Logits(mask_classes(params["scale"][:, None, None] * values, params["class_mask"]), none)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(self.log_tau.clamp(max=3).exp() * (a @ b.mT - 1))

    def _explained(self, x: Tensor, y: Tensor, names: Tensor, named: Tensor) -> Tensor:
        """u of the class's docstring: (b,), 1 where no row has a named class, 0 where no class has a name."""
        judged = y * named[:, None]  # rows of named classes
        n = judged.sum((1, 2))
        cosine = x @ names.mT  # (b, s, d) @ (b, d, w) -> (b, s, w)
        mean = (cosine * judged.sum(-1, keepdim=True)).sum(1, keepdim=True) / n.clamp_min(1)[:, None, None]
        scores = mask_classes(self.log_sharpness.exp() * (cosine - mean), named)
        ways = named.sum(1).clamp_min(2).to(x.dtype)
        likelihood = (torch.log_softmax(scores, -1) * judged).sum((1, 2)) / n.clamp_min(1)
        explained = torch.where(n > 0, 1 + likelihood / ways.log(), torch.ones_like(n))
        return torch.where(named.any(1), explained.clamp_min(-1), torch.zeros_like(n))


def _centred(values: Tensor, named: Tensor) -> Tensor:
    """(b, n, w) minus the mean over the classes that have a name; 0 for those that have none."""
    mean = (values * named[:, None]).sum(-1, keepdim=True) / named.sum(1).clamp_min(1)[:, None, None]
    return (values - mean) * named[:, None]


def _grouped(x: Tensor, y: Tensor, row_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, labels and how many examples each row stands for; beyond `ROWS`, means of groups within a class.

    Returns:
        (b, n, d), (b, n, w), (b, n) with size 0 where padded.
    """
    b, s, w = y.shape
    if s <= ROWS:
        return x * row_mask[..., None], y, row_mask.to(x.dtype)
    groups = max(1, ROWS // w)
    own = y.argmax(-1)  # (b, s)
    rank = (y.cumsum(1) - y).gather(2, own[..., None])[..., 0].long() % groups  # which of its class, dealt out in turn
    place = torch.where(row_mask, own * groups + rank, w * groups)  # the last place takes the padding
    size = torch.zeros(b, w * groups + 1, dtype=x.dtype, device=x.device).scatter_add_(1, place, row_mask.to(x.dtype))
    total = torch.zeros(b, w * groups + 1, x.shape[-1], dtype=x.dtype, device=x.device)
    total = total.scatter_add(1, place[..., None].expand_as(x), x)
    means = (total / size.clamp_min(1)[..., None])[:, :-1]
    labels = torch.eye(w, dtype=x.dtype, device=x.device).repeat_interleave(groups, 0).expand(b, -1, -1)
    return means, labels, size[:, :-1]
