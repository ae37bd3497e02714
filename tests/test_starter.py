"""The embedded starter tasks: enough of them, clean, described, and their test part unseen in training."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import metatext
from metatext.corpora import load_tasks

STARTER = Path(metatext.__file__).parent / "starter"
FILES = sorted(path for split in ("train", "test") for path in (STARTER / split).glob("*.jsonl"))
KINDS = {"multilabel": (2, 1), "regression": (3, 2)}  # kind -> so many tasks at least to train on, and to test with


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """split -> its tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        return {split: load_tasks(f"starter/{split}") for split in ("train", "test")}


@pytest.fixture(scope="module")
def tasks(parts):
    """name -> task."""
    return {task.name: task for part in parts.values() for task in part}


def texts(task):
    """All texts of a task, both sides of a pair."""
    return [text for row in task.inputs() for text in (row if task.is_pair else (row,))]


def normal(text):
    return " ".join(words(text))


def words(text):
    return re.findall(r"\w+", text.lower())


each_task = pytest.mark.parametrize("name", [path.stem for path in FILES])


def test_size(parts, tasks):
    assert len(tasks) == len(FILES) >= 24
    assert sum(len(task) for task in tasks.values()) >= 1500
    assert len(parts["train"]) > len(parts["test"]) >= 6


def test_pairs_in_both_parts(parts):
    for part in parts.values():
        assert any(task.is_pair for task in part)
        assert any(not task.is_pair for task in part)


def test_parts_share_nothing(parts):
    names = {split: {task.name for task in part} for split, part in parts.items()}
    assert not names["train"] & names["test"]
    seen = {split: {normal(text) for task in part for text in texts(task)} for split, part in parts.items()}
    assert not seen["train"] & seen["test"]


def test_descriptions_differ(tasks):
    assert len({task.description for task in tasks.values()}) == len(tasks)


@each_task
def test_task(tasks, name):
    task = tasks[name]
    assert task.description and task.description == task.description.strip() and len(words(task.description)) >= 4
    assert 2 <= len(task.labels) <= 8
    assert np.bincount(task.targets, minlength=len(task.labels)).min() >= 12


@each_task
def test_labels_can_be_read(tasks, name):
    for label in tasks[name].label_names:
        assert label and not label.isdigit() and label == label.strip() and "_" not in label


@each_task
def test_texts_are_clean(tasks, name):
    for text in texts(tasks[name]):
        assert text == text.strip() and text.isprintable() and "\ufffd" not in text
        assert 1 <= len(words(text)) <= 80


@each_task
def test_no_text_twice(tasks, name):
    rows = [tuple(map(normal, row)) if tasks[name].is_pair else normal(row) for row in tasks[name].inputs()]
    assert [row for row, n in Counter(rows).items() if n > 1] == []


@each_task
def test_no_sentence_template(tasks, name):
    """No two rows share more than 70 % of the longer one's words; among pairs, where that is the point, the first texts."""
    rows = [set(words(row[0] if tasks[name].is_pair else row)) for row in tasks[name].inputs()]
    assert [(a, b) for a, b in combinations(rows, 2) if len(a & b) > 0.7 * max(len(a), len(b))] == []


@each_task
def test_labels_are_not_given_away(tasks, name):
    """A label's own words stand in few of its texts: names help by meaning, not by string matching."""
    task = tasks[name]
    inside = [
        normal(task.labels[target]) in normal(" ".join(row) if task.is_pair else row)
        for row, target in zip(task.inputs(), task.targets, strict=True)
    ]
    assert np.mean(inside) < 0.25


@pytest.fixture(scope="module", params=KINDS)
def of_kind(request, tmp_path_factory):
    """A kind, and its tasks to train on and to test with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        return request.param, *(load_tasks(f"starter/{request.param}/{split}") for split in ("train", "test"))


def test_tasks_of_other_kinds(of_kind, tasks):
    kind, train, test = of_kind
    assert (len(train), len(test)) >= KINDS[kind] and len(test) >= KINDS[kind][1]
    assert {task.kind for task in (*train, *test)} == {kind}
    seen = {normal(text) for task in tasks.values() for text in texts(task)}
    names = [task.name for task in (*train, *test)]
    assert len({*names, *tasks}) == len(names) + len(tasks)
    for task in (*train, *test):
        assert len(task) >= 50 and task.description and all(task.label_names)
        rows = [normal(" ".join(row) if task.is_pair else row) for row in task.inputs()]
        assert len({*rows}) == len(rows) and not {*rows} & seen
        seen |= {*rows}
        for text in texts(task):
            assert text == text.strip() and text.isprintable() and 1 <= len(words(text)) <= 80
        if kind == "multilabel":
            assert task.targets.sum(0).min() >= 10 and task.targets.sum(1).max() >= 2 and task.targets.sum(1).min() == 0
        else:  # the whole of the scale, evenly
            low, high = task.labels
            assert (np.histogram(task.targets, 4, (low, high))[0] >= len(task) / 8).all()


def rows_of(kind: str) -> dict[str, list[dict]]:
    """name -> rows of a kind that has no `Task` yet."""
    paths = sorted((STARTER / kind).glob("*/*.jsonl"))
    return {path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in paths}


def test_answers_stand_in_their_contexts():
    found = rows_of("span")
    assert len(found) >= 5
    for rows in found.values():
        assert len(rows) >= 40 and len({(row["question"], row["context"]) for row in rows}) == len(rows)
        for row in rows:
            answers = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            assert all(
                row["context"][start : start + len(text)] == text and text.strip() == text != "" for text, start in answers
            )
            assert row["question"].strip() and 20 <= len(row["context"].split()) <= 120
    assert all(any(not row["answers"]["text"] for row in found[name]) for name in ("village_news", "travel_leaflets"))


def test_inputs_have_one_target_each():
    found = rows_of("generation")
    assert len(found) >= 3
    for rows in found.values():
        assert len(rows) >= 50 and len({row["input"] for row in rows}) == len(rows)
        assert all(row["input"].strip() and row["target"].strip() for row in rows)


def test_files_hold_nothing_else():
    known = {*FILES, *STARTER.glob("*/*/*.jsonl")}
    others = sorted(path.relative_to(STARTER).as_posix() for path in STARTER.rglob("*.json*") if path not in known)
    assert others == sorted(["catalog.json", *(f"{kind}/catalog.json" for kind in (*KINDS, "span", "generation"))])
