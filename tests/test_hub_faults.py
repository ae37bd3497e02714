"""Every fault of the Hub, and every repo that is not what it should be: one clear message, and a cache that serves again."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hub_clients import LOAD_HEAD, files
from hub_server import Fault

from metatext.storage import file_digest, write_folder


@pytest.fixture(autouse=True)
def no_faults(hub):
    """The faults of a test stay in the test."""
    yield
    hub.faults.clear()
    hub.extra.clear()


# Faults ----------------------------------------------------------------------------------------------------------

INFO, TREE = r"GET /api/models/alice/head(/revision/\w+)?$", "GET /api/models/alice/head/tree"
HEAD_OF, GET_OF = r"HEAD /alice/head/resolve/\w+/", r"GET /alice/head/resolve/\w+/"
WEIGHTS = "model.safetensors"
LOADS = [
    (INFO, 401, r"alice/head is not a folder here, and could not be loaded from the Hub: status 401, 'a fault', .*log in"),
    (INFO, 403, "status 403, 'a fault'.*a token that may"),
    (INFO, 404, "status 404.*there is no such repo, or it is private"),
    (INFO, 429, "status 429.*too many requests: wait"),
    (INFO, 500, "status 500.*the Hub is in trouble: try again later"),
    (INFO, "drop", r"no whole answer from the Hub \(\w+: .*look at the connection and at HF_ENDPOINT"),
    (TREE, 503, "status 503.*the Hub is in trouble"),
    (TREE, "drop", "no whole answer from the Hub"),
    (HEAD_OF + WEIGHTS, 403, "status 403"),
    (HEAD_OF + WEIGHTS, 429, "status 429.*too many requests"),
    (HEAD_OF + WEIGHTS, "drop", "no whole answer from the Hub"),
    (GET_OF + WEIGHTS, 404, "status 404"),
    (GET_OF + WEIGHTS, 502, "status 502.*the Hub is in trouble"),
    (GET_OF + WEIGHTS, "drop", "no whole answer from the Hub|Consistency check failed"),
    (GET_OF + "config.json", "drop", "no whole answer from the Hub|Consistency check failed"),
]


@pytest.mark.parametrize(("match", "status", "message"), LOADS)
def test_faults_of_a_load(hub, client, pushed, tmp_path, match, status, message):
    options = {"cache_dir": str(tmp_path)}
    hub.faults.append(Fault(match, status))
    client.fails(LOAD_HEAD, "HubError", message, name="alice/head", options=options)
    hub.faults.clear()
    assert client.run(LOAD_HEAD, name="alice/head", options=options) == pushed
    hub.faults.append(Fault("/alice/head", 503))
    assert client.run(LOAD_HEAD, name="alice/head", options=options) == pushed, (
        "what is in the cache serves while the Hub is down"
    )


def test_a_connection_lost_in_the_middle_goes_on_where_it_was(hub, client, pushed, tmp_path):
    hub.faults.append(Fault(GET_OF + WEIGHTS, "drop", times=2))
    assert client.run(LOAD_HEAD, name="alice/head", options={"cache_dir": str(tmp_path)}) == pushed


def test_an_earlier_error_is_no_cause(hub, client, tmp_path):
    code = """
try:
    mt.MetaModel.from_pretrained("alice/unknown", cache_dir=folder)
except Exception:
    mt.MetaModel.from_pretrained("alice/unknown", cache_dir=folder, local_files_only=True)
"""
    said = client.ask(code, folder=str(tmp_path))
    assert "it is not in the cache, and no network call may be made" in said["error"][1]


def test_no_hub_at_all(client):
    code = """
import huggingface_hub, metatext as mt
from huggingface_hub import constants
there = constants.ENDPOINT
constants.ENDPOINT = "http://someone:password@127.0.0.1:9"
try:
    mt.MetaModel.from_pretrained("alice/head", cache_dir=folder)
finally:
    constants.ENDPOINT = there
"""
    said = client.fails(code, "HubError", "no whole answer from the Hub", folder="nothing here")
    assert "password" not in said["error"][1]


PUSHES = [
    ("POST /api/repos/create", 401, "could not push to alice/steady: status 401, 'a fault', .*log in"),
    ("POST /api/repos/create", 403, "status 403"),
    ("POST /api/repos/create", "drop", "no whole answer"),
    ("POST /api/validate-yaml", 400, "Invalid metadata in README.md|status 400"),
    ("POST .*/preupload/", 404, "status 404"),
    ("POST .*/objects/batch", 500, "status 500.*try again later"),
    ("PUT /lfs/", 403, "status 403"),
    ("PUT /lfs/", "drop", "no whole answer"),
    ("POST .*/commit/", 409, "status 409.*clashes"),
    ("POST .*/commit/", 412, "status 412.*somebody else changed the repo meanwhile.*push again"),
    ("POST .*/commit/", 429, "status 429"),
    ("POST .*/commit/", 503, "status 503"),
]


@pytest.mark.parametrize(("match", "status", "message"), PUSHES)
def test_faults_of_a_push(hub, client, match, status, message):
    """What stood in the repo stands there still, and the next push is whole."""
    hub.repos.pop(("model", "alice/steady"), None)
    hub.objects.clear()
    before = None if "create" in match else hub.repo("alice/steady").put({"notes.txt": b"mine"})
    hub.faults.append(Fault(match, status))
    push = 'model = make(4)\nmodel.push_to_hub("alice/steady", token=ALICE)\nanswer = probabilities(model)'
    client.fails(push, "HubError", message)
    assert before is None or hub.repo("alice/steady").branches["main"] == before
    hub.faults.clear()
    expected = client.run(push)
    assert client.run(LOAD_HEAD, name="alice/steady", options={}) == expected
    assert before is None or "notes.txt" in files(hub, "alice/steady"), "files of others stay"


def test_secrets_that_a_server_repeats(hub, client):
    hub.faults.append(Fault("/api/", 400, "{authorization} is a strange token"))
    load = "import metatext as mt\nmt.MetaModel.from_pretrained('alice/unknown', token=ALICE)"
    client.fails(load, "HubError", r"status 400, 'Bearer \*\*\* is a strange token'")
    push = "make(1).push_to_hub('alice/unknown', token=ALICE)"
    client.fails(push, "HubError", r"\*\*\* is a strange token")


# Repos that are not what they should be --------------------------------------------------------------------------


def changed(whole: dict[str, bytes], **entries) -> dict[str, bytes]:
    """With other entries in its config."""
    return {**whole, "config.json": json.dumps({**json.loads(whole["config.json"]), **entries}).encode()}


def lying(whole: dict[str, bytes], tmp_path: Path, how: str) -> dict[str, bytes]:
    """Weights whose header lies, under a config that describes just these."""
    weights = whole[WEIGHTS]
    weights = {
        "a header of 4 EiB": struct.pack("<Q", 2**62) + weights[8:],
        "tensors beyond the end": weights.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
        "a pickle": b"\x80\x04\x95" + bytes(100),
    }[how]
    (tmp_path / "weights").write_bytes(weights)
    return changed({**whole, WEIGHTS: weights}, weights=file_digest(tmp_path / "weights"))


BROKEN = {
    "no config": (lambda whole, tmp: {WEIGHTS: whole[WEIGHTS]}, r"^alice/broken\S*/config.json is missing"),
    "no weights": (lambda whole, tmp: {"config.json": whole["config.json"]}, r"^alice/broken\S*/model.safetensors is missing"),
    "another library's": (
        lambda whole, tmp: {**whole, "config.json": b'{"model_type": "bert"}'},
        r"^alice/broken\S*/config.json was not written by metatext",
    ),
    "a newer format": (lambda whole, tmp: changed(whole, format_version=99), "has format_version 99.*upgrade metatext"),
    "a classifier": (lambda whole, tmp: changed(whole, content="adapted"), "holds 'adapted', expected 'head'"),
    "no JSON": (lambda whole, tmp: {**whole, "config.json": b"<html>"}, "config.json is not valid JSON"),
    "JSON without end": (lambda whole, tmp: {**whole, "config.json": b'{"a":' + b"[" * 200_000}, "config.json is not valid JSON"),
    "other weights": (lambda whole, tmp: {**whole, WEIGHTS: whole[WEIGHTS] + b"\0"}, "is truncated or not a safetensors file"),
    "no kinds": (lambda whole, tmp: changed(whole, kinds=None), "config.json is incomplete or damaged"),
    "an encoder that is a list": (lambda whole, tmp: changed(whole, encoder=[1]), "config.json is incomplete or damaged"),
    **{
        how: (lambda whole, tmp, how=how: lying(whole, tmp, how), "is truncated or not a safetensors file")
        for how in ("a header of 4 EiB", "tensors beyond the end", "a pickle")
    },
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_repos(hub, client, pushed, tmp_path, how):
    """One message that names the repo; the same cache then serves the mended repo."""
    make, message = BROKEN[how]
    whole = files(hub, "alice/head")
    hub.repos.pop(("model", "alice/broken"), None)
    hub.repo("alice/broken").put(make(whole, tmp_path))
    options = {"cache_dir": str(tmp_path / "cache")}
    before = len(hub.requests)
    error = "ContentError" if how == "a classifier" else "StorageError"
    client.fails(LOAD_HEAD, error, message, name="alice/broken", options=options)
    if how in ("another library's", "a newer format", "a classifier"):
        assert not any(WEIGHTS in request for request in hub.requests[before:]), "weights of others may be many gigabytes"
    hub.repo("alice/broken").put(whole)
    assert client.run(LOAD_HEAD, name="alice/broken", options=options) == pushed


def test_names_of_files_lead_nowhere(hub, client, pushed, tmp_path):
    whole = files(hub, "alice/head")
    code = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04", "sub/config.json": b"{}"}
    hub.repo("alice/tricks").put({**whole, **code})
    hub.extra += ["../../evil.txt", "/evil.txt", "config.json/../../evil.txt", "..\\evil.txt", "sub/../config.json", "C:evil.txt"]
    cache = tmp_path / "a" / "b" / "cache"
    before = len(hub.requests)
    assert client.run(LOAD_HEAD, name="alice/tricks", options={"cache_dir": str(cache)}) == pushed
    asked = [request for request in hub.requests[before:] if "/alice/tricks/resolve/" in request]
    assert {request.split("/")[-1] for request in asked} == {"config.json", WEIGHTS}
    outside = [path for path in tmp_path.rglob("*") if cache not in path.parents and path not in (cache, *cache.parents)]
    assert outside == []
    assert {path.name for path in cache.glob("models--alice--tricks/snapshots/*/*")} == {"config.json", WEIGHTS}


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_damaged_cache_is_mended(hub, client, pushed, tmp_path, name):
    options = {"cache_dir": str(tmp_path)}
    client.run(LOAD_HEAD, name="alice/head", options=options)
    (cached,) = tmp_path.glob(f"models--alice--head/snapshots/*/{name}")
    cached.resolve().write_bytes(cached.read_bytes()[:-9])
    client.fails(
        LOAD_HEAD, "StorageError", f"alice/head/{name}", name="alice/head", options={**options, "local_files_only": True}
    )
    assert client.run(LOAD_HEAD, name="alice/head", options=options) == pushed
    assert client.run(LOAD_HEAD, name="alice/head", options={**options, "local_files_only": True}) == pushed


def test_a_folder_wins_over_a_repo(client, pushed, tmp_path):
    code = "import os\nos.chdir(folder)\nmake(9).save_pretrained('alice/head')\nanswer = probabilities(make(9))"
    expected = client.run(code, folder=str(tmp_path))
    assert client.run(LOAD_HEAD, name="alice/head", options={}) == expected != pushed
    client.fails(LOAD_HEAD, "ConfigError", "revision: alice/head lies here", name="alice/head", options={"revision": "v2"})
    client.run("import os\nos.chdir(folder)", folder=str(tmp_path.parent))
    for name in ("/no/such/folder", "a/b/c", "./x", "a--b/c"):
        client.fails(LOAD_HEAD, "StorageError", "is not a folder", name=name, options={})


def test_a_folder_that_is_not_ours_is_not_pushed(hub, client, tiny_folder, tmp_path):
    write_folder(tmp_path / "other", {"content": "something"}, {})
    before = len(hub.requests)
    code = "from metatext.hub import push_folder\npush_folder(folder, 'alice/x', token=ALICE)"
    client.fails(code, "StorageError", "was not written by metatext", folder=str(tiny_folder))
    client.fails(code, "ContentError", "holds 'something', expected 'head'", folder=str(tmp_path / "other"))
    client.fails(code, "StorageError", "is not a folder", folder=str(tmp_path / "nothing"))
    assert len(hub.requests) == before
