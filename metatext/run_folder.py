"""The folder of a run: one process writes there at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .settings import ConfigError

try:
    import fcntl
except ImportError:  # on Windows, where folders are not locked
    fcntl = None

LOCK = ".lock"


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
