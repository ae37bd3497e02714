"""How often answers of some confidence are wrong: learned on held-out tasks, kept with the head, asked by ``max_risk``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

KNOTS = 33


@dataclass(frozen=True)
class RiskCurve:
    """A rising, piecewise linear function from a row's score, 1 - (probability of the answer) x confidence, to its expected risk.

    Attributes:
        score: (n,) rising knots in [0, 1].
        risk: (n,) not falling, in [0, 1]: the share of answers of that score that are wrong.
        tasks: names of the held-out tasks that it was learned on.
        rows: how many answers it was learned from.
    """

    score: tuple[float, ...]
    risk: tuple[float, ...]
    tasks: tuple[str, ...]
    rows: int

    def __post_init__(self) -> None:
        for name in ("score", "risk"):
            values = np.asarray(getattr(self, name), float)
            if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all() or (np.diff(values) < 0).any():
                raise ValueError(f"{name} must be rising numbers between 0 and 1")
        if len(self.score) != len(self.risk):
            raise ValueError(f"{len(self.score)} scores but {len(self.risk)} risks")

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """(n,) scores -> (n,) expected risks."""
        return np.interp(score, self.score, self.risk)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"score": list(self.score), "risk": list(self.risk), "tasks": list(self.tasks), "rows": self.rows}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RiskCurve:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or is not what it should be.
        """
        score, risk = (tuple(float(v) for v in values[name]) for name in ("score", "risk"))
        return cls(score, risk, tuple(map(str, values["tasks"])), int(values["rows"]))


def fit_risk(score: np.ndarray, wrong: np.ndarray, weight: np.ndarray, tasks: tuple[str, ...]) -> RiskCurve:
    """The rising function that predicts errors best (isotonic regression; Zadrozny and Elkan 2002), at `KNOTS` quantiles.

    Args:
        score: (n,) of answers.
        wrong: (n,) bool.
        weight: (n,) how much each answer counts.
        tasks: whose answers they are.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, wrong, sample_weight=weight)
    knots = np.unique(np.quantile(score, np.linspace(0, 1, KNOTS), method="inverted_cdf").round(6).clip(0, 1))
    risk = np.maximum.accumulate(fitted.predict(knots).round(6).clip(0, 1))
    return RiskCurve(tuple(knots.tolist()), tuple(risk.tolist()), tasks, len(score))
