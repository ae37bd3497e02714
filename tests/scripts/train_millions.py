"""Meta-trains on tasks of millions of rows whose vectors are there, and writes down the memory that it took.

``python train_millions.py settings.json`` with `train` arguments.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np


def texts_of(start: int, stop: int) -> list[str]:
    return [f"request {i}: please look into case {i % 977}" for i in range(start, stop)]


def make_corpora(folder: Path, sizes: list[int], classes: int) -> list[str]:
    """Parquet files of so many short texts each, no text twice, in classes of equal size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths, first = [], 0
    for number, size in enumerate(sizes):
        paths.append(str(folder / f"corpus_{number}.parquet"))
        with pq.ParquetWriter(paths[-1], pa.schema([("text", pa.string()), ("label", pa.string())])) as file:
            for start in range(first, first + size, 100_000):
                rows = range(start, min(start + 100_000, first + size))
                labels = [f"topic_{i % classes}_of_{number}" for i in rows]
                file.write(pa.table({"text": texts_of(rows.start, rows.stop), "label": labels}))
        first += size
    return paths


def make_segment(folder: Path, rows: int, dim: int) -> None:
    """A segment of a `FeatureStore` with random unit vectors for the texts of `make_corpora`."""
    from metatext.store import text_keys

    rng = np.random.default_rng(0)
    table = np.lib.format.open_memmap(folder / "millions.npy", "w+", np.float32, (rows, dim))
    keys = np.empty(rows, "S16")
    for start in range(0, rows, 50_000):
        stop = min(start + 50_000, rows)
        vectors = rng.standard_normal((stop - start, dim), np.float32)
        table[start:stop] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        keys[start:stop] = text_keys(texts_of(start, stop))
    table.flush()
    np.save(folder / "millions.keys.npy", keys)


class Memory:
    """The most bytes of this process that no file backs (RssAnon + RssShmem), read every few milliseconds, by phase."""

    def __init__(self) -> None:
        self.phase, self.peaks, self._end = "start", {}, threading.Event()

    def __enter__(self) -> Memory:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self._end.set()

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            lines = Path("/proc/self/status").read_text().splitlines()
            now = 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
            self.peaks[self.phase] = max(now, self.peaks.get(self.phase, 0))


def train(encoder: str, cache: str, corpora: list[str], output_dir: str, episodes: dict, config: dict, save_to: str) -> None:
    """The run of a user: load, encode (nothing is missing but names), meta-train. Peaks and counts go to ``save_to``."""
    with Memory() as memory:
        import metatext as mt
        from metatext.features import encode_tasks

        model = mt.MetaModel.from_encoder(encoder, "prototype")
        memory.phase = "load_task"
        tasks = [mt.load_task(path) for path in corpora]
        memory.phase = "store"
        store = mt.FeatureStore(model.encoder, cache, progress=False)
        shape = mt.EpisodeConfig(**episodes)
        memory.phase = "encode_tasks"
        encode_tasks(store, tasks, shape)
        memory.phase = "meta_train"
        loop = mt.TrainConfig(output_dir=output_dir, **config)
        result = mt.meta_train(model, tasks, episodes=shape, config=loop, store=store)
    found = {"rows": sum(map(len, tasks)), "encoded": store.encoded, "steps": result.steps, "peaks": memory.peaks}
    Path(save_to).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    train(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
