"""TextClassifier keeps scikit-learn's contract, over lists of texts."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from letters import make_task
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from metatext import DataError, FinetuneConfig, MetaModel
from metatext.sklearn import TextClassifier
from metatext.storage import StorageError

TASK = make_task("letters", classes=3)
X, Y = TASK.inputs(), TASK.answers()


@pytest.fixture(scope="module")
def model(tiny) -> MetaModel:
    return MetaModel.from_encoder(tiny)


def test_fit_and_predict_are_adapt_and_predict(model):
    clf = TextClassifier(model)
    assert clf.fit(X, Y) is clf
    adapted = model.adapt(X, Y)
    assert clf.classes_.tolist() == adapted.labels == sorted(set(Y))
    np.testing.assert_array_equal(clf.predict_proba(X[:5]), adapted.predict_proba(X[:5]))
    answers = clf.predict(np.array(X))
    assert TextClassifier(model).fit(X, (label for label in Y)).classes_.tolist() == adapted.labels
    assert isinstance(answers, np.ndarray) and answers.tolist() == adapted.predict(X) and clf.score(X, Y) > 0.9


@pytest.mark.parametrize("labels", [[3, -1, 7], [True, False], ["b", "a"]], ids=str)
def test_labels_keep_their_type(model, labels):
    y = np.array([labels[i % len(labels)] for i in range(len(X))])
    clf = TextClassifier(model).fit(X, y)
    assert clf.classes_.tolist() == sorted(labels) and clf.predict(X[:2]).dtype == clf.classes_.dtype
    assert clf.classes_.dtype.kind == y.dtype.kind and set(clf.predict(X).tolist()) <= set(labels)


def test_label_names_are_read_and_may_lack_examples(model):
    names = {"class z": "full of z", **{label: label for label in reversed(sorted(set(Y)))}}
    clf = TextClassifier(model, label_names=names).fit(X, Y)
    assert clf.classes_.tolist() == sorted(names) and clf.predict_proba(X[:2]).shape == (2, 4)
    assert clf.adapted_.label_names[-1] == "full of z"
    assert TextClassifier(model, ["z_z", *reversed(sorted(set(Y)))]).fit(X, Y).adapted_.label_names[-1] == "z z"


def test_before_fit(model):
    clf = TextClassifier(model)
    for method in (clf.predict, clf.predict_proba):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            method(X)
    assert is_classifier(clf) and not hasattr(clf, "classes_")


def test_parameters_and_clone(model):
    clf = TextClassifier(model, {"a": "b"})
    assert clf.get_params() == {"model": model, "label_names": {"a": "b"}, "finetune": None}
    assert clf.set_params(model="ridge").model == "ridge" and "ridge" in repr(clf)
    fitted = TextClassifier(model).fit(X, Y)
    again = clone(fitted)
    assert again.model is model and not hasattr(again, "classes_")  # no copy of an encoder
    assert TextClassifier().model == "metatext-minilm-general"


def test_cross_validation_and_a_search_over_heads(model, tiny, tmp_path):
    assert cross_val_score(TextClassifier(model), X, Y, cv=3).mean() > 0.8
    MetaModel.from_encoder(tiny, "prototype").save_pretrained(tmp_path / "head")
    heads = [model, str(tmp_path / "head"), tmp_path / "head"]
    search = GridSearchCV(
        TextClassifier(), {"model": heads}, cv=2, scoring=["accuracy", "neg_log_loss"], refit="accuracy", error_score="raise"
    )
    search.fit(X, Y)
    assert search.best_score_ > 0.8 and set(search.predict(X[:3])) <= set(Y)


def test_inside_a_pipeline(model):
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipe = Pipeline([("lower", lower), ("classify", TextClassifier(model))]).fit([text.upper() for text in X], Y)
    np.testing.assert_array_equal(pipe.predict_proba([X[0].upper()]), TextClassifier(model).fit(X, Y).predict_proba([X[0]]))
    assert pipe.set_params(classify__model="ridge").named_steps["classify"].model == "ridge"


def test_fine_tuning(model):
    clf = TextClassifier(model, finetune=FinetuneConfig(num_train_epochs=2)).fit(X, Y)
    assert clf.adapted_.finetuning["settings"]["num_train_epochs"] == 2 and clf.score(X, Y) > 0.9


def test_pickle(model):
    clf = TextClassifier(model).fit(X, Y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X[:3]), clf.predict_proba(X[:3]))


@pytest.mark.parametrize(
    "given, x, y, error, message",
    [
        ({}, X, Y[:-1], DataError, "inputs but"),
        ({}, ["a", 3], ["x", "y"], DataError, "row 1 must be a text"),
        ({}, "ab", ["x", "y"], DataError, "expected a list of texts"),
        ({}, ["a", "b"], [["x"], ["y"]], DataError, r"row 0 has the label \['x'\] \(list\); labels are str or int"),
        ({}, ["a", "b"], np.array([["x"], ["y"]]), DataError, "targets: got a table of 2 x 1; expected one target per input"),
        ({}, ["a", "b"], np.array(["x", np.nan], object), DataError, "row 1 has no label"),
        ({}, ["a", "b"], ["x", np.nan], DataError, "row 1 has no label"),
        ({}, ["a", "b"], ["x", 1], DataError, "row 1 has the label 1, row 0 'x'"),
        ({}, ["a", "b"], None, DataError, "one target per input, got None"),
        ({"label_names": ["x", 3]}, ["a", "b"], ["x", "y"], DataError, "label_names: entry 1 is 3, and a list is of texts"),
        ({"label_names": ["x", "y"]}, ["a", "b"], [0, 1], DataError, "row 0 has the label 0, which is not among label_names"),
        ({}, ["a", "b"], [0.5, 1.5], DataError, "labels are str or int"),
        ({}, ["a", "b"], ["x", None], DataError, "has no label"),
        ({}, ["a", "b"], ["x", "x"], DataError, "at least two"),
        ({"label_names": {"x": "x", "z": "z"}}, ["a", "b"], ["x", "y"], DataError, "'y', which is not among label_names"),
        ({"model": 3}, X, Y, DataError, "model: expected a folder, .* got int"),
        ({"model": "./nowhere"}, X, Y, StorageError, "nowhere"),
    ],
)
def test_mistakes(model, given, x, y, error, message):
    with pytest.raises(error, match=message):
        TextClassifier(**{"model": model, **given}).fit(x, y)


def test_its_import_is_asked_for():
    code = "import sys, metatext; metatext.DataError; assert 'sklearn' not in sys.modules; import metatext.sklearn"
    subprocess.run([sys.executable, "-c", code], check=True)
