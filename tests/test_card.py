"""Model cards: what the metrics say, nothing else, in the form that the Hub reads."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

import metatext as mt
from metatext import cli
from metatext.card import eval_results, make_card, reports_of
from metatext.config import EncoderConfig, EpisodeConfig, HeadConfig, LanguageConfig, TrainConfig
from metatext.hub import _stage
from metatext.kinds import KINDS
from metatext.settings import from_dict, to_dict
from metatext.snippets import EXAMPLES, snippet, train_command
from metatext.storage import StorageError, read_folder


@pytest.fixture(scope="module")
def report(tiny, tmp_path_factory):
    """Of a head on two unseen tasks, as plain values."""
    from metatext.store import FeatureStore

    store = FeatureStore(tiny, tmp_path_factory.mktemp("features"))
    letters = np.random.default_rng(0).choice(list("abcdefgh"), (2, 40, 6))  # chance decides
    rows = [[{"text": "".join(word), "label": f"class {i % 4}"} for i, word in enumerate(words)] for words in letters]
    tasks = [mt.load_task(part, name=name) for part, name in zip(rows, ("first task", "second | task"))]
    shape = EpisodeConfig(n_way=3, k_shot=2, n_query=3)
    model = mt.MetaModel.from_encoder(tiny)
    measured = mt.evaluate_tasks(model, tasks, shape, 5, seed=7, store=store, progress=False, baselines=("knn", "label_names"))
    return json.loads(json.dumps(measured.to_dict()))


@pytest.fixture
def config(tiny):
    """config.json of a head that was trained."""
    settings = {
        "warm_start": {"name": "before", "weights": "00"},
        "episodes": to_dict(EpisodeConfig(n_way=(2, 9), k_shot=3)),
        "train": {**to_dict(TrainConfig(meta_steps=70, seed=5, task_weights=("a=2", "b=3"))), "output_dir": "/my/folder"},
        "tasks": {"a": 10, "b c": 20},
        "eval_tasks": {"d": 30},
    }
    settings["train"].pop("output_dir")
    described = mt.MetaModel.from_encoder(tiny, HeadConfig("ridge", rank=2)).describe()
    described["encoder"] |= {"name": "lab/encoder", "revision": "0123abc"}
    return {"content": "head", **described, "training": {"settings": settings, "kept": {"step": 60, "eval_loss": 0.123456}}}


def test_what_the_hub_reads(config, report):
    card = make_card(config, "me/my-head", metrics=report, datasets=["stanfordnlp/imdb"], license="mit")
    again = ModelCard(str(card))  # read as the Hub reads it
    data = again.data.to_dict()
    assert {key: data[key] for key in ("library_name", "license", "base_model", "datasets", "pipeline_tag")} == {
        "library_name": "metatext",
        "license": "mit",
        "base_model": "lab/encoder",
        "datasets": ["stanfordnlp/imdb"],
        "pipeline_tag": "text-classification",
    }
    assert {"meta-learning", "few-shot", "classification"} <= set(data["tags"])
    results = eval_results(reports_of(report))
    assert again.data.eval_results == results and len(results) == 2
    assert model_index_to_eval_results(eval_results_to_model_index("my-head", results)) == ("my-head", results)
    own = report["tasks"]["first task"]
    first = results[0]
    assert (first.metric_type, first.metric_value, first.dataset_name) == ("accuracy", own["trained"]["accuracy"], "first task")
    assert first.metric_args["interval_95"] == own["trained"]["interval_95"] and first.metric_args["k_shot"] == 2
    assert first.metric_args["baselines"] == {name: own[name]["accuracy"] for name in ("knn", "label_names")}


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+\.\d+", text))


def test_every_figure_is_one_of_the_metrics(config, report):
    card = make_card(config, "me/my-head", metrics=report)
    entries = [*report["tasks"].values(), report["mean"]]
    known = [value for methods in entries for figures in methods.values() for value in figures.values()]
    shown = numbers(re.sub(r"metatext train.*", "", card.text))
    assert shown and shown <= {f"{100 * value:.1f}" for value in known}
    assert numbers(card.data.to_yaml()) - {"2.0"} <= {str(value) for value in known}, "2.0 is a licence's"
    assert len({figures["accuracy"] for figures in report["mean"].values()}) > 1
    for methods in entries:
        for figures in methods.values():
            assert f"{100 * figures['accuracy']:.1f} ± {100 * figures['interval_95']:.1f}" in card.text
    assert "| task | this model | knn | label names |" in card.text and r"| second \| task |" in card.text
    assert "3-way, 2 examples per class, 5 episodes, seed 7" in card.text


def test_no_metrics_no_figures(config):
    card = make_card(config, "me/my-head")
    assert "Nothing: no figures came with these weights." in card.text
    assert "model-index" not in card.data.to_dict() and "model_name" not in card.data.to_dict()
    assert not numbers(re.sub(r"metatext train.*", "", card.text))
    run = make_card(config, "me/my-head", metrics={"settings": {}, "history": [{"loss": 0.77}], "best": {}})
    assert "0.77" not in str(run)


def test_tasks_that_training_saw_are_marked(config, report):
    config["training"]["settings"]["tasks"] = {"first task": 3}
    config["training"]["settings"]["eval_tasks"] = {"second | task": 3}
    card = make_card(config, "me/my-head", metrics=report)
    assert "| first task (trained on) |" in card.text and r"| second \| task (chosen on) |" in card.text
    assert "model-index" not in card.data.to_dict()


def test_all_forms_of_metrics(report):
    plain = reports_of(report)
    assert reports_of({"history": [], "test": {"1": report, "5": report}}) == 2 * plain
    (real, numbered) = reports_of({"model": "x", "heads": [], "names": {"real": {"1": report}, "numbered": {"1": report}}})
    assert real["settings"]["names"] == "real" and numbered["settings"]["names"] == "numbered"
    assert reports_of({}) == reports_of({"history": []}) == []


DAMAGE = {
    "no mean": lambda report: report.update(mean={}),
    "an unknown metric": lambda report: report.update(metric="applause"),
    "figures that are none": lambda report: report["tasks"].update(x={"trained": 3}),
    "tasks as a list": lambda report: report.update(tasks=[1]),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_metrics(report, how):
    damaged = copy.deepcopy(report)
    DAMAGE[how](damaged)
    with pytest.raises(StorageError, match=r"the metrics are damaged .*expected Report\.to_dict\(\)"):
        reports_of(damaged)


def test_metrics_that_are_none():
    with pytest.raises(StorageError, match="hold no figures, but 'loss'; expected Report"):
        reports_of({"loss": 1})


def test_the_command_gives_the_settings_back(config):
    words = shlex.split(train_command(config, config["training"]["settings"]))
    assert words[:2] == ["metatext", "train"]
    settings = cli.parse("train", words[2:])
    saved = config["training"]["settings"]
    assert settings[TrainConfig] == from_dict(TrainConfig, saved["train"])
    assert settings[EpisodeConfig] == from_dict(EpisodeConfig, saved["episodes"])
    assert settings[HeadConfig] == HeadConfig("ridge", rank=2)
    assert settings[EncoderConfig] == EncoderConfig("lab/encoder", revision="0123abc")
    assert settings[cli.TrainData].tasks == ("a", "b c") and settings[cli.TrainData].eval_tasks == ("d",)


def test_the_command_gives_back_what_model_and_loop_do_not_tell(config, tiny_writer):
    described = {
        **tiny_writer.describe(),
        "name": "lab/writer",
        "tuning": "lora",
        "lora_rank": 3,
        "lora_alpha": 16.0,
        "lora_targets": [],
    }
    told = {
        "tasks": ["starter/train"],
        "eval_tasks": ["feelings"],
        "max_rows_per_task": 99,
        "skip_bad_rows": True,
        "pooling": "cls",
    }
    saved = {**config["training"]["settings"], "flags": told}
    words = shlex.split(train_command({**config, "language": described}, saved))
    settings = cli.parse("train", words[2:])
    data, language = settings[cli.TrainData], settings[LanguageConfig]
    assert (data.tasks, data.eval_tasks, data.tasks_dir, data.warm_start) == (("starter/train",), ("feelings",), None, ())
    assert data.max_rows_per_task == 99 and data.skip_bad_rows and settings[EncoderConfig].pooling == "cls"
    assert language == LanguageConfig("lab/writer", tuning="lora", lora_rank=3, prompt_length=3)
    config["training"]["settings"] = saved
    assert "one folder of corpora" not in make_card(config, "me/my-head").text
    before = cli.parse("train", shlex.split(train_command(config, {**saved, "flags": None}))[2:])[cli.TrainData]
    assert before.tasks == ("a", "b c") and before.warm_start == ("before",)


def test_training_in_words(config):
    text = make_card(config, "me/my-head").text
    assert "With seed 5" in text and "b c (20)" in text and "d (30)" in text and "`before`" in text
    config["training"] = {"by": "hand", "in": 1999}
    assert '"by": "hand"' in make_card(config, "me/my-head").text
    config["training"] = {"settings": "a few"}
    assert '"settings": "a few"' in make_card(config, "me/my-head").text
    config["training"] = {}
    assert "None: these are the starting values." in make_card(config, "me/my-head").text


@pytest.mark.parametrize("kind", EXAMPLES)
def test_snippets_run(kind, tiny, tiny_writer, monkeypatch, capsys):
    model = mt.MetaModel.from_encoder(tiny, language=tiny_writer)
    model.keep_kinds([kind])
    monkeypatch.setattr(
        mt.MetaModel, "from_pretrained", lambda name, revision: model if (name, revision) == ("me/a", "v1") else None
    )
    exec(snippet({"content": "head", **model.describe()}, "me/a", "v1"), {})
    assert capsys.readouterr().out


def test_every_kind_has_a_snippet():
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("pairs", [False, True])
def test_a_classifier(tiny, tmp_path, pairs):
    rows = [("a", "b"), ("b", "c"), ("c", "d")] if pairs else ["a", "b", "c"]
    names = {"x`|<b>": "the [first](http://x)", "y": "y"}
    clf = mt.MetaModel.from_encoder(tiny).adapt(rows, ["y", "x`|<b>", "y"], label_names=names)
    clf.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    text = make_card(saved, "me/clf", examples=3).text
    assert "- examples: 3" in text and "- label `` x`|<b> ``, read as `the [first](http://x)`" in text and "- label `y`\n" in text
    assert ('[("a first text", "and a second one")]' if pairs else '["a text to judge"]') in text
    assert "never their texts" in text
    assert "of a table" not in text  # where the rows came from is not known


def test_a_classifier_names_the_columns_of_its_rows(tiny, tmp_path):
    rows = [{"subject": c, "body": c * 2, "queue": "xy"[i % 2]} for i, c in enumerate("abcd")]
    task = mt.load_task(rows, columns={"text": ["subject", "body"], "label": "queue"})
    mt.MetaModel.from_encoder(tiny).adapt(task).save_pretrained(tmp_path)
    text = make_card(json.loads((tmp_path / "config.json").read_text()), "me/clf").text
    assert "of texts\n- text of a table: column `subject`, column `body`\n- label `x`" in text


def test_examples_of_questions_are_counted_as_rows(tiny, tmp_path):
    rows = [{"question": q, "context": "abcdef", "answers": {"text": ["cd"], "answer_start": [2]}} for q in "xyz"]
    clf = mt.MetaModel.from_encoder(tiny).adapt(rows, kind="span")
    clf.described["encoder"]["name"] = "me/encoder"  # a folder is no encoder that others have
    clf.save_pretrained(tmp_path / "clf")
    (tmp_path / "staged").mkdir()
    config, examples = _stage(tmp_path / "clf", tmp_path / "staged")
    assert examples == 3
    assert "of questions and contexts\n- examples: 3" in make_card(config, "me/clf", examples=examples).text


def test_a_regression_in_its_own_unit(tiny, tmp_path):
    model = mt.MetaModel.from_encoder(tiny)
    clf = model.adapt(["a", "b"], [1.5, 3.0], kind="regression", label_names={1: "bad", 5: "good"})
    clf.save_pretrained(tmp_path)
    figures = {"rmse": 1.23456, "interval_95": 0.1}
    values = {"n_way": 2, "k_shot": 16, "n_episodes": 9, "seed": 0}
    report = {"metric": "rmse", "settings": values, "tasks": {"t": {"trained": figures}}, "mean": {"trained": figures}}
    saved = json.loads((tmp_path / "config.json").read_text())
    text = make_card(saved, "me/clf", metrics=report).text
    assert "rmse, 16 examples, 9 episodes, seed 0" in text and "| t | 1.235 ± 0.100 |" in text
    header = str(make_card(saved, "me/clf", metrics=report))
    assert "k_shot: 16" in header and "n_way" not in header
    assert "- end of the scale `1`" in text or "- end of the scale `1.0`" in text


@pytest.mark.parametrize("folder", sorted((Path(__file__).parents[1] / "model_cards").iterdir()), ids=lambda folder: folder.name)
def test_released_cards_go_with_their_weights(folder):
    config, _ = read_folder(folder, "head")
    data = ModelCard((folder / "README.md").read_text(encoding="utf-8")).data
    assert (data.library_name, data.base_model) == ("metatext", config["encoder"]["name"]) and data.license


def test_a_config_that_says_too_little(config):
    del config["encoder"]["max_length"]
    with pytest.raises(StorageError, match="says too little for a card: KeyError: 'max_length'"):
        make_card(config, "me/my-head")
