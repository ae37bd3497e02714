"""The inner loop: gradient steps on the classifier of one task, from a learned start, with learned rates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support
from .protocol import Logits, Novelty, Params, Temperature, mask_classes


class InnerLoopHead(nn.Module):
    """ANIL (Raghu et al. 2020): the features stay, the class weights ``W`` and biases ``b`` take ``inner_steps`` steps.

    The start is generated, so that it serves any number of ways: ``W0`` = class embeddings of the `Representation`,
    ``b0 = 0`` (cf. Proto-MAML, Triantafillou et al. 2020). The inner loss is the cross-entropy of the support, over the
    classes that have rows, the mean of each class counting alike. Its gradient needs no autograd: see `support_gradient`;
    the steps are one batched graph, and the outer gradient through them is exact, of second order. Step t, with
    ``decay`` pulling back to the start, and rates of its own for weights and biases (Li et al. 2017, Antoniou et al. 2019):

    ``W <- W0 + (1 - decay) (W - W0) - rate_t dW``, ``b <- (1 - decay) b - rate'_t db``.

    A class without rows keeps its start; at 0 shots this is the prototype head.

    Args:
        dim: d.
        config: ``inner_steps``; ``first_order``: take the inner gradients as constants (FOMAML, Finn et al. 2017), which
            leaves the inner temperature untrained; ``rank`` of the residual map.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank)
        self.log_rate = nn.Parameter(torch.tensor([[0.5], [0.1]]).log().repeat(1, config.inner_steps))  # of W, of b
        self.log_sharpness = nn.Parameter(torch.tensor(14.0).log())
        self.decay = nn.Parameter(torch.tensor(-4.0))  # logit
        self.first_order = config.first_order
        self.temperature = Temperature(start=20.0)
        self.novelty = Novelty()

    def adapt(self, support: Support) -> Params:
        """``weights`` (b, w, d), ``bias`` (b, w), ``classes`` (b, w, d), ``scale`` (b,), ``class_mask`` (b, w); float32 or wider."""
        with torch.autocast(support.x.device.type, enabled=False):
            support = support.to(torch.promote_types(support.x.dtype, torch.float32))
            classes, _ = self.representation(support)
            x = self.representation.features(support.x)
            y = support.y * support.row_mask[..., None]
            count = y.sum(1)  # (b, w)
            target = y / count.clamp_min(1)[:, None]  # (b, s, w) each class counts alike
            present = count > 0
            # the direction that all texts share would make the steps overshoot where there are many classes
            centre = target.sum(2)[:, None] @ x / present.sum(1).clamp_min(1)[:, None, None]  # (b, 1, s) @ (b, s, d)
            x = x - centre
            start = (classes @ centre.mT)[..., 0]  # (b, w) the bias that moving the origin asks for
            keep, sharpness = torch.sigmoid(-self.decay), self.log_sharpness.exp()
            weights, bias = classes, start
            for rate_weights, rate_bias in self.log_rate.exp().T:
                to_weights, to_bias = support_gradient(weights, bias, x, target, present, sharpness)
                if self.first_order:
                    to_weights, to_bias = to_weights.detach(), to_bias.detach()
                weights = classes + keep * (weights - classes) - rate_weights * to_weights
                bias = start + keep * (bias - start) - rate_bias * to_bias
            bias = bias - (weights @ centre.mT)[..., 0]
            scale = self.temperature(count, support.class_mask)
        return {"weights": weights, "bias": bias, "classes": classes, "scale": scale, "class_mask": support.class_mask}

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        with torch.autocast(query.device.type, enabled=False):
            query = self.representation.features(query.to(params["weights"].dtype))
            values = query @ params["weights"].mT + params["bias"][:, None]  # (b, q, d) @ (b, d, w) -> (b, q, w)
            none = self.novelty(query @ params["classes"].mT, params["class_mask"])
            return Logits(mask_classes(params["scale"][:, None, None] * values, params["class_mask"]), none)


def support_gradient(
    weights: Tensor, bias: Tensor, x: Tensor, target: Tensor, present: Tensor, sharpness: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of ``-sum(target * log P) / sharpness``, ``P = softmax(sharpness (x W' + b))`` over the classes present.

    In closed form: with ``R = P * (target's sum over the classes) - target``, it is ``R' x`` and the sum of R over the rows.

    Args:
        weights: (b, w, d) W.
        bias: (b, w) b.
        x: (b, s, d) support features.
        target: (b, s, w) weight of each row for each class; 0 where padded or not present.
        present: (b, w) bool, classes that take part; the others' gradient is 0.
        sharpness: factor of the logits, a scalar.

    Returns:
        (b, w, d) and (b, w).
    """
    scores = sharpness * (x @ weights.mT + bias[:, None])  # (b, s, d) @ (b, d, w) -> (b, s, w)
    residual = mask_classes(scores, present).softmax(-1) * target.sum(-1, keepdim=True) - target
    return residual.mT @ x, residual.sum(1)  # (b, w, s) @ (b, s, d) -> (b, w, d)
