"""The inner loop: gradient steps on the classifier of one task, from a generated start, with learned rates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support
from .protocol import Logits, Novelty, Params, Temperature, mask_classes


class InnerLoopHead(nn.Module):
    """ANIL (Raghu et al. 2020): the features stay, the class weights ``W`` and biases ``b`` take ``inner_steps`` steps.

    The start is generated, so that it serves any number of ways: ``W0`` = class embeddings of the `Representation`,
    ``b0 = 0`` (cf. Proto-MAML, Triantafillou et al. 2020). The inner loss is the cross-entropy of the support over the
    classes that have rows, the mean of each class counting alike. Step t, with learned positive rates of its own for
    weights and biases (Li et al. 2017; Antoniou et al. 2019):

    ``W <- W - rate_t dW``, ``b <- b - rate'_t db``, the gradients of `support_gradient`.

    They are written in closed form, so the steps are one batched graph, also without autograd, and backpropagating
    through them is exact, of second order. A class without rows keeps its start: at 0 shots this is the prototype head.

    Args:
        dim: d.
        config: ``inner_steps``; ``first_order``: the inner gradients are constants in the outer gradient (Finn et al.
            2017, section 5.2), which leaves the inner temperature at its start; ``rank`` of the residual map; ``encoder_steps``:
            steps that low-rank updates of the encoder take before, see `maml.adapt_encoder`, with rates learned here.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank)
        self.log_rate = nn.Parameter(torch.tensor([[0.5], [0.1]]).log().repeat(1, config.inner_steps))  # of W, of b
        self.log_sharpness = nn.Parameter(torch.tensor(14.0).log())
        self.log_encoder_rate = nn.Parameter(torch.full((config.encoder_steps,), 0.05).log()) if config.encoder_steps else None
        self.first_order = config.first_order
        self.temperature = Temperature(start=16.0)
        self.novelty = Novelty()

    def adapt(self, support: Support, *, exact: bool = False) -> Params:
        """``weights`` (b, w, d), ``bias`` (b, w), ``scale`` (b,), and what `Novelty.adapt` gives; float32 or wider.

        ``exact``: the inner gradients are no constants, whatever the order; the gradient of an inner loss needs them.
        """
        with torch.autocast(support.x.device.type, enabled=False):
            support = support.to(torch.promote_types(support.x.dtype, torch.float32))
            task = self.representation(support)
            present = task.count > 0  # (b, w)
            target = task.y / task.count.clamp_min(1)[:, None]  # (b, s, w) each class counts alike
            # the direction that all texts share would make the steps overshoot where there are many classes
            centre = target.sum(2)[:, None] @ task.x / present.sum(1).clamp_min(1)[:, None, None]  # (b, 1, s) @ (b, s, d)
            x = task.x - centre
            weights, bias = task.classes, (task.classes @ centre.mT)[..., 0]  # the bias that moving the origin asks for
            for rate, bias_rate in self.log_rate.exp().T:
                to_weights, to_bias = support_gradient(weights, bias, x, target, present, self.log_sharpness.exp())
                if self.first_order and not exact:
                    to_weights, to_bias = to_weights.detach(), to_bias.detach()
                weights, bias = weights - rate * to_weights, bias - bias_rate * to_bias
            return {
                "weights": weights,
                "bias": bias - (weights @ centre.mT)[..., 0],
                "scale": self.temperature(task),
                **self.novelty.adapt(task),
            }

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`; float32 or wider."""
        with torch.autocast(query.device.type, enabled=False):
            query = self.representation.features(query.to(params["weights"].dtype))
            scores = query @ params["weights"].mT + params["bias"][:, None]  # (b, q, d) @ (b, d, w) -> (b, q, w)
            values = mask_classes(params["scale"][:, None, None] * scores, params["class_mask"])
            return Logits(values, self.novelty(params, query, scores))


def support_gradient(
    weights: Tensor, bias: Tensor, x: Tensor, target: Tensor, present: Tensor, sharpness: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of ``-sum(target * log P) / sharpness``, ``P = softmax(sharpness (x W' + b))`` over the classes present.

    With ``R = P * (sum of target over the classes) - target`` it is ``R' x`` for W and the sum of R over the rows for b.

    Args:
        weights: (b, w, d) W.
        bias: (b, w) b.
        x: (b, s, d) support features.
        target: (b, s, w) weight of each row for each class; 0 where padded or not present.
        present: (b, w) bool, classes that take part; the gradient of the others is 0.
        sharpness: factor of the logits, a scalar: the inverse temperature of the inner loss.

    Returns:
        (b, w, d) and (b, w).
    """
    scores = sharpness * (x @ weights.mT + bias[:, None])  # (b, s, d) @ (b, d, w) -> (b, s, w)
    residual = mask_classes(scores, present).softmax(-1) * target.sum(-1, keepdim=True) - target
    return residual.mT @ x, residual.sum(1)  # (b, w, s) @ (b, s, d) -> (b, w, d)
