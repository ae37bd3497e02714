"""Pictures: what is drawn where, read from the figure before it becomes a PNG."""

from __future__ import annotations

import pytest

from metatext import plots
from metatext.plots import plot_risk_coverage, plot_shots


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """(path, figures): every figure is kept, and is written as well."""
    figures, write = [], plots._write
    monkeypatch.setattr(plots, "_write", lambda figure, path: (figures.append(figure), write(figure, path)))
    return tmp_path / "picture.png", figures


def lines(axis) -> dict[str, tuple[list, list]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()}


def test_accuracy_against_shots(drawn):
    path, figures = drawn
    panels = {
        "trec": {"gp": [(0, 0.5, 0.1), (1, 0.6, 0.1), (16, 0.8, 0.05)], "knn": [(1, 0.4, 0.0), (16, 0.7, 0.0)]},
        "mean over tasks": {"gp": [(0, 0.25, 0.1), (1, 0.5, 0.1), (16, 0.75, 0.1)], "knn": []},
    }
    plot_shots(panels, path)
    first, second = figures[0].axes
    assert path.read_bytes().startswith(b"\x89PNG")
    assert (first.get_title(), second.get_title()) == ("trec", "mean over tasks")
    assert lines(first) == {"gp": ([0, 1, 2], [50, 60, 80]), "knn": ([1, 2], [40, 70])}  # places, not numbers of shots
    assert lines(second) == {"gp": ([0, 1, 2], [25, 50, 75])}
    assert [label.get_text() for label in first.get_xticklabels()] == ["0", "1", "16"]
    (band,) = first.collections  # the line without an interval has none
    assert {round(y, 6) for y in band.get_paths()[0].vertices[:, 1]} == {40, 60, 50, 70, 75, 85}
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["gp", "knn"]


def test_a_method_keeps_its_colour_in_every_panel(drawn):
    path, figures = drawn
    panels = {"a": {"x": [], "y": [(0, 1, 0)]}, "b": {"x": [(0, 1, 0)], "y": [(0, 1, 0)]}}
    plot_risk_coverage(panels, path)
    first, second = figures[0].axes
    colours = {line.get_label(): line.get_color() for line in second.get_lines()}
    assert colours["x"] != colours["y"] == first.get_lines()[0].get_color()


def test_errors_against_rows_answered(drawn):
    path, figures = drawn
    plot_risk_coverage({"5 examples per class": {"gp": [(0.5, 0.0, 0.0), (1.0, 0.2, 0.0)]}}, path)
    (axis,) = figures[0].axes
    assert lines(axis) == {"gp": ([50, 100], [0, 20])} and not axis.collections


def test_many_panels_stand_in_rows_and_none_is_empty(drawn):
    path, figures = drawn
    plot_shots({str(i): {"gp": [(1, 0.5, 0.1)]} for i in range(6)}, path)
    assert [axis.get_title() for axis in figures[0].axes] == list("012345")
