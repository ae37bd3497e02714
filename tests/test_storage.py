"""What is saved is whole or not there: full disks, kills at any moment, and files of others."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from metatext import storage
from metatext.storage import (
    StorageError,
    atomic_path,
    file_digest,
    read_folder,
    read_json,
    read_tensors,
    write_folder,
    write_json,
    write_tensors,
    write_text,
)


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# One file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    """A file with content that must not get lost."""
    path = tmp_path / "old.txt"
    path.write_text("old", encoding="utf-8")
    return path


def assert_untouched(path):
    assert path.read_text(encoding="utf-8") == "old"
    assert names(path.parent) == [path.name]


def test_atomic_path_replaces_at_the_end(old):
    with atomic_path(old) as temporary:
        assert temporary.parent == old.parent
        temporary.write_text("new", encoding="utf-8")
        assert old.read_text(encoding="utf-8") == "old"
    assert old.read_text(encoding="utf-8") == "new"
    assert names(old.parent) == ["old.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_block_that_raises_changes_nothing(old, error):
    with pytest.raises(error), atomic_path(old) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise error
    assert_untouched(old)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_changes_nothing(old, monkeypatch, function):
    monkeypatch.setattr(os, function, no_space)
    with pytest.raises(
        StorageError, match=r"no space left on the disk while writing .*old\.txt; what was saved before is unchanged"
    ):
        write_text(old, "new")
    assert_untouched(old)


def test_full_disk_inside_the_block(old):
    with pytest.raises(StorageError, match="no space left on the disk"), atomic_path(old):
        no_space()
    assert_untouched(old)


def test_full_disk_before_there_is_a_temporary_file(old, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_text", no_space)
    with pytest.raises(StorageError, match="no space left on the disk"):
        write_text(old, "new")
    assert_untouched(old)


def test_other_errors_of_the_system_stay_what_they_are(old, monkeypatch):
    def denied(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(PermissionError):
        write_text(old, "new")
    assert_untouched(old)


def test_who_may_read_what_is_written(tmp_path):
    """The usual rights, for weights too."""
    (tmp_path / "usual").touch()
    write_text(tmp_path / "text", "a")
    write_tensors(tmp_path / "tensors", {"a": torch.zeros(2)})
    assert {(tmp_path / name).stat().st_mode for name in ("usual", "text", "tensors")} == {(tmp_path / "usual").stat().st_mode}


def test_folders_on_the_way_are_made(tmp_path):
    write_text(tmp_path / "a" / "b c" / "文.txt", "é\n")
    assert (tmp_path / "a" / "b c" / "文.txt").read_bytes() == "é\n".encode()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_follow_the_umask(tmp_path):
    """A temporary file is private; what bears the final name is as readable as any other file."""
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_json_round_trip(tmp_path):
    value = {"text": "é 文 🎉", "numbers": [1, 2.5, None, True], "nested": {"a": {}}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "文" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_list_of_numbers_stands_on_one_line(tmp_path):
    """Hundreds of lines for a curve help nobody; what looks like such a list in a text stays as it is."""
    text = "[\n  1,\n  2\n]"
    value = {"numbers": [0.5, None, -1e-7], "rows": [[1, 2], []], text: [text, "[1,  2]", "]"], "[": {"a": [True]}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert lines[1:5] == ['  "numbers": [0.5, null, -1e-07],', '  "rows": [', "    [1, 2],", "    []"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_json_lacks(old, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(old, {"loss": number})
    assert_untouched(old)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', r"a\.json is not valid JSON"),
        (b"", r"a\.json is not valid JSON"),
        (b"\xff\xfe\x00", r"a\.json is not valid JSON"),
        (b"[1]", r"a\.json must hold a JSON object, got list"),
        (None, r"a\.json is missing"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(StorageError, match=message):
        read_json(tmp_path / "a.json")


# Tensors ---------------------------------------------------------------------------------------------------------

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
    "nan": torch.tensor([float("inf"), -0.0]),
}


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


def test_tensors_round_trip(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS)
    assert_equal(read_tensors(tmp_path / "a.safetensors"), TENSORS)
    assert names(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": torch.ones(2, 3).mT, "b": torch.ones(3, requires_grad=True)},
        dict(zip("ab", torch.arange(6.0).reshape(2, 3).unbind(), strict=True)),
    ],
    ids=["transposed and trained", "views of one tensor"],
)
def test_tensors_of_any_layout(tmp_path, tensors):
    write_tensors(tmp_path / "a.safetensors", tensors)
    assert_equal(read_tensors(tmp_path / "a.safetensors"), {name: tensor.detach() for name, tensor in tensors.items()})


def test_full_disk_while_writing_tensors(old, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match=r"no space left on the disk while writing .*old\.txt"):
        write_tensors(old, TENSORS)
    assert_untouched(old)


@pytest.fixture
def whole(tmp_path):
    """The bytes of a sound file."""
    save_file(TENSORS, tmp_path / "whole")
    return (tmp_path / "whole").read_bytes()


BROKEN = {
    "empty": lambda whole: b"",
    "part of the header's length": lambda whole: whole[:4],
    "no header": lambda whole: whole[:8],
    "part of the header": lambda whole: whole[:40],
    "one byte short": lambda whole: whole[:-1],
    "one byte more": lambda whole: whole + b"\0",
    "a header of 4 EiB": lambda whole: struct.pack("<Q", 2**62) + whole[8:],
    "a header of 99 MB": lambda whole: struct.pack("<Q", 99_000_000) + whole[8:],
    "a header that is no JSON": lambda whole: struct.pack("<Q", 8) + b"abcdefgh",
    "tensors beyond the end": lambda whole: whole.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
    "zip": lambda whole: b"PK\x03\x04" + bytes(100),
    "text": lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_tensors(tmp_path, whole, how):
    path = tmp_path / "a.safetensors"
    path.write_bytes(BROKEN[how](whole))
    assert path.read_bytes() != whole
    with pytest.raises(
        StorageError, match=r"a\.safetensors is truncated or not a safetensors file \(.+\); save or download it again"
    ):
        read_tensors(path)


def test_missing_tensors(tmp_path):
    with pytest.raises(StorageError, match=r"a\.safetensors is missing"):
        read_tensors(tmp_path / "a.safetensors")


# Folders ---------------------------------------------------------------------------------------------------------


def save(folder, number):
    write_folder(folder, {"content": "head", "number": number}, {"a": torch.full((3,), float(number))})


def number(folder):
    """Which save stands in ``folder``, config and weights of one piece."""
    config, tensors = read_folder(folder, "head")
    assert config["number"] == tensors["a"][0].item()
    return config["number"]


@pytest.fixture
def folder(tmp_path):
    """A folder that holds save number 1, and a file of somebody else's."""
    folder = tmp_path / "my head"
    save(folder, 1)
    (folder / "README.md").write_text("card", encoding="utf-8")
    return folder


SAVED = ["README.md", "config.json", "model.safetensors"]


def edit(folder, **changes):
    """Change entries of config.json; None takes one out."""
    config = {**json.loads((folder / "config.json").read_text(encoding="utf-8")), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}), encoding="utf-8")


def test_folder_round_trip(tmp_path):
    write_folder(tmp_path / "a" / "b", {"content": "head", "labels": ["é", 1]}, TENSORS)
    config, tensors = read_folder(tmp_path / "a" / "b", "head")
    assert_equal(tensors, TENSORS)
    assert config["labels"] == ["é", 1]
    assert (config["library"], config["format_version"]) == ("metatext", storage.FORMAT_VERSION)
    assert names(tmp_path / "a" / "b") == ["config.json", "model.safetensors"]


def test_saving_again_replaces_the_pair_and_nothing_else(folder):
    save(folder, 2)
    assert number(folder) == 2
    assert names(folder) == SAVED
    assert (folder / "README.md").read_text(encoding="utf-8") == "card"


def test_folder_given_as_text(tmp_path):
    save(str(tmp_path / "a"), 1)
    assert number(str(tmp_path / "a")) == 1


def test_folder_that_is_a_file(old):
    with pytest.raises(StorageError, match=r"old\.txt is a file; give a folder to save to"):
        save(old, 1)
    with pytest.raises(StorageError, match=r"old\.txt is not a folder"):
        read_folder(old, "head")
    assert_untouched(old)


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(StorageError, match="no head here is not a folder"):
        read_folder(tmp_path / "no head here", "head")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(StorageError, match=f"my head.{name} is missing"):
        read_folder(folder, "head")


@pytest.mark.parametrize(
    "changes",
    [{"library": None}, {"library": "setfit"}, {"format_version": None}, {"format_version": "1"}, {"format_version": 1.5}],
    ids=str,
)
def test_config_that_is_not_ours(folder, changes):
    edit(folder, **changes)
    with pytest.raises(StorageError, match=r"config\.json was not written by metatext"):
        read_folder(folder, "head")


def test_folder_of_transformers(tiny_folder):
    with pytest.raises(
        StorageError, match=r"config\.json was not written by metatext \(no 'library' and 'format_version' of ours"
    ):
        read_folder(tiny_folder, "head")


def test_newer_format(folder):
    edit(folder, format_version=storage.FORMAT_VERSION + 1)
    with pytest.raises(StorageError, match=r"my head has format_version 2, this metatext reads up to 1; upgrade metatext"):
        read_folder(folder, "head")


@pytest.mark.parametrize("content", ["adapted", None])
def test_other_content(folder, content):
    edit(folder, content=content)
    with pytest.raises(StorageError, match=f"my head holds {content!r}, expected 'head'"):
        read_folder(folder, "head")


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_broken_config(folder, content):
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(StorageError, match=r"config\.json (is not valid JSON|must hold a JSON object)"):
        read_folder(folder, "head")


@pytest.mark.parametrize("how", BROKEN)
def test_broken_weights(folder, how):
    path = folder / "model.safetensors"
    path.write_bytes(BROKEN[how](path.read_bytes()))
    with pytest.raises(StorageError, match=r"model\.safetensors is truncated or not a safetensors file"):
        read_folder(folder, "head")


@pytest.mark.parametrize("how", BROKEN)
def test_broken_weights_that_the_config_describes(folder, how):
    """The digest alone does not make a file sound."""
    path = folder / "model.safetensors"
    path.write_bytes(BROKEN[how](path.read_bytes()))
    edit(folder, weights=file_digest(path))
    with pytest.raises(StorageError, match=r"model\.safetensors is truncated or not a safetensors file"):
        read_folder(folder, "head")


def test_weights_with_one_bit_changed(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x41")
    with pytest.raises(StorageError, match=r"model\.safetensors is not the file that .*config\.json describes"):
        read_folder(folder, "head")


@pytest.mark.parametrize("weights", ["0" * 32, None, 7])
def test_weights_of_another_save(folder, weights):
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors")
    edit(folder, weights=weights)
    with pytest.raises(StorageError, match=r"is not the file that .* describes: truncated, replaced or only half copied"):
        read_folder(folder, "head")


# Saves that do not come to their end -----------------------------------------------------------------------------


def stopping(error):
    def stop(*args, **kwargs):
        raise error

    return stop


STOPS = [KeyboardInterrupt(), SystemExit(1), OSError(errno.EIO, "I/O error"), StorageError("no space left on the disk")]


@pytest.mark.parametrize("function", ["write_tensors", "write_json"])
@pytest.mark.parametrize("error", STOPS, ids=lambda error: type(error).__name__)
def test_save_that_fails_leaves_the_old_pair(folder, monkeypatch, function, error):
    with monkeypatch.context() as patch:
        patch.setattr(storage, function, stopping(error))
        with pytest.raises(type(error)):
            save(folder, 2)
    assert number(folder) == 1
    save(folder, 3)
    assert number(folder) == 3
    assert names(folder) == SAVED


def test_first_save_that_fails_leaves_nothing_that_loads(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", stopping(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "a", 1)
    with pytest.raises(StorageError, match=r"config\.json is missing"):
        read_folder(tmp_path / "a", "head")
    save(tmp_path / "a", 2)
    assert number(tmp_path / "a") == 2


@pytest.mark.parametrize("call", [1, 2, 3])
def test_save_interrupted_after_a_rename(folder, monkeypatch, call):
    """A Ctrl-C may arrive when the new config.json already stands there."""
    calls = []

    def fsync_folder(path):
        calls.append(path)
        if len(calls) == call:
            raise KeyboardInterrupt

    monkeypatch.setattr(storage, "fsync_folder", fsync_folder)
    try:
        save(folder, 2)
    except KeyboardInterrupt:
        assert number(folder) in (1, 2)
    else:
        assert number(folder) == 2 and len(calls) < call


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_leaves_the_old_pair(folder, monkeypatch, function, call):
    real, calls = getattr(os, function), []

    def full(*args):
        calls.append(args)
        return no_space() if len(calls) == call else real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        try:
            save(folder, 2)
            expected = 2
        except StorageError as error:
            assert "no space left on the disk" in str(error)
            expected = 1
    assert number(folder) == expected
    save(folder, 3)
    assert number(folder) == 3


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_file_system_without_hard_links(folder, monkeypatch, code):
    """FAT, and many network and FUSE file systems."""

    def link(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    save(folder, 2)
    assert number(folder) == 2
    assert names(folder) == SAVED
    monkeypatch.setattr(storage, "write_json", stopping(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save(folder, 3)
    assert number(folder) == 2


KILLS = '''
"""Save number 1; then die before the n-th change of the folder while saving 2, before the m-th while saving 3; read."""
import itertools, json, os, pathlib, sys, tempfile, torch
from metatext import storage

CHANGES = {"os.rename", "os.link", "os.remove"}
os.fsync = lambda handle: None  # a killed process, not a lost machine

def save(folder, number):
    storage.write_folder(folder, {"content": "head", "number": number}, {"a": torch.full((3,), float(number))})

def dies(folder, number, change):
    """Whether a process that saves `number` came to its `change`-th change, and was killed there."""
    child = os.fork()
    if not child:
        left = [change]
        def hook(event, args):
            if event in CHANGES and str(folder) in str(args[0]):
                left[0] -= 1
                if not left[0]:
                    os._exit(9)
        sys.addaudithook(hook)
        try:
            save(folder, number)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    return code == 9

def found(folder):
    try:
        config, tensors = storage.read_folder(folder, "head")
        return config["number"] if config["number"] == tensors["a"][0] else "mixed"
    except storage.StorageError as error:
        return str(error)

results = []
with tempfile.TemporaryDirectory() as root:
    for n in itertools.count(1):
        for m in itertools.count(1):
            folder = pathlib.Path(root) / f"{n} {m}"
            save(folder, 1)
            first = dies(folder, 2, n)
            between = found(folder)
            second = dies(folder, 3, m)
            after = found(folder)
            save(folder, 4)
            results.append([first, between, second, after, found(folder), f"kills before changes {n} and {m}"])
            if not second:
                break
        if not first:
            break
print(json.dumps(results))
'''


@pytest.fixture(scope="module")
def kills():
    """[killed in save 2, what is read, killed in save 3, what is read, what is read after save 4, where] per history."""
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLS], check=True, capture_output=True, text=True)
    results = json.loads(done.stdout)
    assert sum(first and second for first, _, second, *_ in results) > 30, "too few kills to mean anything"
    return results


def test_a_kill_leaves_a_loadable_pair(kills):
    assert [case for case in kills if case[1] not in ((1, 2) if case[0] else (2,))] == []


def test_a_second_kill_leaves_a_loadable_pair(kills):
    assert [case for case in kills if case[3] not in ((case[1], 3) if case[2] else (3,))] == []


def test_a_save_after_kills_is_whole(kills):
    assert [case for case in kills if case[4] != 4] == []


KILL_BEFORE_CONFIG = """
import os, sys, torch
from metatext import storage
storage.write_json = lambda *args: os._exit(9)
storage.write_folder(sys.argv[1], {"content": "head", "number": 2}, {"a": torch.full((3,), 2.0)})
"""


def test_kill_between_weights_and_config(folder):
    done = subprocess.run([sys.executable, "-c", KILL_BEFORE_CONFIG, str(folder)], check=False)
    assert done.returncode == 9
    assert number(folder) == 1
    save(folder, 3)
    assert number(folder) == 3
    assert names(folder) == SAVED


@pytest.mark.parametrize("other", [{"model_type": "bert"}, {"library": "metatext", "format_version": 1, "content": "adapted"}])
def test_what_others_saved_is_not_overwritten(tmp_path, other):
    (tmp_path / "config.json").write_text(json.dumps(other))
    (tmp_path / "model.safetensors").write_bytes(b"theirs")
    with pytest.raises(StorageError, match="saving 'head' there would destroy it; give another folder"):
        write_folder(tmp_path, {"content": "head"}, {"w": torch.zeros(1)})
    assert (tmp_path / "model.safetensors").read_bytes() == b"theirs"
    assert json.loads((tmp_path / "config.json").read_text()) == other


def test_two_that_save_at_once_leave_one_whole_save(tmp_path):
    """Processes, or as here threads: neither config of one beside weights of the other, nor an error."""

    def save(number):
        for turn in range(10):
            who = 10 * number + turn
            write_folder(tmp_path, {"content": "adapted", "who": who}, {"who": torch.full((50_000,), float(who))})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(4)))
    config, tensors = read_folder(tmp_path, "adapted")
    assert tensors["who"].eq(config["who"]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
