"""The meta-network proper: a perceptron that generates a linear classifier from the task representation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Representation, Support
from .protocol import Logits, Novelty, Params, Temperature, mask_classes


class MetaNetwork(nn.Module):
    """A two-layer perceptron from a representation to parameters.

    Args:
        input_dim: length of the representation.
        hidden_dim: width of the hidden layer.
        output_dim: number of parameters generated.
        dropout: on the hidden layer.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, dropout: float = 0.0):
        super().__init__()
        self.hidden = nn.Linear(input_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_dim, output_dim)

    def forward(self, representation: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        return self.output(self.dropout(torch.nn.functional.gelu(self.hidden(representation))))


class MetanetHead(nn.Module):
    """A `MetaNetwork` writes each class's weight and bias, as a residual on its prototype (cf. Bansal et al. 2020).

    It reads [class embedding ; task embedding] and starts at zero, so that untrained it is the prototype head.

    Args:
        dim: d.
        config: ``hidden_dim``, ``dropout``, and ``rank`` of the residual map.
    """

    def __init__(self, dim: int, config: HeadConfig):
        super().__init__()
        self.representation = Representation(dim, config.rank)
        self.network = MetaNetwork(2 * dim, config.hidden_dim, dim + 1, config.dropout)
        nn.init.zeros_(self.network.output.weight)
        nn.init.zeros_(self.network.output.bias)
        self.temperature = Temperature(start=20.0)
        self.novelty = Novelty()

    def adapt(self, support: Support) -> Params:
        """``weights`` (b, w, d), ``bias`` (b, w), ``scale`` (b,), and what `Novelty.adapt` gives."""
        task = self.representation(support)
        read = torch.cat([task.classes, task.task[:, None].expand_as(task.classes)], -1)
        generated = self.network(read)  # (b, w, 2d) -> (b, w, d + 1)
        return {
            "weights": task.classes + generated[..., :-1],
            "bias": generated[..., -1],
            "scale": self.temperature(task),
            **self.novelty.adapt(task),
        }

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> Logits:
        """See `Head.logits`."""
        query = self.representation.features(query)
        scores = query @ params["weights"].mT + params["bias"][:, None]  # (b, q, d) @ (b, d, w) -> (b, q, w)
        values = mask_classes(params["scale"][:, None, None] * scores, params["class_mask"])
        return Logits(values, self.novelty(params, query, scores))
