"""Kernel ridge regression (the mean of a Gaussian process) whose prior is the label names, as far as they explain the support."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support, alike_direction, likelihood_gain
from . import solving
from .metanet import MetaNetwork
from .protocol import Logits, Novelty, Params, Temperature, mask_classes

ROWS = 4096  # support rows in the solve; beyond, rows of a class are averaged in groups
# Found on development corpora and not learned: training narrows the kernel and raises the prior for a better likelihood, at
# 0.1 to 0.3 points of accuracy each on corpora it has not seen.
TAU = 2.0
NOISE_ROW, NOISE_NAME = (0.35, 0.05), 0.07  # of rows that no name explains, and that names explain wholly
OFFSET, LACK, SHARPNESS = 0.6, 5.0, 12.0
STATISTICS = ("log shots", "names explain rows", "rows are predicted left out", "left-out predictions are too timid")


class GPHead(nn.Module):
    """Accuracy from a closed form, probabilities from what is learned over tasks; both carry over to other data sets.

    With unit features x, label names l, kernel ``k(a, b) = exp(2 (a.b - 1))`` and Z = support rows and label names:

    - ``u`` and ``g``: how well the names explain the support and the trust that follows, see `representation.gate`.
    - prior mean ``m_c(z) = g p (z.l_c - its mean over the classes)``.
    - ``A = K^-1 (Y - 1/w - m(Z))`` with ``K = k(Z, Z) + diag(0.35 - 0.3 max(u, 0) for rows, 0.07 / g for names)``; 0 without rows: then
      the prior alone decides, a multiple of the cosine to the name.
    - ``p = 0.6 + 5 (1 - max(u, 0)) (u - v)`` between u - v = 0 and 1, where v is `likelihood_gain` of 12 times what each row is predicted
      by all others at p = 0.6: the prior counts for more where the names alone say more of a row than they do together with the other
      rows, less so the better they explain all. Leaving row i out changes its prediction by ``A_i / (K^-1)_ii`` (Rasmussen and Williams
      2006, Eq. 5.12), and A is linear in p, so this needs no second solve.
    - logits ``T (m(q) + k(q, Z) A)``. ``T`` is the `Temperature` of shots and ways times what a `MetaNetwork` reads in the
      task itself: how well each row is predicted by the others, and whether these predictions are too timid or too bold.

    The dual solve is Bertinetto et al. 2019, Eq. 6, with a kernel; prior, gate and meta-network are ours.

    Args:
        dim: d.
        config: ``rank`` of the residual map, ``generated``: whether there is a meta-network.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank, learned=False)
        self.temperature = Temperature(start=8.0)
        self.network = MetaNetwork(len(STATISTICS), 16, 1) if config.generated else None
        if self.network is not None:
            nn.init.zeros_(self.network.output.weight)
            nn.init.zeros_(self.network.output.bias)
        self.novelty = Novelty()

    def adapt(self, support: Support) -> Params:
        """``rows`` (b, n, d), ``labels`` (b, n, w), ``names`` (b, w, d), ``named`` (b, w), ``trust`` (b,) in the names, ``weight``
        (b, 1, 1) of the prior, ``dual`` (b, n + w, w), ``scale`` (b,), and what `Novelty.adapt` gives."""
        task = self.representation(support)
        mask, named, names, trust = task.class_mask, support.label_mask, task.names, task.trust
        rows, row_y, size = grouped(task.x, task.y, support.row_mask)
        labels = row_y * size[..., None]  # how many examples of each class a row stands for
        to_names = rows @ names.mT  # (b, n, d) @ (b, d, w) -> (b, n, w)
        among_names = names @ names.mT  # (b, w, w)
        explained = task.explained.clamp_min(0)[:, None]

        chance = 1 / task.ways[:, None, None]
        noise = NOISE_ROW[0] + (NOISE_ROW[1] - NOISE_ROW[0]) * explained
        noise = torch.cat([noise / size.clamp_min(1), (NOISE_NAME / trust)[:, None].expand_as(task.count)], 1)
        real = torch.cat([size > 0, named & support.row_mask.any(1, keepdim=True)], 1)  # (b, n + w)
        inverse = solving.inverse(gram(rows, to_names, among_names, noise, real))

        def solve(values: Tensor) -> Tensor:
            return inverse @ (values * real[..., None] * mask[:, None])

        of_labels = solve(torch.cat([row_y, torch.diag_embed(named.to(rows.dtype))], 1) - chance)  # (b, n + w, w)
        of_names = solve(trust[:, None, None] * centred(torch.cat([to_names, among_names], 1), named))
        n = rows.shape[1]
        others = inverse.diagonal(dim1=1, dim2=2)[:, :n, None]

        def left_out(dual: Tensor) -> Tensor:
            return row_y - chance - dual[:, :n] / others

        predicted = likelihood_gain(SHARPNESS * left_out(of_labels - OFFSET * of_names), labels, mask)
        lack = (task.explained - predicted).clamp(0, 1) * (1 - task.explained.clamp_min(0))
        share = (OFFSET + LACK * lack)[:, None, None]
        dual = of_labels - share * of_names
        weight = trust[:, None, None] * share
        scale = self.temperature(task)
        if self.network is not None:
            read = _statistics(scale[:, None, None] * left_out(dual), labels, mask, task.explained)
            scale = scale * (2 * torch.tanh(self.network(read)[:, 0] / 2)).exp()
        return {
            "rows": rows,
            "labels": labels,
            "trust": trust,
            "names": names,
            "dual": dual,
            "named": named,
            "weight": weight,
            "scale": scale,
            **self.novelty.adapt(task),
        }

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        query = self.representation.features(query)
        to_names = query @ params["names"].mT  # (b, q, d) @ (b, d, w) -> (b, q, w)
        cosine = torch.cat([query @ params["rows"].mT, to_names], -1)  # (b, q, n + w)
        prior = centred(params["weight"] * to_names, params["named"])
        scores = prior + kernel(cosine) @ params["dual"]  # (b, q, n + w) @ (b, n + w, w) -> (b, q, w)
        values = mask_classes(params["scale"][:, None, None] * scores, params["class_mask"])
        return Logits(values, self.novelty(params, query, scores))


def _statistics(scores: Tensor, y: Tensor, mask: Tensor, explained: Tensor) -> Tensor:
    """The numbers in `STATISTICS`, of order 1 for every data set and encoder: (b, 4).

    The last is the derivative of the rows' mean log-likelihood by the log of the temperature.
    """
    n = y.sum((1, 2))
    likely = mask_classes(scores, mask).softmax(-1) * y.sum(-1, keepdim=True)  # (b, n, w)
    timid = ((y - likely) * scores).sum((1, 2)) / n.clamp_min(1)
    shots = torch.log1p(n / mask.sum(1).clamp_min(1))
    return torch.stack([shots - 1.5, explained, likelihood_gain(scores, y, mask), timid.clamp(-3, 3)], -1)


def kernel(cosine: Tensor) -> Tensor:
    """``exp(2 (cosine - 1))``."""
    return torch.exp(TAU * (cosine - 1))


def gram(rows: Tensor, to_names: Tensor, among_names: Tensor, noise: Tensor, real: Tensor) -> Tensor:
    """The kernel of support rows and label names with noise on its diagonal, (b, n + w, n + w); of what is not real 1 there, and else 0.

    Args:
        rows: (b, n, d).
        to_names, among_names: (b, n, w) and (b, w, w) cosines.
        noise, real: (b, n + w), of rows and names.
    """
    # in blocks: at rank 0 the products of rows are constants, and no gradient goes through them
    cosine = torch.cat([torch.cat([rows @ rows.mT, to_names], 2), torch.cat([to_names.mT, among_names], 2)], 1)
    values = kernel(cosine) * (real[:, None] & real[..., None])
    return values + torch.diag_embed(torch.where(real, noise, torch.ones_like(noise)))


def centred(values: Tensor, named: Tensor) -> Tensor:
    """(b, n, w) minus the mean over the classes that have a name; 0 for those that have none."""
    mean = (values * named[:, None]).sum(-1, keepdim=True) / named.sum(1).clamp_min(1)[:, None, None]
    return (values - mean) * named[:, None]


def grouped(x: Tensor, y: Tensor, row_mask: Tensor, by_class: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, labels and how many examples each row stands for; beyond `ROWS`, means of neighbours along a fixed projection, so the order
    that rows come in does not matter.

    Args:
        x: (b, s, d) features.
        y: (b, s, w) labels.
        row_mask: (b, s) bool.
        by_class: labels are one-hot, and only rows of a class are averaged, of each class as many groups as its share of the rows.

    Returns:
        (b, n, d), (b, n, w), (b, n) with size 0 where padded.
    """
    b, s = row_mask.shape
    if s <= ROWS:
        return x * row_mask[..., None], y * row_mask[..., None], row_mask.to(x.dtype)
    order = (x @ alike_direction(x)).masked_fill(~row_mask, torch.inf).argsort(1)[..., None]  # (b, s, 1), padding last
    x, y, row_mask = x.take_along_dim(order, 1), y.take_along_dim(order, 1), row_mask.take_along_dim(order[..., 0], 1)
    member = (y if by_class else row_mask[..., None]).long()  # (b, s, c)
    count = member.sum(1)
    groups = torch.where(count > 0, (ROWS * count // count.sum(1, keepdim=True).clamp_min(1)).clamp_min(1), 0)  # of each class
    own = member.argmax(-1)  # (b, s)
    rank = (member.cumsum(1) - member).gather(2, own[..., None])[..., 0]  # how many of its class come before it
    mine = groups.gather(1, own)
    group = torch.minimum(rank * mine // count.clamp_min(1).gather(1, own), mine - 1)
    place = (groups.cumsum(1) - groups).gather(1, own) + group
    n = int(groups.sum(1).max())
    place = torch.where(row_mask, place, n)  # the last place takes the padding
    size = torch.zeros(b, n + 1, dtype=x.dtype, device=x.device).scatter_add_(1, place, row_mask.to(x.dtype))

    def mean(values: Tensor) -> Tensor:
        total = torch.zeros(b, n + 1, values.shape[-1], dtype=x.dtype, device=x.device)
        return (total.scatter_add(1, place[..., None].expand_as(values), values) / size.clamp_min(1)[..., None])[:, :-1]

    return mean(x), mean(y), size[:, :-1]
