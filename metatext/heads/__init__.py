"""Meta-network heads: support in, task parameters out. One file per head, one protocol, one table."""

from __future__ import annotations

from torch import nn

from ..config import ConfigError, HeadConfig
from .attention import AttentionHead
from .gp import GPHead
from .inner_loop import InnerLoopHead
from .metanet import MetanetHead
from .multilabel import MultilabelGPHead
from .protocol import Head, Logits
from .prototype import PrototypeHead
from .regression import RegressionGPHead
from .ridge import RidgeHead
from .span import SpanHead

HEADS: dict[str, type[nn.Module]] = {
    "gp": GPHead,
    "prototype": PrototypeHead,
    "ridge": RidgeHead,
    "metanet": MetanetHead,
    "attention": AttentionHead,
    "inner_loop": InnerLoopHead,
}

KIND_HEADS: dict[str, dict[str, type[nn.Module]]] = {
    "classification": HEADS,
    "multilabel": {"gp": MultilabelGPHead},
    "regression": {"gp": RegressionGPHead},
    "span": {"gp": SpanHead},
}
"""Kind of task -> name -> head. A model has one of the same name for every kind that it is trained on."""


def make_head(config: HeadConfig, dim: int, kind: str = "classification") -> Head:
    """The head that ``config`` names for tasks of a kind, for features of length ``dim``, untrained.

    Raises:
        ConfigError: there is no head of that name for this kind.
    """
    known = KIND_HEADS.get(kind, {})
    if config.name not in known:
        raise ConfigError(f"head: {config.name!r} has no form for the kind {kind!r}; {', '.join(known) or 'no head'} has")
    return known[config.name](dim, config)


def kinds_of(config: HeadConfig) -> tuple[str, ...]:
    """The kinds that the head of that name has a form for."""
    return tuple(kind for kind, heads in KIND_HEADS.items() if config.name in heads)


__all__ = ["HEADS", "KIND_HEADS", "Head", "Logits", "kinds_of", "make_head"]
