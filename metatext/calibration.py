"""Are the probabilities right, and does a method know what it does not know? Figures over pooled query rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from .metrics import calibration_error, row_brier, row_nll

INSIDE, NEAR, FAR = range(3)
"""Where a row comes from: a class of its episode, another class of the same task, another task."""


@dataclass(frozen=True)
class Rows:
    """What is kept of a method's answers to n query rows, whatever the number of their classes.

    Attributes:
        loss: (n,) negative log-likelihood of the target in nats; NaN for a row of no class.
        squared: (n,) squared differences to the one-hot target, summed over the classes; NaN for a row of no class.
        top: (n,) probability of the answer, given that the row belongs to a class.
        confidence: (n,) score, 0 to 1, that it does.
        right: (n,) bool, the answer is the target; never for a row of no class.
        group: (n,) `INSIDE`, `NEAR` or `FAR`.
    """

    loss: np.ndarray
    squared: np.ndarray
    top: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    group: np.ndarray

    @property
    def answered(self) -> bool:
        """Whether the method has an answer to every row."""
        return not np.isnan(self.top).any()


def judge(probabilities: np.ndarray, confidence: np.ndarray, targets: np.ndarray, group: np.ndarray) -> Rows:
    """Answers to n rows as `Rows`.

    Args:
        probabilities: (n, w).
        confidence: (n,).
        targets: (n,) the class of each row, anything for a row of no class.
        group: (n,) `INSIDE`, `NEAR` or `FAR`.
    """
    inside = group == INSIDE
    loss, squared = (np.full(len(targets), np.nan, np.float32) for _ in range(2))
    loss[inside] = row_nll(probabilities[inside], targets[inside])
    squared[inside] = row_brier(probabilities[inside], targets[inside])
    right = inside & (probabilities.argmax(1) == targets)
    return Rows(loss, squared, probabilities.max(1), confidence, right, group.astype(np.int8))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """The rows of several parts, in order."""
    return Rows(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Rows)))


def figures(rows: Rows) -> dict[str, float]:
    """Calibration of the rows inside, and where there are others, how well they are told apart.

    Returns:
        ``nll``, ``brier``, ``ece`` (15 bins) of the inside rows; ``aurc``, the area under `risk_coverage`; for
        near and for far rows, if there are any, the area under the ROC curve of telling inside rows from them, by
        ``confidence`` (``auroc_near``, ``auroc_far``), by the largest probability (``..._top``) and by the product of both
        (``..._product``). Empty if the method has no answer to some row.
    """
    from sklearn.metrics import roc_auc_score

    if not rows.answered:
        return {}
    inside = rows.group == INSIDE
    found = {
        "nll": float(rows.loss[inside].mean(dtype=np.float64)),
        "brier": float(rows.squared[inside].mean(dtype=np.float64)),
        "ece": calibration_error(rows.top[inside], rows.right[inside]),
    }
    scores = {"": rows.confidence, "_top": rows.top, "_product": rows.top * rows.confidence}
    for name, group in (("near", NEAR), ("far", FAR)):
        those = inside | (rows.group == group)
        if (rows.group == group).any():
            found |= {f"auroc_{name}{k}": float(roc_auc_score(inside[those], score[those])) for k, score in scores.items()}
    return {**found, "aurc": float(risk_coverage(rows)[1].mean())}


def risk_coverage(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Share of rows answered and share of errors among them, the least risky rows first; both (n,).

    The expected risk of a row is 1 - (probability of the answer) x confidence; an answer to a row of no class is an error.
    Among rows of equal risk, errors are spread evenly: the expectation over their orders. The curve is that of El-Yaniv & Wiener 2010,
    the area under it the AURC of Geifman et al. 2019.
    """
    risk = 1 - rows.top * rows.confidence
    order = np.argsort(risk, kind="stable")
    answered = np.arange(1, len(risk) + 1)
    ends = np.flatnonzero(np.diff(risk[order], append=np.inf)) + 1  # how many rows are at most this risky
    errors = np.cumsum(~rows.right[order])[ends - 1]
    return answered / len(risk), np.interp(answered, [0, *ends], [0, *errors]) / answered
