"""The one table of task kinds: which loss trains them, how logits become answers, which figures measure them.

A new kind is a row in `KINDS`, a way to read its targets in `targets.ENCODERS`, a head in `heads.KIND_HEADS` and its baselines in
`baselines.USUAL`; what draws episodes, trains and adapts asks for properties of a kind, and for its name only where one kind has rows or
answers of its own form (spans, several labels).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from . import losses


@dataclass(frozen=True)
class Kind:
    """What metatext needs to know about a kind of task.

    Attributes:
        name: as in ``Task.kind``.
        loss: (logits, query_y, query_mask, outside) -> (b,) mean query loss of each episode.
        answer: (b, q, w) logits -> what is measured, and what `predict_proba` gives where there are probabilities.
        metrics: names in `metrics.METRICS` of the figures of (answers (n, w), targets), the main one first.
        column: of the table of answers, the one that `predict` gives; "": all of them, as a dict for each row.
        by_class: every row has one of the task's labels, and episodes are drawn class by class; else they are drawn from all rows, and
            what they are labelled with is an array (rows, w).
        scored: rows have a score between two ends, and w is 1.
        written: answers are texts that a language model writes.
    """

    name: str
    loss: Callable
    answer: Callable[[Tensor], Tensor]
    metrics: tuple[str, ...]
    column: str = "label"
    by_class: bool = False
    scored: bool = False
    written: bool = False

    @property
    def watched(self) -> str:
        """The figure that is watched during training: the main one; to write texts would take too long, so of these it is the mean
        probability (geometric) of a right answer's tokens."""
        return "token_probability" if self.written else self.metrics[0]


def _as_they_are(values: Tensor) -> Tensor:
    return values


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "classification",
            losses.classification,
            partial(torch.softmax, dim=-1),
            ("accuracy", "macro_f1", "mcc"),
            by_class=True,
        ),
        Kind("multilabel", losses.multilabel, torch.sigmoid, ("multilabel_macro_f1", "multilabel_micro_f1")),
        Kind("regression", losses.regression, _as_they_are, ("spearman", "pearson", "rmse"), "score", scored=True),
        Kind("span", losses.span, _as_they_are, ("squad_f1", "squad_em", "squad_v2_f1", "squad_v2_em"), ""),
        Kind("generation", losses.generation, _as_they_are, ("rouge_l", "bleu"), "text", written=True),
    )
}
