"""The one table of task kinds: how rows look, which loss trains them, which metric measures them.

A new kind is a row in `KINDS`; no other file branches on a kind's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import losses, metrics


@dataclass(frozen=True)
class Kind:
    """What metatext needs to know about a kind of task.

    Attributes:
        name: as in ``Task.kind``.
        loss: (logits, query_y, query_mask, outside) -> (b,) mean query loss of each episode.
        metric: the main figure, (probabilities (n, w), targets (n,)) -> float.
        metric_name: its name in tables.
    """

    name: str
    loss: Callable
    metric: Callable
    metric_name: str


KINDS: dict[str, Kind] = {
    "classification": Kind("classification", losses.classification, metrics.accuracy, "accuracy"),
}
