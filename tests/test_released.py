"""The heads that come with metatext: whole, small, and the same wherever they are loaded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

import metatext as mt
from metatext import hub
from metatext.hub import RELEASED, released
from metatext.storage import read_json

ROOT = Path(__file__).resolve().parents[1]
FIGURE = re.compile(r"(?<![\w.-])[-+]?\d+\.\d+(?![\w.]*\w)")


@pytest.mark.parametrize("name", RELEASED)
def test_its_folder_is_complete_and_small(name):
    folder = released(name)
    assert {path.name for path in folder.iterdir()} >= {
        "README.md",
        "config.json",
        "model.safetensors",
        "metrics.json",
        "config.yaml",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000


@pytest.mark.parametrize("name", RELEASED)
def test_its_card_is_valid_and_its_snippet_runs(name, monkeypatch, tmp_path):
    card = ModelCard.load(released(name) / "README.md")
    data = card.data
    assert data.library_name == "metatext" and data.license == "apache-2.0"
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2" and data.eval_results
    monkeypatch.chdir(tmp_path)
    snippet = next(code for code in re.findall(r"```python\n(.*?)```", card.text, re.S))
    assert f'from_pretrained("{name}")' in snippet
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["clf"].predict(["give me my cash back"]) == ["refund"]


@pytest.mark.parametrize("name", RELEASED)
def test_it_was_trained_on_nothing_that_is_restricted(name):
    """Nor chosen on it, as config.json and the config beside it tell."""
    restricted = {"ag_news", "emorynlp_emotion", "ethos_hate", "isear_emotion", "liar", "meld_emotion", "bipar_en"}
    settings = read_json(released(name) / "config.json")["training"]["settings"]
    given = yaml.safe_load((released(name) / "config.yaml").read_text(encoding="utf-8"))
    assert {*settings["tasks"], *settings["eval_tasks"]} == {*given["tasks"], *given["eval_tasks"]}
    assert not restricted & {*settings["tasks"], *settings["eval_tasks"]}


@pytest.mark.parametrize("name", RELEASED)
def test_every_figure_of_its_tables_stands_in_its_metrics(name):
    folder = released(name)
    held = set()

    def collect(value) -> None:
        if isinstance(value, dict):
            list(map(collect, value.values()))
        elif isinstance(value, list):
            list(map(collect, value))
        elif isinstance(value, float):
            held.update(f"{abs(factor * value):.{places}f}" for factor in (1, 100) for places in (1, 2, 3))

    metrics = read_json(folder / "metrics.json")
    metrics.pop("predictions")
    collect(metrics)
    text = ModelCard.load(folder / "README.md").text
    shown = [figure for line in text.splitlines() if line.startswith("|") for figure in FIGURE.findall(line)]
    assert len(shown) > 50
    assert [figure for figure in shown if figure.lstrip("+-") not in held] == []


def test_a_fresh_process_without_network_answers_as_recorded():
    names = [str(ROOT / "model_cards" / RELEASED[0]), RELEASED[1]]  # by folder, and by name
    run = subprocess.run(
        [sys.executable, "recipes/benchmark.py", "predictions", "--models", *names],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("largest difference of a probability from those in metrics.json") == 2


def test_another_head_is_told_apart(tmp_path):
    path = tmp_path / "head"
    mt.MetaModel.from_encoder("embedded").save_pretrained(path)
    (path / "metrics.json").write_text(
        json.dumps({"predictions": read_json(released(RELEASED[1]) / "metrics.json")["predictions"]})
    )
    run = subprocess.run(
        [sys.executable, "recipes/benchmark.py", "predictions", "--models", str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 1 and "expected at most 0.001; it is another head" in run.stderr


def test_a_wheel_holds_them_inside_the_package(tmp_path, monkeypatch):
    """`released` looks there first; a folder of the user's own that bears the name comes before either."""
    package = tmp_path / "site" / "metatext"
    (package / "released" / RELEASED[0]).mkdir(parents=True)
    monkeypatch.setattr(hub, "__file__", str(package / "hub.py"))
    assert released(RELEASED[0]) == package / "released" / RELEASED[0]
    assert released(RELEASED[1]) == tmp_path / "site" / "model_cards" / RELEASED[1]


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    mt.MetaModel.from_encoder(tiny, "ridge").save_pretrained(RELEASED[0])
    assert mt.MetaModel.from_pretrained(RELEASED[0], tiny).head_config.name == "ridge"


def test_a_revision_of_a_released_head(tmp_path):
    with pytest.raises(
        mt.ConfigError, match=r"revision: .*metatext-minilm-general lies here, only a repo on the Hub has revisions"
    ):
        mt.MetaModel.from_pretrained(RELEASED[0], revision="v1")


@pytest.mark.slow  # builds in an environment of its own, which pip fetches
def test_the_wheel(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True
    )
    with zipfile.ZipFile(next(tmp_path.glob("metatext-*.whl"))) as wheel:
        files = set(wheel.namelist())
        wheel.extractall(tmp_path / "site")
    for name in RELEASED:
        for path in released(name).iterdir():
            assert f"metatext/released/{name}/{path.name}" in files
    assert "metatext/starter/catalog.json" in files and not any("questions" in file for file in files if "released" in file)
    load = f"import metatext as mt; print(mt.__file__, mt.MetaModel.from_pretrained({RELEASED[1]!r}).head_config.name)"
    run = subprocess.run(
        [sys.executable, "-c", load],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith(str(tmp_path / "site")) and run.stdout.endswith(" gp\n"), run.stderr
