"""A set transformer over classes that reads relations, not directions: how alike a text and each class are, and what that is worth here."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ..config import HeadConfig
from ..representation import Representation, Support
from .gp import GPHead
from .protocol import Logits, Params, mask_classes

SHARPNESS = (10.0, 30.0)  # of the kernels: the first sees all rows of a class, the second its nearest ones
RELATIONS = 2 * (2 + len(SHARPNESS))  # numbers in a relation


class AttentionHead(nn.Module):
    """In-context prediction: from how the support behaves, learned tokens decide what to add to the logits of the head `gp`.

    An attention head on the features themselves (Lee et al. 2019; Fifty et al. 2024) learns directions of the data sets it
    was trained on and loses on others. This one sees rotation-invariant numbers only. The *relation* of a text to class c
    holds its cosine to the label name, times the trust in names, its cosine to the mean of the rows and, for each
    ``SHARPNESS`` t, the log of the mean of ``exp(t (x.x_i - 1))`` over the rows, over t (attention over the rows with their
    labels as values, Nadaraya 1964); each as a difference to the mean over the classes and as a log-probability over them.

    - `adapt`: the rows of the support relate to the classes, every row leaving itself out. A class's token is made of the
      mean relations of its own rows and of the other rows, ``log(1 + k)``, ``log w``, whether it has rows and a name, and how
      close its rows lie together; the tokens attend to each other.
    - `logits`: a query has one token per class: its relation, what `gp` says, and the class's token. A perceptron reads off
      what is added to the logit of `gp`. It starts at zero: untrained, this is the head `gp`.

    Measured on other data sets, one run each: without the class's token it loses about 2.5 points at one shot; without the
    attention among the classes' tokens it loses nothing that the noise would show.

    Nothing knows a class by its place, so permuting the classes permutes the logits.

    Args:
        dim: d.
        config: ``token_dim`` e, ``dropout``, and those of the head `gp`: ``rank``, ``generated``.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        e = config.token_dim
        self.base = GPHead(dim, config)
        self.class_in = nn.Linear(2 * RELATIONS + 5, e)
        self.attention = SelfAttention(e, config.dropout)
        self.class_perceptron = Perceptron(e, config.dropout)
        self.query_in = nn.Linear(RELATIONS + 2, e)
        self.query_perceptron = Perceptron(e, config.dropout)
        self.norm = nn.LayerNorm(e, bias=False)
        self.out = nn.Linear(e, 1, bias=False)  # a bias would move all classes alike
        nn.init.zeros_(self.out.weight)

    @property
    def representation(self) -> Representation:
        """The residual map and the label names are those of the `gp` below."""
        return self.base.representation

    def adapt(self, support: Support) -> Params:
        """Those of the head `gp`, ``trusted`` (b, w, d) its names times the trust in them, and ``tokens`` (b, w, e)."""
        mask, named = support.class_mask, support.label_mask
        base = self.base.adapt(support)
        rows, y = base["rows"], base["labels"]
        names = base["trust"][:, None, None] * base["names"]  # names that say nothing are alike to all texts
        count = y.sum(1)  # (b, w)
        relations = _relations(rows, rows, y, names, named, mask, own=y)  # (b, n, w, r)
        others = (y.sum(-1, keepdim=True) - y) * mask[:, None]
        pooled = [
            torch.einsum("bnw,bnwr->bwr", weight, relations) / weight.sum(1).clamp_min(1)[..., None] for weight in (y, others)
        ]
        ways = mask.sum(1, keepdim=True).clamp_min(2).to(count.dtype).expand_as(count)
        total = y.mT @ rows
        together = (total.square().sum(-1) + 1e-6).sqrt() / count.clamp_min(1)  # length of the mean of the rows
        facts = torch.stack([count.log1p(), count.gt(0).to(count), named.to(count), ways.log() / 2, together], -1)
        tokens = self.class_perceptron(self.attention(self.class_in(torch.cat([*pooled, facts], -1)), mask))
        return {**base, "trusted": names, "tokens": tokens}

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        mask = params["class_mask"]
        base = self.base.logits(params, query, query_mask)
        query = self.representation.features(query)
        relations = _relations(query, params["rows"], params["labels"], params["trusted"], params["named"], mask)
        said = _contrast(base.values / 4, mask[:, None].expand_as(base.values), 4.0)
        tokens = self.query_in(torch.cat([relations, said], -1)) + params["tokens"][:, None]  # (b, q, w, e)
        values = base.values + self.out(self.norm(self.query_perceptron(tokens)))[..., 0]
        return Logits(mask_classes(values, mask), base.none)


class SelfAttention(nn.Module):
    """One head of attention of a set's tokens to each other, added to them (Lee et al. 2019, SAB without its perceptron).

    Args:
        dim: e.
        dropout: on what is added.
    """

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(b, w, e) tokens and (b, w) bool mask, True for at least one token of a set -> (b, w, e)."""
        x = self.norm(tokens)
        found = scaled_dot_product_attention(self.query(x), self.key(x), self.value(x), attn_mask=mask[:, None])
        return tokens + self.dropout(found)


class Perceptron(nn.Module):
    """A two-layer perceptron of each token alone, added to it.

    Args:
        dim: e; the hidden layer has twice the width.
        dropout: on what is added.
    """

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.hidden, self.output = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., e) -> (..., e)."""
        return tokens + self.dropout(self.output(gelu(self.hidden(self.norm(tokens)))))


def _relations(
    x: Tensor, rows: Tensor, y: Tensor, names: Tensor, named: Tensor, mask: Tensor, own: Tensor | None = None
) -> Tensor:
    """Relations of texts to classes.

    Args:
        x: (b, q, d) texts.
        rows: (b, n, d) support rows, zero where padded.
        y: (b, n, w) how many examples of each class they stand for.
        names: (b, w, d).
        named, mask: (b, w) which classes have a name, which exist.
        own: x are the rows themselves; (b, n, w) what each must leave out of its class.

    Returns:
        (b, q, w, r); 0 where a class has no name or no (other) row.
    """
    cosine = x @ rows.mT  # (b, q, n)
    total = y.mT @ rows  # (b, w, d) sum of each class's rows
    along, length = x @ total.mT, total.square().sum(-1)[:, None]  # (b, q, w), (b, 1, w)
    count = y.sum(1)[:, None].expand_as(along)
    others = torch.ones_like(cosine)
    if own is not None:
        self_cosine = x.square().sum(-1, keepdim=True)
        count = count - own
        length = length - 2 * own * along + own.square() * self_cosine
        along = along - own * self_cosine
        others = others - torch.eye(rows.shape[1], dtype=x.dtype, device=x.device)
    known = (count > 0.5) & mask[:, None]
    parts = [(x @ names.mT, (named & mask)[:, None].expand_as(known)), (along / length.clamp_min(1e-4).sqrt(), known)]
    for sharpness in SHARPNESS:
        mean = (torch.exp(sharpness * (cosine - 1)) * others) @ y / count.clamp_min(1)  # (b, q, n) @ (b, n, w) -> (b, q, w)
        parts.append((mean.clamp_min(1e-20).log() / sharpness + 1, known))
    return torch.cat([_contrast(value, known, 15.0) for value, known in parts], -1)


def _contrast(value: Tensor, known: Tensor, sharpness: float) -> Tensor:
    """(b, q, w) values as differences to their mean over the known classes, and as log-probabilities above chance: (b, q, w, 2)."""
    n = known.sum(-1, keepdim=True).clamp_min(1).to(value.dtype)
    value = torch.where(known, value, torch.zeros_like(value))
    difference = (value - value.sum(-1, keepdim=True) / n) * known
    scores = (sharpness * value).masked_fill(~known, torch.finfo(value.dtype).min)
    likelihood = torch.where(known, scores.log_softmax(-1) + n.log(), torch.zeros_like(value))
    return torch.stack([4 * difference, (likelihood / 3).clamp(-4, 4)], -1)
