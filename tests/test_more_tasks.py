"""recipes/more_tasks.py: corpora of other forms, made of those that are there."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import SHARED

import metatext as mt
from metatext.rows import DataError
from metatext.yaml_files import read_yaml

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(RECIPES), *sys.path])
    return runpy.run_path(str(RECIPES / "more_tasks.py"))


@pytest.fixture
def corpora(tmp_path):
    """Twenty rows each of fruits in three kinds, of written answers, and of questions on two texts."""
    kinds = ["sweet", "sour", "dry"]
    tables = {
        "fruits": [{"text": f"fruit {i}", "label": kinds[i % 3], "rank": i % 4 + 1} for i in range(60)],
        "menus": [{"input": f"name[{i}], price[{kinds[i % 2]}], rating[{i % 2}]", "target": f"menu {i}"} for i in range(40)],
        "questions": [
            {
                "question": f"Which {kinds[i % 2]}?",
                "context": f"{i} lies here and so on",
                "answers": {"text": ["lies"], "answer_start": [len(str(i)) + 1]},
            }
            for i in range(40)
        ],
    }
    for name, rows in tables.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_classes_are_put_together(recipe, corpora):
    rows = recipe["make"]("taste", {"of": "fruits", "classes": {"moist": ["sweet", "sour"], "dried": ["dry"]}}, corpora)
    assert Counter(label for _, label in rows) == {"moist": 40, "dried": 20}
    assert all((label == "dried") == (int(text.split()[1]) % 3 == 2) for text, label in rows)


def test_classes_of_another_column(recipe, corpora):
    rows = recipe["make"]("ranks", {"of": "fruits", "label": "rank", "classes": {"low": [1, 2], "high": [4]}}, corpora)
    assert Counter(label for _, label in rows) == {"low": 30, "high": 15}


def test_pairs_are_of_one_class_or_of_two(recipe, corpora):
    rows = recipe["make"]("same", {"of": "fruits", "most": 30, "pairs": ["same", "other"]}, corpora)
    assert {label for *_, label in rows} == {"same", "other"} and len(rows) > 40
    kind = [(int(a.split()[1]) % 3, int(b.split()[1]) % 3, label) for a, b, label in rows]
    assert all((a == b) == (label == "same") for a, b, label in kind) and all(a != b for a, b, _ in rows)


def test_questions_stand_beside_their_answer_or_another_text(recipe, corpora):
    rows = recipe["make"]("answered", {"of": "questions", "answers": ["yes", "no"]}, corpora)
    own = {(row["question"], row["context"]) for row in mt.load_task(corpora / "questions").inputs()}
    assert {label for *_, label in rows} == {"yes", "no"}
    assert all((question, text) in own for question, text, label in rows if label == "yes")


def test_texts_are_named_by_their_question_or_their_side_or_their_corpus(recipe, corpora):
    asked = recipe["make"]("asked", {"of": ["questions"], "asked": True}, corpora)
    assert Counter(label for _, label in asked) == {"Which sweet?": 20, "Which sour?": 20}
    sides = recipe["make"]("sides", {"of": "menus", "sides": ["said", "written"]}, corpora)
    assert all(text.startswith("menu") == (label == "written") for text, label in sides) and len(sides) == 80
    sources = recipe["make"]("sources", {"sources": {"a fruit": ["fruits"], "a text": ["questions", "menus"]}}, corpora)
    assert Counter(label for _, label in sources) == {"a fruit": 60, "a text": 80}
    assert all((label == "a fruit") == text.startswith("fruit") for text, label in sources)


def test_texts_that_stand_in_the_entry(recipe, tmp_path):
    rows = recipe["make"]("moods", {"written": {"glad": ["Hurrah!", "At last."], "sorry": ["Alas."]}}, tmp_path)
    assert sorted(rows) == [("Alas.", "sorry"), ("At last.", "glad"), ("Hurrah!", "glad")]
    pairs = {"yes": [["Is it far?", "No."]], "no": [["Is it far?", "It rains."]]}
    assert sorted(recipe["make"]("replies", {"written": pairs}, tmp_path)) == [
        ("Is it far?", "It rains.", "no"),
        ("Is it far?", "No.", "yes"),
    ]


def test_rows_are_those_of_one_label_and_of_classes_that_are_large_enough(recipe):
    import random

    rows = [(f"text {i}", "much") for i in range(50)] + [(f"text {i}", "little") for i in range(45, 60)]
    kept = recipe["chosen"](rows, 20, random.Random(0))
    assert Counter(label for _, label in kept) == {"much": 20}  # five texts had two labels, which left ten of the other
    assert not {text for text, _ in kept} & {f"text {i}" for i in range(45, 50)}


def test_the_same_rows_again(recipe, corpora):
    entry = {"of": "fruits", "most": 15, "pairs": ["same", "other"]}
    assert recipe["make"]("same", entry, corpora) == recipe["make"]("same", entry, corpora)
    assert recipe["make"]("same", entry, corpora) != recipe["make"]("again", entry, corpora)


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"of": "fruits"}, "new: expected one of classes, pairs, answers, asked, sides, sources, written, got none"),
        ({"of": "fruits", "asked": True, "pairs": ["a", "b"]}, "got pairs and asked"),
        ({"of": "fruits", "pears": ["a", "b"]}, "new: unknown key 'pears'; did you mean 'pairs'?"),
        ({"of": "fruits", "pairs": ["a"]}, "new: pairs: expected two names, got 1"),
        ({"of": "fruits", "pairs": "a"}, "new: pairs: expected list, got 'a'; --help shows what it is"),
        ({"of": "fruits", "most": "many", "pairs": ["a", "b"]}, "new: most: expected int, got 'many'"),
        ({"pairs": ["a", "b"]}, "new: of names no corpus"),
        ({"written": ["a", "b"]}, "new: written: expected a dict, got one list"),
        ({"written": {"a": []}}, "new: no class has 1 rows"),
        ({"of": "fruits", "written": {"a": ["x"]}}, "new: written says itself what it is made of; leave of: out"),
        ({"label": "a", "written": {"a": ["x"]}}, "new: written says itself what it is made of; leave label: out"),
        ({"written": {"a": [[]]}}, "new: a: () is no text and no pair of texts"),
        ({"written": {"a": ["x", 7]}}, "new: a: 7 is no text and no pair of texts; write it in quotes"),
        ({"written": {"a": ["x"], "b": [["x", " "]]}}, "b: ('x', ' ') is no text and no pair of texts"),
        ({"written": {"a": ["x"], "b": [["x", "y"]]}}, "b: ('x', 'y'): expected one text as in the rows before"),
        ({"written": {"a": "xy"}}, "a: expected a list of texts, got 'xy'"),
        ({"of": "fruits", "classes": {"a": ["sweat"]}}, "fruits has no label 'sweat'; did you mean 'sweet'?"),
        ({"of": "fruits", "classes": {"a": []}}, "new: no class has 12 rows; fruits are too small for it"),
        ({"of": "vegetables", "pairs": ["a", "b"]}, "vegetables does not exist"),
        ({"of": "fruits", "asked": True}, "new: asked are made of corpora of kind span, fruits is one of kind classification"),
        ("fruits", "new: expected a dict, got 'fruits'; write of: and a form below it"),
    ],
)  # fmt: skip
def test_entries_that_do_not_fit(recipe, corpora, entry, message):
    with pytest.raises(DataError) as raised:
        recipe["make"]("new", entry, corpora)
    assert message in str(raised.value)


def test_the_corpora_that_it_writes_are_tasks_and_a_mistake_writes_none(corpora):
    (corpora / "more.yaml").write_text(
        "taste: {of: fruits, classes: {moist: [sweet, sour], dried: [dry]}}\nsame: {of: fruits, pairs: [a, b]}\n"
    )
    command = [sys.executable, str(RECIPES / "more_tasks.py"), "--tasks_dir", str(corpora), "--output_dir"]
    done = subprocess.run(
        [*command, str(corpora / "new"), str(corpora / "more.yaml")], capture_output=True, text=True, check=True
    )
    assert "taste: 60 rows, moist (40), dried (20)" in done.stdout
    taste, same = (mt.load_task(corpora / "new" / name) for name in ("taste", "same"))
    assert sorted(taste.labels) == ["dried", "moist"] and same.is_pair and sorted(same.labels) == ["a", "b"]
    done = subprocess.run([*command, str(corpora / "none"), *2 * [str(corpora / "more.yaml")]], capture_output=True, text=True)
    assert done.returncode == 2 and "same, taste stands in a file before it too" in done.stderr
    (corpora / "more.yaml").write_text("taste: {of: fruits, asked: true}\nsame: {of: fruits, pears: [a, b]}\n")
    done = subprocess.run([*command, str(corpora / "none"), str(corpora / "more.yaml")], capture_output=True, text=True)
    assert done.returncode == 2 and not (corpora / "none").exists() and "Traceback" not in done.stderr


def test_the_entries_that_come_with_the_recipes_are_entries(recipe):
    for name, entry in read_yaml(RECIPES / "more_tasks.yaml", DataError).items():
        recipe["form_of"](name, entry)


@pytest.mark.shared
def test_the_entries_that_come_with_the_recipes_fit_the_corpora(recipe):
    entries = read_yaml(RECIPES / "more_tasks.yaml", DataError)
    for name in ("clinc_domains", "goemotions_tone", "newsgroups_areas", "imdb_stars"):
        found = {label for _, label in recipe["make"](name, entries[name], SHARED / "train")}
        assert found == {*entries[name]["classes"]}


@pytest.fixture(scope="module")
def written():
    """{file: {task: its texts or pairs by label}} of those that come with the recipes."""
    return {path.stem: read_yaml(path, DataError) for path in sorted((RECIPES / "written").glob("*.yaml"))}


def test_the_written_tasks_are_tasks(recipe, written):
    names = [name for entries in written.values() for name in entries]
    assert len(names) == len({*names}) > 200
    for entries in written.values():
        for name, entry in entries.items():
            assert entry.keys() == {"written"} and min(map(len, entry["written"].values())) >= 8, name
            rows = recipe["make"](name, entry, Path())
            assert {row[-1] for row in rows} == {*entry["written"]}, name
            assert len(rows) == sum(map(len, entry["written"].values())), f"{name}: a row stands there twice"


@pytest.mark.shared
def test_no_written_text_stands_in_a_development_corpus(written):
    def norm(text):
        return " ".join(re.findall(r"\w+", text.lower()))

    rows = [row for entries in written.values() for entry in entries.values() for own in entry["written"].values() for row in own]
    texts = {norm(text) for row in rows for text in ([row] if isinstance(row, str) else row)}
    for path in sorted((SHARED / "dev").glob("*/*.parquet")):
        table = pq.read_table(path)
        for column in {"text", "text_pair", "question"} & {*table.column_names}:
            found = {norm(text) for text in table[column].to_pylist() if len(text.split()) > 2} & texts
            assert not found, f"{path.parent.name}: {sorted(found)}"
