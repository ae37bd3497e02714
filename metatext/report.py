"""What a comparison found: figures of several methods on the same episodes, as tables and as JSON values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .calibration import Rows, concatenate, figures, risk_coverage
from .kinds import KINDS
from .metrics import UNITS, interval, stratified_interval
from .run_folder import versions

POINTS = 101  # of a risk-coverage curve that is written or drawn
MEAN = "mean over tasks"
OVER = "the same, ± over tasks"


@dataclass(frozen=True)
class Report:
    """Figures of several methods on the same episodes.

    Attributes:
        metric: name of the figure.
        scores: task -> method -> (n_episodes,) figure of each episode, NaN where the method has no answer.
        rows: task -> method -> what is kept of all its query rows; nothing where they are not classified.
        settings: how the episodes were drawn, and ``data``: task -> digest of the rows that they were drawn from.
    """

    metric: str
    scores: dict[str, dict[str, np.ndarray]]
    rows: dict[str, dict[str, Rows]]
    settings: dict[str, Any]

    @property
    def judged(self) -> bool:
        """Whether there is something to say on calibration: only of classifications."""
        return any(self.rows.values())

    @property
    def unit(self) -> str:
        """What tables give the figure in."""
        return "its own unit" if self.metric in UNITS else "%"

    @property
    def methods(self) -> list[str]:
        """The columns, the measured model first."""
        return list(next(iter(self.scores.values())))

    def mean(self, method: str = "trained", task: str | None = None) -> tuple[float, float]:
        """Mean and half-width of the 95 % interval: of one task over its episodes (Student's t), else over the tasks."""
        if task is not None:
            return interval(self.scores[task][method])
        means = np.array([scores[method].mean() for scores in self.scores.values()])
        return interval(means) if len(means) > 1 else interval(next(iter(self.scores.values()))[method])

    def difference(self, method: str, other: str, task: str | None = None) -> tuple[float, float]:
        """Mean paired difference ``method - other`` and the half-width of its 95 % interval.

        Of one task over its episodes; else the mean over the tasks, over the episodes of these very tasks.
        """
        tasks = self.scores if task is None else (task,)
        return stratified_interval([self.scores[t][method] - self.scores[t][other] for t in tasks])

    def difference_over_tasks(self, method: str, other: str) -> tuple[float, float]:
        """Mean paired difference ``method - other``, and the half-width of its 95 % interval over tasks (Student's t on a difference for
        each): how sure it is of further tasks like these, where `difference` speaks of these very ones. Of one task, `difference`."""
        found = np.array([(scores[method] - scores[other]).mean() for scores in self.scores.values()])
        return interval(found) if len(found) > 1 else self.difference(method, other)

    def figures(self, method: str, task: str | None = None) -> dict[str, float]:
        """`calibration.figures` over all query rows of a task, else of all tasks together."""
        return figures(self._rows(method, task)) if self.judged else {}

    def risk_coverage(self, method: str, task: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Share of rows answered and share of errors among them, at `POINTS` shares at most; see `calibration.risk_coverage`."""
        coverage, risk = risk_coverage(self._rows(method, task))
        shown = np.unique(np.linspace(0, len(coverage) - 1, POINTS).round().astype(int))
        return coverage[shown], risk[shown]

    def reference(self, names: Sequence[str]) -> str | None:
        """The first of ``names`` that has an answer to all episodes; None if none has."""
        return next((n for n in names if n in self.methods and not np.isnan(self.mean(n)[0])), None)

    def differences(self, reference: str) -> str:
        """The table of `difference` to the method ``reference``."""
        others = [method for method in self.methods if method != reference]
        over = {method: self.difference_over_tasks(method, reference) for method in others}
        table = self._table(others, lambda method, task: self.difference(method, reference, task), "+.1f", over)
        unit = "points" if self.unit == "%" else self.unit
        last = "; in the last line over tasks, for further ones" if len(self.scores) > 1 else ""
        return f"{table}\n{self.metric} minus that of {reference} in {unit}, paired: mean ± 95 % interval, over episodes{last}"

    def calibration(self) -> str:
        """The table of `figures` over the rows of all tasks, a line per method; nll in nats, AUROC in %."""
        found = {method: self.figures(method) for method in self.methods}
        keys = list(max(found.values(), key=len))
        cells = [["", *keys]]
        for method, values in found.items():
            shown = [(100 * v, ".1f") if "auroc" in k else (v, ".3f") for k, v in values.items()]
            cells.append([method, *(format(*pair) for pair in shown or [("-", "")] * len(keys))])
        return align(cells)

    def to_dict(self, reference: Sequence[str] = (), scores: bool = False) -> dict[str, Any]:
        """Plain JSON values.

        Args:
            reference: see `Report.reference`; none: without ``differences``.
            scores: with those of each episode, for a paired test of one's own, also across reports of one version whose ``settings`` are
                equal: their episodes are the same, in the same order.

        Returns:
            ``settings``; ``versions``: of Python, metatext and the packages that decide figures; ``tasks``: task -> method -> figure,
            ``interval_95`` and `figures`; ``mean``: method -> the mean over the tasks; ``pooled``: method -> `figures` over the rows of all
            tasks, and ``risk_coverage``: method -> lists; and ``differences``: task or "mean over tasks" -> method -> [mean, half-width],
            ``reference`` the method they are to; of several tasks ``differences_over_tasks``: method -> the same of `difference_over_tasks`.
            ``scores``: task -> method -> a list of `Report.scores` to six decimals, None where an episode has no answer, without methods
            that answer none.
        """

        def entry(method: str, task: str | None = None) -> dict[str, Any]:
            mean, half = self.mean(method, task)
            known = {} if np.isnan(mean) else {self.metric: round(mean, 6), "interval_95": round(half, 6)}
            return {**known, **(_rounded(self.figures(method, task)) if task else {})}

        curves = {m: self.risk_coverage(m) for m in self.methods if self.judged and self._rows(m, None).answered}
        values = {
            "metric": self.metric,
            "settings": self.settings,
            "versions": versions(),
            "tasks": {task: {method: entry(method, task) for method in self.methods} for task in self.scores},
            "mean": {method: entry(method) for method in self.methods},
            "pooled": {method: _rounded(self.figures(method)) for method in self.methods},
            "risk_coverage": {
                method: {"coverage": coverage.round(4).tolist(), "error": error.round(4).tolist()}
                for method, (coverage, error) in curves.items()
            },
        }
        kept = {"scores": {task: _listed(methods) for task, methods in self.scores.items()}} if scores else {}
        to = self.reference(reference)
        if to is None:
            return {**values, **kept}
        answering = [m for m in self.methods if m != to and not np.isnan(self.mean(m)[0])]
        places = {**{task: task for task in self.scores}, MEAN: None}
        found = {
            shown: {m: [round(v, 6) for v in self.difference(m, to, task)] for m in answering} for shown, task in places.items()
        }
        if len(self.scores) > 1:
            values["differences_over_tasks"] = {m: [round(v, 6) for v in self.difference_over_tasks(m, to)] for m in answering}
        return {**values, "reference": to, "differences": found, **kept}

    def __str__(self) -> str:
        by_class = any(self.metric in kind.metrics for kind in KINDS.values() if kind.by_class)
        said = [*(["n_way"] if by_class else []), "k_shot", "n_query", "n_episodes", "seed"]
        most = {"n_way": "up to "} if self.settings.get("fewer_ways") else {}
        shape = ", ".join(f"{k} {most.get(k, '')}{v}" for k, v in self.settings.items() if k in said)
        return "\n".join(
            [
                self._table(self.methods, self.mean, ".1f"),
                f"{self.metric} in {self.unit}, mean ± 95 % interval (a task: over episodes; the mean: over tasks); {shape} per task",
            ]
        )

    def _rows(self, method: str, task: str | None) -> Rows:
        return concatenate([rows[method] for name, rows in self.rows.items() if task in (None, name)])

    def _table(self, methods: Sequence[str], value, form: str, over: Mapping[str, tuple[float, float]] | None = None) -> str:
        """A line per task and one for their mean; ``value(method, task)`` is a mean and a half-width. ``over`` has those of a last line."""
        factor, form = (100, form) if self.unit == "%" else (1, form.replace("1", "3"))
        words = [re.split("_|(?<=-)", method) for method in methods]  # a long name takes several lines, not a wide column
        height = max(map(len, words), default=1)
        cells = [list(line) for line in zip([""] * height, *([""] * (height - len(word)) + word for word in words))]
        lines = {task: [value(method, task) for method in methods] for task in self.scores}
        if len(self.scores) > 1:
            lines[MEAN] = [value(method, None) for method in methods]
            lines |= {OVER: [over[method] for method in methods]} if over else {}
        for title, pairs in lines.items():
            shown = ("-" if np.isnan(m) else f"{factor * m:{form}} ± {factor * h:{form.lstrip('+')}}" for m, h in pairs)
            cells.append([title, *shown])
        return align(cells)


def summary(reports: Mapping[str, Report]) -> str:
    """Means over the tasks, a line per method and a column per report, whose keys name the columns."""
    methods = list(dict.fromkeys(method for report in reports.values() for method in report.methods))
    cells = [["", *reports]]
    for method in methods:
        means = [(report, report.mean(method)[0] if method in report.methods else np.nan) for report in reports.values()]
        shown = (
            "-" if np.isnan(mean) else f"{100 * mean:.1f}" if report.unit == "%" else f"{mean:.3f}" for report, mean in means
        )
        cells.append([method, *shown])
    return align(cells)


def align(cells: Sequence[Sequence[str]]) -> str:
    """Rows of texts as lines: the first column to the left, the others to the right, two blanks between them."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _listed(scores: Mapping[str, np.ndarray]) -> dict[str, list[float | None]]:
    """Method -> scores of n episodes as JSON values, without methods that answer none."""
    lists = {method: [None if np.isnan(v) else round(v, 6) for v in values.tolist()] for method, values in scores.items()}
    return {method: values for method, values in lists.items() if set(values) != {None}}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {k: round(v, 6) for k, v in values.items()}
