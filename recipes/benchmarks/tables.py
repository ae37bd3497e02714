"""What the parts accuracy and abstention print and draw."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metatext.metrics import stratified_interval
from metatext.plots import plot_risk_coverage, plot_shots
from metatext.report import Report, align

CALIBRATED = 4  # shots at which calibration is printed and errors are drawn against rows answered
RESAMPLES = 10_000


def over_tasks(report: Report, method: str, other: str) -> tuple[float, ...]:
    """Mean paired difference ``method - other``, and of several tasks the ends of its 95 % interval (bootstrap over tasks)."""
    found = np.array([scores[method].mean() - scores[other].mean() for scores in report.scores.values()])
    if len(found) == 1:
        return (float(found[0]),)
    drawn = np.random.default_rng(0).integers(len(found), size=(RESAMPLES, len(found)))
    return float(found.mean()), *map(float, np.quantile(found[drawn].mean(1), (0.025, 0.975)))


def show(reports: Mapping[int, Report], to: str) -> dict[str, Any]:
    """Print accuracies by shots, the means over the tasks with their differences to the method ``to``, and calibration at four
    shots; the figures as JSON values."""
    values: dict[str, Any] = {}
    for k, report in reports.items():
        print(f"\n{k} example{'s' * (k != 1)} per class:\n{report}")
        found = {m: over_tasks(report, m, to) for m in _others(report, to)}
        values[str(k)] = {
            **report.to_dict((to,)),
            "over_tasks": {method: [round(v, 6) for v in numbers] for method, numbers in found.items()},
        }
    if reports:
        print(f"\nMeans over the tasks, in %, by examples per class:\n{means(reports, to)}")
    if CALIBRATED in reports:
        print(f"\n{CALIBRATED} examples per class, the query rows of all tasks together:\n{reports[CALIBRATED].calibration()}")
    return values


def means(reports: Mapping[int, Report], to: str) -> str:
    """Means over the tasks, a line per method and a column per number of shots; then paired differences to the method ``to``, with
    the 95 % interval over tasks."""
    names = list(dict.fromkeys(method for report in reports.values() for method in report.methods))
    cells = [["", *map(str, reports)], ["tasks", *(str(len(report.scores)) for report in reports.values())]]
    for method in names:
        found = [r.mean(method)[0] if method in r.methods else np.nan for r in reports.values()]
        cells.append([method, *("-" if np.isnan(mean) else f"{100 * mean:.1f}" for mean in found)])
    for method in names:
        if method != to:
            cells.append([f"{method} - {to}", *(_difference(report, method, to) for report in reports.values())])
    return f"{align(cells)}\ndifferences are paired, [95 % interval, the tasks drawn anew]"


def _difference(report: Report, method: str, to: str) -> str:
    if method not in _others(report, to):
        return "-"
    mean, *ends = (100 * value for value in over_tasks(report, method, to))
    return f"{mean:+.1f}" + (" [{:.1f}, {:.1f}]".format(*ends) if ends else "")


def _others(report: Report, to: str) -> list[str]:
    """The methods that answer all episodes as ``to`` does; none if it does not."""
    answering = [m for m in report.methods if not np.isnan(report.mean(m)[0])]
    return [m for m in answering if m != to] if to in answering else []


def ratios(fits: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By the shots of fits on a CPU: how many, median seconds of fitting a rival and of adapting a head (processor time, which others on
    the machine do not lengthen; on a GPU it says little), and the median and the smallest of their ratios."""
    by_shots: dict[int, list] = {}
    for cell in fits:
        if cell.get("device", "cpu") == "cpu":
            by_shots.setdefault(cell["k"], []).append((cell["seconds"]["fit"][1], cell["seconds"]["adapt"][1]))
    found = {}
    for k, seconds in sorted(by_shots.items()):
        slow, fast = zip(*seconds)
        times = [a / b for a, b in seconds]
        found[str(k)] = {"fits": len(seconds), "fitting": statistics.median(slow), "adapting": statistics.median(fast)}
        found[str(k)] |= {"times": statistics.median(times), "times_at_least": min(times)}
    return found


def speed(name: str, found: Mapping[str, Mapping[str, float]]) -> str:
    """The table of `ratios` of the rival ``name``."""
    cells = [["examples per class", "fits", f"{name}, s", "adapting, s", "times as fast", "at least"]]
    for k, row in found.items():
        cells.append([k, str(row["fits"]), f"{row['fitting']:.1f}", f"{row['adapting']:.3f}", f"{row['times']:.0f}"])
        cells[-1].append(f"{row['times_at_least']:.0f}")
    return (
        f"{align(cells)}\nfrom texts to a classifier, on the same examples; processor time, medians over the fits made on a CPU"
    )


def draw(panels: Mapping[str, Mapping[int, Report]], folder: Path) -> None:
    """Mean accuracy against shots (bands: 95 % over episodes), and errors against the share of rows answered at four shots.
    Shots at which some tasks are not measured yet have no point: their mean is over other tasks."""

    def line(reports: Mapping[int, Report], method: str) -> list[tuple[float, float, float]]:
        most = max(len(report.scores) for report in reports.values())
        whole = {k: report for k, report in reports.items() if method in report.methods and len(report.scores) == most}
        scores = {k: [own[method] for own in report.scores.values()] for k, report in whole.items()}
        points = [(k, *stratified_interval(own)) for k, own in scores.items()]
        return [point for point in points if not np.isnan(point[1])]

    names = {title: dict.fromkeys(m for r in reports.values() for m in r.methods) for title, reports in panels.items()}
    lines = {title: {m: line(reports, m) for m in names[title]} for title, reports in panels.items()}
    plot_shots(lines, folder / "accuracy.png")
    found = {title: curves(reports[CALIBRATED]) for title, reports in panels.items() if CALIBRATED in reports}
    if found:
        plot_risk_coverage(found, folder / "risk.png")
    print(f"\npictures {folder / 'accuracy.png'}{', ' + str(folder / 'risk.png') if found else ''}")


def curves(report: Report) -> dict[str, list[tuple[float, float, float]]]:
    """The risk-coverage curve of every method that answers all rows."""
    answering = [m for m in report.methods if not np.isnan(report.mean(m)[0])]
    return {m: [(x, y, 0.0) for x, y in zip(*report.risk_coverage(m))] for m in answering}
