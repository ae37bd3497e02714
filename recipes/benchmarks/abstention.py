"""Does a method know what belongs to no class? Twenty intents from five examples each, asked rows of others and of none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

import metatext as mt
from metatext.calibration import Rows, figures
from metatext.evaluation import compare
from metatext.metrics import interval
from metatext.plots import plot_risk_coverage
from metatext.report import Report, align
from metatext.storage import write_json
from metatext.store import FeatureStore

from . import accuracy, tables

TASK, OUTSIDE = "intent_banking77", "clinc_oos_queries"
SHAPE = mt.EpisodeConfig(n_way=20, k_shot=5, n_query=30, n_outside=600)
DRAWS = 5


def run(
    names: Sequence[str],
    task: mt.Task,
    outside: mt.Task,
    encoder: mt.Encoder,
    folder: str | Path,
    shape: mt.EpisodeConfig = SHAPE,
) -> None:
    """Print the area under the ROC curve against near and far rows and the calibration of heads and baselines; write
    ``abstention.json`` and the risk-coverage curves.

    Args:
        names: the heads, see `accuracy.load`.
        task: its classes are the support, and those that are not in an episode give the near rows.
        outside: all its rows are far ones.
        encoder: of the baselines.
        folder: where the results go.
        shape: of the `DRAWS` episodes.
    """
    columns = accuracy.methods(accuracy.load(names, None), encoder)
    report = compare(columns, [task], shape, DRAWS, 0, store=FeatureStore(encoder), outside=outside)
    shown = {name: areas(report, name) for name in report.methods}
    cells = [["AUROC in %", "near", "far", "near, by confidence", "far, by confidence"]]
    keys = ("auroc_near_product", "auroc_far_product", "auroc_near", "auroc_far")
    for name, found in shown.items():
        cells.append([name, *(f"{100 * found[key][0]:.1f} ± {100 * found[key][1]:.1f}" for key in keys)])
    print(f"\n{shape.n_way} classes of {task.name}, {shape.k_shot} examples each, {DRAWS} draws:\n{report}")
    print(
        f"\n{align(cells)}\nby probability x confidence, the score that `max_risk` goes by, and by confidence alone; mean ± 95 % over draws"
    )
    print(f"near: rows of its other classes; far: rows of {outside.name}")
    print(f"\n{report.calibration()}\nover the rows of all draws; aurc counts an answer to a near or far row as an error")
    pictures, file = Path(folder) / "abstention.png", Path(folder) / "abstention.json"
    plot_risk_coverage({f"{task.name}, a share of the rows belongs to no class": tables.curves(report)}, pictures)
    write_json(file, {"models": list(names), **report.to_dict(), "auroc": shown})
    print(f"\npicture  {pictures}\nfigures  {file}")


def areas(report: Report, method: str) -> dict[str, tuple[float, float]]:
    """Mean and half-width of the 95 % interval (Student's t) over the draws, of every area of `calibration.figures`."""
    rows = report.rows[next(iter(report.rows))][method]
    parts = zip(*(np.split(getattr(rows, item.name), DRAWS) for item in fields(Rows)))  # every draw has as many rows
    found = [figures(Rows(*part)) for part in parts]
    return {key: interval(np.array([values[key] for values in found])) for key in found[0] if key.startswith("auroc")}
