"""What the README says must run: its first snippet, on a head of the real encoder; its commands exist."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import pytest

import metatext as mt
from metatext import cli
from metatext.heads import HEADS
from metatext.storage import StorageError

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_snippet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    clf = names["clf"]
    assert clf.labels == ["delivery", "refund", "thanks"]
    assert clf.predict(["cheers, great service", "give me my cash back"]) == ["thanks", "refund"]
    assert clf.confidence(["the moon is far away"])[0] < clf.confidence(["where is my parcel"])[0]


def test_the_snippet_on_other_kinds(tmp_path, monkeypatch, embedded):
    monkeypatch.chdir(tmp_path)
    mt.MetaModel.from_encoder(embedded).save_pretrained("runs/kinds")
    snippet = next(code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "runs/kinds" in code)
    names: dict = {"mt": mt}
    exec(compile(snippet, "README.md", "exec"), names)
    tags, stars = names["tags"], names["stars"]
    assert tags.predict_proba(["is it sunny in Paris?"])[0].argmax() in (1, 2)
    bad, good = stars.predict(["awful, cold and rude", "wonderful food"])
    assert 1 <= bad < good <= 5


def test_a_head_of_ones_own(tmp_path, tiny, monkeypatch):
    """In a script: it is trained, measured, saved, and loaded by whoever has it."""
    monkeypatch.setitem(HEADS, "mean", None)  # put away again after the test
    snippet = next(code for code in re.findall(r"```python\n(.*?)```", README, re.S) if 'HEADS["mean"]' in code)
    names: dict = {"mt": mt}
    exec(compile(textwrap.dedent(snippet), "README.md", "exec"), names)
    texts, targets = ["where is my parcel", "I want my money back", "still no parcel"], ["delivery", "refund", "delivery"]
    assert names["model"].adapt(texts, targets).predict(["give me my cash back"]) == ["refund"]
    tasks = [task for task in mt.load_tasks("starter/train") if task.kind == "classification"][:3]
    model = mt.MetaModel.from_encoder(tiny, "mean")
    mt.meta_train(model, tasks, config=mt.TrainConfig(output_dir=tmp_path / "run", meta_steps=3))
    assert model.head.scale != 20.0
    report = mt.evaluate_tasks(model, tasks[:1], mt.EpisodeConfig(n_way=2, k_shot=2, n_query=2), n_episodes=3)
    assert "untrained" in str(report)
    clf = mt.MetaModel.from_pretrained(tmp_path / "run").adapt(texts, targets)
    clf.save_pretrained(tmp_path / "clf")
    assert (mt.AdaptedModel.from_pretrained(tmp_path / "clf").predict_proba(texts) == clf.predict_proba(texts)).all()
    monkeypatch.delitem(HEADS, "mean")
    with pytest.raises(StorageError, match=r"clf.*head: expected one of .*, got 'mean'.*needs a row in metatext.heads.HEADS"):
        mt.AdaptedModel.from_pretrained(tmp_path / "clf")


def test_the_path_of_a_newcomer(tmp_path, monkeypatch):
    """A csv becomes a classifier that is judged in six lines of Python, and in one command."""
    monkeypatch.chdir(tmp_path)
    rows = (
        "where is my parcel,delivery",
        "I want my money back,refund",
        "parcel still not here,delivery",
        "please refund me,refund",
    )
    Path("tickets.csv").write_text("\n".join(["text,label", *rows]))
    Path("held_out.csv").write_text("text,label\nthe parcel is lost,delivery\n")
    Path("new_tickets.csv").write_text("text\nmy parcel is late\n")
    snippet = next(code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "tickets.csv" in code)
    assert len([line for line in snippet.splitlines() if line]) <= 6
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["clf"]("give me my money back")[0]["label"] == "refund"
    command = re.search(r"^metatext (adapt --examples tickets.*)$", README, re.M).group(1)
    cli.main(shlex.split(command))
    assert "my parcel is late,delivery" in Path("runs/tickets/predictions.csv").read_text()


def test_commands_and_files_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)$", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"\b(recipes/[\w/]+\.(?:py|yaml))", README):
        assert (ROOT / path).is_file(), path


def test_the_architecture_names_every_file():
    section = README[README.index("## Architecture") : README.index("## Limits")]
    named = set(re.findall(r"`(\w+)/?`", section))
    files = {path.stem for path in (ROOT / "metatext").glob("*.py") if not path.stem.startswith("__")}
    assert files - named == set()
    assert {"heads", "commands", "recipes"} <= named
