"""The one table of task kinds: which loss trains them, how logits become answers, which figures measure them.

A new kind is a row in `KINDS`, a way to read its targets in `targets.ENCODERS`, a head in `heads.KIND_HEADS` and its baselines in
`baselines.USUAL`; what draws episodes, trains and adapts asks for properties of a kind,
and for its name only where one kind has rows or answers of its own form (spans, several labels).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import losses


@dataclass(frozen=True)
class Kind:
    """What metatext needs to know about a kind of task.

    Attributes:
        name: as in ``Task.kind``.
        scored: rows have a score between two ends, and w is 1.
        by_class: every row has one of the task's labels, and episodes are drawn class by class; else they are drawn from all rows, and
            what they are labelled with is an array (rows, w).
        loss: (logits, query_y, query_mask, outside) -> (b,) mean query loss of each episode.
        answer: (b, q, w) logits -> what is measured, and what `predict_proba` gives where there are probabilities.
        metrics: names in `metrics.METRICS` of the figures of (answers (n, w), targets), the main one first.
        column: of the table of answers, the one that `predict` gives; "": all of them, as a dict for each row.
        written: answers are texts that a language model writes.
    """

    name: str
    scored: bool
    by_class: bool
    loss: Callable
    answer: Callable[[Tensor], Tensor]
    metrics: tuple[str, ...]
    column: str = "label"
    written: bool = False

    @property
    def watched(self) -> str:
        """The figure that is watched during training: the main one; to write texts would take too long, so of these it is the mean
        probability (geometric) of a right answer's tokens."""
        return "token_probability" if self.written else self.metrics[0]


KINDS: dict[str, Kind] = {
    "classification": Kind(
        "classification", False, True, losses.classification, lambda values: values.softmax(-1), ("accuracy", "macro_f1", "mcc")
    ),
    "multilabel": Kind(
        "multilabel", False, False, losses.multilabel, torch.sigmoid, ("multilabel_macro_f1", "multilabel_micro_f1")
    ),
    "regression": Kind(
        "regression", True, False, losses.regression, lambda values: values, ("spearman", "pearson", "rmse"), "score"
    ),
    "span": Kind(
        "span", False, False, losses.span, lambda values: values, ("squad_f1", "squad_em", "squad_v2_f1", "squad_v2_em"), ""
    ),
    "generation": Kind(
        "generation", False, False, losses.generation, lambda values: values, ("rouge_l", "bleu"), "text", written=True
    ),
}
