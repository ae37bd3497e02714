"""The embedded starter tasks: enough of them, clean, described, and their test part unseen in training."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import metatext
from metatext.tasks import load_tasks

FILES = sorted((Path(metatext.__file__).parent / "starter").glob("*/*.jsonl"))


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


def test_files_hold_nothing_else(tasks):
    starter = FILES[0].parents[1]
    assert sorted(p.relative_to(starter).as_posix() for p in starter.rglob("*.json*") if p not in FILES) == ["catalog.json"]
