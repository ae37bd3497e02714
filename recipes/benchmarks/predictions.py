"""What a released head answers on the starter tasks, kept beside it: whoever loads it elsewhere can see that it is the same."""

from pathlib import Path

import numpy as np

import metatext as mt
from metatext.storage import read_json, write_json

SHOTS, QUERIES = 4, 3  # rows of each class, in the order of the task: the first are examples, those after them are asked
TOLERANCE = 1e-3  # of a probability


def predictions(names: list[str]) -> None:
    """Compare each head's probabilities with those in its metrics.json, or write them there where there are none yet.

    Args:
        names: folders of heads, or names that load them.

    Raises:
        SystemExit: a probability differs by more than `TOLERANCE`.
    """
    from metatext.hub import RELEASED, released
    from metatext.run_folder import METRICS

    for name in names:
        path = (released(name) if name in RELEASED and not Path(name).exists() else Path(name)) / METRICS
        metrics, found = read_json(path), answers(mt.MetaModel.from_pretrained(name))
        if "predictions" not in metrics:
            write_json(path, {**metrics, "predictions": found})
            print(f"{name}: probabilities of {len(found)} tasks written to {path}")
            continue
        largest = difference(metrics["predictions"], found)
        print(f"{name}: largest difference of a probability from those in {METRICS}: {largest:.1e}")
        if not largest <= TOLERANCE:
            raise SystemExit(f"{name}: expected at most {TOLERANCE}; it is another head, or another encoder reads for it")


def answers(model: mt.MetaModel) -> dict[str, list[list[float]]]:
    """Task -> (rows, classes) probabilities of the head on every starter task that no released head was trained on."""
    found = {}
    for task in mt.load_tasks("starter/test"):
        rank = np.array([np.sum(task.targets[:i] == target) for i, target in enumerate(task.targets)])
        examples = task.select(np.flatnonzero(rank < SHOTS))
        rows = task.select(np.flatnonzero((rank >= SHOTS) & (rank < SHOTS + QUERIES)))
        found[task.name] = np.round(model.adapt(examples).predict_proba(rows.inputs()), 6).tolist()
    return found


def difference(recorded: dict[str, list[list[float]]], found: dict[str, list[list[float]]]) -> float:
    """The largest of a probability; infinite where tasks or shapes differ."""
    if recorded.keys() != found.keys() or any(np.shape(recorded[name]) != np.shape(found[name]) for name in found):
        return float("inf")
    return float(np.max([np.abs(np.subtract(recorded[name], found[name])).max() for name in found]))  # NaN stays NaN
