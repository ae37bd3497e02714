"""recipes/answer_kinds.py: what questions ask for, from how they begin and from what else their answers answer."""

import json
import runpy
import sys
from pathlib import Path

import pytest

import metatext as mt

RECIPE = Path(__file__).parents[1] / "recipes" / "answer_kinds.py"


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's names; a label needs one question instead of twelve."""
    names = runpy.run_path(str(RECIPE))
    monkeypatch.setitem(names["label_questions"].__globals__, "FEWEST", 1)
    return names


@pytest.mark.parametrize(
    "question, label",
    [
        ("Who wrote it?", "a person or a group"),
        ("whose book is it?", "a person or a group"),
        ("Where is it?", "a place"),
        ("How much is it?", "a number or an amount"),
        ("How does it work?", "a manner"),
        ("How old is it?", None),
        ("Wherever is it?", None),
        ("What city is it in?", None),
    ],
)
def test_how_a_question_begins_says_what_it_asks_for(recipe, question, label):
    assert recipe["asks_for"](question) == label


def test_a_question_that_does_not_say_it_asks_for_what_its_answer_answers_elsewhere(recipe):
    asked = [("Where was he born?", "paris"), ("Where is it?", "paris"), ("What city is old?", "paris")]
    assert recipe["label_questions"](asked)["What city is old?"] == "a place"


@pytest.mark.parametrize("others", [["Where is it?"], ["Where is it?", "Who won?"]], ids=["one question", "they disagree"])
def test_what_an_answer_does_not_say_surely_stays_unknown(recipe, others):
    asked = [*((question, "paris") for question in others), ("What city is old?", "paris")]
    assert set(recipe["label_questions"](asked)) == set(others)


def test_an_answer_of_a_word_or_two_that_answers_nothing_else_is_a_thing(recipe):
    asked = [("What broke?", "the chair"), ("What year?", "1981"), ("What happened?", "the chair broke down")]
    assert recipe["label_questions"](asked) == {"What broke?": "a thing"}


def test_a_question_that_asks_for_two_things_is_left_out(recipe):
    asked = [("What is it?", "a lamp"), ("What is it?", "rome"), ("Where is he?", "rome"), ("Where are we?", "rome")]
    assert "What is it?" not in recipe["label_questions"](asked)


def test_a_label_of_few_questions_is_left_out(recipe, monkeypatch):
    monkeypatch.setitem(recipe["label_questions"].__globals__, "FEWEST", 2)
    asked = [("Where is it?", "rome"), ("Where are we?", "rome"), ("Who won?", "ann")]
    assert set(recipe["label_questions"](asked).values()) == {"a place"}


def corpus(path, questions):
    """A file of questions on one text, each with the same answer."""
    rows = [{"question": q, "context": "Rome is old.", "answers": {"text": ["Rome"], "answer_start": [0]}} for q in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["answer_kinds.py", *words])
    runpy.run_path(str(RECIPE), run_name="__main__")


def test_the_corpus_that_it_writes_is_a_task(tmp_path, monkeypatch, capsys):
    asked = [f"{word} is number {i}?" for word in ("Where", "Who") for i in range(12)]
    run(monkeypatch, corpus(tmp_path / "some.jsonl", asked), "--output_dir", str(tmp_path / "answer_kinds"))
    task = mt.load_task(tmp_path / "answer_kinds")
    assert task.kind == "classification" and sorted(task.inputs()) == sorted(asked)
    assert sorted(task.label_names) == ["a person or a group", "a place"]
    assert "24 questions of 1 corpora" in capsys.readouterr().out


@pytest.mark.parametrize("questions, said", [(["Where is it?"], "too small"), ([], "no rows")])
def test_corpora_that_give_none_end_in_one_line_and_write_nothing(tmp_path, monkeypatch, capsys, questions, said):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, corpus(tmp_path / "some.jsonl", questions), "--output_dir", str(tmp_path / "answer_kinds"))
    assert said in capsys.readouterr().err and not (tmp_path / "answer_kinds").exists()
