"""Evaluation: the figures of a report, the baselines, and that all methods stand before the same episodes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression

from metatext import EpisodeConfig, FeatureStore, HeadConfig, MetaModel, Report, evaluate_tasks, evaluation, load_task
from metatext.evaluation import BASELINES, chunks, draw_for, episode_scores
from metatext.features import encode_tasks
from metatext.kinds import KINDS
from metatext.metrics import ece, nll

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHAPE = EpisodeConfig(n_way=3, k_shot=2, n_query=3)


def make_task(name: str, classes: int = 4, size: int = 12, names: bool = True, seed: int = 0):
    """Class c: texts that are full of the letter c."""
    rng = np.random.default_rng([seed, *name.encode()])
    rows = []
    for c in range(classes):
        for _ in range(size):
            letters = rng.choice(list(LETTERS), 8)
            letters[rng.permutation(8)[:4]] = LETTERS[5 * c]
            rows.append({"text": "".join(letters), "label": f"class {LETTERS[5 * c]}" if names else c})
    return load_task(rows, name=name)


@pytest.fixture(scope="module")
def model(tiny) -> MetaModel:
    return MetaModel.from_encoder(tiny, HeadConfig("ridge"))


@pytest.fixture(scope="module")
def tasks() -> list:
    return [make_task("first"), make_task("second", classes=3), make_task("third", classes=5)]


def run(model, tasks, shape=SHAPE, **more) -> Report:
    return evaluate_tasks(model, tasks, shape, **{"n_episodes": 8, "progress": False, **more})


def half(values) -> float:
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))


SCORES = {
    "emotion": {"trained": np.array([0.5, 0.75, 1.0]), "baseline": np.array([0.25, 0.5, 0.25]), "none": np.full(3, np.nan)},
    "a longer name": {"trained": np.array([1.0, 1.0, 1.0]), "baseline": np.array([0.0, 1.0, 0.5]), "none": np.full(3, np.nan)},
}
POOLED = {
    task: {"trained": {"nll": 0.1234567891, "ece": 0.05}, "baseline": {"nll": 1.0, "ece": 0.5}, "none": {}} for task in SCORES
}
SETTINGS = {"n_way": 5, "k_shot": [0, 4], "n_query": 5, "n_outside": 0, "n_episodes": 3, "seed": 7}
REPORT = Report("accuracy", SCORES, POOLED, SETTINGS)


# --- the report by hand ----------------------------------------------------------------------------------------------


def test_means_and_intervals():
    assert REPORT.methods == ["trained", "baseline", "none"]
    assert REPORT.mean("trained", "emotion") == pytest.approx((0.75, half([0.5, 0.75, 1.0])))
    assert REPORT.mean("trained", "emotion")[1] == pytest.approx(4.302653 * 0.25 / 3**0.5)
    assert REPORT.mean(task="a longer name") == (1.0, 0.0)
    assert REPORT.mean() == REPORT.mean("trained") == pytest.approx((0.875, half([0.75, 1.0])))  # over the two tasks
    assert REPORT.mean("baseline") == pytest.approx((5 / 12, half([1 / 3, 1 / 2])))
    assert np.isnan(REPORT.mean("none")[0]) and np.isnan(REPORT.mean("none", "emotion")[0])


def test_the_mean_over_one_task_is_over_its_episodes():
    one = Report("accuracy", {"emotion": SCORES["emotion"]}, {"emotion": POOLED["emotion"]}, SETTINGS)
    assert one.mean("trained") == one.mean("trained", "emotion") == pytest.approx((0.75, half([0.5, 0.75, 1.0])))
    assert "mean over tasks" not in str(one).splitlines()[-2]


def test_paired_difference():
    values = [0.25, 0.25, 0.75, 1.0, 0.0, 0.5]
    assert REPORT.difference("trained", "baseline") == pytest.approx((np.mean(values), half(values)))
    assert REPORT.difference("baseline", "trained")[0] == pytest.approx(-np.mean(values))
    assert REPORT.difference("trained", "trained") == (0.0, 0.0)


def test_table_text():
    lines = str(REPORT).splitlines()
    assert lines[:4] == [
        "                     trained     baseline         none",
        "emotion          75.0 ± 62.1  33.3 ± 35.9            -",
        "a longer name    100.0 ± 0.0 50.0 ± 124.2            -",
        "mean over tasks 87.5 ± 158.8 41.7 ± 105.9            -",
    ]
    assert len(lines) == 5 and lines[4].startswith("accuracy in %, mean ± 95 % interval")
    assert "n_way 5, k_shot [0, 4], n_query 5, n_episodes 3, seed 7 per task" in lines[4]


def test_columns_are_as_wide_as_their_heads():
    lines = str(Report("accuracy", {"t": {"trained": np.ones(2), "logistic_regression": np.ones(2)}}, {}, {})).splitlines()
    assert len(lines[0]) == len(lines[1]) and lines[0].endswith("  logistic_regression")


def test_to_dict():
    values = json.loads(json.dumps(REPORT.to_dict(), allow_nan=False))
    assert values["metric"] == "accuracy" and values["settings"] == SETTINGS
    assert set(values["tasks"]) == set(SCORES) and set(values["tasks"]["emotion"]) == {"trained", "baseline", "none"}
    assert values["tasks"]["emotion"]["trained"] == {
        "accuracy": 0.75,
        "interval_95": round(half([0.5, 0.75, 1.0]), 6),
        "nll": 0.123457,
        "ece": 0.05,
    }
    assert values["tasks"]["emotion"]["none"] == {} and values["mean"]["none"] == {}
    assert values["mean"]["trained"] == {"accuracy": 0.875, "interval_95": round(half([0.75, 1.0]), 6)}


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_report_of_a_run(model, tasks):
    report = run(model, tasks)
    assert report.methods == ["trained", "untrained", "label_names", "nearest_centroid", "logistic_regression"]
    assert list(report.scores) == [t.name for t in tasks]
    for scores in report.scores.values():
        for figures in scores.values():
            assert figures.shape == (8,) and ((figures >= 0) & (figures <= 1)).all()
            np.testing.assert_allclose(figures * 9, np.round(figures * 9), atol=1e-9)  # shares of 3 x 3 rows
    json.dumps(report.to_dict(), allow_nan=False)
    assert {"n_way": 3, "k_shot": 2, "n_query": 3, "n_episodes": 8, "seed": 0}.items() <= report.settings.items()
    for task in report.scores:
        np.testing.assert_array_equal(report.scores[task]["trained"], report.scores[task]["untrained"])  # nothing was trained
        assert report.pooled[task]["trained"] == report.pooled[task]["untrained"]
        assert set(report.pooled[task]["trained"]) == {"nll", "ece"}


def test_runs_repeat_and_seeds_differ(model, tasks):
    one, again, other = run(model, tasks), run(model, tasks), run(model, tasks, seed=1)
    assert one.to_dict() == again.to_dict()
    assert all(one.pooled[t]["trained"] != other.pooled[t]["trained"] for t in one.scores)


def test_figures_of_a_task_do_not_depend_on_the_others(model, tasks):
    together, alone = run(model, tasks), run(model, tasks[1:2])
    turned = run(model, tasks[::-1])
    for report in (alone, turned):
        for method in together.methods:
            np.testing.assert_array_equal(report.scores["second"][method], together.scores["second"][method])


def test_all_methods_stand_before_the_same_episodes(model, tasks, monkeypatch):
    seen = {"one": [], "two": []}

    def spy(name):
        def method(episodes):
            seen[name].append(episodes)
            return torch.full((*episodes.query.shape[:2], episodes.support.y.shape[2]), 1 / 3)

        return lambda model: method

    for name in seen:
        monkeypatch.setitem(BASELINES, name, spy(name))
    monkeypatch.setattr(evaluation, "ROWS", 40)  # several chunks
    run(model, tasks, baselines=("one", "logistic_regression", "two"))
    assert len(seen["one"]) == len(seen["two"]) > len(tasks)
    assert all(torch.equal(a.query, b.query) and torch.equal(a.support.x, b.support.x) for a, b in zip(*seen.values()))
    features = encode_tasks(FeatureStore(model.encoder, progress=False), tasks[:1])
    expected = features.gather(draw_for(features, SHAPE, 8, 0))
    torch.testing.assert_close(torch.cat([e.query for e in seen["one"]])[:8], expected.query)
    torch.testing.assert_close(torch.cat([e.support.x for e in seen["one"]])[:8], expected.support.x)


def test_episodes_follow_the_name_and_the_seed(model):
    store = FeatureStore(model.encoder, progress=False)
    task = make_task("first")
    features = encode_tasks(store, [task])
    renamed = encode_tasks(store, [load_task(task.rows.add_column("label", task.targets), name="other")])
    draws = [draw_for(f, SHAPE, 8, seed).support for f, seed in ((features, 0), (features, 0), (features, 1), (renamed, 0))]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2]) and not np.array_equal(draws[0], draws[3])


def test_chunks_do_not_change_the_figures(model, tasks, monkeypatch):
    shape = EpisodeConfig(n_way=(2, 4), k_shot=(0, 3), n_query=2, n_outside=2, fewer_ways=True)
    whole = run(model, tasks, shape)
    monkeypatch.setattr(evaluation, "ROWS", 1)
    parts = run(model, tasks, shape)
    for task in whole.scores:
        for method in whole.methods:
            np.testing.assert_allclose(parts.scores[task][method], whole.scores[task][method])
            assert parts.pooled[task][method] == pytest.approx(whole.pooled[task][method], abs=1e-5)


def test_chunks_cover_the_batch(model, tasks, monkeypatch):
    features = encode_tasks(FeatureStore(model.encoder, progress=False), tasks[:1])
    batch = draw_for(features, SHAPE, 7, 0)
    monkeypatch.setattr(evaluation, "ROWS", 2 * (6 + 9))
    parts = chunks(batch)
    assert [len(p) for p in parts] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([p.query for p in parts]), batch.query)


def test_figures_by_hand(model, tasks):
    """The accuracy of each episode, and nll and ece of all rows, computed again from the model's answers."""
    shape = EpisodeConfig(n_way=(2, 4), k_shot=(0, 2), n_query=3, n_outside=2)
    report = run(model, tasks[:1], shape, baselines=())
    features = encode_tasks(FeatureStore(model.encoder, progress=False), tasks[:1])
    batch = draw_for(features, shape, 8, 0)
    with torch.no_grad():
        probabilities = model(features.gather(batch)).values.softmax(-1).numpy()
    inside = batch.query_y >= 0
    right = probabilities.argmax(-1) == batch.query_y
    np.testing.assert_allclose(report.scores["first"]["trained"], [right[i][inside[i]].mean() for i in range(8)])
    rows, targets = probabilities[inside], batch.query_y[inside]
    assert report.pooled["first"]["trained"] == pytest.approx({"nll": nll(rows, targets), "ece": ece(rows, targets)}, abs=1e-5)


def test_scores_during_training(model, tasks):
    features = encode_tasks(FeatureStore(model.encoder, progress=False), tasks[:1])
    batch = draw_for(features, SHAPE, 8, 0)
    figures, losses = episode_scores(model, features, batch)
    np.testing.assert_allclose(figures, run(model, tasks[:1], baselines=()).scores["first"]["trained"])
    episodes = features.gather(batch)
    with torch.no_grad():
        expected = KINDS["classification"].loss(model(episodes), episodes.query_y, episodes.query_mask, episodes.outside)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


# --- baselines -------------------------------------------------------------------------------------------------------


def gathered(model, task, shape, n=4):
    features = encode_tasks(FeatureStore(model.encoder, progress=False), [task])
    batch = draw_for(features, shape, n, 0)
    return features, batch, features.gather(batch)


def test_logistic_regression_is_scikit_learn(model, tasks):
    features, batch, episodes = gathered(model, tasks[0], SHAPE)
    answers = BASELINES["logistic_regression"](model)(episodes).numpy()
    vectors = model.encoder.encode(tasks[0].inputs()).numpy()
    for i in range(len(batch)):
        fitted = LogisticRegression(C=10, max_iter=500).fit(vectors[batch.support[i]], batch.support_y[i])
        np.testing.assert_allclose(answers[i], fitted.predict_proba(vectors[batch.query[i]]), atol=1e-3)
        np.testing.assert_allclose(
            answers[i],
            LogisticRegression(C=10, max_iter=500)
            .fit(features.row_vectors(batch.support[i]), batch.support_y[i])
            .predict_proba(features.row_vectors(batch.query[i])),
            atol=1e-6,
        )


def test_logistic_regression_with_padding_and_classes_without_rows(model, tasks):
    shape = EpisodeConfig(n_way=(2, 4), k_shot=(0, 3), n_query=2, unbalanced=1.0)
    features, batch, episodes = gathered(model, tasks[0], shape, n=30)
    answers = BASELINES["logistic_regression"](model)(episodes).numpy()
    for i in range(30):
        live = batch.support_y[i] >= 0
        y = batch.support_y[i][live]
        if len(set(y)) < 2:
            assert np.isnan(answers[i]).all()
            continue
        fitted = LogisticRegression(C=10, max_iter=500).fit(features.row_vectors(batch.support[i][live]), y)
        expected = np.zeros((batch.query.shape[1], 4))
        expected[:, fitted.classes_] = fitted.predict_proba(features.row_vectors(batch.query[i]))
        np.testing.assert_allclose(answers[i], expected, atol=1e-6)


def softmax(values):
    exp = np.exp(values - values.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def test_centroid_and_names_by_hand(model, tasks):
    features, batch, episodes = gathered(model, tasks[0], SHAPE)
    centroid, names = (BASELINES[name](model)(episodes).numpy() for name in ("nearest_centroid", "label_names"))
    label_vectors = model.encoder.encode(list(tasks[0].label_names)).numpy()
    for i in range(len(batch)):
        x, query = features.row_vectors(batch.support[i]), features.row_vectors(batch.query[i])
        means = np.stack([x[batch.support_y[i] == way].mean(0) for way in range(3)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        np.testing.assert_allclose(centroid[i], softmax(20 * query @ means.T), atol=1e-4)
        np.testing.assert_allclose(names[i], softmax(20 * query @ label_vectors[batch.classes[i]].T), atol=1e-4)


def test_zero_shots(model, tasks):
    report = run(model, tasks[:2], EpisodeConfig(n_way=3, k_shot=0, n_query=2))
    for task in report.scores:
        for method in ("nearest_centroid", "logistic_regression"):
            assert np.isnan(report.scores[task][method]).all() and report.pooled[task][method] == {}
        for method in ("trained", "untrained", "label_names"):
            assert np.isfinite(report.scores[task][method]).all()
    for line in str(report).splitlines()[1:4]:
        assert line.split()[-2:] == ["-", "-"] and line.count("±") == 3
    assert "NaN" not in json.dumps(report.to_dict(), allow_nan=False)


def test_classes_without_names(model):
    report = run(model, [make_task("numbers", names=False)])
    assert np.isnan(report.scores["numbers"]["label_names"]).all()
    assert np.isfinite(report.scores["numbers"]["trained"]).all()
    assert str(report).splitlines()[1].split().count("-") == 1


def test_untrained_has_the_heads_settings_and_start(tiny, tasks):
    model = MetaModel.from_encoder(tiny, HeadConfig("metanet", rank=2, hidden_dim=8))
    with torch.no_grad():
        model.head.representation.alpha += 3.0
        model.head.network.output.weight += 0.3
    before = {k: v.clone() for k, v in model.head.state_dict().items()}
    report = run(model, tasks[:1], baselines=("untrained",))
    fresh = run(MetaModel.from_encoder(tiny, model.head_config), tasks[:1], baselines=())
    np.testing.assert_array_equal(report.scores["first"]["untrained"], fresh.scores["first"]["trained"])
    assert report.pooled["first"]["untrained"] != report.pooled["first"]["trained"]
    assert all(torch.equal(v, before[k]) for k, v in model.head.state_dict().items())


def test_baselines_in_the_order_asked(model, tasks):
    assert run(model, tasks[:1], baselines=("label_names", "untrained")).methods == ["trained", "label_names", "untrained"]
    assert run(model, tasks[:1], baselines=()).methods == ["trained"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, message",
    [
        ("logistic_regresion", "unknown baseline 'logistic_regresion'; did you mean 'logistic_regression'"),
        ("centroid", "unknown baseline 'centroid'; did you mean 'nearest_centroid'"),
        ("qqq", "unknown baseline 'qqq'.* Known: untrained, label_names"),
    ],
)
def test_unknown_baseline(model, tasks, name, message):
    with pytest.raises(ValueError, match=message):
        run(model, tasks, baselines=("untrained", name))


def test_two_tasks_of_one_name(model, tasks):
    with pytest.raises(ValueError, match="two bear the same name"):
        run(model, [tasks[0], make_task("first", classes=3)])


def test_no_tasks(model):
    with pytest.raises(ValueError, match="task"):
        run(model, [])


def test_a_task_that_is_too_small_is_named_before_anything_is_measured(model, tasks):
    with pytest.raises(ValueError, match=r"'second'.* at least 4"):
        run(model, tasks, EpisodeConfig(n_way=4, k_shot=1, n_query=1))
