"""Meta-network heads: support in, task parameters out. One file per head, one protocol, one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ..config import HeadConfig
from ..settings import ConfigError, nearest
from .attention import AttentionHead
from .gp import GPHead
from .inner_loop import InnerLoopHead
from .metanet import MetanetHead
from .multilabel import MultilabelGPHead
from .prompt import PromptHead
from .protocol import Head, Logits
from .prototype import PrototypeHead
from .regression import RegressionGPHead
from .ridge import RidgeHead
from .span import SpanHead

if TYPE_CHECKING:
    from ..language import LanguageModel

HEADS: dict[str, type[nn.Module]] = {
    "gp": GPHead,
    "prototype": PrototypeHead,
    "ridge": RidgeHead,
    "metanet": MetanetHead,
    "attention": AttentionHead,
    "inner_loop": InnerLoopHead,
}
"""Name -> head of classifications. A head of one's own is one more row, put there before its name is used."""

KIND_HEADS: dict[str, dict[str, type[nn.Module]]] = {
    "classification": HEADS,
    "multilabel": {"gp": MultilabelGPHead},
    "regression": {"gp": RegressionGPHead},
    "span": {"gp": SpanHead},
    "generation": {"gp": PromptHead},
}
"""Kind of task -> name -> head. A model has one of the same name for every kind that it is trained on."""


def check_head(config: HeadConfig) -> None:
    """Raises `ConfigError` where no head has the name that ``config`` asks for."""
    if not any(config.name in heads for heads in KIND_HEADS.values()):
        raise ConfigError(
            f"head: expected one of {', '.join(HEADS)}, got {config.name!r}{nearest(config.name, HEADS, end='.')} A head of your own needs a "
            f"row in metatext.heads.HEADS before it is named"
        )


def make_head(config: HeadConfig, dim: int, kind: str = "classification", language: LanguageModel | None = None) -> Head:
    """The head that ``config`` names for tasks of a kind, for features of length ``dim``, untrained.

    Args:
        language: whose soft prompts the head of generation makes.

    Raises:
        ConfigError: there is no head of that name, or none for this kind, or it needs a language model.
    """
    check_head(config)
    known = KIND_HEADS.get(kind, {})
    if config.name not in known:
        raise ConfigError(f"head: {config.name!r} has no form for the kind {kind!r}; {', '.join(known) or 'no head'} has")
    if kind == "generation" and language is None:
        raise ConfigError(NO_LANGUAGE)
    head = known[config.name](dim, config, language) if kind == "generation" else known[config.name](dim, config)
    if not any(True for _ in head.parameters()):
        raise ConfigError(
            f"head: {config.name!r} has no parameter, so nothing could be learned; give it one, a temperature for instance"
        )
    return head


def kinds_of(config: HeadConfig, writes: bool = True) -> tuple[str, ...]:
    """The kinds that the head of that name has a form for; without generation where no language model ``writes``."""
    return tuple(kind for kind, heads in KIND_HEADS.items() if config.name in heads and (writes or kind != "generation"))


def is_untrained(name: str) -> bool:
    """Whether a name is that of a head that nobody has trained, and no folder's."""
    return name in HEADS and not Path(name).exists()


NO_LANGUAGE = (
    "kind 'generation' needs a language model, and this model has none; name one: language_model in the settings, or "
    "MetaModel.from_encoder(..., language='smollm2')"
)

__all__ = ["HEADS", "KIND_HEADS", "NO_LANGUAGE", "Head", "Logits", "check_head", "is_untrained", "kinds_of", "make_head"]
