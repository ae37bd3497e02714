"""Figures of answers whose right ones are known, by hand, for every kind."""

from __future__ import annotations

import numpy as np
import pytest
from scripts.train_head import find_the_run, letters_present, share_of_a

import metatext as mt
from metatext.inputs import right_texts
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
    """What says that there is no answer where there is one is wrong."""
    answers = [{"text": "the red car", "start": 0, "end": 11, "score": 1.0}, {"text": "", "start": 0, "end": 0, "score": 1.0}]
    found = answer_figures(
        "span", [], answers, [{"text": ["red car"], "answer_start": [4]}, {"text": ["x"], "answer_start": [0]}]
    )
    assert found == {"squad_v2_f1": 0.5, "squad_v2_em": 0.5}
    none = {"text": [], "answer_start": []}
    assert answer_figures("span", [], answers, [none, none]) == {"squad_v2_f1": 0.5, "squad_v2_em": 0.5}


def test_written_texts():
    found = answer_figures("generation", [], ["one two", "x"], ["one two", ["y", "x"]])
    assert found["rouge_l"] == 1.0 and set(found) == {"rouge_l", "bleu"}


@pytest.mark.parametrize("make", [letters_present, share_of_a, find_the_run])
def test_a_task_is_judged_as_its_rows_are(tiny, make):
    task = make(rows=20)
    clf = mt.MetaModel.from_encoder(tiny).adapt(task.select(range(12)))
    asked = task.select(range(12, 20))
    assert clf.evaluate(asked) == clf.evaluate(asked.inputs(), asked.answers())
    if task.kind == "regression":
        wrong = np.array(asked.answers()) - clf.predict(asked.inputs())
        assert clf.evaluate(asked)["rmse"] == pytest.approx(np.sqrt(np.mean(wrong**2)))


def test_probabilities_are_judged_too(tiny):
    clf = mt.MetaModel.from_encoder(tiny).adapt(["aa", "ab", "xy", "xx"], ["p", "p", "q", "q"])
    rows, targets = ["ab", "xy", "ax"], ["p", "q", "q"]
    found, said = clf.evaluate(rows, targets), clf.predict_proba(rows)
    assert list(found) == ["accuracy", "macro_f1", "mcc", "nll", "brier", "ece"]
    assert found["nll"] == pytest.approx(-np.log(said[[0, 1, 2], [0, 1, 1]]).mean())
    assert found["accuracy"] == np.mean(np.array(clf.predict(rows)) == targets)


def test_threshold_decides_which_labels_are_the_answer(tiny):
    clf = mt.MetaModel.from_encoder(tiny).adapt(letters_present(rows=20))
    rows = ["abc", "efgh", "bd"]
    said = clf.predict_proba(rows)
    clf.threshold = float(np.median(said))
    right = [[label for label, yes in zip(clf.labels, row >= clf.threshold, strict=True) if yes] for row in said]
    assert clf.evaluate(rows, right)["multilabel_micro_f1"] == 1.0
    clf.threshold = 0.5 * float(said.min())  # now all labels are the answer
    found = clf.evaluate(rows, right)["multilabel_micro_f1"]
    given = sum(map(len, right))
    assert found == pytest.approx(2 * given / (said.size + given))


def test_rows_of_one_input_are_right_answers_to_it(tiny, tiny_writer_folder):
    task = mt.load_task([{"input": "x", "target": "one two"}, {"input": "y", "target": "z"}, {"input": "x", "target": "b"}])
    assert right_texts(["x", "y", "x"], ["one two", "z", "b"]) == [["one two", "b"], ["z"], ["one two", "b"]]
    clf = mt.MetaModel.from_encoder(tiny, language=str(tiny_writer_folder)).adapt(task, description="Write.")
    said = clf.predict(["x", "y"])
    assert clf.evaluate(task) == answer_figures("generation", [], said, [["one two", "b"], ["z"]])


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (["a"], ["r"], "row 0 has the label 'r', which is not among"),
        (["a", "b"], ["p"], "2 inputs but 1 targets"),
        (["a"], None, "evaluate: targets: expected a list of one target per input, got None"),
        (["a"], "p", "expected a list of one target per input, got one text"),
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


def test_labels_are_those_that_predict_gives(tiny):
    clf = mt.MetaModel.from_encoder(tiny).adapt(["aa", "xy"], [0, 1], label_names=["p", "q"])
    assert clf.evaluate(["aa"], ["p"])["accuracy"] in (0.0, 1.0)
    with pytest.raises(DataError, match="row 0 has the label 0"):
        clf.evaluate(["aa"], [0])


def test_questions_that_cannot_be_judged(tiny):
    task = find_the_run(rows=8)
    clf = mt.MetaModel.from_encoder(tiny).adapt(task)
    with pytest.raises(DataError, match="row 0 has no 'answers'; expected"):
        clf.evaluate([{"question": "x", "context": "xxx"}])
    with pytest.raises(DataError, match="targets must be left out"):
        clf.evaluate(task.inputs(), ["x"] * 8)
