"""Small tasks for tests: the texts of a class are full of its letter."""

from __future__ import annotations

import numpy as np
import torch

from metatext import Task, load_task

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_task(name: str, classes: int = 4, size: int = 12, names: bool = True, seed: int = 0) -> Task:
    """Class c: ``size`` texts of eight letters, four of them the letter 5 c; the label names it, or is a number."""
    rng = np.random.default_rng([seed, *name.encode()])
    rows = []
    for c in range(classes):
        for _ in range(size):
            letters = rng.choice(list(LETTERS), 8)
            letters[rng.permutation(8)[:4]] = LETTERS[5 * c]
            rows.append({"text": "".join(letters), "label": f"class {LETTERS[5 * c]}" if names else c})
    return load_task(rows, name=name)


def token_lists(tokens) -> list[list[int]]:
    """The token numbers of each text of a `Tokens`."""
    return [tokens.flat[a:b].tolist() for a, b in zip(tokens.start[:-1], tokens.start[1:])]


def row_vectors(features, rows: np.ndarray) -> np.ndarray:
    """Features (..., d) of row numbers of a `TaskFeatures`, from the vectors in its store."""
    return features.row_vectors(rows, lambda ids: torch.from_numpy(features.store.gather(ids))).numpy()
