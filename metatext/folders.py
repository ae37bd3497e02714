"""Which files of a folder hold rows, and whether they are the splits of one corpus or corpora by themselves."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from .rows import DataError

READERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
JSON_SPLITS = ("train", "validation", "valid", "dev", "test", "full")  # other .json files of a folder describe it
SPLIT_WORDS = {
    "train", "training", "validation", "valid", "val", "dev", "eval", "test", "testing", "full", "unsupervised", "unlabeled", "unlabelled",
}  # fmt: skip


def reader(path: Path) -> str | None:
    """The builder of `datasets` for a file, from its suffix."""
    return READERS.get(path.suffix.lower())


def split_files(folder: Path) -> dict[str, Path]:
    """split -> file of a corpus; "full" is also found under "train".

    Raises:
        DataError: two files of one split.
    """
    files: dict[str, Path] = {}
    for path in _data_files(folder):
        if path.stem in files:
            raise DataError(
                f"{folder} has two files of the split {path.stem!r}: {files[path.stem].name} and {path.name}; keep one"
            )
        files[path.stem] = path
    if "full" in files:
        files.setdefault("train", files["full"])
    return files


def _data_files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if reader(path)
        and path.is_file()
        and path.name[0] != "."
        and (path.suffix.lower() != ".json" or path.stem in JSON_SPLITS)
    ]


def is_corpus(folder: Path) -> bool | None:
    """Whether a folder is one corpus (True) or holds corpora (False), from the names of its data files and whether folders of such are in
    it. None: they leave it open, as one file of any name does, or task1 and task2: whoever names such a folder in a list means one corpus,
    whoever gives it alone a folder of corpora."""
    files = split_files(folder)
    deeper = any(part.is_dir() and part.name[0] != "." and _data_files(part) for part in folder.iterdir())
    if not are_splits(files) or (deeper and len(files) < 2 and not {"train", "test"} & {*files}):
        return False
    return True if _say_splits(files) and not deeper else None


def are_splits(names: Collection[str]) -> bool:
    """Whether files of these stems can be splits of one data set (train, my-test, dev2), or its numbered parts; one file alone can."""
    words = [set(re.split("[^a-z]+", name.lower())) for name in names]
    parts = {re.sub(r"\d+", "#", name) for name in names}
    return len(names) < 2 or all(map(SPLIT_WORDS.intersection, words)) or (len(parts) == 1 and "#" in "".join(parts))


def _say_splits(names: Collection[str]) -> bool:
    """Whether files of these stems are splits of one corpus by their names alone: train and test, mail_train and mail_test. Reviews_train
    and mail_test are not, nor are task1 and task2."""
    words = [[word for word in re.split("[^a-z]+", name.lower()) if word not in ("", "of")] for name in names]
    rest = {tuple(word for word in found if word not in SPLIT_WORDS) for found in words}
    return len(rest) == 1 and all(map(SPLIT_WORDS.intersection, words)) and (len(words) > 1 or rest == {()})
