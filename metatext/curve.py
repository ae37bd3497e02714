"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .storage import atomic_path


def plot_learning_curve(history: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """Draw training loss, unseen loss and unseen accuracy against the outer steps into a PNG.

    Args:
        history: points with ``step`` and some of ``loss``, ``eval_loss``, ``eval_accuracy``.
        path: where to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def series(key: str) -> tuple[list[float], list[float]]:
        points = [(point["step"], point[key]) for point in history if key in point]
        return [x for x, _ in points], [y for _, y in points]

    figure = Figure(figsize=(8, 4.5), layout="constrained")  # no pyplot: no global state, no screen
    FigureCanvasAgg(figure)
    losses = figure.subplots()
    losses.plot(*series("loss"), color="tab:blue", alpha=0.6, label="training: mean query loss of an episode")
    losses.set_xlabel("outer step")
    losses.set_ylabel("cross-entropy (nats)")
    lines = losses.get_lines()[:]
    if series("eval_loss")[0]:
        lines += losses.plot(*series("eval_loss"), "o-", color="tab:orange", markersize=3, label="unseen tasks: loss")
        accuracy = losses.twinx()
        lines += accuracy.plot(*series("eval_accuracy"), "s--", color="tab:green", markersize=3, label="unseen tasks: accuracy")
        accuracy.set_ylabel("accuracy")
    losses.legend(handles=lines, loc="center right")
    losses.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
