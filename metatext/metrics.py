"""Figures of merit: plain vectorised functions of (probabilities, targets), in one table."""

from __future__ import annotations

import numpy as np


def accuracy(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows whose most probable class is the target; (n, w), (n,)."""
    return float((probabilities.argmax(1) == targets).mean())


def macro_f1(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the classes that occur (as target or answer) of the harmonic mean of precision and recall."""
    answers, w = probabilities.argmax(1), probabilities.shape[1]
    hits = np.bincount(targets[answers == targets], minlength=w)
    total = np.bincount(answers, minlength=w) + np.bincount(targets, minlength=w)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def nll(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative log-likelihood of the targets, in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12)).mean())


def ece(probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the most probable class, equal-width bins (Guo et al. 2017, Eq. 3).

    With few rows even a perfectly calibrated model shows some: pool rows before reading it.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == targets
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(place, correct - confidence, bins)
    return float(np.abs(gap).sum() / len(targets))


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1, "nll": nll, "ece": ece}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval by Student's t; the half-width of one value is NaN-free: 0.0."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return float(np.mean(values)), 0.0
    return float(np.mean(values)), float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
