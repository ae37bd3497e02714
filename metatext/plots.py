"""Pictures, as PNG files: the learning curve, accuracy against shots, and errors against the share of rows answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .storage import atomic_path

COLUMNS = 4  # panels side by side
Line = Sequence[tuple[float, float, float]]
"""Points of a line: x, y, half-width of its band."""


def plot_learning_curve(history: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """Draw training loss, and loss and figures on unseen tasks, against the outer steps into a PNG.

    Args:
        history: points with ``step`` and some of ``loss``, ``eval_loss``, ``eval_<figure>``.
        path: where to write.
    """

    def series(key: str) -> tuple[list[float], list[float]]:
        points = [(point["step"], point[key]) for point in history if key in point]
        return [x for x, _ in points], [y for _, y in points]

    figure = _figure(8, 4.5)
    losses = figure.subplots()
    losses.plot(*series("loss"), color="tab:blue", alpha=0.6, label="training: mean query loss of an episode")
    losses.set_xlabel("outer step")
    losses.set_ylabel("loss")
    lines = losses.get_lines()[:]
    if series("eval_loss")[0]:
        lines += losses.plot(*series("eval_loss"), "o-", color="tab:orange", markersize=3, label="unseen tasks: loss")
        figures = losses.twinx()
        keys = dict.fromkeys(key for point in history for key in point if key.startswith("eval_") and key != "eval_loss")
        for key, color in zip(keys, ("tab:green", "tab:red", "tab:purple", "tab:brown")):
            name = key.removeprefix("eval_").replace("_", " ")
            lines += figures.plot(*series(key), "s--", color=color, markersize=3, label=f"unseen tasks: {name}")
        figures.set_ylabel(", ".join(key.removeprefix("eval_").replace("_", " ") for key in keys))
    losses.legend(handles=lines, loc="center right")
    losses.grid(alpha=0.3)
    _write(figure, path)


def plot_shots(panels: Mapping[str, Mapping[str, Line]], path: str | Path, metric: str = "accuracy", unit: str = "%") -> None:
    """Draw a figure of merit against the number of shots, a panel per task and a line with its band per method.

    Args:
        panels: title -> method -> points (shots, mean, half-width of its interval), shares where the unit is %; none where the method has no
            answer. The first method's line is the thickest.
        path: where to write.
        metric: name of the figure.
        unit: what it is drawn in.
    """
    factor = 100 if unit == "%" else 1
    shots = sorted({x for lines in panels.values() for line in lines.values() for x, _, _ in line})
    places = {k: i for i, k in enumerate(shots)}  # evenly spaced: 0, 1, 4, 16 have no common scale
    placed = {
        title: {method: [(places[x], factor * y, factor * half) for x, y, half in line] for method, line in lines.items()}
        for title, lines in panels.items()
    }
    _plot_panels(placed, path, "shots", f"{metric} ({unit})", "o-", list(map(str, shots)))


def plot_risk_coverage(panels: Mapping[str, Mapping[str, Line]], path: str | Path) -> None:
    """Draw the share of errors among the answers against the share of rows answered, a panel per title, a line per method.

    Args:
        panels: title -> method -> points (share answered, share of errors, 0).
        path: where to write.
    """
    percent = {
        title: {method: [(100 * x, 100 * y, 0.0) for x, y, _ in line] for method, line in lines.items()}
        for title, lines in panels.items()
    }
    _plot_panels(percent, path, "rows answered (%), the surest first", "errors among them (%)", "-")


def _plot_panels(
    panels: Mapping[str, Mapping[str, Line]],
    path: str | Path,
    x_label: str,
    y_label: str,
    style: str,
    ticks: Sequence[str] | None = None,
) -> None:
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(4 * columns + 2.5, 3.2 * lines + 0.4)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    methods = list(dict.fromkeys(method for drawn in panels.values() for method in drawn))
    for axis, (title, drawn) in zip(axes, panels.items()):
        for method, points in drawn.items():
            if not points:  # it keeps its colour for the other panels
                continue
            x, y, half = zip(*points, strict=True)
            color = f"C{methods.index(method) % 10}"
            axis.plot(x, y, style, color=color, markersize=3, linewidth=2.2 if method == methods[0] else 1.2, label=method)
            if any(half):
                low, high = ([v + sign * h for v, h in zip(y, half)] for sign in (-1, 1))
                axis.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
        if ticks:
            axis.set_xticks(range(len(ticks)), ticks)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
    for axis in axes[len(panels) :]:
        axis.remove()
    shown = {line.get_label(): line for axis in figure.axes for line in axis.get_lines()}
    figure.legend(
        [shown[m] for m in methods if m in shown], [m for m in methods if m in shown], loc="outside right upper", fontsize=8
    )
    _write(figure, path)


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")  # no pyplot: no global state, no screen
    FigureCanvasAgg(figure)
    return figure


def _write(figure, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
