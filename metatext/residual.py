"""What gradient steps on one task add to the parameters that a head made for it: values, as those are."""

from __future__ import annotations

import torch
from torch import Tensor

from .heads import Logits

SHAPES = {"residual_weights": (1, "w", "d"), "residual_bias": (1, "w"), "residual_scale": (1,)}


def start_residual(w: int, d: int) -> dict[str, Tensor]:
    """Task parameters that change nothing: a linear classifier of zeros and the logarithm of a factor of 1."""
    return {name: torch.zeros(shape) for name, shape in residual_shapes(w, d).items()}


def residual_shapes(w: int, d: int) -> dict[str, tuple[int, ...]]:
    """The shape of each of them, for w classes and features of length d."""
    sizes = {"w": w, "d": d}
    return {name: tuple(sizes.get(size, size) for size in shape) for name, shape in SHAPES.items()}


def corrected(logits: Logits, params: dict[str, Tensor], query: Tensor) -> Logits:
    """Logits ``e^s z + W q + b`` of a head's logits z and the features q, where the parameters have a residual; else z.

    A residual beside a classifier that is already good (cf. Yu et al. 2023, section 3.2) serves every head: its own parameters keep their
    form, and what was learned is small beside them.

    Args:
        logits: of the head; the evidence for none of the classes stays.
        params: of one task, with ``residual_weights`` (1, w, d), ``residual_bias`` (1, w) and ``residual_scale`` (1,), or without.
        query: (1, q, d).
    """
    if "residual_weights" not in params:
        return logits
    scale, weights, bias = (params[f"residual_{name}"] for name in ("scale", "weights", "bias"))
    added = query @ weights.mT + bias[:, None]  # (1, q, d) @ (1, d, w) -> (1, q, w)
    return Logits(scale.exp()[:, None, None] * logits.values + added, logits.none)
