"""Clients of a Hub on the loopback interface, and fixtures around them.

huggingface_hub, transformers and datasets read where the Hub is when they are imported, so the clients are processes of their own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer

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
    return {**kept, **hugging, "PYTHONPATH": str(ROOT), "METATEXT_CACHE": str(home / "features"), **more}


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
        assert_secret(said["log"])
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


@pytest.fixture(scope="session")
def hub(tiny_folder):
    with HubServer({ALICE: "alice", BOB: "bob"}) as server:
        server.repo("lab/tiny-encoder").put({path.name: path.read_bytes() for path in tiny_folder.iterdir()})
        yield server


@pytest.fixture(scope="session")
def client(hub, tmp_path_factory):
    process = Client(hub, tmp_path_factory.mktemp("home"))
    process.run(MAKE + PREDICT)
    yield process
    process.close()


@pytest.fixture(scope="session")
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
