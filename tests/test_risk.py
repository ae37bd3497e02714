"""The risk of an answer: fitted on held-out tasks, kept with the head, asked by ``max_risk``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from letters import make_task

import metatext as mt
from metatext import evaluation
from metatext.adapted import AdaptedModel
from metatext.evaluation import risk_answers
from metatext.features import encode_tasks
from metatext.model import MetaModel
from metatext.risk import RiskCurve, fit_risk
from metatext.rows import DataError
from metatext.storage import StorageError

TEXTS = ["ab", "ba", "aab", "xy", "yx", "xxy"]
TARGETS = ["early"] * 3 + ["late"] * 3
QUERIES = ["abba", "yyx", "mn", "bab", "xyx"]


def learn(model, features) -> RiskCurve:
    """As at the end of a training, in one process."""
    columns = map(np.concatenate, zip(*(risk_answers(model, one, 0) for one in features)))
    return fit_risk(*columns, tuple(one.tasks[0].name for one in features))


def curve(score=(0.0, 0.5, 1.0), risk=(0.1, 0.1, 0.9)) -> RiskCurve:
    return RiskCurve(score, risk, ("held out",), 100)


def test_between_the_knots_it_is_linear_and_beyond_them_constant():
    np.testing.assert_allclose(curve()(np.array([0.0, 0.25, 0.75, 1.0])), [0.1, 0.1, 0.5, 0.9])
    np.testing.assert_allclose(curve((0.2, 0.4), (0.0, 1.0))(np.array([0.0, 0.3, 0.9])), [0.0, 0.5, 1.0])


def test_fitted_risk_is_the_share_of_errors_at_that_score():
    rng = np.random.default_rng(0)
    score = rng.random(40_000)
    wrong = rng.random(40_000) < score**2
    fitted = fit_risk(score, wrong, np.ones(len(score)), ("a",))
    at = np.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(fitted(at), at**2, atol=0.05)
    assert (np.diff(fitted.risk) >= 0).all() and len(fitted.score) <= 33 and fitted.rows == 40_000


def test_weights_count():
    score, wrong = np.repeat([0.2, 0.8], 2), np.array([True, False, True, False])
    fitted = fit_risk(score, wrong, np.array([1.0, 3.0, 3.0, 1.0]), ("a",))
    np.testing.assert_allclose(fitted(np.array([0.2, 0.8])), [0.25, 0.75], atol=1e-6)


def test_errors_at_low_scores_do_not_make_the_risk_fall():
    fitted = fit_risk(np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False, False, True]), np.ones(4), ("a",))
    np.testing.assert_allclose(fitted(np.array([0.1, 0.2, 0.3, 0.4])), [1 / 3, 1 / 3, 1 / 3, 1], atol=1e-6)


@pytest.mark.parametrize(
    "score, risk", [((0.5, 0.1), (0.1, 0.2)), ((0.1, 0.5), (0.2, 0.1)), ((0.1,), (0.1, 0.2)), ((0.1,), (1.2,)), ((), ())]
)
def test_no_risk_curve(score, risk):
    with pytest.raises(ValueError, match=r"rising numbers between 0 and 1|scores but"):
        RiskCurve(score, risk, (), 0)


def test_learned_from_rows_inside_and_outside(tiny, monkeypatch):
    """Two tasks alike: what is learned on one holds on the other, on average."""
    monkeypatch.setattr(evaluation, "RISK_N", 60)
    model = MetaModel.from_encoder(tiny).eval()
    store = mt.FeatureStore(tiny, progress=False)
    features = [encode_tasks(store, [make_task(name, 6, 30)]) for name in ("one", "two")]
    learned = learn(model, features[:1])
    assert learned == learn(model, features[:1]) and learned.tasks == ("one",) and learned.rows > 600
    other = learn(model, features[1:])
    assert 0 <= learned.risk[0] < learned.risk[-1] <= 1
    scores = np.linspace(0.1, 0.9, 9)
    assert np.abs(learned(scores) - other(scores)).mean() < 0.25
    assert learn(model, features).rows == learned.rows + other.rows


def test_max_risk_asks_the_learned_risk(tiny, tmp_path):
    model = MetaModel.from_encoder(tiny)
    clf = model.adapt(TEXTS, TARGETS)
    score = 1 - clf.predict_proba(QUERIES).max(1) * clf.confidence(QUERIES)
    np.testing.assert_allclose(clf.risk(QUERIES), score)
    assert set(clf.predict_table(QUERIES)) == {"label", "probability", "confidence", "risk"}
    middle = float(np.sort(score)[2])
    clf.risk_curve = model.risk = curve((0.0, middle, np.nextafter(middle, 1.0), 1.0), (0.05, 0.05, 0.6, 0.6))
    assert clf.risk(QUERIES).tolist() == [0.05 if s <= middle else 0.6 for s in score]
    answers = clf.predict(QUERIES)
    assert clf.predict(QUERIES, max_risk=0.1) == [a if s <= middle else None for a, s in zip(answers, score, strict=True)]
    assert clf.predict(QUERIES, max_risk=0.6) == answers and clf.predict(QUERIES, max_risk=0.01) == [None] * 5
    model.save_pretrained(tmp_path / "head")
    clf = model.adapt(TEXTS, TARGETS)
    model.risk = None  # training goes on: a classifier that was made before keeps its own
    clf.save_pretrained(tmp_path / "classifier")
    assert MetaModel.from_pretrained(tmp_path / "head", tiny).risk == clf.risk_curve
    np.testing.assert_array_equal(AdaptedModel.from_pretrained(tmp_path / "classifier", tiny).risk(QUERIES), clf.risk(QUERIES))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_max_risk_is_a_share(tiny, wrong):
    with pytest.raises(DataError, match=r"max_risk: expected a share of errors between 0 and 1, got"):
        MetaModel.from_encoder(tiny).adapt(TEXTS, TARGETS).predict(QUERIES, max_risk=wrong)


@pytest.mark.parametrize("change", [{"score": [1.0, 0.0, 0.5]}, {"risk": None}, {"risk": [0.1]}, {"tasks": 3}])
def test_a_damaged_risk_is_refused(tiny, tmp_path, change):
    model = MetaModel.from_encoder(tiny)
    model.risk = curve()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["risk"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StorageError, match=r"config\.json is incomplete or damaged"):
        MetaModel.from_pretrained(tmp_path, tiny)


def test_training_learns_it_on_the_held_out_tasks(tiny, tmp_path):
    tasks = [make_task(name, 4, 20) for name in ("one", "two", "three")]
    model = MetaModel.from_encoder(tiny)
    model.risk = curve()
    shape = mt.EpisodeConfig(n_way=(2, 4), k_shot=(1, 3), n_query=3, n_outside=4)
    config = mt.TrainConfig(output_dir=str(tmp_path / "run"), meta_steps=3, meta_batch_size=4)
    mt.meta_train(model, tasks[:2], eval_tasks=tasks[2:], episodes=shape, config=config)
    assert model.risk.tasks == ("three",)
    assert MetaModel.from_pretrained(tmp_path / "run", tiny).risk == model.risk
    alone = mt.TrainConfig(output_dir=str(tmp_path / "alone"), meta_steps=3, meta_batch_size=4)
    mt.meta_train(model, tasks[:2], episodes=shape, config=alone)
    assert model.risk is None  # nothing was held out
