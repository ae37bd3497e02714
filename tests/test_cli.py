"""Commands and recipes: every recipe with every config, help that is quick, mistakes that end in one line."""

from __future__ import annotations

import csv
import json
import logging
import re
import shlex
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from letters import make_task
from scripts.processes import kill_when
from scripts.train_head import find_the_run, letter_tasks

import metatext as mt
from metatext import cli, run_folder
from metatext.card import make_card
from metatext.config import EpisodeConfig, HeadConfig, TrainConfig
from metatext.fit import Fit

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
STARTER = [
    "starter",
    *(f"starter/{kind}/{split}" for kind in ("multilabel", "regression", "span", "generation") for split in ("train", "test")),
]
RECIPES = {
    "train": "meta_train.py",
    "test": "meta_test.py",
    "adapt": "adapt.py",
    "finetune": "finetune.py",
    "predict": "predict.py",
    "push": "push_to_hub.py",
}
TINY = ["--n_episodes", "8", "--n_way", "5", "--fewer_ways", "--n_query", "2"]  # what the small corpora can give
SMALL = ["--meta_steps", "4", "--meta_batch_size", "4", "--eval_steps", "2", "--save_steps", "2", "--eval_episodes", "4"]


def command_of(path: Path) -> str:
    """The command whose settings a config holds."""
    keys = set(yaml.safe_load(path.read_text()))
    return next(name for name in ("train", "test") if not keys - known_keys(name))


def known_keys(command: str) -> set[str]:
    classes = cli.COMMANDS[command][1]
    return {item.metadata["flag"] or item.name for cls in classes for item in cls.__dataclass_fields__.values()}


@pytest.fixture
def corpora(tmp_path):
    """A folder that holds a small corpus for every name in the committed configs; each class has letters of its own."""
    from datasets import Dataset

    names, questions = set(), set()
    for path in CONFIGS:
        values = yaml.safe_load(path.read_text())
        own = {n for key in ("tasks", "eval_tasks", "test_tasks") for n in values.get(key, []) if "/" not in n}
        names |= own
        questions |= own if path.stem.startswith("questions") else set()
        names |= {values["outside"]} if "outside" in values else set()
    starter = {task.name for part in STARTER for task in mt.load_tasks(part)}
    others = {}
    for path in (ROOT / "recipes").glob("label_names*.yaml"):
        others |= yaml.safe_load(path.read_text(encoding="utf-8"))
    for name in {name.split("=")[-1].split("@")[0] for name in names if " " not in name} - starter:
        rows = [
            {"text": f"{'abcdef'[c] * (i + 1)} {i} {name}"[:40], "label": f"class_{'abcdef'[c]}", "rating": c + i % 3}
            for c in range(6)
            for i in range(60 if f"joined={name}" in names else 20)  # two or three of them make a joined row
        ]
        if name in others:  # its labels are those that the file knows
            labels = [*others[name], *"abcdef"[len(others[name]) :]]
            first = rows[: len(rows) // 6]
            rows = [{**row, "text": f"{row['text']} {label}", "label": label} for label in labels for row in first]
        if name.startswith("gen_"):
            rows = [{"input": row["text"], "target": row["label"]} for row in rows]
        if name == "stsb":
            rows = [{"text": row["text"], "text_pair": "abc", "score": row["rating"] / 2} for row in rows]
        if name in questions:
            rows = find_the_run(rows=80).inputs()
        folder = tmp_path / "corpora" / name
        folder.mkdir(parents=True)
        Dataset.from_list(rows).to_parquet(folder / "full.parquet")
    splits = {"01": {"test": [f"class_{c}" for c in "abcde"]}, "02": {"test": [f"class_{c}" for c in "bcdef"]}}
    (tmp_path / "corpora" / "class_splits.json").write_text(json.dumps(splits))
    return tmp_path / "corpora"


@pytest.fixture
def small_head(tmp_path, tiny):
    folder = tmp_path / "head"
    mt.MetaModel.from_encoder(tiny).save_pretrained(folder)
    return folder


@pytest.fixture
def small_writer(tmp_path, tiny, tiny_writer):
    """A head that has a language model too."""
    folder = tmp_path / "writing head"
    mt.MetaModel.from_encoder(tiny, language=tiny_writer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(
    path, corpora, small_head, small_writer, tiny_folder, tiny_writer_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("metatext.rivals.SPAN_STEPS", 2)
    command = command_of(path)
    writes = "gen_" in path.read_text()
    if command == "train":
        output = tmp_path / "run"
        cli.run(
            "train",
            [
                str(path),
                "--tasks_dir",
                str(corpora),
                "--encoder",
                str(tiny_folder),
                "--output_dir",
                str(output),
                *SMALL,
                "--test_episodes",
                "3",
                *(["--language_model", str(tiny_writer_folder), "--eval_episodes", "2"] if writes else []),
            ],
        )
        assert {"config.json", "model.safetensors", "metrics.json", "learning_curve.png", "checkpoints"} <= {
            p.name for p in output.iterdir()
        }
        assert str(output) in capsys.readouterr().out
    else:
        values, output = yaml.safe_load(path.read_text()), tmp_path / "figures.json"
        arguments = [
            str(path),
            "--model",
            str(small_writer if writes else small_head),
            "--tasks_dir",
            str(corpora),
            "--output",
            str(output),
        ]
        if "--class_splits" in path.read_text():
            arguments += ["--class_splits", str(corpora / "class_splits.json")]
        cli.run("test", [*arguments, *TINY, *(["--n_episodes", "2"] if writes else [])])
        figures = json.loads(output.read_text())["names"]
        assert set(figures) == set(values.get("names", ["real"]))
        assert set(figures["real"]) == {str(k) for k in values["shots"]}
        assert "paired: mean ± 95 % interval" in capsys.readouterr().out
        if "outside" in values:
            assert "auroc_far" in figures["real"]["5"]["pooled"]["trained"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_say_what_they_need_and_how_to_launch(path):
    head = path.read_text().split("\n")[:6]
    assert head[0].startswith("# What:") and any(line.startswith("# Needs:") for line in head)
    command = "\n".join(head).replace("\\\n#", " ")  # one that takes two lines is one command
    launch = next(line for line in command.split("\n") if line.startswith("# Launch:"))
    assert f"recipes/configs/{path.name}" in launch
    assert all((ROOT / word).is_file() for word in launch.split() if word.startswith("recipes/"))
    assert "/work" not in path.read_text()


def test_train_test_and_adapt_one_after_the_other(tmp_path, tiny_folder, capsys, monkeypatch):
    head = tmp_path / "run"
    common = ["--tasks", "starter/train", "--eval_tasks", "feelings", "--test_tasks", "starter/test", "--test_episodes", "3"]
    shape = ["--n_way", "2", "5", "--k_shot", "0", "4", "--n_query", "4", "--encoder", str(tiny_folder)]
    cli.main(["train", *common, *shape, *SMALL, "--output_dir", str(head)])
    out = capsys.readouterr().out
    assert "mean over tasks" in out and "logistic_regression" in out and "adapted with 3 examples per class" in out
    assert json.loads((head / "metrics.json").read_text())["test"]["5"]["tasks"]["hobby_topics"]["trained"]["accuracy"] >= 0

    kept = (head / "metrics.json").read_bytes()
    cli.main(["train", *common[:4], *shape, *SMALL, "--output_dir", str(head)])
    assert (head / "metrics.json").read_bytes() == kept, "started again without test tasks, a finished run keeps its figures"

    def measured(*args, **kwargs):
        with pytest.raises(mt.ConfigError, match="another run is writing to"), run_folder.held(head):
            pass
        return mt.evaluate_tasks(*args, **kwargs)

    monkeypatch.setattr("metatext.commands.train.evaluate_tasks", measured)
    cli.main(["train", *common, "--test_shots", "2", *shape, *SMALL, "--output_dir", str(head)])
    assert set(json.loads((head / "metrics.json").read_text())["test"]) == {"2"}

    examples, new = tmp_path / "examples.csv", tmp_path / "new rows.csv"
    examples.write_text('body,queue\n"my card is gone",cards\n"lost, my card",cards\n"hello there",talk\n"good day",talk\n')
    new.write_text("number,body\n7,where is my card\n8,hi\n")
    columns = ["--text_column", "body", "--label_column", "queue"]
    output = tmp_path / "adapted"
    cli.main(
        ["adapt", "--model", str(head), "--examples", str(examples), "--predict", str(new), "--output_dir", str(output), *columns]
    )
    with open(output / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row)[:2] for row in rows] == [["number", "body"]] * 2
    assert [(row["number"], row["body"]) for row in rows] == [("7", "where is my card"), ("8", "hi")]
    classifier = mt.AdaptedModel.from_pretrained(output)
    assert [row["label"] for row in rows] == classifier.predict(["where is my card", "hi"])
    np.testing.assert_allclose([float(row["risk"]) for row in rows], classifier.risk(["where is my card", "hi"]), atol=1e-4)
    adapt = ["adapt", "--model", str(head), "--examples", str(examples), "--predict", str(new), "--output_dir", str(output)]
    cli.main([*adapt, *columns, "--max_risk", "0"])
    with open(output / "predictions.csv", newline="") as file:
        assert all((row["label"] == "") == (float(row["risk"]) > 0) for row in csv.DictReader(file))


def test_finetune_a_head_on_a_file(tmp_path, small_head, capsys):
    """Examples and new rows in files; the table, a classifier and predictions come out, and a mistake leaves them as they are."""
    examples, asked, output = tmp_path / "examples.csv", tmp_path / "asked.csv", tmp_path / "tuned"
    task = make_task("letters", classes=3)
    rows = [["body", "queue"], *zip(task.inputs(), task.answers(), strict=True)]
    for path, part in ((examples, rows), (asked, [row[:1] for row in rows[:4]])):
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(part)
    columns = ["--text_column", "body", "--label_column", "queue", "--output_dir", str(output)]
    arguments = ["finetune", "--model", str(small_head), "--examples", str(examples), *columns, "--num_train_epochs", "2"]
    cli.main([*arguments, "--what", "lora", "--predict", str(asked)])
    out = capsys.readouterr().out
    assert "6 of 36 examples held out" in out and "adapted" in out and "fine-tuned" in out
    classifier = mt.AdaptedModel.from_pretrained(output)
    with open(output / "predictions.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["label"] for row in found] == classifier.predict([row["body"] for row in found]) and len(found) == 3
    arguments = [part if part != str(small_head) else str(output) for part in arguments]  # a classifier is learned anew
    cli.main([*arguments, "--what", "lora"])
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(SystemExit, match="class_weights: no label is called 'nobody'"):
        cli.main([*arguments, "--class_weights", "nobody=3"])
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_finetune_goes_on_where_it_was_stopped(tmp_path, small_head, capsys, caplog, monkeypatch):
    task, examples, output = make_task("letters", classes=3), tmp_path / "examples.csv", tmp_path / "tuned"
    with open(examples, "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(task.inputs(), task.answers(), strict=True)])
    command = ["finetune", "--model", str(small_head), "--output_dir", str(output), "--what", "params", "--num_train_epochs", "2"]
    command.append(str(examples))
    save = Fit.save

    def saved(*arguments, **options):
        save(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(Fit, "save", saved)
        cli.main(command)
    assert capsys.readouterr().err.endswith("interrupted; the same command goes on from the last checkpoint, if there is one\n")
    (kept,) = (output / "checkpoints").iterdir()
    with pytest.raises(
        SystemExit, match=r"finetune\.seed: 0 -> 1\)\. Give another output_dir, or set overwrite_output_dir to start"
    ):
        cli.main([*command, "--seed", "1"])
    with caplog.at_level(logging.INFO, "metatext"):
        cli.main(command)
    assert (
        f"going on from {kept}: fine-tuning, after epoch 1" in caplog.text
        and "36 examples of 3 classes ->" in capsys.readouterr().out
    )
    assert sorted(path.name for path in output.iterdir()) == [".lock", "config.json", "model.safetensors"]


def test_finetune_is_judged_by_a_file_or_a_split(tmp_path, small_head, capsys):
    task, folder = make_task("letters", classes=3), tmp_path / "corpus"
    rows = [*zip(task.inputs(), task.answers(), strict=True)]
    folder.mkdir()
    for name, part in (("train", rows[::2]), ("validation", rows[1::2])):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])
    start = [
        "finetune",
        "--model",
        str(small_head),
        "--output_dir",
        str(tmp_path / "out"),
        "--what",
        "params",
        "--num_train_epochs",
        "1",
    ]
    by_file = ["--examples", str(folder / "train.csv"), "--eval_examples", str(folder / "validation.csv")]
    by_split = ["--examples", str(folder), "--split", "train", "--eval_split", "validation"]
    for asked in (by_file, by_split):
        cli.main([*start, *asked])
        assert f"{len(rows) // 2} rows of " in capsys.readouterr().out
        assert mt.AdaptedModel.from_pretrained(tmp_path / "out").support.x.shape[1] == len(rows) // 2
    with pytest.raises(SystemExit, match="eval_split: name the split of the examples too"):
        cli.main([*start, "--examples", str(folder), "--eval_split", "validation"])
    for split, n in ((["--split", "train"], len(rows) // 2), ([], len(rows))):
        cli.main(["adapt", *start[1:5], "--examples", str(folder), *split])
        assert f"{n} examples of 3 classes" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["adapt", "finetune", "train"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, small_head, command):
    """It shows before the work, of which nothing could be kept."""
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    given = ["--model", str(small_head), "--examples", "nowhere.csv"] if command != "train" else ["--tasks_dir", "nowhere"]
    with pytest.raises(
        SystemExit, match=r"bert holds files that metatext did not write; saving '(head|adapted)' there would destroy"
    ):
        cli.main([command, *given, "--output_dir", str(tmp_path / "bert")])
    if command != "train":
        with pytest.raises(SystemExit, match="holds 'head'; saving 'adapted' there would destroy it"):
            cli.main([command, *given, "--output_dir", str(small_head)])


def test_predictions_never_stand_in_the_place_of_what_is_read(tmp_path, small_head, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("examples.csv").write_text("text,label\n" + "".join(f"{c} {i},{c}\n" for c in "ab" for i in range(5)))
    Path("predictions.csv").write_text("text\na\n")
    cli.main(["adapt", "--model", str(small_head), "--examples", "examples.csv", "--output_dir", "out"])
    for path, arguments in (
        ("predictions.csv", ["predict", "out", "predictions.csv", "--predictions", "predictions.csv"]),
        (
            "examples.csv",
            ["adapt", "--examples", "examples.csv", "--predict", "predictions.csv", "--predictions", "./examples.csv"],
        ),
    ):
        before = Path(path).read_text()
        with pytest.raises(SystemExit, match=f"{path} is read, and would be written over; give another file"):
            cli.main(arguments)
        assert Path(path).read_text() == before
    cli.main(["predict", "out", "predictions.csv"])
    assert Path("predictions.predictions.csv").exists()  # each file's answers bear its name
    with pytest.raises(SystemExit, match=r"out.json: predictions are written as csv; give a file called .csv"):
        cli.main(["predict", "out", "predictions.csv", "--predictions", "out.json"])
    Path("splits").mkdir()
    for name in ("train", "test"):
        Path(f"splits/{name}.csv").write_bytes(Path("examples.csv").read_bytes())
    Path("splits.json").write_text("{}")
    for arguments in (
        [
            "finetune",
            "--examples",
            "splits",
            "--split",
            "train",
            "--eval_examples",
            "examples.csv",
            "--predictions",
            "examples.csv",
        ],
        ["adapt", "--examples", "splits", "--split", "train", "--predictions", "splits/test.csv"],
        ["test", "--model", "gp", "--tasks", "splits", "--class_splits", "splits.json", "--output", "splits.json"],
    ):
        with pytest.raises(SystemExit, match=f"{arguments[-1]} is read, and would be written over; give another file"):
            cli.main(arguments)


def test_a_file_that_is_not_there_may_have_a_colon(tmp_path):
    with pytest.raises(SystemExit, match=r"mail:1\.csv does not exist"):
        cli.main(["adapt", "--examples", str(tmp_path / "mail:1.csv")])


@pytest.mark.parametrize("command", ["adapt", "finetune"])
def test_rows_that_cannot_be_asked(tmp_path, small_head, capsys, caplog, command):
    """They are found before anything is made, so what was saved stays; or they are left out."""
    examples, asked, output = tmp_path / "examples.csv", tmp_path / "asked.csv", tmp_path / "out"
    examples.write_text("text,label\n" + "".join(f"{c} {i},{c}\n" for c in "ab" for i in range(5)))
    asked.write_text('text\na\n""\nb\n')
    arguments = [command, "--model", str(small_head), "--examples", str(examples), "--output_dir", str(output)]
    arguments += ["--what", "params", "--num_train_epochs", "1"] if command == "finetune" else []
    with pytest.raises(
        SystemExit, match=f"metatext {command}: task 'asked': row 1 of column 'text' is empty.*first row below a header is row 0"
    ):
        cli.main([*arguments, "--predict", str(asked)])
    assert not output.exists()
    cli.main([*arguments, "--predict", str(asked), "--skip_bad_rows"])
    assert "left out 1 of 3 rows" in caplog.text and "2 predictions" in capsys.readouterr().out


def test_label_names_in_the_shell(tmp_path, small_head, caplog):
    """Numbers get texts, labels that are not named keep what they are, and one without examples is known by its name."""
    examples, output = tmp_path / "examples.csv", tmp_path / "out"
    examples.write_text("text,label\n" + "".join(f"{c} {i},{n}\n" for n, c in enumerate("abc") for i in range(3)))
    arguments = ["adapt", "--model", str(small_head), "--examples", str(examples), "--output_dir", str(output)]
    cli.main([*arguments, "--label_names", "0=bad service", "2 = all = well", "3=none of them"])
    clf = mt.AdaptedModel.from_pretrained(output)
    assert clf.labels == [0, 1, 2, 3] and clf.label_names == ("bad service", None, "all = well", "none of them")
    assert "no example has the label '3'" in caplog.text
    plain = mt.load_task(examples)
    cli.main([*arguments, "--kind", "classification", "--description", "of letters"])
    assert mt.AdaptedModel.from_pretrained(output).label_names == plain.label_names


def test_the_ends_of_a_scale_in_the_shell(tmp_path, tiny_folder):
    examples, output = tmp_path / "examples.csv", tmp_path / "out"
    examples.write_text("text,stars\na,2\nb,4\nab,3\n")
    mt.MetaModel.from_encoder(str(tiny_folder), "gp").save_pretrained(tmp_path / "head")
    arguments = ["adapt", "--model", str(tmp_path / "head"), "--examples", str(examples), "--output_dir", str(output)]
    cli.main([*arguments, "--label_names", "1=terrible", "5=excellent"])
    clf = mt.AdaptedModel.from_pretrained(output)
    assert (clf.kind, clf.labels, clf.label_names) == ("regression", [1.0, 5.0], ("terrible", "excellent"))


@pytest.mark.parametrize(
    "names, message",
    [
        (["bad"], "expected label=text, got 'bad'"),
        (["=bad"], "expected label=text, got '=bad'"),
        (["0="], "expected label=text, got '0='"),
        (["0=a", "0=b"], "expected each label once, got '0=b'"),
        (["x=a"], "the labels of examples are numbers; expected number=text, got 'x=a'"),
    ],
)
def test_label_names_that_are_none(tmp_path, small_head, names, message):
    examples = tmp_path / "examples.csv"
    examples.write_text("text,label\na,0\nb,1\n")
    arguments = ["adapt", "--model", str(small_head), "--examples", str(examples), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=f"metatext adapt: label_names: {message}"):
        cli.main([*arguments, "--label_names", *names])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["adapt", "finetune"])
def test_scores_that_are_read_as_classes_are_named_as_such(tmp_path, tiny_folder, command):
    examples, output, head = tmp_path / "examples.csv", tmp_path / "out", tmp_path / "head"
    model = mt.MetaModel.from_encoder(str(tiny_folder), "gp")
    model.keep_kinds(["classification"])
    model.save_pretrained(head)
    examples.write_text("text,stars\n" + "".join(f"{c} {i},{n}\n" for n, c in enumerate("abc", 1) for i in range(3)))
    arguments = [command, "--model", str(head), "--examples", str(examples), "--output_dir", str(output)]
    cli.main([*arguments, "--label_names", "2=so so"])
    clf = mt.AdaptedModel.from_pretrained(output)
    assert clf.labels == [1, 2, 3] and clf.label_names[1] == "so so"


def test_truth_values_have_no_further_label(tmp_path, small_head):
    examples = tmp_path / "examples.csv"
    examples.write_text("text,label\na,True\nb,False\n")
    arguments = ["adapt", "--model", str(small_head), "--examples", str(examples), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="the labels of examples are False and True alone, got 'maybe=unsure'"):
        cli.main([*arguments, "--label_names", "True=good", "maybe=unsure"])
    cli.main([*arguments, "--label_names", "True=good"])
    clf = mt.AdaptedModel.from_pretrained(tmp_path / "out")
    assert dict(zip(clf.labels, clf.label_names))[True] == "good"


def test_answers_are_judged_where_the_file_is_labelled(tmp_path, small_head, capsys, caplog):
    """The file's own columns stay as they are, beside the answers; of a label that no example has there is a word."""
    examples, asked, output = tmp_path / "examples.csv", tmp_path / "asked.csv", tmp_path / "out"
    examples.write_text("text,label\n" + "".join(f"{c} {i},{c}\n" for c in "ab" for i in range(5)))
    arguments = ["adapt", "--model", str(small_head), "--examples", str(examples), "--output_dir", str(output)]
    arguments += ["--predict", str(asked)]
    asked.write_text("id,text,label\n1,a a,a\n2,b b,b\n3,b,a\n4,a,a\n")
    cli.main(arguments)
    with open(output / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "text", "label", "predicted_label", "probability", "confidence", "risk"]
    assert [row["label"] for row in rows] == ["a", "b", "a", "a"]
    right = [row["label"] == row["predicted_label"] for row in rows]
    out = capsys.readouterr().out
    assert f"accuracy {100 * np.mean(right):.1f} %" in out and "on 4 of the 4 rows that are labelled" in out
    found = re.search(
        r"^ +a +([\d.]+) +([\d.]+) +([\d.]+) +3$", out, re.M
    )  # precision, recall and F1 of the three rows of class a
    assert float(found.group(2)) == round(np.mean([right[0], right[2], right[3]]), 2)
    cli.main([*arguments, "--max_risk", "0"])
    assert "answered" not in capsys.readouterr().out
    examples.write_text("text,label\na 1,01\na 2,01\nb 1,12\nb 2,12\n")
    asked.write_text("text,label\nb,12\n")  # a number where nothing begins with zeros
    cli.main(arguments)
    assert "on 1 of the 1 rows that are labelled" in capsys.readouterr().out
    examples.write_text("text,label\n" + "".join(f"{c} {i},{c}\n" for c in "ab" for i in range(5)))
    asked.write_text("text,label\na a,a\nb,c\na,\n")  # a label that no example has, and none
    cli.main(arguments)
    assert (
        "1 rows have labels that no example has, and are not in the figures: c (1); 50.0 % of all 2 labelled rows" in caplog.text
    )
    assert "2 of 3 rows can be judged" in caplog.text and "on 1 of the 2 rows that are labelled" in capsys.readouterr().out
    examples.write_text("text,label\n" + "".join(f"{c} {i},{c}\n" for c in ("a", "None") for i in range(5)))
    asked.write_text("text,label\na a,a\nb,\n")  # a row without a label is none of the class None
    cli.main(arguments)
    assert "on 1 of the 1 rows that are labelled" in capsys.readouterr().out


@pytest.fixture
def files(tmp_path):
    """A folder of four corpora, each a file, and an empty one."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("sports", "ratings", "emoji", "weather"):
        rows = "".join(f"{c * 3} {i} {name[0]},{c}\n" for c in "abc" for i in range(10))
        (folder / f"{name}.csv").write_text("text,label\n" + rows)
    (folder / "catalog.json").write_text("{}")
    return folder


def test_a_folder_of_corpora_is_trained_on_whole(files, tmp_path, tiny_folder, capsys):
    """None named: all of them but those that are measured on; one is held out by its name, its path or its file."""
    common = ["train", "--encoder", str(tiny_folder), *SMALL, "--n_way", "2", "3", "--k_shot", "1", "--n_query", "2"]
    common += ["--tasks_dir", str(files), "--test_tasks", "emoji", "--test_shots", "1", "--test_episodes", "3"]
    for number, held in enumerate(("weather", "weather.csv", str(files / "weather.csv"))):
        cli.main([*common, "--eval_tasks", held, "--output_dir", str(tmp_path / f"run {number}")])
        out = capsys.readouterr().out
        assert "train on: ratings, sports\nchoose by: weather\nmeasure on: emoji\n" in out
    named = ["--tasks", str(files), "--eval_tasks", "weather", "--output_dir", str(tmp_path / "named")]
    with pytest.raises(
        SystemExit, match="task 'emoji' stands among the tasks to train on and among those to choose or measure with"
    ):
        cli.main([*common, *named])


def test_a_corpus_that_is_not_there(files, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"could not load 'weathr'.* has no 'weathr' either; did you mean 'weather'\?"):
        cli.main(["test", "--model", "gp", "--tasks", "weathr", "--tasks_dir", str(files)])


def test_bad_rows_and_many_rows_of_tasks_to_measure_on(files, tmp_path, small_head, capsys, caplog):
    with open(files / "sports.csv", "a") as file:
        file.write("no label,\n")
    arguments = ["test", "--model", str(small_head), "--tasks", "sports", "--tasks_dir", str(files), "--baselines", "label_names"]
    arguments += ["--n_way", "3", "--n_query", "2", "--shots", "1", "--n_episodes", "4", "--max_rows_per_task", "21"]
    with pytest.raises(SystemExit, match="row 30 has no label"):
        cli.main(arguments)
    cli.main([*arguments, "--skip_bad_rows", "--output", str(tmp_path / "out.json")])
    assert "left out 1 of 31 rows" in caplog.text and "sports" in capsys.readouterr().out


def test_a_saved_classifier_answers_a_file(files, tmp_path, small_head, capsys):
    examples, classifier, answers = files / "sports.csv", tmp_path / "classifier", tmp_path / "answers.csv"
    cli.main(["adapt", "--model", str(small_head), "--examples", str(examples), "--output_dir", str(classifier)])
    cli.main(["predict", str(classifier), str(files / "ratings.csv"), "--predictions", str(answers)])
    out = capsys.readouterr().out
    assert "30 predictions" in out and "accuracy" in out and "30 of the 30 rows" in out
    with open(answers, newline="") as file:
        rows = list(csv.DictReader(file))
    expected = mt.AdaptedModel.from_pretrained(classifier).predict([row["text"] for row in rows])
    assert [row["predicted_label"] for row in rows] == expected
    with pytest.raises(SystemExit, match="holds 'head', expected 'adapted'"):
        cli.main(["predict", str(small_head), str(examples), "--predictions", str(answers)])


def test_files_that_are_not_in_utf_8(files, tmp_path, tiny_folder, caplog):
    """The same setting in every command that reads files."""
    for path in (files / "sports.csv", files / "emoji.csv"):
        path.write_bytes(path.read_text().replace("aaa", "ééé").replace(",a", ",é").encode("cp1252"))
    head, classifier, answers = (str(tmp_path / name) for name in ("head", "classifier", "answers.csv"))
    train = ["train", "--encoder", str(tiny_folder), *SMALL, "--tasks_dir", str(files), "--test_tasks", "emoji"]
    train += ["--test_shots", "1", "--test_episodes", "3", "--n_way", "2", "3", "--k_shot", "1", "--n_query", "2"]
    train += ["--output_dir", head]
    test = ["test", "--model", head, "--tasks_dir", str(files), "--tasks", "sports", "--outside", "emoji", "--shots", "1", *TINY]
    adapt = ["adapt", "--model", head, "--examples", str(files / "sports.csv"), "--output_dir", classifier]
    finetune = ["finetune", "--what", "params", "--num_train_epochs", "1", *adapt[1:-1], str(tmp_path / "finetuned")]
    predict = ["predict", classifier, str(files / "emoji.csv"), "--predictions", answers]
    for command in (train, test, adapt, finetune, predict):
        with pytest.raises(SystemExit, match=r"line 2: byte 1 \(0xE9.* is no UTF-8.*--encoding in the shell"):
            cli.main(command)
        cli.main([*command, "--encoding", "cp1252"])
    assert mt.AdaptedModel.from_pretrained(classifier).labels == ["b", "c", "é"]
    with open(answers, newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["text"].startswith("ééé")
    config = json.loads((Path(head) / "config.json").read_text())
    assert "--encoding cp1252" in make_card(config, "me/head").text


def test_the_cells_of_a_csv_come_back_as_they_are(files, tmp_path, small_head):
    answers = tmp_path / "answers.csv"
    asked = [
        {
            "id": "100000000000000001",
            "number": "1001",
            "price": "1.50",
            "phone": "+491701234567",
            "flag": "TRUE",
            "long": "9" * 20,
        },
        {"id": "", "number": "", "price": "1.10", "phone": "007", "flag": " NA ", "long": "1e3"},
        {"id": "3", "number": "07", "price": "", "phone": "", "flag": "false", "long": "two\nlines"},
    ]
    with open(tmp_path / "asked.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["text", *asked[0]])
        writer.writeheader()
        writer.writerows({"text": f"{i}", **row} for i, row in enumerate(asked))  # texts may be numbers
    adapt = ["adapt", "--model", str(small_head), "--examples", str(files / "sports.csv"), "--output_dir", str(tmp_path / "out")]
    cli.main([*adapt, "--predict", str(tmp_path / "asked.csv"), "--predictions", str(answers)])
    with open(answers, newline="") as file:
        found = list(csv.DictReader(file))
    assert [{name: row[name] for name in asked[0]} for row in found] == asked


def test_test_tasks_that_are_too_small_show_before_training(tmp_path, tiny_folder):
    few = tmp_path / "few.csv"
    few.write_text("text,label\n" + "".join(f"{c} {i},{c}\n" for c in "ab" for i in range(8)))
    arguments = ["train", "--tasks", "starter/train", "--test_tasks", str(few), "--encoder", str(tiny_folder)]
    with pytest.raises(
        SystemExit, match=r"test_tasks: task 'few': 0 of its 2 classes have the 10 distinct texts .*k_shot 5 \+ n_query 5"
    ):
        cli.main([*arguments, *SMALL, "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_what_is_read_from_which_column_is_said(tmp_path, small_head, caplog):
    examples = tmp_path / "mail.csv"
    examples.write_text("title,body,type\n" + "".join(f"{i},{c} {i},{c}\n" for c in "ab" for i in range(4)))
    with caplog.at_level(logging.INFO, "metatext"):
        cli.main(["adapt", str(examples), "--model", str(small_head), "--output_dir", str(tmp_path / "out")])
    assert "mail: text from 'body', label from 'type'" in caplog.text
    clf = mt.AdaptedModel.from_pretrained(tmp_path / "out")
    assert clf.predict(["a 9", "b 9"]) == ["a", "b"]


def test_a_text_of_several_columns_is_read_alike_in_examples_and_rows_to_answer(tmp_path, small_head, caplog, capsys):
    """One text in two columns is the one that stands in one, for adapt, finetune and predict; what is missing shows before the work."""
    task, output = make_task("letters", classes=3), tmp_path / "out"
    names = ("mail", "half", "rest", "more", "whole", "lone")
    examples, half, rest, asked, whole, lone = (tmp_path / f"{name}.csv" for name in names)
    rows = [(text[:4], text[4:], label) for text, label in zip(task.inputs(), task.answers(), strict=True)]
    rows[0] = ("", rows[0][0] + rows[0][1], rows[0][2])
    texts = [" ".join(part for part in row[:2] if part.strip()) for row in rows]
    for path, table in (
        (examples, [("subject", "mail body", "label"), *rows]),
        (half, [("subject", "mail body", "label"), *rows[::2]]),
        (rest, [("subject", "mail body", "label"), *rows[1::2]]),
        (
            asked,
            [
                ("number", "mail body", "subject", "label"),
                *((i, body, subject, label) for i, (subject, body, label) in enumerate(rows)),
            ],
        ),
        (whole, [("text", "label"), *((text, row[2]) for text, row in zip(texts, rows))]),
        (lone, [("mail body", "label"), *((row[1], row[2]) for row in rows[1:])]),
    ):
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(table)
    named, model = ["--text_column", "subject", "mail body"], ["--model", str(small_head), "--description", "letters"]
    cli.main(["adapt", *model, str(whole), "--predict", str(whole), "--output_dir", str(tmp_path / "one")])
    with open(tmp_path / "one" / "predictions.csv", newline="") as file:
        expected = [(row["predicted_label"], row["probability"]) for row in csv.DictReader(file)]
    settings = tmp_path / "settings.yaml"
    settings.write_text("text_column: [subject, mail body]\n")
    commands = (
        (
            ["adapt", *model, "--predict", str(asked), "--output_dir", str(output), *named, str(examples)],
            output / "predictions.csv",
        ),
        (["predict", *named, "--predictions", str(tmp_path / "a.csv"), str(output), str(asked)], tmp_path / "a.csv"),
        (
            ["predict", str(settings), "--model", str(output), "--predict", str(asked), "--predictions", str(tmp_path / "b.csv")],
            tmp_path / "b.csv",
        ),
        (["predict", "--predictions", str(tmp_path / "c.csv"), str(output), str(asked)], tmp_path / "c.csv"),  # which it knows
    )
    for command, predictions in commands:
        with caplog.at_level(logging.INFO, "metatext"):
            cli.main(command)
        with open(predictions, newline="") as file:
            found = list(csv.DictReader(file))
        assert list(found[0])[:5] == ["number", "mail body", "subject", "label", "predicted_label"]
        assert [row["subject"] for row in found] == [row[0] for row in rows]
        assert [(row["predicted_label"], row["probability"]) for row in found] == expected
    assert "mail: text from 'subject' and 'mail body', label from 'label'" in caplog.messages
    assert caplog.messages.count("more: text from 'subject' and 'mail body'") == 4
    tune = ["finetune", *model, *named, "--what", "params", "--num_train_epochs", "1", "--output_dir", str(tmp_path / "tuned")]
    cli.main([*tune, "--eval_examples", str(rest), "--predict", str(asked), str(half)])
    out = capsys.readouterr().out
    assert f"{len(rows) // 2} rows of" in out and f"on {len(rows)} of the {len(rows)} rows" in out
    for command in (
        ["adapt", *model, str(examples), "--output_dir", str(output), "--predict", str(lone)],
        ["predict", str(output), str(lone)],
    ):
        with pytest.raises(
            SystemExit, match=r"task 'lone': column 'subject' \(for the text\) is not there.*Columns present: mail body, label"
        ):
            cli.main([*command, *named])
    with pytest.raises(
        SystemExit, match=r"'lone': the text of the examples stood in 'subject' and 'mail body'; 'subject' is not there"
    ):
        cli.main(["predict", str(output), str(lone)])
    cli.main(["predict", "--text_column", "mail body", "--predictions", str(tmp_path / "d.csv"), str(output), str(lone)])
    cli.main(["predict", "--predictions", str(tmp_path / "d.csv"), str(output), str(whole)])  # one column of the usual name
    assert "whole: no 'subject' and 'mail body', as the examples had; columns are found by their usual names" in caplog.messages
    with open(tmp_path / "d.csv", newline="") as file:
        assert [row["predicted_label"] for row in csv.DictReader(file)] == [label for label, _ in expected]


def test_a_classifier_that_is_learned_anew_reads_the_columns_that_it_knows(tmp_path, small_head, caplog):
    """In its new examples, those that judge, and the rows to answer."""
    task = make_task("letters", classes=3)
    first, new, rest, asked = (tmp_path / f"{name}.csv" for name in ("first", "new", "rest", "asked"))
    rows = [(text[:4], text[4:], label) for text, label in zip(task.inputs(), task.answers(), strict=True)]
    for path, part in ((first, rows), (new, rows[::2]), (rest, rows[1::2]), (asked, rows[:3])):
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("heading", "body", "label"), *part])
    known, output = tmp_path / "known", tmp_path / "tuned"
    cli.main(["adapt", "--model", str(small_head), "--text_column", "heading", "body", "--output_dir", str(known), str(first)])
    tune = [
        "finetune",
        "--model",
        str(known),
        "--what",
        "params",
        "--num_train_epochs",
        "1",
        "--output_dir",
        str(output),
        str(new),
    ]
    with caplog.at_level(logging.INFO, "metatext"):
        cli.main([*tune, "--eval_examples", str(rest), "--predict", str(asked)])
    said = "text from 'heading' and 'body'"
    assert {f"new: {said}, label from 'label'", f"rest: {said}, label from 'label'", f"asked: {said}"} <= {*caplog.messages}
    assert mt.AdaptedModel.from_pretrained(output).columns == {"text": ("heading", "body")}
    cli.main([*tune, "--text_column", "body"])
    assert mt.AdaptedModel.from_pretrained(output).columns == {"text": "body"}


def test_a_whole_folder_is_trained_on_as_far_as_the_head_goes(tmp_path, tiny_folder, caplog):
    corpora = tmp_path / "corpora"
    corpora.mkdir()
    task = make_task("letters", classes=3)
    with open(corpora / "letters.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(task.inputs(), task.answers(), strict=True)])
    (corpora / "edits.jsonl").write_text('{"input": "a", "target": "b"}\n')
    run = [
        "train",
        "--tasks_dir",
        str(corpora),
        "--encoder",
        str(tiny_folder),
        "--meta_steps",
        "1",
        "--n_way",
        "2",
        "--k_shot",
        "1",
    ]
    cli.main([*run, "--n_query", "2", "--meta_batch_size", "2", "--output_dir", str(tmp_path / "run")])
    assert "left out, for the head has no form for their kind: edits (generation)" in caplog.text


def test_scores_can_be_read_as_classes(tmp_path, tiny, caplog):
    """A csv of ratings is a regression unless it is said to be a classification; the shell reads it as Python does."""
    head, examples, output = tmp_path / "head", tmp_path / "stars.csv", tmp_path / "out"
    model = mt.MetaModel.from_encoder(tiny)
    model.keep_kinds(["classification"])
    model.save_pretrained(head)
    examples.write_text("review,rating\nbad,1\nworse,1\ngood,5\nbetter,5\n")
    arguments = ["adapt", "--model", str(head), "--examples", str(examples), "--output_dir", str(output)]
    with pytest.raises(SystemExit, match=r"^metatext adapt: kind 'regression', but.*--kind classification"):
        cli.main([*arguments, "--kind", "regression"])
    cli.main(arguments)
    assert "the numbers in 'rating' are read as classes, for this head knows no scores" in caplog.text
    clf = mt.AdaptedModel.from_pretrained(output)
    same = model.adapt(mt.load_task(str(examples), kind="classification"))
    assert clf.labels == [1, 5]
    np.testing.assert_allclose(clf.predict_proba(["fine"]), same.predict_proba(["fine"]), atol=1e-6)


def test_questions_from_a_file(tmp_path, tiny):
    """Examples and questions in files, answers in a csv."""
    head, examples, asked = tmp_path / "head", tmp_path / "examples.jsonl", tmp_path / "asked.csv"
    mt.MetaModel.from_encoder(tiny).save_pretrained(head)
    rows = find_the_run(rows=12).inputs()
    examples.write_text("\n".join(map(json.dumps, rows[:8])))
    with open(asked, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["context", "question"], *([row["context"], row["question"]] for row in rows[8:])])
    output = tmp_path / "adapted"
    cli.main(["adapt", "--model", str(head), "--examples", str(examples), "--predict", str(asked), "--output_dir", str(output)])
    with open(output / "predictions.csv", newline="") as file:
        found = list(csv.DictReader(file))
    answers = mt.AdaptedModel.from_pretrained(output).predict(rows[8:])
    assert next(list(row) for row in found) == ["context", "question", "text", "start", "end", "score"]
    assert [row["text"] for row in found] == [answer["text"] for answer in answers]
    assert [row["question"] for row in found] == [row["question"] for row in rows[8:]]


def test_several_labels_in_a_csv_come_with_their_probabilities(tmp_path, tiny):
    head, examples, output = tmp_path / "head", tmp_path / "tags.csv", tmp_path / "adapted"
    mt.MetaModel.from_encoder(tiny).save_pretrained(head)
    examples.write_text("text,tags\naaa,x;y\nbbb,y\nccc,x;y\n")
    arguments = ["adapt", str(examples), "--model", str(head), "--kind", "multilabel", "--label_column", "tags"]
    cli.main([*arguments, "--predict", str(examples), "--output_dir", str(output)])
    with open(output / "predictions.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["text", "tags", "label", "probability"] and any("; " in row["label"] for row in found)
    for row in found:
        probabilities = [*map(float, filter(None, row["probability"].split("; ")))]
        assert len(probabilities) == len([*filter(None, row["label"].split("; "))]) and all(p >= 0.5 for p in probabilities)


def test_columns_of_questions_are_named(tmp_path, tiny):
    head, examples, output = tmp_path / "head", tmp_path / "examples.csv", tmp_path / "adapted"
    mt.MetaModel.from_encoder(tiny).save_pretrained(head)
    examples.write_text("frage,kontext,antwort\nWho?,Ada sent it.,Ada\nWhat?,Ada sent it.,\n")
    columns = ["--text_column", "frage", "--text_pair_column", "kontext", "--label_column", "antwort"]
    arguments = ["adapt", str(examples), "--model", str(head), "--predict", str(examples), "--output_dir", str(output)]
    with pytest.raises(
        SystemExit, match=r"no column for the question found.*\(--text_column in the shell; adapt wants --kind too\)"
    ):
        cli.main([*arguments, "--kind", "span"])
    cli.main([*arguments, "--kind", "span", *columns])
    assert (output / "predictions.csv").read_text().startswith("frage,kontext,antwort,text,start,end,score\n")


def test_a_head_whose_encoder_has_learned_is_measured_with_it(tmp_path, tiny_folder):
    """Beside a head on the same encoder, frozen: the two read otherwise."""
    from metatext.commands.test import _methods

    folders = [tmp_path / "frozen", tmp_path / "learned"]
    mt.MetaModel.from_encoder(str(tiny_folder)).save_pretrained(folders[0])
    learned = mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder), tuning="full"))
    with torch.no_grad():
        for p in learned.encoder.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    learned.save_pretrained(folders[1])
    for main, other in (folders, folders[::-1]):
        _, methods = _methods(cli.TestData(model=str(main), heads=(str(other),), baselines=()), "classification")
        vectors = [method.encoder.frozen().encode(["abc"]) for method in methods.values()]
        assert not torch.allclose(*vectors, atol=0.01)


def test_the_defaults_of_test_run(capsys):
    """Starter tasks with fewer classes than n_way play with all of their own."""
    cli.main(["test", "--model", "gp", "--n_episodes", "2"])
    assert "hotel_stay_rating" in capsys.readouterr().out


def test_heads_shots_names_and_pictures(tmp_path, tiny, capsys):
    """The comparison: columns in order, a table per names and shots, and all of it as JSON and pictures."""
    folders = [tmp_path / "main", tmp_path / "other head"]
    for folder, head in zip(folders, ("gp", "prototype")):
        mt.MetaModel.from_encoder(tiny, head).save_pretrained(folder)
    output = tmp_path / "out" / "figures.json"
    arguments = ["test", "--model", str(folders[0]), "--heads", str(folders[1]), "ridge", "--tasks", "starter/test", *TINY]
    arguments += ["--shots", "0", "2", "--names", "real", "numbered", "--baselines", "label_names", "knn", "logistic_regression"]
    cli.main([*arguments, "--plot", "--output", str(output), "--reference", "knn", "label_names", "--n_outside", "2"])
    out = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["model"] == str(folders[0]) and written["heads"] == [str(folders[1]), "ridge"]
    assert (
        written["flags"]["shots"] == [0, 2]
        and written["flags"]["tasks"] == ["starter/test"]
        and str(tmp_path) not in str(written["flags"])
    )
    assert {names: set(shots) for names, shots in written["names"].items()} == {"real": {"0", "2"}, "numbered": {"2"}}
    real, numbered = written["names"]["real"], written["names"]["numbered"]
    columns = ["trained", "other head", "untrained_ridge", "label_names", "knn", "logistic_regression"]
    assert list(real["2"]["mean"]) == columns
    assert real["0"]["reference"] == "label_names" and real["2"]["reference"] == numbered["2"]["reference"] == "knn"
    assert real["0"]["mean"]["knn"] == {} and "auroc_near" in real["0"]["pooled"]["trained"]
    assert real["2"]["mean"]["knn"] == numbered["2"]["mean"]["knn"]  # the same episodes; it reads no names
    assert real["2"]["mean"]["label_names"] != numbered["2"]["mean"]["label_names"]
    pictures = {f"figures_{what}_{names}.png" for what in ("accuracy", "risk") for names in ("real", "numbered")}
    assert {path.name for path in output.parent.iterdir()} == {"figures.json", *pictures}
    assert all((output.parent / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    heads = [line.split() for line in out.splitlines() if line.startswith("trained ")]
    assert len(heads[-1]) == 1 + 3  # the last table: real 0, real 2, numbered 2
    assert out.index("0 examples per class, real names") < out.index("2 examples per class, numbered names")


def test_paired_differences_follow_from_the_files_alone(tmp_path, small_head):
    """Those of one file from its scores by hand, and those of two methods that were measured in two runs, on two encoders."""
    asked = ["--tasks", "starter/test/travel_diary", "starter/test/hobby_topics", *TINY, "--shots", "0", "2", "--names", "real"]
    runs = {
        "both": ["--model", str(small_head), "--heads", "ridge", "--baselines", "knn", "--reference", "untrained_ridge"],
        "one": ["--model", str(small_head), "--baselines", "none"],
        "other": ["--model", "ridge", "--baselines", "none"],
    }
    for name, words in runs.items():
        cli.main(["test", *words, *asked, "--output", str(tmp_path / f"{name}.json")])
    both, one, other = (json.loads((tmp_path / f"{name}.json").read_text())["names"]["real"] for name in runs)
    for shots in ("0", "2"):
        report, methods = both[shots], ["trained", "knn"] if shots == "2" else ["trained"]
        assert one[shots]["settings"] == other[shots]["settings"] == report["settings"]
        for task, scores in report["scores"].items():
            assert list(scores) == ["trained", "untrained_ridge", *methods[1:]] and set(map(len, scores.values())) == {8}
            assert one[shots]["scores"][task] == {"trained": scores["trained"]}
            assert other[shots]["scores"][task] == {"untrained_ridge": scores["untrained_ridge"]}
            for method in methods:
                pairs = zip(scores[method], other[shots]["scores"][task]["untrained_ridge"], strict=True)
                apart = [a - b for a, b in pairs]
                half = 2.364624 * statistics.stdev(apart) / 8**0.5  # Student's t with 7 degrees of freedom
                assert report["differences"][task][method] == pytest.approx([statistics.mean(apart), half], abs=3e-6)
        means = [statistics.mean(scores["trained"]) for scores in report["scores"].values()]
        assert report["mean"]["trained"]["accuracy"] == pytest.approx(statistics.mean(means), abs=2e-6)
    assert "[0." in (tmp_path / "one.json").read_text(), "a line for the scores of a method, not one for each"


def test_a_reference_that_is_no_method_shows_before_anything_is_measured(small_head, capsys):
    arguments = ["test", "--model", str(small_head), "--heads", "ridge", *TINY, "--reference", "untrained_rige"]
    with pytest.raises(SystemExit, match="reference: no column is called 'untrained_rige'; did you mean 'untrained_ridge'"):
        cli.main([*arguments, "label_names"])
    assert "mean" not in capsys.readouterr().out


def test_scores_are_compared_with_ridge_regression(capsys):
    cli.main(["test", "--model", "gp", "--tasks", "starter/regression/test", "--shots", "4", "--n_episodes", "2"])
    assert "spearman minus that of ridge_regression in points, paired" in capsys.readouterr().out


def test_an_untrained_head_is_measured_by_its_name(capsys):
    cli.main(
        ["test", "--model", "prototype", "--tasks", "starter/test", "--shots", "1", *TINY, "--baselines", "untrained", "knn"]
    )
    out = capsys.readouterr().out
    assert "\nuntrained_prototype  " in out and "\nuntrained  " not in out  # it is that baseline


def test_a_task_too_small_for_the_most_shots_shows_before_anything_is_measured(small_head, capsys):
    arguments = ["test", "--model", str(small_head), "--tasks", "starter/test", "--shots", "1", "99", *TINY]
    with pytest.raises(SystemExit, match=r"0 of its \d+ classes have the 101 distinct texts"):
        cli.main(arguments)
    assert "per class" not in capsys.readouterr().out


def test_numbered_names_change_names_alone():
    from metatext.commands.test import NAMES

    (task,) = (t for t in mt.load_tasks("starter/test") if t.name == "hobby_topics")
    other = NAMES["numbered"](task)
    assert other.label_names == tuple(f"class {i + 1}" for i in range(len(task.labels)))
    assert other.labels == task.labels and other.targets is task.targets and other.rows is task.rows
    assert NAMES["real"](task).digest() == task.digest()


def test_a_launched_recipe(tmp_path, tiny_folder):
    """The README's command, as it is launched there, on the tiny encoder."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    recipe = ["recipes/meta_train.py", "recipes/configs/quickstart.yaml", "--encoder", str(tiny_folder), "--test_episodes", "3"]
    output = tmp_path / "a run"
    done = subprocess.run(
        [*launch, *recipe, *SMALL, "--output_dir", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "mean over tasks" in done.stdout and "metatext-minilm-general" in done.stdout.replace("\n", "")
    assert mt.MetaModel.from_pretrained(output).head_config.name == "gp"


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("head: prototype\nn_way: [2, 7]\nmeta_lr: 1e-4\n")
    settings = cli.parse("train", [str(path), "--head", "ridge", "--k_shot", "3", "--overwrite_output_dir"])
    assert settings[HeadConfig].name == "ridge"
    assert settings[EpisodeConfig].n_way == (2, 7) and settings[EpisodeConfig].k_shot == 3
    assert settings[TrainConfig].meta_lr == 1e-4 and settings[TrainConfig].overwrite_output_dir is True


def test_a_list_of_the_file_is_emptied_by_a_word(tmp_path):
    """As in transformers' --report_to none; a task of that name in the file stays one."""
    path = tmp_path / "settings.yaml"
    path.write_text("eval_tasks: [none, b]\nwarm_start: a\nreport_to: [tensorboard]\ntask_weights: [a=2]\n")
    settings = cli.parse("train", [str(path), "--warm_start", "none", "--report_to=None"])
    assert settings[cli.TrainData].eval_tasks == ("none", "b") and settings[cli.TrainData].warm_start == ()
    assert settings[TrainConfig].report_to == () and settings[TrainConfig].task_weights == ("a=2",)
    assert cli.parse("train", [str(path), "--eval_tasks", "none"])[cli.TrainData].eval_tasks == ()
    path.write_text("eval_tasks: []\n")
    assert cli.parse("train", [str(path)])[cli.TrainData].eval_tasks == ()


def test_every_list_is_emptied_alike_or_refuses():
    refuse = []
    for command, (_, classes) in cli.COMMANDS.items():
        for cls in classes:
            for item in (item for item in cls.__dataclass_fields__.values() if item.type.startswith("tuple")):
                try:
                    given = cli.parse(command, [f"--{item.metadata['flag'] or item.name}", "none"])[cls]
                    assert getattr(given, item.name) == ()
                except mt.ConfigError as error:
                    assert str(error) == f"{item.name}: expected at least one value, got an empty list"
                    refuse.append(item.name)
    assert refuse == ["test_shots", "test_rows", "tasks", "shots", "names"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--eval_tasks", "--eval_tasks: expected at least one argument; --eval_tasks none is an empty list"),
        ("--eval_tasks --seed 3", "--eval_tasks: expected at least one argument; --eval_tasks none is an empty list"),
        ("--eval_tasks none cr", "--eval_tasks: the word none is an empty list and stands alone, got 'none cr'"),
        ("--eval_tasks=", "eval_tasks: expected text, got '' (str)"),
        ("--test_shots", "--test_shots: expected at least one argument"),
        ("--test_shots none", "test_shots: expected at least one value, got an empty list"),
        ("--seed", "--seed: expected one argument"),
    ],
)
def test_an_empty_variable_of_the_shell_empties_no_list(words, message):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *words.split()])
    assert stopped.value.code == f"metatext train: {message}"


def test_a_list_that_must_hold_something_is_refused_empty_from_a_file_too(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("shots: []\n")
    with pytest.raises(mt.ConfigError, match=r"^shots: expected at least one value, got an empty list$"):
        cli.parse("test", [str(path)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("meta_stps: 3", r"unknown key 'meta_stps'; did you mean 'meta_steps'"),
        ("meta_steps: many", "meta_steps: expected a whole number, got 'many'"),
        ("language_tuning: full", r"^language_tuning \(tuning of LanguageConfig\): expected one of"),
        ("language_lora_rank: 0", r"^language_lora_rank \(lora_rank of LanguageConfig\): must be at least 1, got 0"),
        (
            "- a\n- b",
            "must hold `key: value` lines, got list; a file of rows is no settings and goes behind its flag, --examples",
        ),
        ("a: [", "is not valid YAML"),
        ("seed: 1\nn_way: 5\nseed: 2", r"the key 'seed' stands there twice, first in line 1; keep one\n.*line 3, column 1"),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, message):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(mt.ConfigError, match=message):
        cli.parse("train", [str(path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "missing.yaml"], "missing.yaml does not exist"),
        (["train", "--meta_stepz", "3"], "unknown argument '--meta_stepz'; did you mean '--meta_steps'"),
        (["trian"], "unknown command 'trian'; did you mean 'train'"),
        (["adapt", "--model", "nowhere"], "--examples is missing"),
        (["adapt", "--examples", "nowhere.csv"], "nowhere.csv does not exist"),
        (["test", "--model", "nowhere"], "nowhere is not a folder"),
        (["finetune", "--model", "nowhere"], "--examples is missing"),
        (["finetune", "--model", "gp", "--examples", "nowhere.csv"], "nowhere.csv does not exist"),
        (["finetune", "--what", "head"], "what: expected one of 'lora', 'full', 'params', got 'head'"),
        (["push", "nowhere"], "nowhere does not exist; the first argument is a YAML file of settings"),
        (["push", "--model", "nowhere"], "repo_id is missing: metatext push FOLDER OWNER/NAME"),
        (["push", "nowhere", "me/head"], "nowhere is not a folder"),
        (["push", "--datasets", "me/a", "me/b"], "repo_id is missing: metatext push FOLDER OWNER/NAME"),
        (["test", "--model", "gp", "--heads", "gp"], "two columns would be called 'untrained_gp'"),
        (["test", "--names", "fake"], "names: expected one of 'real', 'numbered', 'other', got 'fake'"),
        (["test", "--shots", "-1"], "shots: must be at least 0"),
        (["test", "--n_shot", "3"], "unknown argument '--n_shot'; did you mean '--shots'"),
        (
            ["train", "recipes"],
            "recipes is a folder; the first argument is a YAML file of settings, a head or classifier is given by --model",
        ),
        (["train", "--tasks_dir", "nowhere"], "tasks_dir: nowhere is no folder"),
        (["test", "--model", "gp", "--output", "recipes"], "recipes is a folder; give another file"),
        (["train", "--output_dir", "README.md"], "README.md is a file; give another folder"),
        (["train", "--output_dir", "README.md/run"], "README.md is a file, not a folder"),
        (["predict"], "the file of rows to classify is missing: metatext predict CLASSIFIER FILE"),
        (["predict", "recipes"], "the file of rows to classify is missing: metatext predict CLASSIFIER FILE"),
        (["adapt", "nowhere.csv"], "nowhere.csv does not exist"),
        (["push", "recipes"], "repo_id is missing: metatext push FOLDER OWNER/NAME"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert message in str(stopped.value) and "\n" not in str(stopped.value)


def test_the_command_of_a_card_makes_the_same_weights(tmp_path, tiny_folder, files, monkeypatch):
    """Of starter tasks, of corpora that were named, of a whole folder; with what neither model nor loop tell."""
    common = ["--encoder", str(tiny_folder), "--n_way", "2", "3", "--k_shot", "1", "--n_query", "2", *SMALL]
    shape = ["--pooling", "cls", "--max_length", "9", "--tuning", "lora", "--encoder_dropout", "0.3", "--encoder_lr", "0.01"]
    mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder), pooling="cls", max_length=9), seed=3).save_pretrained(
        tmp_path / "begun"
    )
    (files / "one.csv").write_text("text,label\n" + "".join(f"{c * 2} {i},{c}\n" for c in "abcd" for i in range(12)) + "bad,\n")
    asked = {
        "starter": ["--eval_tasks", "feelings", "--max_rows_per_task", "30"],
        "named": ["--tasks_dir", str(files), "--tasks", "weather", "sports", "--eval_tasks", "ratings.csv"],
        "folder": [
            "--tasks_dir",
            str(files),
            "--test_tasks",
            "emoji",
            "--skip_bad_rows",
            "--test_episodes",
            "3",
            "--test_shots",
            "1",
        ],
        "paths": ["--tasks", str(files / "weather.csv"), str(files / "one.csv"), "--skip_bad_rows"],
    }
    for name, words in asked.items():
        first, again = tmp_path / name, tmp_path / f"{name} again"
        cli.main(["train", *common, *shape, "--warm_start", str(tmp_path / "begun"), *words, "--output_dir", str(first)])
        config = json.loads((first / "config.json").read_text())
        assert str(tmp_path) not in json.dumps(config["training"]), "what is published names no folder of this machine"
        command = make_card(config, "me/head").text.split("```bash\n")[1].split("\n```")[0]
        told = command.replace("folder/of/corpora", str(files)).replace("path/to/begun", str(tmp_path / "begun"))
        cli.main([*shlex.split(told.replace("path/to", str(files)))[1:], "--save_steps", "2", "--output_dir", str(again)])
        assert config["weights"] == json.loads((again / "config.json").read_text())["weights"], command
    assert (
        "--tasks starter/train --eval_tasks feelings"
        in make_card(json.loads((tmp_path / "starter" / "config.json").read_text()), "me/head").text
    )


def test_a_run_from_before_flags_were_written_goes_on(tmp_path, tiny_folder):
    words = ["train", "--encoder", str(tiny_folder), *SMALL, "--n_way", "2", "--output_dir", str(tmp_path / "run")]
    cli.main(words)
    for path in (tmp_path / "run" / "checkpoints").glob("*/trainer_state.json"):
        state = json.loads(path.read_text())
        del state["settings"]["flags"]
        path.write_text(json.dumps(state))
    cli.main([*words, "--tasks", "starter/train"])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_ends_in_one_line(tmp_path, tiny_folder, number, status):
    output, log = tmp_path / "run", tmp_path / "log"
    words = ["train", "--tasks", "starter/train", "--encoder", str(tiny_folder), "--head", "prototype", "--n_way", "2"]
    words += ["--meta_batch_size", "2", "--meta_steps", "100000", "--save_steps", "5", "--output_dir", str(output)]
    with open(log, "w") as file:
        process = subprocess.Popen([sys.executable, "-m", "metatext", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
    try:
        kill_when(process, lambda: (output / "checkpoints").exists(), log=log, number=number)
    finally:
        process.kill()
    said = log.read_text()
    assert process.wait() == status and "Traceback" not in said, said[-2000:]
    (step,) = {int(path.name.split("-")[1]) for path in (output / "checkpoints").iterdir()} & set(
        map(int, re.findall(r"\d+", said.splitlines()[-1]))
    )
    kept = output / "checkpoints" / f"checkpoint-{step}"
    expected = f"metatext train: step {step} of 100000: stopped by {number.name}; {kept} is kept, and the same command goes on from there"
    assert said.splitlines()[-1] == expected


@pytest.mark.parametrize(
    ("command", "on"),
    [
        ("test", ""),
        *((name, "; the same command goes on from the last checkpoint, if there is one") for name in ("train", "finetune")),
    ],
)
def test_ctrl_c_ends_any_command_in_one_line(command, on, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"metatext.commands.{command}.main", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main([command])
    assert stopped.value.code == 130 and capsys.readouterr().err == f"metatext {command}: interrupted{on}\n"
    if on:
        with pytest.raises(SystemExit, match="130"):
            cli.main([command, "--overwrite_output_dir"])  # the same command would begin anew
        on = on.replace("command", "command, without overwrite_output_dir,")
        assert capsys.readouterr().err == f"metatext {command}: interrupted{on}\n"


@pytest.mark.parametrize("command", ["adapt", "finetune"])
def test_ctrl_c_behind_the_saved_classifier_says_how_the_rows_are_answered(command, tmp_path, small_head, monkeypatch, capsys):
    """The command that it names writes the predictions that this one would have written, from the classifier that is there."""
    task, examples, output = make_task("letters", classes=3), tmp_path / "my examples.csv", tmp_path / "my classifier"
    with open(examples, "w", newline="") as file:
        csv.writer(file).writerows([("note", "body", "queue"), *(("x", *row) for row in zip(task.inputs(), task.answers()))])
    words = [command, "--model", str(small_head), "--text_column", "note", "body", "--label_column", "queue"]
    words += ["--output_dir", str(output), "--examples", str(examples)]
    words += ["--what", "params", "--num_train_epochs", "1"] if command == "finetune" else []

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    rows = ["--predict", str(examples), "--max_risk", "0.5", "--skip_bad_rows"]
    for asked in ([], rows):  # in the last line that is printed, or while rows are answered
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
            patch.setattr(f"metatext.commands.{command}.{'write_predictions' if asked else 'print'}", interrupted, raising=False)
            cli.main([*words, *asked])
        said, mark, rest = capsys.readouterr().err.rstrip().splitlines()[-1].partition("; to answer the rows: ")
        assert said == f"metatext {command}: interrupted; the classifier is saved in {output}" and bool(mark) == bool(asked)
        assert not (output / "checkpoints").exists() and not (output / "predictions.csv").exists()
    name, *arguments = shlex.split(rest)
    assert name == "metatext"
    cli.main(arguments)
    answers = (output / "predictions.csv").read_bytes()
    cli.main([*words, *rows])
    assert (output / "predictions.csv").read_bytes() == answers


@pytest.mark.parametrize(
    "arguments",
    [
        "runs/head me/head --private --revision v1 --datasets a b",
        "--revision v1 --datasets a b --private runs/head me/head",
        "--private --revision v1 --datasets a b runs/head me/head",
        "--datasets a b --revision v1 --private true runs/head me/head",
        "--datasets a b --private --revision=v1 runs/head me/head",
        "--model runs/head --repo_id me/head --private --revision v1 --datasets a b",
    ],
)
def test_what_is_pushed_and_where_stand_first_or_last(arguments):
    data = cli.parse("push", arguments.split())[cli.PushData]
    found = data.model, data.repo_id, data.private, data.revision, data.datasets
    assert found == ("runs/head", "me/head", True, "v1", ("a", "b"))


def test_a_file_of_examples_may_stand_behind_the_flags():
    assert cli.parse("adapt", ["--model", "gp", "tickets.csv"])[cli.AdaptData].examples == "tickets.csv"
    assert cli.parse("finetune", ["--what=params", "tickets.jsonl"])[cli.FinetuneData].examples == "tickets.jsonl"
    data = cli.parse("adapt", ["--label_names", "0=bug", "1=praise", "tickets.csv", "--predict", "new.csv"])[cli.AdaptData]
    assert (data.examples, data.label_names, data.predict) == ("tickets.csv", ("0=bug", "1=praise"), "new.csv")
    assert cli.parse("adapt", ["--skip_bad_rows", "tickets.csv"])[cli.AdaptData].examples == "tickets.csv"


def test_a_file_of_examples_may_stand_behind_settings(tmp_path):
    (tmp_path / "settings.yaml").write_text("kind: multilabel\n")
    data = cli.parse("adapt", [str(tmp_path / "settings.yaml"), "tickets.csv"])[cli.AdaptData]
    assert (data.kind, data.examples) == ("multilabel", "tickets.csv")


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        (["--text_column", "body", "tickets.csv"], "body"),
        (["--text_column", "subject", "mail body", "tickets.csv"], ("subject", "mail body")),
        (["--text_column", "subject", "mail body", "tickets.csv", "--label_column", "queue"], ("subject", "mail body")),
        (["tickets.csv", "--text_column", "mail body"], "mail body"),
        (["--text_column=mail, body", "tickets.csv", "--skip_bad_rows"], "mail, body"),
        (["--skip_bad_rows", "tickets.csv", "--text_column", "none"], None),
        (["{yaml}", "--predict", "new.csv", "tickets.csv"], ("subject", "mail body")),
        (["{yaml}", "--text_column", "body", "--examples", "tickets.csv"], "body"),
    ],
)
def test_columns_of_the_text_are_one_or_several(tmp_path, arguments, columns):
    """A file of examples behind them is none of them, a blank or comma parts no name, and in YAML they are a name or a list."""
    (tmp_path / "settings.yaml").write_text("text_column: [subject, mail body]\n")
    data = cli.parse("adapt", [part.format(yaml=tmp_path / "settings.yaml") for part in arguments])[cli.AdaptData]
    assert (data.text_column, data.examples) == (columns, "tickets.csv")


@pytest.mark.parametrize(
    ("value", "names"), [("mail body", "mail body"), (["mail, body"], "mail, body"), (None, None), ("none", None)]
)
def test_names_as_they_stand(value, names):
    assert cli.AdaptData(text_column=value).text_column == names
    for wrong in ([], {"subject": "body"}, 3, ["subject", 3]):
        with pytest.raises(mt.ConfigError, match=r"text_column: expected (a name or a list of names|text), got "):
            cli.AdaptData(text_column=wrong)


@pytest.mark.parametrize("command", RECIPES)
def test_help_teaches_and_is_quick_to_import(command, capsys):
    with pytest.raises(SystemExit):
        cli.run(command, ["--help"])
    out = capsys.readouterr().out
    for cls in cli.COMMANDS[command][1]:
        for item in cls.__dataclass_fields__.values():
            assert f"--{item.metadata['flag'] or item.name}" in out
    heavy = "{'numpy', 'torch', 'transformers', 'datasets', 'sklearn'}"
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_path('recipes/{RECIPES[command]}', run_name='__main__')\n"
        f"except SystemExit: pass\nassert not {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_recipes_are_short_and_name_no_library():
    for path in (ROOT / "recipes").glob("*.py"):
        assert len(path.read_text().split("\n")) <= 130, path
        assert path.stem not in {"evaluate", "accelerate", "datasets", "transformers", "peft"}


def test_tasks_that_would_leak_are_refused(tiny_folder, tmp_path):
    arguments = ["--tasks", "starter/train", "--test_tasks", "starter/train", "--encoder", str(tiny_folder), *SMALL]
    with pytest.raises(SystemExit, match="stands among the tasks to train on and among those to choose or measure with"):
        cli.run("train", [*arguments, "--output_dir", str(tmp_path)])


def test_version():
    done = subprocess.run([sys.executable, "-m", "metatext", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"metatext {mt.__version__}"


def test_the_features_of_a_teacher_are_kept_where_cache_dir_says(tiny_folder, tmp_path):
    for task in letter_tasks(2):
        (tmp_path / "tables").mkdir(exist_ok=True)
        with open(tmp_path / "tables" / f"{task.name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *zip(task.inputs(), task.answers(), strict=True)])
    encoder = ["--encoder", str(tiny_folder), "--tuning", "lora", "--distillation", "1", "--cache_dir", str(tmp_path / "kept")]
    shape = ["--n_way", "2", "--k_shot", "1", "--n_query", "2", "--n_outside", "1", "--meta_steps", "1", "--meta_batch_size", "2"]
    data = ["--tasks_dir", str(tmp_path / "tables"), "--test_tasks", "none", "--output_dir", str(tmp_path / "run")]
    cli.main(["train", *encoder, *shape, *data])
    assert list((tmp_path / "kept").glob("*/*.keys.npy"))
    assert not (tmp_path / "features").exists()  # the default folder of this test


def test_a_warm_start(corpora, tiny_folder, tmp_path, capsys):
    def train(output: str, *more: str) -> None:
        encoder = [
            "--encoder",
            str(tiny_folder),
            "--tuning",
            "lora",
            "--lora_rank",
            "2",
            "--n_way",
            "2",
            "--k_shot",
            "1",
            "--n_query",
            "2",
        ]
        cli.run(
            "train", ["--tasks", "sst2", "sst5", "--tasks_dir", str(corpora), *encoder, *SMALL, "--output_dir", output, *more]
        )

    frozen, first, second = (str(tmp_path / name) for name in ("frozen", "first", "second"))
    train(frozen, "--tuning", "frozen")
    train(first, "--warm_start", frozen, "--encoder_lr", "0.01")  # its head begins any tuning
    train(second, "--warm_start", first, "--encoder_lr", "0", "--meta_lr", "0")
    before, after = (mt.MetaModel.from_pretrained(folder).tensors() for folder in (first, second))
    assert all((before[name] == after[name]).all() for name in before)
    assert any(tensor.any() for name, tensor in before.items() if "lora_B" in name)
    train(str(tmp_path / "third"), "--warm_start", first, "--encoder_lr", "0.01")
    train(str(tmp_path / "mean"), "--warm_start", first, str(tmp_path / "third"), "--encoder_lr", "0", "--meta_lr", "0")
    third, mean = (mt.MetaModel.from_pretrained(tmp_path / name).tensors() for name in ("third", "mean"))
    assert all(((before[name] + third[name]) / 2 == tensor).all() for name, tensor in mean.items())
    assert any((before[name] != third[name]).any() for name in mean if "lora_B" in name)
    named = str(tmp_path / "lr=0.5")  # a folder's whole name comes before parts of the mean
    Path(first).rename(named)
    train(str(tmp_path / "parts"), "--warm_start", f"{named}=3", str(tmp_path / "third"), "--encoder_lr", "0", "--meta_lr", "0")
    Path(named).rename(first)
    parts = mt.MetaModel.from_pretrained(tmp_path / "parts")
    for name, tensor in parts.tensors().items():
        torch.testing.assert_close(tensor, (3 * before[name] + third[name]) / 4)
    settings = parts.notes["settings"]
    assert settings["warm_start"]["name"] == "lr=0.5=3, third"
    assert settings["flags"]["warm_start"] == ["path/to/lr=0.5=3", "path/to/third"]
    for entry in (f"{first}=0", f"{first}=many", "=2"):
        with pytest.raises(
            SystemExit, match=f"warm_start: expected a saved model, or model=parts with parts above 0, got '{entry}'"
        ):
            train(str(tmp_path / "other"), "--warm_start", entry)
    with pytest.raises(SystemExit, match=r"do not hold the same weights, encoder\..* for one"):
        train(str(tmp_path / "other"), "--warm_start", first, frozen)
    for flag, value, said in (
        ("lora_alpha", "5", "encoder lora_alpha: 32.0, the settings say 5.0"),
        ("head", "ridge", "head name: 'gp'"),
    ):
        with pytest.raises(SystemExit, match=rf"warm_start: .* has .*{said}"):
            train(str(tmp_path / "other"), "--warm_start", first, f"--{flag}", value)
    train(
        str(tmp_path / "beside"),
        "--warm_start",
        first,
        "--pretrained_share",
        "0.3",
        "--encoder_lr",
        "0",
        "--meta_lr",
        "0",
        "--pretrained_pooling",
        "words",
    )
    beside = mt.MetaModel.from_pretrained(tmp_path / "beside")
    assert beside.encoder.dim == 64 and all((before[name] == tensor).all() for name, tensor in beside.tensors().items())
    wide = str(tmp_path / "wide")
    train(wide, "--rank", "2")
    with pytest.raises(SystemExit, match=r"warm_start: .* has head .*: \(.*\), the settings say \("):  # its weights know d
        train(str(tmp_path / "other"), "--warm_start", wide, "--rank", "2", "--pretrained_share", "0.3")
    with pytest.raises(SystemExit, match=r"other settings .*warm_start"):
        train(second, "--encoder_lr", "0", "--meta_lr", "0")  # the run in that folder began with a model
