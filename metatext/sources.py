"""Tables from wherever they lie: the Hub, files, folders, memory, streams. Always a `datasets.Dataset`."""

from __future__ import annotations

import csv
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .csvs import (
    check_bytes,
    check_encoding,
    check_quotes,
    csv_options,
    has_long_rows,
    read_opening,
    warn_of_utf8,
    why_unread,
    with_numbers,
)
from .folders import READERS, are_splits, reader, split_files
from .rows import DataError, check_whole
from .settings import first_line

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx, as any zip file, and .xls begin
UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # of a folder that is full or may not be written


def read_source(
    source: Any,
    config: str | None,
    split: str | None,
    revision: str | None,
    streaming: bool = False,
    max_rows: int | None = None,
    encoding: str = "utf-8",
    texts: Sequence[str] = (),
) -> tuple[Dataset, str]:
    """Any source as one table of its first ``max_rows`` rows (None: all), and a name for it; of a stream no row behind them is read, and of a
    csv the columns ``texts`` as they stand."""
    from datasets import IterableDataset

    if max_rows is not None:
        check_whole(max_rows, "max_rows")
    if streaming and max_rows is None:
        raise DataError("streaming=True needs max_rows, the number of rows to take; without it all would be downloaded")
    rows, name = _find(source, config, split, revision, max_rows if streaming else None, encoding, texts)
    if isinstance(rows, IterableDataset):
        if max_rows is None:
            raise DataError(
                "source: an IterableDataset may be longer than what there is room for; give max_rows, the rows to take"
            )
        return _take(rows, max_rows, name), name
    return rows if max_rows is None or len(rows) <= max_rows else rows.select(range(max_rows)), name


def _take(rows: IterableDataset, n: int, name: str) -> Dataset:
    """The first rows of a stream."""
    from datasets import Dataset

    try:
        found = list(rows.take(n))
        taken = Dataset.from_list(found, features=rows.features if found else None)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # what a reader or the network says, whoever made the stream
        raise DataError(f"{name}: the stream cannot be read: {first_line(error)}") from error
    if not found:
        raise DataError(f"{name}: the stream has no rows")
    return taken


def _find(
    source: Any,
    config: str | None,
    split: str | None,
    revision: str | None,
    streamed: int | None,
    encoding: str,
    texts: Sequence[str],
) -> tuple[Dataset | IterableDataset, str]:
    """A source as one table or stream, and a name for it; ``streamed``: how many rows are taken where it is read as a stream."""
    from datasets import Dataset, IterableDataset, load_dataset

    if isinstance(source, (Dataset, IterableDataset)):
        return source, source.info.dataset_name or "task"
    if isinstance(source, Mapping) and source and all(isinstance(v, (Dataset, IterableDataset)) for v in source.values()):
        return _pick_split(dict(source), split, "the DatasetDict"), "task"
    if (made := _table(source)) is not None:
        return made, "task"
    if not isinstance(source, (str, Path)):
        raise DataError(
            f"source: expected a Hub id, a path, a Dataset, a DatasetDict, an IterableDataset, a pandas DataFrame, a list of dicts or a "
            f"dict of columns, got {type(source).__name__}"
        )
    path = Path(source)
    if path.is_file():
        return read_files([path], path.name, encoding, streamed, texts), path.stem
    if path.is_dir():
        files = split_files(path)
        if not files:
            raise DataError(f"{path} holds no data file; expected <split>{' or <split>'.join(READERS)}")
        if split is None and not are_splits(files):
            raise DataError(
                f"{path.name} holds {', '.join(file.name for file in files.values())}, which are no splits of one data set; load_tasks "
                f"reads a folder of corpora"
            )
        wanted = files if split is None else {split: files[split]} if split in files else {}
        if not wanted:
            raise DataError(f"{path.name} has no split {split!r}; it has {', '.join(sorted(files))}")
        paths = list(dict.fromkeys(wanted.values()))
        return read_files(paths, path.name, encoding, streamed, texts), path.name
    if reader(path) or path.is_absolute() or str(source).startswith("."):
        raise DataError(f"{source} does not exist")
    try:
        given = {"split": split} if split and split != "full" else {}  # "full" is looked for among all
        loaded = load_dataset(str(source), config, revision=revision, streaming=streamed is not None, **given)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"could not load {str(source)!r} (config {config!r}, split {split!r}, revision {revision!r}): {first_line(error)} "
            f"It is neither a file nor a folder here, so it was taken for a Hub data set."
        ) from error
    if isinstance(loaded, Mapping):
        loaded = _pick_split(loaded, split, str(source))
    return loaded, str(source).split("/")[-1] + (f" {config}" if config else "")


def _table(source: Any) -> Dataset | None:
    """What lies in memory as a table: a data frame of pandas, columns by name, or rows; None where it is none of them."""
    from datasets import Dataset

    rows = isinstance(source, (list, tuple))
    if rows and not (source and all(isinstance(row, Mapping) for row in source)):
        raise DataError("source: expected a non-empty list of dicts, one per row")
    try:
        if rows:
            return Dataset.from_list([dict(row) for row in source])
        if isinstance(source, Mapping) and source:
            return Dataset.from_dict({name: list(values) for name, values in source.items()})
        if type(source).__name__ == "DataFrame" and hasattr(source, "iloc"):
            return Dataset.from_pandas(source, preserve_index=False)
    except (ValueError, TypeError) as error:  # pyarrow: values of several types in one column, columns of several lengths
        raise DataError(f"source: {'the rows' if rows else 'the columns'} do not form a table: {first_line(error)}") from None
    return None


def _pick_split(splits: dict, split: str | None, where: str) -> Dataset | IterableDataset:
    if split is None:
        return _join(list(splits.values()), where)
    if split == "train" and "train" not in splits and "full" in splits:
        split = "full"
    if split not in splits:
        raise DataError(f"{where} has no split {split!r}; it has {', '.join(splits)}")
    return splits[split]


def _join(parts: list, where: str) -> Dataset | IterableDataset:
    """Splits one after the other."""
    from datasets import concatenate_datasets

    named = [part.column_names for part in parts]
    if None not in named and not set.intersection(*map(set, named)):  # of a stream they may not be known
        raise DataError(f"{where}: its splits have no column in common: {'; '.join(', '.join(names) for names in named)}")
    try:
        return concatenate_datasets(parts)
    except ValueError as error:
        raise DataError(f"{where}: its splits do not have the same columns and types: {error}") from None


def read_files(
    paths: Sequence[Path], name: str, encoding: str, streamed: int | None = None, texts: Sequence[str] = ()
) -> Dataset:
    """Files one after the other, or the first ``streamed`` rows of their stream; csv columns of numbers, and nothing else, are numbers but for
    the columns ``texts``."""
    parts = [read_file(path, encoding, streamed) for path in paths]
    csvs = [number for number, path in enumerate(paths) if reader(path) == "csv"]
    if streamed is not None:
        taken = _take(_join(parts, name), streamed, name)
        return with_numbers([taken], texts)[0] if len(csvs) == len(paths) else taken
    for number, part in zip(csvs, with_numbers([parts[number] for number in csvs], texts), strict=True):
        parts[number] = part
    return _join(parts, name)


def read_file(path: Path, encoding: str, streamed: int | None = None) -> Dataset | IterableDataset:
    """A file as a table, every cell of a csv, of this encoding, as the text that stands there; as a stream where only ``streamed`` rows are
    taken."""
    from datasets.exceptions import DatasetGenerationError
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    kind = reader(path)
    if kind is None:
        raise DataError(f"{path}: cannot read {path.suffix or 'a file without suffix'}; expected one of {', '.join(READERS)}")
    check_encoding(encoding)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if start in WORKBOOKS:
        raise DataError(f"{path} is no {kind} but a workbook of Excel or a zip file; save it as csv (UTF-8)")
    shown = is_progress_bar_enabled()
    disable_progress_bar()  # one bar per small file would drown the rest
    try:
        if kind == "csv":
            return _read_csv(path, encoding, streamed)
        rows = _load(kind, path, streamed)
        if kind == "json" and streamed is None:  # its reader takes any bytes for texts
            rows.data.validate(full=True)
        return rows
    except (DatasetGenerationError, ValueError, OSError, StopIteration, csv.Error) as error:
        if kind == "json":
            check_bytes(path, "utf-8")
        if kind == "csv" and (cause := why_unread(path, encoding)) is not None:
            raise cause from error
        if isinstance(error, DataError):
            raise
        raise DataError(_unread(path, kind, error.__cause__ or error)) from error
    finally:
        if shown:
            enable_progress_bar()


def _read_csv(path: Path, encoding: str, streamed: int | None) -> Dataset | IterableDataset:
    opening = read_opening(path, encoding)
    warn_of_utf8(path, encoding)
    options = csv_options(opening)
    if streamed is not None:
        check_quotes(opening, streamed)
    rows = _load("csv", path, streamed, **options)
    if streamed is None and has_long_rows(path, len(rows)):
        check_quotes(opening)
    return rows


def _load(kind: str, path: Path, streamed: int | None, **options: Any) -> Dataset | IterableDataset:
    import glob

    from datasets import load_dataset

    literal = glob.escape(str(path.resolve()))  # [ and * are patterns to `datasets`
    return load_dataset(kind, data_files=literal, split="train", streaming=streamed is not None, **options)


def _unread(path: Path, kind: str, error: BaseException) -> str:
    """Why a file that can be opened was not read."""
    from datasets import config

    if isinstance(error, OSError) and error.errno in UNWRITTEN:
        return (
            f"{path}: the cache of datasets, {config.HF_DATASETS_CACHE}, cannot be written ({error.strerror}); make room there, or set "
            f"HF_DATASETS_CACHE to another folder"
        )
    reason = first_line(error) if str(error).strip() and "corresponds to no data" not in str(error) else "it has no rows"
    return f"{path} cannot be read as {kind}: {reason}"


def read_schema(path: Path, encoding: str) -> Mapping[str, Any]:
    """Columns and types of a file, a csv of this encoding; for parquet without reading its rows."""
    from datasets import Features

    if reader(path) == "parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return Features.from_arrow_schema(pyarrow.parquet.read_schema(path))
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} cannot be read as parquet: {first_line(error)}") from error
    return read_files([path], path.name, encoding).features
