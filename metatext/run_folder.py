"""The folder of a run: one process writes there at a time, and figures stay with the weights that they belong to."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .settings import ConfigError
from .storage import CONFIG, NEW, PREVIOUS, WEIGHTS, StorageError, read_json, weights_digest

try:
    import fcntl
except ImportError:  # on Windows, where folders are not locked
    fcntl = None

METRICS, CURVE, LOCK = "metrics.json", "learning_curve.png", ".lock"
DECISIVE = ("torch", "transformers", "peft", "accelerate", "numpy", "scikit-learn")
"""Packages whose version may move a figure."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder``, which is made; a process that ends, by kill -9 as well, lets go of it.

    Raises:
        ConfigError: another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"another run is writing to {folder}; wait for its end, or give another output_dir") from None
            except OSError:  # a file system without locks
                pass
        yield


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """metrics.json of ``folder``; None where there is none, or it belongs to other weights than lie there.

    One that names no weights is taken as it is: runs did not write them before, and `metatext test` does not.
    """
    if not (folder / METRICS).is_file():
        return None
    found = read_json(folder / METRICS)
    return found if found.get("weights") in (None, weights_digest(folder)) else None


def clear_folder(folder: Path) -> None:
    """Delete what an earlier run kept in ``folder`` beside its checkpoints: figures first, which must not outlive their weights."""
    names = [METRICS, CURVE]
    with contextlib.suppress(StorageError):
        config = read_json(folder / CONFIG)
        if config.get("library") == "metatext" and config.get("content") == "head":
            names += [CONFIG, WEIGHTS, NEW, PREVIOUS]
    for name in names:
        (folder / name).unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """What figures were made with: Python, metatext, and those of `DECISIVE` that are installed."""
    from . import __version__

    found = {"python": platform.python_version(), "metatext": __version__}
    for name in DECISIVE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
