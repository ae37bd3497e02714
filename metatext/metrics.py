"""Figures of merit: plain vectorised functions of (probabilities, targets), in one table."""

from __future__ import annotations

from collections.abc import Sequence

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
    return float(row_nll(probabilities, targets).mean(dtype=np.float64))


def brier(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the rows of the squared differences to the one-hot target, summed over the classes (Brier 1950); 0 to 2."""
    return float(row_brier(probabilities, targets).mean(dtype=np.float64))


def ece(probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the most probable class, equal-width bins (Guo et al. 2017, Eq. 3).

    With few rows even a perfectly calibrated model shows some: pool rows before reading it.
    """
    return calibration_error(probabilities.max(1), probabilities.argmax(1) == targets, bins)


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1, "nll": nll, "brier": brier, "ece": ece}


def row_nll(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, w), (n,) -> (n,) negative log-likelihoods in nats; a probability below 1e-12 counts as 1e-12."""
    return -np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12))


def row_brier(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, w), (n,) -> (n,) squared differences to the one-hot target, summed over the classes."""
    return (probabilities**2).sum(1) - 2 * probabilities[np.arange(len(targets)), targets] + 1


def calibration_error(top: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """`ece` of n answers, from their probabilities (n,) and whether they are right (n,)."""
    place = np.minimum((top * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(place, right - top, bins)).sum() / len(top))


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval by Student's t; the half-width of one value is NaN-free: 0.0."""
    return stratified_interval([values])


def stratified_interval(groups: Sequence[np.ndarray]) -> tuple[float, float]:
    """Mean of the means of several samples, and the half-width of its 95 % interval, the groups being given, not drawn.

    Student's t with as many degrees of freedom as all groups have together; a group of one value adds no width.
    """
    from scipy.stats import t

    mean = float(np.mean([np.mean(values) for values in groups]))
    freedom = sum(len(values) - 1 for values in groups)
    if not freedom:
        return mean, 0.0
    variance = sum(np.var(values, ddof=1) / len(values) for values in groups if len(values) > 1)
    return mean, float(t.ppf(0.975, freedom) * np.sqrt(variance) / len(groups))
