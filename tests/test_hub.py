"""Push, load and share against a Hub on the loopback interface: the same predictions, bit for bit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_clients import ALICE, BOB, FIGURES, LOAD, PREDICT, ROOT, VALUES, assert_secret, environment, files
from hub_server import HubServer

import metatext as mt
from metatext.hub import HubError, push_folder

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
        [sys.executable, "-c", given + code], env=environment(hub, home, **more), capture_output=True, text=True, timeout=600
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


def test_pushing_the_same_again_changes_nothing(hub, client):
    code = "model = make(8)\nfirst, again = (model.push_to_hub('alice/twice', token=ALICE) for _ in range(2))\nanswer = [first.oid, again.oid]"
    first, again = client.run(code)
    assert first == again == hub.repo("alice/twice").branches["main"]


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


def test_a_private_repo(hub, client, pushed, tmp_path):
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


def test_a_trained_encoder(hub, client, tmp_path):
    """Its weights travel with the head, and it is pinned to the commit of a branch that moves on."""
    pinned = hub.repo("lab/tiny-encoder").branches["v1"] = hub.repo("lab/tiny-encoder").branches["main"]
    code = """
config = mt.EncoderConfig("lab/tiny-encoder", revision="v1", tuning="lora", lora_rank=2, pretrained_share=0.25)
model = mt.MetaModel.from_encoder(config)
torch.manual_seed(3)
for parameter in model.encoder.backbone.parameters():
    parameter.data += 0.05 * torch.randn_like(parameter) * parameter.requires_grad
model.push_to_hub("alice/lora", token=ALICE)
answer = [probabilities(model), probabilities(mt.MetaModel.from_encoder("lab/tiny-encoder"))]
"""
    expected, frozen = client.run(code)
    assert expected != frozen
    written = json.loads(files(hub, "alice/lora")["config.json"])["encoder"]
    assert (written["revision"], written["tuning"]) == (pinned, "lora")
    assert "trained with it (lora; what was trained lies in this repo)" in files(hub, "alice/lora")["README.md"].decode()
    assert client.run(LOAD, name="alice/lora", options={"cache_dir": str(tmp_path)}) == expected


def test_figures_that_are_none_make_no_repo(hub, client, pushed):
    before = len(hub.requests)
    code = "make(1).push_to_hub('alice/unmade', token=ALICE, metrics={'loss': 1})"
    client.fails(code, "StorageError", "the metrics hold no figures, but 'loss'")
    assert len(hub.requests) == before


def test_an_encoder_in_a_folder_is_not_pushed(hub, client, tiny_folder):
    code = "import metatext as mt\nmt.MetaModel.from_encoder(folder).push_to_hub('alice/local', token=ALICE)"
    client.fails(code, "HubError", "is the folder .*, which nobody else has; push it to the Hub", folder=str(tiny_folder))
    assert ("model", "alice/local") not in hub.repos


@pytest.mark.parametrize("what", ["encoder", "language model"])
def test_a_relative_folder_is_none_from_elsewhere_too(tiny, tiny_folder, tiny_writer_folder, tmp_path, monkeypatch, what):
    shutil.copytree(tiny_folder if what == "encoder" else tiny_writer_folder, tmp_path / "mine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    model = mt.MetaModel.from_encoder("./mine") if what == "encoder" else mt.MetaModel.from_encoder(tiny, language="./mine")
    model.save_pretrained("head")
    monkeypatch.chdir("elsewhere")
    with pytest.raises(HubError, match=rf"the {what} of \.\./head is the folder \./mine, which nobody else has"):
        push_folder("../head", "alice/local", token=ALICE)


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
    of_episodes = {"scores": {"greetings": {"trained": [0.75, 1.0]}}}
    figures = {"model": "/a/folder/of/mine", "heads": [], "names": {"real": {"1": {**FIGURES, **of_episodes}}}}
    figures["settings"] = {"encoder": {"name": "/a/folder/of/mine"}, "train": {"seed": 7}}
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    words = ["push", str(tmp_path / "run"), "alice/commanded", "--private", "--metrics", str(tmp_path / "figures.json")]
    out = client.run(COMMAND, words=words)
    repo = hub.repo("alice/commanded")
    assert out == f"{tmp_path / 'run'} -> {hub.url}/alice/commanded/commit/{repo.branches['main']}\n"
    assert repo.private and files(hub, "alice/commanded")["learning_curve.png"] == curve
    card = files(hub, "alice/commanded")["README.md"].decode()
    assert "| greetings | 87.5 ± 1.2 | 50.0 ± 25.0 |" in card and "![" in card
    published = files(hub, "alice/commanded")["metrics.json"]
    assert b"folder/of/mine" not in published and json.loads(published)["settings"] == {"train": {"seed": 7}}
    assert json.loads(published)["names"] == {"real": {"1": FIGURES}}, "scores of single episodes stay here"

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


def test_figures_go_with_the_weights_they_were_measured_on(hub, client, pushed, tmp_path):
    """Those of a run say whose they are: they and the curve stay behind where the folder holds other weights by now."""
    folder = tmp_path / "run"
    client.run("make(8).save_pretrained(folder)", folder=str(folder))
    weights = json.loads((folder / "config.json").read_text())["weights"]
    (folder / "learning_curve.png").write_bytes(b"\x89PNG")
    found = {}
    for name, of in (("own", {"weights": weights}), ("unsaid", {}), ("other", {"weights": "0" * 32})):
        (folder / "metrics.json").write_text(json.dumps({"history": [], "test": {"1": FIGURES}, **of}))
        said = client.ask(COMMAND, words=["push", str(folder), f"alice/{name}-figures"])
        assert said["error"] is None and ("are of other weights than lie there" in said["log"]) is (name == "other")
        found[name] = files(hub, f"alice/{name}-figures")
    for name in ("own", "unsaid"):
        assert {"metrics.json", "learning_curve.png"} <= set(found[name]) and b"87.5 \xc2\xb1 1.2" in found[name]["README.md"]
    assert set(found["other"]) == {"config.json", "model.safetensors", "README.md"}
    assert b"Nothing: no figures came with these weights." in found["other"]["README.md"]


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


def test_the_layout_of_imdb(hub, client, pushed, tmp_path):
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


def test_a_stream_of_imdb(hub, client, pushed, tmp_path):
    """Files that hold the first rows are read, and of those behind them at most one, which `datasets` opens early."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    contents = {"README.md": IMDB_CARD.encode()}
    for name in (*(f"train-0000{i}-of-00006" for i in range(6)), "test-00000-of-00001", "unsupervised-00000-of-00001"):
        table = {"text": [f"{name[:11]} review {i}" for i in range(100)], "label": [i % 2 for i in range(100)]}
        Dataset.from_dict(table, features=features).to_parquet(tmp_path / name)
        contents[f"plain_text/{name}.parquet"] = (tmp_path / name).read_bytes()
    repo = hub.repo("stanfordnlp/imdb", "dataset")
    repo.branches["large"] = repo.commit({}, "empty")
    repo.put(contents, "large")
    code = """
import metatext as mt
task = mt.load_task("stanfordnlp/imdb", split="train", revision="large", streaming=True, max_rows=150)
model = mt.MetaModel.from_pretrained("alice/head")
answer = [repr(task), task.inputs()[-1], task.targets.tolist(), task.label_names, model.adapt(task.select(range(20))).predict(["review"])]
"""
    asked = len(hub.requests)
    shown, last, targets, names, answer = client.run(code)
    assert (shown, last) == ("Task('imdb', classification, 150 rows, 2 classes)", "train-00001 review 49")
    assert targets == [0, 1] * 75 and names == ["negative film review", "positive film review"] and answer[0] in ("neg", "pos")
    read = [request for request in hub.requests[asked:] if request.startswith("GET") and ".parquet" in request]
    assert {re.search(r"plain_text/(.*)-of", request)[1] for request in read} <= {f"train-0000{i}" for i in range(3)}
    code = "import metatext as mt; mt.load_task('stanfordnlp/imdb', revision='large', streaming=True)"
    client.fails(code, "DataError", "streaming=True needs max_rows, the number of rows to take")
    said = client.ask(code.replace("streaming", "max_rows=3, streaming").replace("large", "none"))
    assert said["error"][0] == "DataError" and "could not load 'stanfordnlp/imdb'" in said["error"][1]
