"""Figures of answers whose right ones are known, by hand, for every kind."""

from __future__ import annotations

import numpy as np
import pytest
from scripts.train_head import find_the_run, letters_present, share_of_a

import metatext as mt
from metatext.rows import DataError
from metatext.scoring import answer_figures


def test_one_label():
    found = answer_figures("classification", ["a", "b", "c"], ["a", "a", "b", "c"], ["a", "b", "b", "c"])
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["mcc"] == pytest.approx((3 * 4 - (2 + 2 + 1)) / np.sqrt((16 - 6) * (16 - 6)))  # Gorodkin 2004


def test_one_label_that_is_always_the_same():
    assert answer_figures("classification", ["a", "b"], ["a", "a"], ["a", "a"]) == {"accuracy": 1.0, "macro_f1": 1.0, "mcc": 0.0}


def test_several_labels():
    found = answer_figures("multilabel", ["a", "b"], [["a"], ["a", "b"], []], [["a"], ["a"], ["b"]])
    assert found == {"multilabel_macro_f1": 0.5, "multilabel_micro_f1": pytest.approx(4 / 6)}


def test_scores():
    found = answer_figures("regression", [], np.array([1.0, 2.0, 4.0]), [1, 3, 5])
    assert found == {
        "spearman": pytest.approx(1.0),
        "pearson": pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 5])[0, 1]),
        "rmse": pytest.approx(np.sqrt(2 / 3)),
    }


def test_spans():
    answers = [{"text": "the red car", "start": 0, "end": 11, "score": 1.0}, {"text": "", "start": 0, "end": 0, "score": 1.0}]
    found = answer_figures(
        "span", [], answers, [{"text": ["red car"], "answer_start": [4]}, {"text": ["x"], "answer_start": [0]}]
    )
    assert found == {"squad_f1": 0.5, "squad_em": 0.5}


def test_written_texts():
    found = answer_figures("generation", [], ["one two", "x"], ["one two", ["y", "x"]])
    assert found["rouge_l"] == 1.0 and set(found) == {"rouge_l", "bleu"}


@pytest.mark.parametrize("make", [letters_present, share_of_a, find_the_run])
def test_a_task_is_judged_as_its_rows_are(tiny, make):
    task = make(rows=20)
    clf = mt.MetaModel.from_encoder(tiny).adapt(task.select(range(12)))
    asked = task.select(range(12, 20))
    found = clf.evaluate(asked)
    targets = [row["answers"] for row in asked.inputs()] if task.kind == "span" else asked.answers()
    assert found == clf.evaluate(asked.inputs(), asked.answers())
    assert found == answer_figures(task.kind, clf.labels, clf.predict(asked.inputs()), targets)


def test_probabilities_are_judged_too(tiny):
    clf = mt.MetaModel.from_encoder(tiny).adapt(["aa", "ab", "xy", "xx"], ["p", "p", "q", "q"])
    rows, targets = ["ab", "xy", "ax"], ["p", "q", "q"]
    found, said = clf.evaluate(rows, targets), clf.predict_proba(rows)
    assert list(found) == ["accuracy", "macro_f1", "mcc", "nll", "brier", "ece"]
    assert found["nll"] == pytest.approx(-np.log(said[[0, 1, 2], [0, 1, 1]]).mean())
    assert found["accuracy"] == np.mean(np.array(clf.predict(rows)) == targets)


def test_threshold_decides_which_labels_are_the_answer(tiny):
    task = letters_present(rows=20)
    clf = mt.MetaModel.from_encoder(tiny).adapt(task)
    clf.threshold = 0.999
    assert clf.evaluate(task)["multilabel_micro_f1"] == pytest.approx(
        answer_figures("multilabel", clf.labels, clf.predict(task.inputs()), task.answers())["multilabel_micro_f1"]
    )


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (["a"], ["r"], "row 0 has the label 'r', which is not among"),
        (["a", "b"], ["p"], "2 inputs but 1 targets"),
        (["a"], None, "expected a list with one right answer per input, got None"),
        (["a"], "p", "expected a list with one right answer per input, got 'p'"),
        (["a"], [None], "row 0 has no label"),
        ([], [], "no rows to judge by"),
        ("a", ["p"], "expected a list of texts, got one text"),
        (share_of_a(rows=4), None, "of kind classification, task 'share' of kind regression"),
        (share_of_a(rows=4), [1.0], "a Task brings its own targets"),
    ],
)
def test_what_cannot_be_judged(tiny, inputs, targets, message):
    clf = mt.MetaModel.from_encoder(tiny).adapt(["aa", "xy"], ["p", "q"])
    with pytest.raises(DataError, match=message):
        clf.evaluate(inputs, targets)


def test_questions_that_cannot_be_judged(tiny):
    task = find_the_run(rows=8)
    clf = mt.MetaModel.from_encoder(tiny).adapt(task)
    with pytest.raises(DataError, match="row 0 has None; expected"):
        clf.evaluate([{"question": "x", "context": "xxx"}])
    with pytest.raises(DataError, match="targets must be left out"):
        clf.evaluate(task.inputs(), ["x"] * 8)
