"""Encodes texts through a FeatureStore, in this process: ``python encode_texts.py settings.json`` with `encode` arguments."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np


def letter_texts(n: int, seed: int = 0) -> list[str]:
    """n texts of 2 to 30 letters, some of them repeated."""
    rng = np.random.default_rng(seed)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    distinct = ["".join(rng.choice(letters, rng.integers(2, 31))) for _ in range(n - n // 10)]
    return distinct + distinct[: n // 10]


def encode(encoder: str, cache: str, texts: int, part: int, pause: float, save_to: str, threads: int) -> None:
    """Parts of ``part`` texts, ``pause`` seconds before each; vectors and count go to ``save_to`` (.npz)."""
    import torch

    from metatext import Encoder
    from metatext import store as stores

    torch.set_num_threads(threads)
    stores.PART = part
    loaded = Encoder.load(encoder)
    inner = loaded.encode
    loaded.encode = lambda inputs: (time.sleep(pause), inner(inputs))[1]
    store = stores.FeatureStore(loaded, cache, progress=False, share=stores.local_share())
    vectors = store.gather(store.add(letter_texts(texts)))
    np.savez(save_to.format(rank=os.environ.get("LOCAL_RANK", "0")), vectors=vectors, encoded=store.encoded)


if __name__ == "__main__":
    encode(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
