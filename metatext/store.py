"""Features, computed once per distinct text and kept memory-mapped.

A `FeatureStore` is a folder of *segments*. A segment is two files: ``<name>.npy`` with one float32 vector per row, and
``<name>.keys.npy`` with the 128-bit hashes of the texts. Its name is the hash of its list of texts, and its batches are
formed from that whole list: a run that was interrupted finds the finished *parts* of the same segment, computes the
rest and ends with the same bits as an undisturbed one. Nothing is written twice and nothing half-written is ever read.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .encoder import Encoder
from .storage import atomic_path
from .tokens import Tokens

logger = logging.getLogger(__name__)

PART = 2048  # texts per part: what an interruption can cost, and the unit that processes share
PATIENCE = 180.0  # seconds without a new part, or four times what its own took, after which a process does the others' share too
WEEK = 7 * 24 * 3600  # seconds after which what an interrupted encoding left is not waited for
SMALL = 2**20  # bytes of vectors that are read into memory instead of mapped


def default_folder() -> Path:
    """$METATEXT_CACHE, else metatext/features in the user's cache folder."""
    base = os.environ.get("METATEXT_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "metatext" / "features"


def local_share() -> tuple[int, int]:
    """(rank, processes) of this process among those that a launcher started on this machine."""
    return int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def text_keys(inputs: Iterable[str | tuple[str, str]]) -> np.ndarray:
    """128-bit hashes of texts or pairs: (n,) strings of 16 bytes, which numpy sorts and searches."""

    def key(row) -> bytes:
        if isinstance(row, tuple):  # the length keeps ("ab", "c") and ("a", "bc") apart, the role pairs and texts
            return digest(f"{len(row[0])}\0{row[0]}\0{row[1]}", b"pair.2")  # 1 was without segments
        return digest(row, b"text")

    def digest(text: str, role: bytes) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=role).digest()

    return np.frombuffer(b"".join(map(key, inputs)), "S16")


class KeyIndex:
    """Numbers of keys, in the order in which they came: a sorted array, not a dictionary, for millions of them."""

    def __init__(self) -> None:
        self._keys = np.zeros(0, "S16")
        self._ids = np.zeros(0, np.int64)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(n,) numbers of keys, -1 where unknown."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._ids[at], -1)

    @property
    def keys(self) -> np.ndarray:
        """(n,) keys in the order of their numbers."""
        keys = np.empty_like(self._keys)
        keys[self._ids] = self._keys
        return keys

    def append(self, parts: Sequence[np.ndarray]) -> None:
        """Number further keys from the count of those that are known; of a key that comes again the first number is found."""
        keys = np.concatenate([self._keys, *parts])
        ids = np.concatenate([self._ids, np.arange(len(self._keys), len(keys))])
        order = np.argsort(keys, kind="stable")
        self._keys, self._ids = keys[order], ids[order]


class TokenStore:
    """Texts as token numbers, every distinct one once: what an encoder that learns reads again and again.

    Args:
        encoder: its tokenizer is used.
        max_length: tokens kept of a text; None: as many as the encoder reads.
    """

    def __init__(self, encoder: Encoder, max_length: int | None = None):
        self.encoder, self.max_length = encoder, max_length
        self._index = KeyIndex()
        self._parts: list[Tokens] = []

    def add(self, inputs: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """Tokenize what is missing, and return the number of each input: (n,)."""
        keys = text_keys(inputs)
        missing = np.flatnonzero(self._index.find(keys) < 0)
        rows = missing[np.unique(keys[missing], return_index=True)[1]]
        if len(rows):
            self._parts.append(self.encoder.tokenize([inputs[i] for i in rows], self.max_length))
            self._index.append([keys[rows]])
        return self._index.find(keys)

    @property
    def keys(self) -> np.ndarray:
        """(n,) `text_keys` of all its texts, in the order of their numbers."""
        return self._index.keys

    def tokens(self, ids: np.ndarray) -> Tokens:
        """The tokens of (n,) texts."""
        return self._whole[ids]

    def lengths(self, ids: np.ndarray) -> np.ndarray:
        """How many tokens texts have, in the shape of ``ids``; 0 where an id is -1."""
        return np.where(ids >= 0, self._whole.lengths[ids], 0)

    @property
    def _whole(self) -> Tokens:
        if len(self._parts) > 1:
            self._parts = [Tokens.concatenate(self._parts)]
        return self._parts[0]

    def encoded(self, ids: np.ndarray) -> VectorTable:
        """The vectors of (n,) texts, their numbers ascending, as the encoder reads them at this moment."""
        encoder = self.encoder.frozen()
        return VectorTable(encoder, ids, encoder.encode_tokens(self.tokens(ids)))


class VectorTable:
    """Vectors of some texts, in memory, with gradients where they have any.

    Args:
        encoder: what made them.
        ids: (n,) their numbers, ascending.
        vectors: (n, d).
    """

    def __init__(self, encoder: Encoder, ids: np.ndarray, vectors: Tensor):
        self.encoder, self.ids = encoder, ids
        self.vectors = torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])  # the last one stands for -1

    def take(self, ids: np.ndarray) -> Tensor:
        """Vectors of ids of any shape: (..., d), where the table is; zeros where an id is -1."""
        places = np.where(ids >= 0, np.searchsorted(self.ids, ids), len(self.ids))
        return self.vectors[torch.from_numpy(places).to(self.vectors.device)]

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """`take` as an array, as of a `FeatureStore`."""
        return self.take(ids).numpy()


class FeatureStore:
    """The vectors of one encoder for every text it has seen.

    Args:
        encoder: computes what is missing; of one that learns, the weights of this moment do.
        folder: where all stores lie; None: `default_folder`. The encoder's own folder in it is named by its key.
        progress: show a bar while encoding.
        share: (rank, processes) when several processes of this machine add the same texts at the same time, see
            `local_share`: each encodes its part of them and waits on the disk for the rest.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: str | Path | None = None,
        progress: bool = True,
        share: tuple[int, int] = (0, 1),
    ):
        self.encoder = encoder.frozen()
        self.share = share
        self.folder = Path(folder or default_folder()) / self.encoder.key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.progress = progress
        self.tables: list[np.ndarray] = []
        self.offsets = np.zeros(1, np.int64)
        self._index = KeyIndex()
        self._loaded: set[str] = set()
        self.encoded = 0  # texts that this object had to encode
        for parts in self.folder.glob("*.parts"):  # of a run that was stopped, and never went on with the same texts
            with contextlib.suppress(FileNotFoundError):  # another run may clear them away too
                if time.time() - parts.stat().st_mtime > WEEK:
                    shutil.rmtree(parts, ignore_errors=True)
        self._load_segments()

    def add(self, inputs: Sequence[str | tuple[str, str]]) -> np.ndarray:
        """Encode what is missing, and return where each input's vector lies: (n,) numbers for `gather`."""
        keys = text_keys(inputs)
        ids = self._index.find(keys)
        if (ids < 0).any():
            missing = np.flatnonzero(ids < 0)
            rows = missing[np.unique(keys[missing], return_index=True)[1]]
            lengths = np.array([_characters(inputs[i]) for i in rows])
            rows = rows[np.lexsort((keys[rows], -lengths))]  # long ones first: memory runs out early or never
            self._make_segment([inputs[i] for i in rows], keys[rows])
            self._load_segments()
            ids = self._index.find(keys)
        return ids

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(n,) numbers for `gather` of the texts of (n,) `text_keys`, -1 for those that it does not hold."""
        return self._index.find(keys)

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """Vectors of ids of any shape: float32 (..., d); zeros where an id is -1."""
        flat = ids.reshape(-1)
        out = np.empty((len(flat), self.encoder.dim), np.float32)
        out[flat < 0] = 0
        order = np.argsort(flat)
        edges = np.searchsorted(flat[order], self.offsets)
        for number in np.flatnonzero(np.diff(edges)):  # one gather per segment, none per row
            here = order[edges[number] : edges[number + 1]]
            out[here] = self.tables[number].take(flat[here] - self.offsets[number], 0)
        return out.reshape(*ids.shape, self.encoder.dim)

    def _load_segments(self) -> None:
        found = []
        for path in sorted(self.folder.glob("*.keys.npy")):
            name = path.name.removesuffix(".keys.npy")
            if name in self._loaded:
                continue
            try:
                keys, file = np.load(path), self.folder / f"{name}.npy"
                # a map keeps a file open for good, and small segments may be many
                table = np.load(file, mmap_mode="r" if file.stat().st_size > SMALL else None)
                if table.shape != (len(keys), self.encoder.dim) or table.dtype != np.float32:
                    raise ValueError(f"holds {table.shape}, its keys say {len(keys)}")
            except (FileNotFoundError, ValueError, EOFError) as error:  # whatever else the disk says, the file may be whole
                logger.warning("the cached features %s are damaged (%s) and are computed again", path.parent / name, error)
                path.unlink(missing_ok=True)
                continue
            self._loaded.add(name)
            self.tables.append(table.view(np.ndarray))  # still mapped; indexing a plain array costs less
            found.append(keys)
            self.offsets = np.append(self.offsets, self.offsets[-1] + len(keys))
        self._index.append(found)

    def _make_segment(self, inputs: list, keys: np.ndarray) -> None:
        from tqdm.auto import tqdm

        name = hashlib.blake2b(keys.tobytes(), digest_size=12).hexdigest()
        parts = self.folder / f"{name}.parts"
        parts.mkdir(exist_ok=True)
        final = self.folder / f"{name}.keys.npy"
        starts = range(0, len(inputs), PART)
        rank, processes = self.share
        files = [parts / f"{number:06d}.npy" for number in range(len(starts))]
        bar = tqdm(total=len(inputs), desc="encoding", unit="text", disable=not self.progress or rank > 0 or len(inputs) < 256)

        slowest = 0.0  # seconds of a part

        def encode(numbers: Iterable[int]) -> None:
            nonlocal slowest
            for number in numbers:
                start = time.monotonic()
                part = inputs[starts[number] : starts[number] + PART]
                if not _whole(files[number], (len(part), self.encoder.dim)):
                    _save(files[number], self.encoder.encode(part).numpy())
                    self.encoded += len(part)
                slowest = max(slowest, time.monotonic() - start)
                bar.update(processes * len(part))

        done = final.exists if rank else lambda: final.exists() or all(file.is_file() for file in files)
        alone = False
        try:
            encode(range(rank, len(starts), processes))
            alone = self._wait(done, parts, max(PATIENCE, 4 * slowest)) is False
            if alone and not final.exists():  # the others found other texts missing and are at another segment
                encode(range(len(starts)))
            if (rank == 0 or alone) and not final.exists():
                self._merge(files, self.folder / f"{name}.npy", len(inputs))
                _save(final, keys)
        except FileNotFoundError:  # another run made the same segment meanwhile and took its parts away
            if not final.exists():
                raise
        finally:
            bar.close()
        if rank == 0 or alone:
            shutil.rmtree(parts, ignore_errors=True)

    def _merge(self, files: list[Path], path: Path, n: int) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, self.encoder.dim)}
        with atomic_path(path) as temporary, open(temporary, "wb") as table:  # a full disk would end a memory map by a signal
            np.lib.format.write_array_header_1_0(table, header)
            for file in files:
                table.write(np.load(file).astype("<f4", copy=False).tobytes())

    @staticmethod
    def _wait(done: Callable[[], bool], parts: Path, patience: float) -> bool:
        """Wait for the other processes of this machine by looking at the disk: a collective would time out.

        Returns:
            True when done; False when nothing new has come to the folder ``parts`` for ``patience`` seconds.
        """
        seen, last = -1, time.monotonic()
        while not done():
            count = sum(1 for _ in parts.glob("*.npy"))
            if count != seen:
                seen, last = count, time.monotonic()
            if time.monotonic() - last > patience:
                return False
            time.sleep(0.1)
        return True


def _characters(row: str | tuple[str, str]) -> int:
    return len(row) if isinstance(row, str) else len(row[0]) + len(row[1])


def _whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether a part is there and undamaged."""
    try:
        return np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError, EOFError):
        return False


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)
