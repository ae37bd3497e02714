"""The inner loop over an encoder: every task reads its texts with low-rank updates of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import tuning
from .config import HeadConfig
from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .heads import InnerLoopHead
from .heads.protocol import mask_classes
from .representation import Support
from .settings import ConfigError

if TYPE_CHECKING:
    from .examples import Examples
    from .features import EpisodeTexts

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]
STEPS = threading.Lock()  # a task's weights stand in the place of the encoder's own while they are read: one thread at a time


def read_adapted(encoder: Encoder, head: InnerLoopHead, texts: EpisodeTexts, again: bool) -> EpisodeFeatures:
    """The tensors of b episodes, each read with the weights that `adapt_encoder` makes of its support; ``again`` as there."""
    share = 1 / (len(texts) * (1 + len(head.log_encoder_rate)))  # of the memory: all steps of all episodes have one backward pass

    def read(episode: EpisodeTexts) -> EpisodeFeatures:
        support, weights = episode.without_queries(), None
        if (episode.batch.support >= 0).any():
            weights = adapt_encoder(encoder, head, lambda own: support.read(encoder, own, share).support, again=again)
        return episode.read(encoder, weights, share)

    return EpisodeFeatures.concatenate([read(texts[i : i + 1]) for i in range(len(texts))])


def adapted_encoder(encoder: Encoder, head: InnerLoopHead, given: Examples) -> Encoder:
    """A frozen copy of an encoder with the weights that `adapt_encoder` makes of one task's examples, one at least."""

    def read(own: Mapping[str, Tensor]) -> Support:
        return given.read(lambda texts: encoder.learn(encoder.tokenize(texts), own), encoder.dim)

    with STEPS:
        training, _ = encoder.training, encoder.eval()
        weights = adapt_encoder(encoder, head, read)
        encoder.train(training)
    return encoder.frozen(weights)


def adapt_encoder(
    encoder: Encoder, head: InnerLoopHead, read: Callable[[Mapping[str, Tensor]], Support], *, again: bool = False
) -> Weights:
    """Low-rank weights of one task: gradient steps on its support from those that are learned over tasks (MAML, Finn et al. 2017).

    ``phi <- phi - rate_t d/dphi L(head.adapt(read(phi)))``, L the `support_loss`, the rates positive and learned. The weights
    are values: the encoder's own stay as they are, and gradients flow through all steps to them, to the rates and to the
    head; with the head's ``first_order`` the inner gradients are constants (section 5.2 there). Without gradients asked for,
    the steps are taken all the same.

    Args:
        encoder: with tuning lora.
        head: with ``encoder_steps``.
        read: weights by the names of `Encoder.tuned_tensors` -> the support of one task as they read it.
        again: keep no activations of the steps; they are computed again in the backward pass.

    Returns:
        name -> weights; those of the encoder where the support has no row.
    """
    outer, dtype = torch.is_grad_enabled(), next(head.parameters()).dtype
    names = list(tuning.tuned(encoder.backbone))

    def step(rate: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            start = values if outer else tuple(value.detach().requires_grad_() for value in values)
            loss = support_loss(head, read(dict(zip(names, start, strict=True))).to(dtype))
            gradients = torch.autograd.grad(loss, start, create_graph=outer and not head.first_order)
        return tuple(value - rate * gradient for value, gradient in zip(values, gradients, strict=True))

    values = tuple(tuning.tuned(encoder.backbone).values())
    for rate in head.log_encoder_rate.exp():
        values = checkpoint(step, rate, *values, use_reentrant=False) if again and outer else step(rate, *values)
    return dict(zip(names, values, strict=True))


def support_loss(head: InnerLoopHead, support: Support) -> Tensor:
    """Cross-entropy of the support under the classifier that the head makes of it, over the classes that have rows, the mean of each
    class counting alike; a scalar, the sum over the episodes. Its gradient is exact in either order."""
    values = head.logits(head.adapt(support, exact=True), support.x, support.row_mask).values  # (b, s, w)
    y = support.y.to(values.dtype) * support.row_mask[..., None]
    count = y.sum(1)  # (b, w)
    present = count > 0
    target = y / count.clamp_min(1)[:, None] / present.sum(1).clamp_min(1)[:, None, None]
    return -(mask_classes(values, present).log_softmax(-1) * target).sum()


def prepare_inner_loop(encoder: Encoder, head: HeadConfig) -> None:
    """Make an encoder ready for steps of any order.

    Raises:
        ConfigError: it has no low-rank updates, or would compute layers again with other weights.
    """
    if encoder.config.tuning != "lora":
        raise ConfigError(
            f"encoder_steps: {head.encoder_steps} steps need low-rank updates to move, the encoder has tuning {encoder.config.tuning}; "
            f"set tuning to lora, or encoder_steps to 0"
        )
    if encoder.config.gradient_checkpointing:  # a layer that is computed again would find the encoder's own weights
        raise ConfigError(
            "gradient_checkpointing: with encoder_steps layers would be computed again with other weights; set checkpoint_steps instead"
        )
    if not head.first_order:  # fused attention has no second derivative
        encoder.backbone.set_attn_implementation("eager")
        logger.info("eager attention: the inner loop over the encoder is of second order (first_order: sdpa, and less memory)")
