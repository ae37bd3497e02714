"""Kernel ridge regression for rows that have any number of labels: one solve, a probability of its own for every label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support
from .gp import gram, grouped, kernel
from .protocol import Logits, Params, Temperature, mask_classes
from .solving import solve

NOISE_ROW, NOISE_NAME, OFFSET = 0.1, 0.15, 0.5  # names count for less than in `GPHead`, where they only have to be told apart


class MultilabelGPHead(nn.Module):
    """`GPHead` with independent labels (binary relevance on one kernel).

    The targets of the rows are ``Y - r``, r the share of labels that a row of the support has (without rows: learned, over w); the
    label names are further rows of their label alone. The prior mean of a label is ``g (0.5 + max(u, 0)^2) (z.l_c - mu_c)``, where
    `GPHead` compares the labels with each other: ``mu_c`` is the mean cosine of the rows to its name, as if two further rows had a
    learned one. The scores ``s = m(q) + k(q, Z) A`` become ``logits T (s - threshold)``, the threshold ``a + b log(1 + k) + c r`` learned
    over tasks: a shrunk score of a half is seldom reached. A label without a row lives by its name. That a row has no label has the
    probability of all labels' absences, taken as independent.

    Args:
        dim: d.
        config: ``rank`` of the residual map.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank, learned=False)
        self.temperature = Temperature(start=8.0)
        self.threshold = nn.Parameter(torch.tensor([0.15, 0.0, -0.5]))
        self.cosine = nn.Parameter(torch.tensor(0.15))  # of a name to the texts of its task
        self.labels_per_row = nn.Parameter(torch.tensor(1.5).log())

    def adapt(self, support: Support) -> Params:
        """``rows`` (b, n, d), ``names`` (b, w, d), ``named`` and ``class_mask`` (b, w), ``weight`` (b, 1, 1) and ``usual`` (b, w) of the
        prior, ``dual`` (b, n + w, w), ``scale`` and ``threshold`` (b,)."""
        task = self.representation(support)
        mask, named, names = task.class_mask, support.label_mask, task.names
        rows, y, size = grouped(task.x, task.y, support.row_mask, by_class=False)
        n, ways = support.row_mask.sum(1), mask.sum(1).clamp_min(1)
        seen = task.y.sum((1, 2)) / (n * ways).clamp_min(1)
        share = torch.where(n > 0, seen, (self.labels_per_row.exp() / ways).clamp(max=0.9))  # (b,)
        to_names, among_names = rows @ names.mT, names @ names.mT
        weight = (task.trust * (OFFSET + task.explained.clamp_min(0).square()))[:, None, None]
        noise = torch.cat([NOISE_ROW / size.clamp_min(1), (NOISE_NAME / task.trust)[:, None].expand_as(task.count)], 1)
        real = torch.cat([size > 0, named & (n > 0)[:, None]], 1)  # (b, n + w)
        usual = ((to_names * size[..., None]).sum(1) + 2 * self.cosine) / (n + 2)[:, None]  # (b, w)
        prior = weight * (torch.cat([to_names, among_names], 1) - usual[:, None]) * named[:, None]
        target = torch.cat([y, torch.diag_embed(named.to(y.dtype))], 1) - share[:, None, None] - prior
        target = target * real[..., None] * mask[:, None]
        dual = solve(gram(rows, to_names, among_names, noise, real), target)  # (b, n + w, w)
        shots = torch.log1p(n.to(y.dtype))
        base, by_rows, by_share = self.threshold
        return {
            "rows": rows,
            "names": names,
            "named": named,
            "weight": weight,
            "usual": usual,
            "dual": dual,
            "scale": self.temperature(task),
            "threshold": base + by_rows * shots + by_share * share,
            "class_mask": mask,
        }

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        query = self.representation.features(query)
        to_names = query @ params["names"].mT  # (b, q, d) @ (b, d, w) -> (b, q, w)
        cosine = torch.cat([query @ params["rows"].mT, to_names], -1)
        prior = params["weight"] * (to_names - params["usual"][:, None]) * params["named"][:, None]
        scores = prior + kernel(cosine) @ params["dual"]
        values = params["scale"][:, None, None] * (scores - params["threshold"][:, None, None])
        values = mask_classes(values, params["class_mask"])
        absent = -nn.functional.softplus(values).sum(-1).clamp(1e-6, 80)  # log-probability that no label applies
        return Logits(values, absent - torch.log(-torch.expm1(absent)))
