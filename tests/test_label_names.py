"""Ways of writing label names: what they do to words, and that no two names become one."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from letters import make_task
from scripts.train_head import letter_tasks

import metatext as mt
from metatext import cli
from metatext.commands.common import with_other_names
from metatext.episodes import draw_episodes
from metatext.features import encode_tasks
from metatext.label_names import MEANINGLESS, STYLES, letters, pascal
from metatext.methods import Draw
from metatext.readings import as_scale, joined
from metatext.rows import DataError
from metatext.snippets import train_command
from metatext.store import FeatureStore

FILES = sorted((Path(__file__).resolve().parents[1] / "recipes").glob("label_names*.yaml"))
VARIED = mt.EpisodeConfig(name_noise=0.1, name_variation=0.1, other_names=0.1)  # episodes that show names of every sort
STARS = {"bad": ["1 star", "awful"], "good": ["5 stars", "great"], "fair": ["3 stars", "so-so"]}


def reviews(name: str = "reviews") -> mt.Task:
    rows = [{"text": f"{word} {i}", "label": word} for word in ("bad", "fair", "good") for i in range(12)]
    return mt.load_task(rows, name=name)


def test_a_name_in_every_style():
    assert [write("refund not Showing up") for write in STYLES] == [
        "refund not Showing up",
        "refund_not_Showing_up",
        "REFUND_NOT_SHOWING_UP",
        "refund-not-showing-up",
        "refund.not.showing.up",
        "RefundNotShowingUp",
        "REFUND NOT SHOWING UP",
        "about: refund not Showing up",
        "category: refund not Showing up",
        "This text is about refund not Showing up.",
    ]


def test_capitals_inside_a_word_stay():
    assert pascal("  iPhone and NASA news") == "IPhoneAndNASANews"


@pytest.mark.parametrize("name", ["A", "déjà vu", "政治", "C++ / C#", "U.S. politics"])
@pytest.mark.parametrize("style", range(len(STYLES)))
def test_any_name_can_be_written(name, style):
    assert STYLES[style](name).strip()


def test_letters_count_like_the_columns_of_a_spreadsheet():
    assert [letters(n) for n in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == ["a", "b", "z", "aa", "ab", "az", "ba", "zz", "aaa"]


def test_meaningless_names_of_the_first_classes():
    assert [invent(0) for invent in MEANINGLESS] == ["0", "class 0", "LABEL_0", "C00", "group 1", "label_a", "class A", "A"]
    assert [invent(27) for invent in MEANINGLESS][3:] == ["C27", "group 28", "label_ab", "class AB", "AB"]


@pytest.mark.parametrize("style", range(len(STYLES)))
def test_numbers_stay_apart_in_every_style(style):
    for invent in MEANINGLESS:
        assert len({STYLES[style](invent(n)).casefold() for n in range(1000)}) == 1000


def test_styles_differ():
    texts = [write("open an account") for write in STYLES]
    assert all(a != b for a, b in itertools.combinations(texts, 2))


def test_training_encodes_the_names_that_its_episodes_show(tiny, tmp_path):
    store = mt.FeatureStore(tiny, tmp_path / "features", progress=False)
    shape = mt.EpisodeConfig(n_way=2, k_shot=(0, 2), n_query=2, n_outside=1, name_noise=0.5, name_variation=0.5)
    config = mt.TrainConfig(output_dir=tmp_path / "run", meta_steps=2, meta_batch_size=4)
    mt.meta_train(mt.MetaModel.from_encoder(tiny), letter_tasks(2), episodes=shape, config=config, store=store)
    done = store.encoded
    store.add([STYLES[3]("abc"), MEANINGLESS[1](1), STYLES[7](MEANINGLESS[2](0))])
    assert store.encoded == done + 1  # "abc" is no name of these tasks


def test_other_names_stand_together_as_they_are_given():
    task = reviews().with_other_label_names(STARS)
    assert task.labels == ("bad", "fair", "good") and task.label_names == ("bad", "fair", "good")
    assert task.other_label_names == (("1 star", "3 stars", "5 stars"), ("awful", "so-so", "great"))
    assert reviews().with_other_label_names({"bad": ["1 star"]}).other_label_names == (("1 star", "fair", "good"),)
    assert reviews().with_other_label_names({}).other_label_names == ()
    numbers = mt.load_task([{"text": f"t{i}", "label": i % 2} for i in range(8)], name="numbers")
    assert numbers.with_other_label_names({0: ["no"], "1": ["yes"]}).other_label_names == (("no", "yes"),)
    assert numbers.with_other_label_names({1: ["yes"]}).other_label_names == ((None, "yes"),)


def test_the_ends_of_a_scale_are_found_by_their_numbers():
    rows = [{"text": f"t{i}", "score": i} for i in range(6)]
    task = mt.load_task(rows, kind="regression", columns={"label": "score"}, label_names={0: "unlike", 5: "alike"}, name="alike")
    assert task.labels == (0.0, 5.0)
    for others in ({0: ["different"], 5: ["same"]}, {"0.0": ["different"], 5.0: ["same"]}):
        assert task.with_other_label_names(others).other_label_names == (("different", "same"),)


def test_other_names_follow_their_classes():
    task = reviews().with_other_label_names(STARS)
    assert task.with_classes(["good", "bad"]).other_label_names == (("5 stars", "1 star"), ("great", "awful"))
    assert task.select([0, 13]).other_label_names == task.other_label_names
    assert as_scale(task).other_label_names == (("1 star", "5 stars"), ("awful", "great"))
    mixed = joined(task, n_rows=20, parts=(2, 2), n_labels=2)
    index = [task.labels.index(label) for label in mixed.labels]
    assert mixed.other_label_names == tuple(tuple(names[i] for i in index) for names in task.other_label_names)


@pytest.mark.parametrize(
    "others, message",
    [
        ({"god": ["5 stars"]}, "task 'reviews' has no label 'god'; did you mean 'good'?"),
        ({"bad": ["a", "b"], "good": ["c"]}, "'bad' has 2 other names and 'good' 1; give every label as many"),
        ({"bad": "awful"}, "other names of 'bad': expected a list of texts, got one text"),
        ({"bad": [1]}, "other names of 'bad': expected texts, got 1; where a YAML file has it, write it in quotes"),
        ({"bad": [" "]}, "other names of 'bad': expected texts, got ' '"),
        ({"bad": []}, "other names of 'bad': expected a text at least, got none; leave the label out"),
        (
            {"bad": ["x", "Poor"], "fair": ["y", "poor"]},
            "'bad' and 'fair' would both be called 'poor' in a set of other names; give",
        ),
        (
            {"bad": ["good"]},
            "'bad' and 'good' would both be called 'good' in a set of other names; give every class a name of its own (a",
        ),
        ({True: ["x"]}, "task 'reviews' has no label True; where a YAML file has it, write it in quotes"),
        ([["awful"]], "task 'reviews': other label names: expected a dict, got one list; write {label: [text, text]}"),
    ],
)
def test_other_names_that_do_not_fit(others, message):
    with pytest.raises(DataError) as error:
        reviews().with_other_label_names(others)
    assert message in str(error.value)


def test_names_that_a_task_has_twice_itself_are_no_mistake_of_other_names():
    names = {0: "spam", 1: "spam", 2: "ham"}
    task = mt.load_task([{"text": f"t{i}", "label": i % 3} for i in range(9)], label_names=names, name="mail")
    assert task.with_other_label_names({2: ["wanted"]}).other_label_names == (("spam", "spam", "wanted"),)


def test_a_label_has_its_other_names_once():
    task = mt.load_task([{"text": f"t{i}", "label": i % 2} for i in range(8)], name="numbers")
    with pytest.raises(DataError, match="other names of '1' stand there twice, as of a number and of a text; leave one out"):
        task.with_other_label_names({1: ["yes"], "1": ["on"]})


def test_other_names_are_part_of_what_a_run_goes_by():
    task = reviews()
    digests = {
        task.digest(),
        task.with_other_label_names(STARS).digest(),
        task.with_other_label_names({"bad": ["poor"]}).digest(),
    }
    assert len(digests) == 3 and task.with_other_label_names({}).digest() == task.digest()


def test_episodes_show_the_vectors_of_other_names(tiny, tmp_path):
    tasks = [reviews().with_other_label_names(STARS), reviews("plain"), reviews("one").with_other_label_names({"bad": ["poor"]})]
    store = FeatureStore(tiny, tmp_path, progress=False)
    found = encode_tasks(store, tasks, VARIED)
    assert found.pool.styles == len(STYLES) and found.pool.others.tolist() == [2, 0, 1]
    shape = mt.EpisodeConfig(n_way=3, k_shot=1, n_query=1, other_names=1.0)
    batch = draw_episodes(found.pool, shape, np.arange(60) % 3, np.random.default_rng(0))
    support = found.gather(batch).support
    shown = set()
    for i in range(60):
        task = tasks[batch.task[i]]
        names = (*[task.label_names] * len(STYLES), *task.other_label_names)[batch.style[i]]
        texts = [names[c] for c in batch.classes[i]]
        assert torch.allclose(support.label_x[i], tiny.encode(texts), atol=1e-5)
        shown |= {frozenset(texts)}
    assert shown == {
        frozenset(names) for names in (("1 star", "3 stars", "5 stars"), ("awful", "so-so", "great"), ("bad", "fair", "good"), ("poor", "fair", "good"))
    }  # fmt: skip


def test_methods_that_read_texts_read_the_names_that_are_shown(tiny, tmp_path):
    tasks = [reviews().with_other_label_names(STARS), reviews("plain")]
    found = encode_tasks(FeatureStore(tiny, tmp_path, progress=False), tasks, VARIED)
    shape = mt.EpisodeConfig(
        n_way=(2, 3), k_shot=1, n_query=1, name_dropout=0.2, name_noise=0.3, name_variation=0.4, other_names=0.5
    )
    batch = draw_episodes(found.pool, shape, np.arange(200) % 2, np.random.default_rng(0))
    features = found.gather(batch)
    draw, seen = Draw(features, batch, found), set()
    for i in range(200):
        names = draw.names(i)
        there = [c for c, name in enumerate(names) if name]
        assert features.support.label_mask[i].tolist() == [c in there for c in range(3)]
        assert torch.allclose(features.support.label_x[i, there], tiny.encode([names[c] for c in there]), atol=1e-5)
        seen |= {*names}
    assert {"1 star", "so-so", "bad", "FAIR", "class 1", None} <= seen


def test_names_that_say_nothing_are_no_other_names(tiny, tmp_path):
    stars = ["1 star", "5 stars"]
    words = {"a": ("bad", "good"), "b": ("negative", "positive"), "c": ("hate", "love")}
    tasks = [
        mt.load_task([{"text": f"{word} {i}", "label": word} for word in pair for i in range(4)], name=name)
        for name, pair in words.items()
    ]
    tasks = [task.with_other_label_names({label: [star] for label, star in zip(task.labels, stars)}) for task in tasks]
    found = encode_tasks(FeatureStore(tiny, tmp_path, progress=False), tasks, VARIED)
    shape = mt.EpisodeConfig(n_way=2, k_shot=1, n_query=1, name_noise=0.5, other_names=1.0)
    batch = draw_episodes(found.pool, shape, np.arange(600) % 3, np.random.default_rng(0))
    noisy = (batch.name != batch.task[:, None] * 2 + batch.classes).any(1)
    assert 0.4 < noisy.mean() < 0.6
    for i in range(600):
        names = [found.name_text(number, batch.style[i]) for number in batch.name[i]]
        assert len(set(names)) == 2 and (set(names) & set(stars) == set() if noisy[i] else set(names) == set(stars))


def test_a_scale_has_other_ends(tiny, tmp_path):
    task = as_scale(reviews().with_other_label_names(STARS))
    found = encode_tasks(FeatureStore(tiny, tmp_path, progress=False), [task], VARIED)
    batch = draw_episodes(
        found.pool, mt.EpisodeConfig(k_shot=2, n_query=2, other_names=1.0), np.zeros(20, np.int64), np.random.default_rng(0)
    )
    assert set(batch.style) == {len(STYLES), len(STYLES) + 1}
    ends = tiny.encode(["1 star", "5 stars", "awful", "great"])
    scales = torch.nn.functional.normalize(ends[1::2] - ends[::2], dim=-1)
    assert torch.allclose(found.gather(batch).support.label_x[:, 0], scales[batch.style - len(STYLES)], atol=1e-5)


def test_names_are_encoded_once_however_many_share_them(tiny, tmp_path):
    store = FeatureStore(tiny, tmp_path, progress=False)
    encode_tasks(store, [reviews()], VARIED)
    before = store.encoded
    encode_tasks(store, [reviews().with_other_label_names(STARS)], VARIED)
    assert store.encoded == before + 6
    task = reviews().with_other_label_names(STARS)
    assert encode_tasks(store, [task]).names.shape == (1, 3)  # not where nothing shows them
    assert encode_tasks(store, [task], mt.EpisodeConfig(other_names=0.5)).names.shape == (
        1 + 2,
        3,
    )  # and they alone where nothing else is shown


def test_other_names_that_nothing_has_are_told_of(tiny, tmp_path, caplog):
    shape = mt.EpisodeConfig(n_way=2, k_shot=1, n_query=2, n_outside=1, other_names=0.3)
    config = mt.TrainConfig(output_dir=tmp_path / "run", meta_steps=1, meta_batch_size=2)
    with caplog.at_level(logging.WARNING):
        mt.meta_train(mt.MetaModel.from_encoder(tiny), letter_tasks(2), episodes=shape, config=config)
    assert "other_names has no effect: no task has other_label_names" in caplog.messages


def test_measuring_tells_of_tasks_without_other_names(tiny, tmp_path, caplog):
    tasks = [reviews().with_other_label_names(STARS), reviews("plain")]
    shape = mt.EpisodeConfig(n_way=3, k_shot=1, n_query=2, other_names=1.0)
    store = FeatureStore(tiny, tmp_path, progress=False)
    model = mt.MetaModel.from_encoder(tiny)
    mt.evaluate_tasks(model, tasks, shape, 2, baselines=(), store=store, progress=False)
    assert [text for text in caplog.messages if text.startswith("other_names")] == [
        "other_names has no effect on plain: no other_label_names; see Task.with_other_label_names"
    ]
    caplog.clear()
    mt.evaluate_tasks(model, tasks[:1], shape, 2, baselines=(), store=store, progress=False)
    assert not caplog.messages


def letter_corpora(folder: Path) -> list[str]:
    """The arguments of a short run on two corpora in ``folder``."""
    for name in ("one", "two"):
        task = make_task(name, classes=3)
        lines = [json.dumps({"text": text, "label": label}) for text, label in zip(task.inputs(), task.answers(), strict=True)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return ["--tasks_dir", str(folder), "--tasks", "one", "two", "--eval_tasks", "two", "--n_way", "2", "--n_query", "2",
            "--meta_steps", "2", "--meta_batch_size", "4", "--eval_steps", "2", "--eval_episodes", "4"]  # fmt: skip


def test_a_command_reads_other_names(tiny_folder, tmp_path, caplog):
    (tmp_path / "corpora").mkdir()
    arguments = letter_corpora(tmp_path / "corpora")
    (tmp_path / "names.yaml").write_text("one:\n  class a: [full of a, a]\n  class f: [full of f, f]\n")
    arguments += ["--encoder", str(tiny_folder), "--output_dir", str(tmp_path / "run"), "--other_names", "0.5"]
    with caplog.at_level(logging.INFO):
        cli.run("train", [*arguments, "--other_label_names", str(tmp_path / "names.yaml")])
    assert "other label names for 1 of 1 tasks" in caplog.messages
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    command = train_command(config, config["training"]["settings"])
    assert "--other_label_names path/to/names.yaml" in command and "--other_names 0.5" in command


@pytest.mark.parametrize(
    "text, share, message",
    [
        ("one: {class a: [x]}", "0", "other_label_names: no episode would show them; set other_names, the share that does, 0.4 for one"),
        ("one: {class a: [x", "0.5", "is not valid YAML"),
        ("one:\n  class a: [x]\n  class a: [y]", "0.5", "the key 'class a' stands there twice, first in line 2; keep one"),
        ("- one", "0.5", "expected a dict, got one list; write task: and below it label: [text, text]"),
        ("one: [x]", "0.5", "one: expected a dict, got one list; write label: [text, text] below it"),
        ("two: {class a: [x]}", "0.5", "none of these tasks has names in it, one; it has two"),
        ("one: {}", "0.5", "none of these tasks has names in it, one; it has nothing"),
        ("", "0.5", "expected a dict, got None; write task: and below it label: [text, text]"),
        ("one: {class z: [x]}", "0.5", "task 'one' has no label 'class z'; did you mean 'class"),
        ("one: {class a: [yes]}", "0.5", "other names of 'class a': expected texts, got True; where a YAML file has it, write it in quotes"),
    ],
)  # fmt: skip
def test_files_of_other_names_that_do_not_fit(tiny_folder, tmp_path, text, share, message, capsys):
    (tmp_path / "corpora").mkdir()
    (tmp_path / "names.yaml").write_text(text)
    arguments = [*letter_corpora(tmp_path / "corpora"), "--encoder", str(tiny_folder), "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stopped:
        cli.run("train", [*arguments, "--other_names", share, "--other_label_names", str(tmp_path / "names.yaml")])
    assert message in str(stopped.value) and not (tmp_path / "run" / "config.json").exists()


def test_other_names_without_a_share_are_told_before_anything_is_loaded(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        cli.run("train", ["--encoder", str(tmp_path / "none"), "--other_label_names", "names.yaml"])
    assert "other_label_names: no episode would show them; set other_names" in str(stopped.value)


def test_no_task_to_train_on_is_no_matter_of_the_file(tiny_folder, tmp_path):
    (tmp_path / "corpora").mkdir()
    (tmp_path / "names.yaml").write_text("one: {class a: [x]}")
    arguments = [*letter_corpora(tmp_path / "corpora"), "--eval_tasks", "one", "two", "--encoder", str(tiny_folder)]
    arguments += ["--output_dir", str(tmp_path / "run"), "--other_names", "0.5"]
    with pytest.raises(SystemExit, match="tasks: none given"):
        cli.run("train", [*arguments, "--other_label_names", str(tmp_path / "names.yaml")])


def test_tasks_that_a_file_has_no_other_names_of_are_said(tmp_path, caplog):
    (tmp_path / "names.yaml").write_text("reviews: {bad: [poor]}\nmails: {spam: [unwanted]}\nplain: {}")
    tasks = [reviews(), reviews("plain"), reviews("another")]
    with caplog.at_level(logging.INFO):
        given = with_other_names(tasks, str(tmp_path / "names.yaml"))
    assert [task.other_label_names for task in given] == [(("poor", "fair", "good"),), (), ()]
    assert caplog.messages == ["other label names for 1 of 3 tasks; their own ones alone: plain, another"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_names_that_come_with_the_recipes(file):
    for name, others in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        task = mt.load_task([{"text": f"text {label}", "label": str(label)} for label in others], name=name)
        assert task.with_other_label_names(others).other_label_names, name


def test_a_command_measures_with_other_names(tiny_folder, tmp_path, capsys):
    (tmp_path / "corpora").mkdir()
    letter_corpora(tmp_path / "corpora")
    (tmp_path / "names.yaml").write_text("one:\n  class a: [xyz]\n  class f: [zyx]\n  class k: [yxz]\n")
    mt.MetaModel.from_encoder(str(tiny_folder)).save_pretrained(tmp_path / "head")
    arguments = ["--model", str(tmp_path / "head"), "--tasks_dir", str(tmp_path / "corpora"), "--tasks", "one", "--n_way", "3",
                 "--n_query", "2", "--shots", "0", "2", "--n_episodes", "30", "--baselines", "label_names", "nearest_centroid"]  # fmt: skip
    names = ["--names", "real", "other", "--other_label_names", str(tmp_path / "names.yaml")]
    cli.run("test", [*arguments, *names, "--output", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    real, other = (figures["names"][key] for key in ("real", "other"))
    assert other["0"]["settings"]["other_names"] == 1 and real["0"]["settings"]["other_names"] == 0
    assert real["2"]["mean"]["nearest_centroid"] == other["2"]["mean"]["nearest_centroid"]  # the same episodes; it reads no names
    assert real["0"]["mean"]["label_names"] != other["0"]["mean"]["label_names"]
    assert figures["flags"]["other_label_names"] == "path/to/names.yaml"
    cli.run("test", [*arguments, "--output", str(tmp_path / "plain.json")])
    assert (
        json.loads((tmp_path / "plain.json").read_text())["names"]["real"] == real
    )  # what else labels may be called moves nothing
    assert other["0"]["settings"]["data"] != real["0"]["settings"]["data"]
    assert "2 examples per class, other names" in capsys.readouterr().out
    for wrong, message in (
        (names[:3], "names: other names stand in a file; name it with other_label_names"),
        (names[3:], "other_label_names: no table would show them; add other to names"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.run("test", [*arguments, *wrong])
        assert message in str(stopped.value)
