"""Meta-network heads: support in, task parameters out. One file per head, one protocol, one table."""

from __future__ import annotations

from torch import nn

from ..config import HeadConfig
from .attention import AttentionHead
from .gp import GPHead
from .inner_loop import InnerLoopHead
from .metanet import MetanetHead
from .protocol import Head, Logits
from .prototype import PrototypeHead
from .ridge import RidgeHead

HEADS: dict[str, type[nn.Module]] = {
    "gp": GPHead,
    "prototype": PrototypeHead,
    "ridge": RidgeHead,
    "metanet": MetanetHead,
    "attention": AttentionHead,
    "inner_loop": InnerLoopHead,
}


def make_head(config: HeadConfig, dim: int) -> Head:
    """The head that ``config`` names, for features of length ``dim``, untrained."""
    return HEADS[config.name](dim, config)


__all__ = ["HEADS", "Head", "Logits", "make_head"]
