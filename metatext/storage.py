"""Files that are whole or not there: atomic writes, and folders of config.json + model.safetensors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .settings import MetatextError

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
NEW, PREVIOUS = ".model.safetensors.new", ".model.safetensors.previous"


try:
    import fcntl
except ImportError:  # on Windows, where folders are not locked
    fcntl = None


class StorageError(MetatextError, ValueError):
    """A file or folder that cannot be read as what it should be, or cannot be written."""


class ContentError(StorageError):
    """A folder that metatext saved, but that holds something else."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; it takes the name ``path`` when the block ends well.

    Raises:
        StorageError: the disk is full; what stood at ``path`` is untouched and the temporary file is gone.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        rights = temporary.stat().st_mode  # the usual ones; safetensors writes files that only their owner may read
        yield temporary
        os.chmod(temporary, rights)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        _refuse_full_disk(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_file(path: str | Path, inputs: Sequence[str | Path | None] = ()) -> None:
    """Find out before hours of work whether a file can be written.

    Args:
        path: need not be there yet.
        inputs: what is read, files or folders of them, which must not be written over; None: nothing.

    Raises:
        StorageError: it cannot.
    """
    path = Path(path)
    if path.is_dir():
        raise StorageError(f"{path} is a folder; give another file")
    for read in filter(None, inputs):
        if path.exists() and Path(read).exists() and (path.samefile(read) or path.absolute().parent.samefile(read)):
            raise StorageError(f"{path} is read, and would be written over; give another file")
    _check_writable(path, path.absolute().parents)


def check_folder(path: str | Path, content: str) -> None:
    """Find out before hours of work whether `write_folder` can save there.

    Args:
        path: need not be there yet.
        content: what will be saved, as its config will say it ("head", "adapted").

    Raises:
        StorageError: it cannot.
    """
    path = Path(path)
    if path.is_file():
        raise StorageError(f"{path} is a file; give another folder")
    _check_writable(path, (path.absolute(), *path.absolute().parents))
    _check_held(path, content)


def _check_writable(path: Path, places: Iterable[Path]) -> None:
    """The first of these places that is there must take a file."""
    there = next(place for place in places if place.exists())
    if not there.is_dir():
        raise StorageError(f"{path}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"{path}: there is no right to write to {there}")


def _check_held(folder: Path, content: str | None) -> None:
    """Raises `StorageError` where saving would destroy what something else has saved."""
    try:
        old = read_json(folder / CONFIG)
    except StorageError:  # none yet, or a damaged one, which may be replaced
        return
    if old.get("library") != "metatext" or old.get("content") != content:
        held = repr(old.get("content")) if old.get("library") == "metatext" else "files that metatext did not write"
        raise StorageError(f"{folder} holds {held}; saving {content!r} there would destroy it; give another folder")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")  # on Windows too: a csv says itself how its lines end


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically, a list of numbers on one line; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # no text has a line break in JSON, so what begins with one and holds no quotation mark is a list of numbers
    text = re.sub(r"\[\n[^\[\]{}\"]*\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", text)
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        StorageError: there is no such file, or it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(f"{path} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StorageError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise StorageError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def write_tensors(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Write named tensors to ``path`` as safetensors, atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # safetensors wraps the system's own error
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device") from error
            raise


def read_tensors(path: str | Path) -> dict[str, Any]:
    """The named tensors of a safetensors file.

    Raises:
        StorageError: it is missing, truncated, or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # copies: a mapped tensor may lie unaligned, and then a product rounds otherwise than that of the tensor that was saved
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except FileNotFoundError:
        raise StorageError(f"{path} is missing") from None
    except (SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise StorageError(f"{path} is truncated or not a safetensors file ({error}); save or download it again") from None


def write_folder(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Write config.json and model.safetensors to ``folder`` so that a kill at any moment leaves one loadable pair.

    The config names the digest of its weights, and the weights that stood there before keep a second name until the
    new config is in place: `read_folder` takes whichever file the config describes. Other files are left alone. Of two
    processes that save at once one waits for the other.
    """
    folder = Path(folder)
    if folder.is_file():
        raise StorageError(f"{folder} is a file; give a folder to save to")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _check_held(folder, config.get("content"))
        _write_pair(folder, config, tensors)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Within the block no other process saves to ``folder``; whoever comes second waits, for what is saved is soon written."""
    handle = None
    with contextlib.suppress(OSError):  # a file system without locks
        handle = os.open(folder, os.O_RDONLY) if fcntl else None
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _write_pair(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """`write_folder` in a folder that no other process saves to meanwhile: the names of its temporary files are always the same."""
    weights, new, previous = folder / WEIGHTS, folder / NEW, folder / PREVIOUS
    write_tensors(new, tensors)  # a full disk shows here, before anything is replaced
    description = {"library": "metatext", "format_version": FORMAT_VERSION, "weights": file_digest(new), **config}
    try:
        if previous.exists() and weights_digest(folder) == file_digest(previous):
            os.replace(previous, weights)  # an earlier save was killed half way: its weights belong to no config
        if weights.exists():
            previous.unlink(missing_ok=True)
            _keep(weights, previous)
        os.replace(new, weights)
        write_json(folder / CONFIG, description)
    except BaseException as error:
        if previous.exists() and weights_digest(folder) == file_digest(previous):
            os.replace(previous, weights)
        if isinstance(error, OSError):
            _refuse_full_disk(error, folder)
        raise
    previous.unlink(missing_ok=True)


def read_config(folder: str | Path, content: str) -> dict[str, Any]:
    """config.json of a folder that metatext saved.

    Args:
        folder: where to read.
        content: what the folder must hold, as its config says it ("head", "adapted").

    Raises:
        StorageError: no such folder, another library's, of a newer format, or of other content.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder")
    config = read_json(folder / CONFIG)
    version = config.get("format_version")
    if config.get("library") != "metatext" or not isinstance(version, int):
        raise StorageError(f"{folder / CONFIG} was not written by metatext (no 'library' and 'format_version' of ours in it)")
    if version > FORMAT_VERSION:
        raise StorageError(f"{folder} has format_version {version}, this metatext reads up to {FORMAT_VERSION}; upgrade metatext")
    if config.get("content") != content:
        other = {"head": "MetaModel.from_pretrained", "adapted": "AdaptedModel.from_pretrained"}.get(config.get("content"))
        way = f"; {other} loads it" if other and content in ("head", "adapted") else ""
        shell = {"adapted": "metatext adapt --model makes a classifier of it", "head": "metatext finetune --model learns it anew"}
        way += f", and {shell[content]}" if way else ""
        raise ContentError(f"{folder} holds {config.get('content')!r}, expected {content!r}{way}")
    return config


def read_folder(folder: str | Path, content: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and tensors of a folder that metatext saved.

    Raises:
        StorageError: see `read_config`; or the weights are not those that the config describes.
    """
    folder = Path(folder)
    config = read_config(folder, content)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise StorageError(f"{weights} is missing")
    tensors_path = next(
        (p for p in (weights, folder / PREVIOUS) if p.is_file() and file_digest(p) == config.get("weights")), None
    )
    if tensors_path is None:
        read_tensors(weights)  # says so when the file itself is broken
        raise StorageError(f"{weights} is not the file that {folder / CONFIG} describes: truncated, replaced or only half copied")
    return config, read_tensors(tensors_path)


def weights_digest(folder: Path) -> str | None:
    """The digest of the weights that config.json of ``folder`` describes, if there is one."""
    try:
        return read_json(folder / CONFIG).get("weights")
    except StorageError:
        return None


def _keep(file: Path, name: Path) -> None:
    """A second name for ``file``; a copy where the file system has no hard links."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)


def _refuse_full_disk(error: OSError, path: Path) -> None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StorageError(f"no space left on the disk while writing {path}; what was saved before is unchanged") from error


def digest(tensors: Mapping[str, Any]) -> str:
    """BLAKE2b-128 over the names, shapes and values of tensors, in hex."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.detach().cpu().double().contiguous().numpy())
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """BLAKE2b-128 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
