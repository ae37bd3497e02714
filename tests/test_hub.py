"""Push, load and share against a Hub on the loopback interface: the same predictions, and one clear message for every fault.

huggingface_hub, transformers and datasets read where the Hub is when they are imported, so the clients are processes of their own.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Fault, HubServer

from metatext.storage import file_digest, write_folder

ROOT = Path(__file__).resolve().parents[1]
ALICE, BOB = "hf_aliceSecretToken123", "hf_bobSecretToken456"
TEXTS = ["aab b", "bbc c", "xyz", "zzy x"]
LABELS = ["first", "first", "last", "last"]
QUERIES = ["abc", "xxz", "a", "b c d"]
FIGURES = {
    "metric": "accuracy",
    "settings": {"n_way": 5, "k_shot": 1, "n_query": 5, "n_episodes": 30, "seed": 3, "fewer_ways": False},
    "tasks": {
        "greetings": {"trained": {"accuracy": 0.875, "interval_95": 0.0125}, "knn": {"accuracy": 0.5, "interval_95": 0.25}}
    },
    "mean": {"trained": {"accuracy": 0.875, "interval_95": 0.0125}, "knn": {"accuracy": 0.5, "interval_95": 0.25}},
}
VALUES = {"ALICE": ALICE, "BOB": BOB, "TEXTS": TEXTS, "LABELS": LABELS, "QUERIES": QUERIES, "FIGURES": FIGURES}


def environment(hub: HubServer, home: Path, **more: str) -> dict[str, str]:
    """Of a client whose caches lie in ``home``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    hugging = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    hugging |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": "127.0.0.1"}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**kept, **hugging, "PYTHONPATH": paths, "METATEXT_CACHE": str(home / "features"), **more}


class Client:
    """A process that runs snippets, see tests/scripts/hub_client.py."""

    def __init__(self, hub: HubServer, home: Path):
        script = [sys.executable, str(ROOT / "tests" / "scripts" / "hub_client.py")]
        self.process = subprocess.Popen(
            script, env=environment(hub, home), cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, code: str, **values) -> dict:
        """What the snippet left in ``answer``, the error that ended it, and all that was logged."""
        self.process.stdin.write(json.dumps({"code": code, "values": {**VALUES, **values}}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def run(self, code: str, **values):
        """The answer of a snippet that must not fail."""
        said = self.ask(code, **values)
        assert said["error"] is None, said["trace"]
        return said["answer"]

    def fails(self, code: str, kind: str, message: str, **values) -> dict:
        """One line of this error, with no other error behind it, no token in it and no path of the cache."""
        said = self.ask(code, **values)
        assert said["error"] is not None, "nothing failed"
        name, text = said["error"]
        assert (name, bool(re.search(message, text))) == (kind, True), f"{name}: {text}"
        assert "\n" not in text and "snapshots" not in text
        assert said["trace"].count("Traceback (most recent call last)") == 1, said["trace"]
        assert_secret(text + said["trace"] + said["log"])
        return said

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def assert_secret(text: str) -> None:
    assert ALICE not in text and BOB not in text


MAKE = """
import torch, metatext as mt
encoder = mt.Encoder.load("lab/tiny-encoder")
def make(seed, head="gp"):
    model = mt.MetaModel.from_encoder(encoder, head)
    torch.manual_seed(seed)
    for parameter in model.heads.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model
"""
PREDICT = """
import metatext as mt
def probabilities(model):
    return model.adapt(TEXTS, LABELS).predict_proba(QUERIES).tolist()
"""
LOAD = "answer = probabilities(mt.MetaModel.from_pretrained(name, **options))"
LOAD_HEAD = "answer = probabilities(mt.MetaModel.from_pretrained(name, encoder, **options))"


@pytest.fixture(scope="module")
def hub(tiny_folder):
    with HubServer({ALICE: "alice", BOB: "bob"}) as server:
        server.repo("lab/tiny-encoder").put({path.name: path.read_bytes() for path in tiny_folder.iterdir()})
        yield server


@pytest.fixture(autouse=True)
def no_faults(hub):
    hub.faults.clear()
    hub.extra.clear()
    yield
    hub.faults.clear()
    hub.extra.clear()


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    process = Client(hub, tmp_path_factory.mktemp("home"))
    process.run(MAKE + PREDICT)
    yield process
    process.close()


@pytest.fixture(scope="module")
def pushed(hub, client):
    """A head in alice/head, a classifier in alice/classifier; what each predicts, bit for bit."""
    push = """
model = make(1)
clf = model.adapt(TEXTS, LABELS)
commit = model.push_to_hub("alice/head", token=ALICE, metrics=FIGURES, datasets=["stanfordnlp/imdb"])
other = clf.push_to_hub("alice/classifier", token=ALICE)
answer = [clf.predict_proba(QUERIES).tolist(), commit.commit_url, commit.oid, str(commit), str(other)]
"""
    probabilities, url, oid, text, other = client.run(push)
    assert url == text == f"{hub.url}/alice/head/commit/{oid}" and other.startswith(f"{hub.url}/alice/classifier/commit/")
    return probabilities


def files(hub, name: str, revision: str = "main") -> dict[str, bytes]:
    return {path: file.content for path, file in hub.repo(name).files(revision).items()}


# Round trips -----------------------------------------------------------------------------------------------------


FRESH = (
    PREDICT
    + """
import json, socket
def refuse(*args): raise AssertionError("a network call")
model = mt.MetaModel.from_pretrained("alice/head")
clf = mt.AdaptedModel.from_pretrained("alice/classifier")
answer = [probabilities(model), clf.predict_proba(QUERIES).tolist(), clf.labels]
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
model = mt.MetaModel.from_pretrained("alice/head", local_files_only=True)
clf = mt.AdaptedModel.from_pretrained("alice/classifier", local_files_only=True)
answer += [probabilities(model), clf.predict_proba(QUERIES).tolist()]
print(json.dumps(answer))
"""
)
OFFLINE = (
    PREDICT
    + """
import json, socket
def refuse(*args): raise AssertionError("a network call")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
print(json.dumps(probabilities(mt.MetaModel.from_pretrained("alice/head"))))
from metatext.hub import HubError
try:
    mt.MetaModel.from_pretrained("alice/head", revision="v9")
except HubError as error:
    print(error)
"""
)


def fresh(code: str, hub: HubServer, home: Path, **more: str) -> list[str]:
    """Lines that a new process prints."""
    given = "".join(f"{name} = {value!r}\n" for name, value in VALUES.items())
    done = subprocess.run(
        [sys.executable, "-c", given + code], env=environment(hub, home, **more), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("\n")


def test_a_fresh_process_predicts_the_same_and_needs_no_network_again(hub, pushed, tmp_path):
    home = tmp_path / "another machine"
    head, classifier, labels, *cached = json.loads(fresh(FRESH, hub, home)[-1])
    assert head == classifier == pushed and labels == ["first", "last"]
    assert cached == [pushed, pushed]
    before = len(hub.requests)
    probabilities, message = fresh(OFFLINE, hub, home, HF_HUB_OFFLINE="1")
    assert json.loads(probabilities) == pushed
    assert "it is not in the cache, and no network call may be made (HF_HUB_OFFLINE, or local_files_only)" in message
    assert len(hub.requests) == before


def test_what_a_repo_holds(hub, pushed):
    assert set(files(hub, "alice/head")) == {"config.json", "model.safetensors", "README.md", "metrics.json"}
    assert set(files(hub, "alice/classifier")) == {"config.json", "model.safetensors", "README.md"}
    assert len(hub.repo("alice/head").commits) == 2, "the initial commit, and one push"
    assert json.loads(files(hub, "alice/head")["metrics.json"]) == FIGURES
    for name in ("alice/head", "alice/classifier"):
        for content in files(hub, name).values():
            assert_secret(content.decode("latin-1"))
            assert str(ROOT).encode() not in content


def test_revisions(hub, client, pushed, tmp_path):
    second = 'model = make(2)\nanswer = model.push_to_hub("alice/head", revision="v2", token=ALICE).oid'
    oid = client.run(second)
    other = client.run(LOAD, name="alice/head", options={"revision": "v2"})
    assert other != pushed
    assert client.run(LOAD, name="alice/head", options={"revision": oid}) == other
    assert client.run(LOAD, name="alice/head", options={}) == pushed
    hub.repo("alice/head").tags["release"] = oid
    assert client.run(LOAD, name="alice/head", options={"revision": "release", "cache_dir": str(tmp_path)}) == other
    assert 'from_pretrained("alice/head", revision="v2")' in files(hub, "alice/head", "v2")["README.md"].decode()
    assert "metrics.json" not in files(hub, "alice/head", "v2"), "figures of other weights stay in no branch that has none"
    client.fails(LOAD, "HubError", "status 404.*no such revision", name="alice/head", options={"revision": "v3"})
    client.fails(LOAD, "HubError", "expected a branch, a tag or a commit", name="alice/head", options={"revision": "../../x"})


def test_a_pull_request_of_somebody_else(hub, client, pushed):
    code = """
commit = make(5).push_to_hub("alice/head", create_pr=True, token=BOB, commit_message="better weights")
answer = [commit.pr_url, commit.pr_revision]
"""
    url, revision = client.run(code)
    assert url == f"{hub.url}/alice/head/discussions/1" and revision == "refs/pr/1"
    assert "better weights" in hub.repo("alice/head").titles.values()
    assert client.run(LOAD, name="alice/head", options={"revision": revision}) != pushed
    assert client.run(LOAD, name="alice/head", options={}) == pushed
    both = 'make(1).push_to_hub("alice/head", create_pr=True, revision="v2", token=BOB)'
    client.fails(both, "ConfigError", "create_pr: a pull request is opened against the main branch, got the revision 'v2'")


def test_a_private_repo(hub, client, tmp_path):
    push = "model = make(3)\nmodel.push_to_hub('alice/secret', private=True, token=ALICE)\n"
    expected = client.run(push + "answer = probabilities(model)")
    assert hub.repo("alice/secret").private
    options = {"cache_dir": str(tmp_path)}
    for token, message in (
        (None, "401.*private.*log in"),
        (BOB, "404.*private"),
        ("hf_nobodyKnowsThis", "401.*Invalid credentials"),
    ):
        client.fails(LOAD, "HubError", message, name="alice/secret", options={**options, "token": token})
    assert client.run(LOAD, name="alice/secret", options={**options, "token": ALICE}) == expected
    assert client.run(LOAD, name="alice/secret", options={**options, "local_files_only": True}) == expected
    public = 'make(1).push_to_hub("alice/head", private=True, token=ALICE)'
    client.fails(public, "HubError", "alice/head is a public repo; make it private in its settings")


def test_an_encoder_of_ones_own_is_loaded_with_the_same_token(hub, client, tiny_folder, tmp_path):
    commit = hub.repo("alice/encoder", private=True).put({path.name: path.read_bytes() for path in tiny_folder.iterdir()})
    code = """
import metatext as mt
from metatext.loading import Access
own = mt.Encoder.load("alice/encoder", access=Access(ALICE))
mt.MetaModel.from_encoder(own).push_to_hub("alice/on-private", token=ALICE)
"""
    client.run(code)
    written = json.loads(files(hub, "alice/on-private")["config.json"])["encoder"]
    assert (written["name"], written["revision"]) == ("alice/encoder", commit)
    hub.repo("alice/encoder").put({"model.safetensors": b"other weights"})  # the head asks for those that it was trained on
    options = {"cache_dir": str(tmp_path)}
    assert client.run(LOAD, name="alice/on-private", options={**options, "token": ALICE})
    offline = {**options, "local_files_only": True}
    assert client.run(LOAD, name="alice/on-private", options=offline)
    other = {"cache_dir": str(tmp_path / "other")}
    said = client.ask(LOAD, name="alice/on-private", options=other)
    assert said["error"][0] == "EncoderError" and "could not load the encoder 'alice/encoder'" in said["error"][1]


def test_an_encoder_in_a_folder_is_not_pushed(hub, client, tiny_folder):
    code = "import metatext as mt\nmt.MetaModel.from_encoder(folder).push_to_hub('alice/local', token=ALICE)"
    client.fails(code, "HubError", "is the folder .*, which nobody else has; push it to the Hub", folder=str(tiny_folder))
    assert ("model", "alice/local") not in hub.repos


# Cards, commands -------------------------------------------------------------------------------------------------


def test_the_snippet_of_a_card_runs(hub, client, pushed):
    for name in ("alice/head", "alice/classifier"):
        card = files(hub, name)["README.md"].decode()
        code = re.search(r"```python\n(.*?)```", card, re.S).group(1)
        assert name in code
        client.run(code)


def test_the_readme(hub, client, pushed, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = next(code for code in re.findall(r"```python\n(.*?)```", readme, re.S) if "push_to_hub" in code)
    hub.users["hf_me"] = "me"
    made = "model = make(1)\nclf = model.adapt(TEXTS, LABELS)\nimport os\nos.environ['HF_TOKEN'] = 'hf_me'\n"
    try:
        client.run(
            f"{made}try:\n{''.join(f'    {line}' for line in code.splitlines(True))}\nfinally:\n    del os.environ['HF_TOKEN']"
        )
    finally:
        del hub.users["hf_me"]
    assert set(hub.repo("me/my-head").branches) == {"main", "v2"} and hub.repo("me/my-classifier").private


COMMAND = """
import contextlib, io, os
from metatext import cli
os.environ["HF_TOKEN"] = ALICE
printed = io.StringIO()
try:
    with contextlib.redirect_stdout(printed):
        cli.main(words)
finally:
    del os.environ["HF_TOKEN"]
answer = printed.getvalue()
"""


def test_the_command(hub, client, pushed, tmp_path):
    client.run("make(7).save_pretrained(folder)", folder=str(tmp_path / "run"))
    curve = b"\x89PNG"
    (tmp_path / "run" / "learning_curve.png").write_bytes(curve)
    figures = {"model": "/a/folder/of/mine", "heads": [], "names": {"real": {"1": FIGURES}}}
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    words = ["push", str(tmp_path / "run"), "alice/commanded", "--private", "--metrics", str(tmp_path / "figures.json")]
    out = client.run(COMMAND, words=words)
    repo = hub.repo("alice/commanded")
    assert out == f"{tmp_path / 'run'} -> {hub.url}/alice/commanded/commit/{repo.branches['main']}\n"
    assert repo.private and files(hub, "alice/commanded")["learning_curve.png"] == curve
    card = files(hub, "alice/commanded")["README.md"].decode()
    assert "| greetings | 87.5 ± 1.2 | 50.0 ± 25.0 |" in card and "![" in card
    assert b"folder/of/mine" not in files(hub, "alice/commanded")["metrics.json"]

    (tmp_path / "run" / "README.md").write_text("---\nlicense: mit\n---\nBy hand.\n")
    (tmp_path / "run" / "learning_curve.png").unlink()
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(FIGURES))
    words = ["push", str(tmp_path / "run"), "alice/commanded", "--revision", "v2"]
    client.run(COMMAND, words=words)
    assert files(hub, "alice/commanded", "v2")["README.md"].endswith(b"By hand.\n")
    assert "learning_curve.png" not in files(hub, "alice/commanded", "v2"), "it is not of these weights"
    out = client.run(COMMAND, words=["push", str(tmp_path / "run"), "alice/commanded", "--create_pr"])
    assert out.strip().endswith(f"{hub.url}/alice/commanded/discussions/1")

    adapted = "make(7).adapt(TEXTS, LABELS).save_pretrained(folder)"
    client.run(adapted, folder=str(tmp_path / "adapted"))
    client.run(COMMAND, words=["push", str(tmp_path / "adapted"), "alice/adapted"])
    assert b"- examples: 4" in files(hub, "alice/adapted")["README.md"]
    said = client.ask(COMMAND, words=["push", str(tmp_path / "run"), "bob/not-mine"])
    assert said["error"][0] == "SystemExit" and "metatext push: could not push to bob/not-mine: status 403" in said["error"][1]


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
    client.fails(LOAD_HEAD, "StorageError", message, name="alice/broken", options=options)
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
    client.fails(code, "StorageError", "holds 'something', expected 'head'", folder=str(tmp_path / "other"))
    client.fails(code, "StorageError", "is not a folder", folder=str(tmp_path / "nothing"))
    assert len(hub.requests) == before


# Data sets -------------------------------------------------------------------------------------------------------

IMDB_CARD = """---
dataset_info:
  config_name: plain_text
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
  splits:
  - name: train
    num_examples: 6
  - name: test
    num_examples: 4
  - name: unsupervised
    num_examples: 2
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
  - split: test
    path: plain_text/test-*
  - split: unsupervised
    path: plain_text/unsupervised-*
  default: true
---

# Dataset Card for "imdb"
"""


def test_the_layout_of_imdb(hub, client, tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = {"train": [0, 0, 0, 1, 1, 1], "test": [0, 1, 0, 1], "unsupervised": [-1, -1]}
    contents = {"README.md": IMDB_CARD.encode()}
    for split, labels in rows.items():
        table = {"text": [f"{split} review {i}" for i in range(len(labels))], "label": labels}
        Dataset.from_dict(table, features=features).to_parquet(tmp_path / split)
        contents[f"plain_text/{split}-00000-of-00001.parquet"] = (tmp_path / split).read_bytes()
    commit = hub.repo("stanfordnlp/imdb", "dataset").put(contents)
    code = """
import metatext as mt
task = mt.load_task("stanfordnlp/imdb", split=split, revision=revision)
answer = [task.name, task.kind, task.inputs()[-1], task.targets.tolist(), task.labels, task.label_names, task.description]
"""
    name, kind, last, targets, labels, names, description = client.run(code, split="train", revision=None)
    assert (name, kind, last, targets) == ("imdb", "classification", "train review 5", [0, 0, 0, 1, 1, 1])
    assert labels == ["neg", "pos"] and names == ["negative film review", "positive film review"]
    assert description == "Did the reviewer like the film?"
    assert client.run(code, split="test", revision=commit)[3] == [0, 1, 0, 1]
    adapt = """
task = mt.load_task("stanfordnlp/imdb", split="train")
answer = mt.MetaModel.from_pretrained("alice/head").adapt(task).predict(["train review 1"])
"""
    assert client.run("import metatext as mt" + adapt)[0] in ("neg", "pos")
    said = client.ask(code, split="nowhere", revision=None)
    assert said["error"][0] == "DataError" and "could not load 'stanfordnlp/imdb'" in said["error"][1]
