"""Baselines: each against its definition, worked out again row by row; and what they do with what is missing."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from letters import make_task, row_vectors
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from metatext import ConfigError, EpisodeConfig, FeatureStore, HeadConfig, MetaModel, baselines, load_task
from metatext.baselines import BASELINES, baseline
from metatext.evaluation import draw_for
from metatext.features import encode_tasks
from metatext.methods import Draw, by_model
from metatext.rivals import between_pairs, setfit, templated

SHAPE = EpisodeConfig(n_way=3, k_shot=2, n_query=3)
CLOSED = sorted(name for name, (_, kinds) in BASELINES.items() if name != "setfit" and "classification" in kinds)


@pytest.fixture(scope="module")
def model(tiny) -> MetaModel:
    return MetaModel.from_encoder(tiny, HeadConfig("ridge"))


@pytest.fixture(scope="module")
def task():
    return make_task("first")


def drawn(model, task, shape=SHAPE, n=4) -> Draw:
    features = encode_tasks(FeatureStore(model.encoder, progress=False), [task])
    batch = draw_for(features, shape, n, 0)
    return Draw(features.gather(batch), batch, features)


def answers(name, model, draw):
    with torch.no_grad():
        answer = baseline(name, model)(draw)
    return answer.probabilities.numpy(), answer.confidence.numpy()


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(values):
    exp = np.exp(values - values.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def episode(draw: Draw, i: int):
    """Support vectors and ways, query vectors, and label vectors of an episode, padding left out."""
    rows, live = draw.batch.support[i] >= 0, draw.batch.query[i] >= 0
    x, query = row_vectors(draw.source, draw.batch.support[i, rows]), row_vectors(draw.source, draw.batch.query[i, live])
    names = draw.source.store.gather(draw.source.labels[0, draw.batch.classes[i][draw.batch.classes[i] >= 0]])
    return x, draw.batch.support_y[i, rows], query, names


@pytest.mark.parametrize("name", CLOSED)
def test_an_answer_is_a_distribution_and_a_score(name, model, task):
    draw = drawn(model, task, EpisodeConfig(n_way=(2, 4), k_shot=(1, 3), n_query=2, n_outside=2, unbalanced=0.5), n=12)
    probabilities, confidence = answers(name, model, draw)
    assert probabilities.shape == (12, 10, 4) and confidence.shape == (12, 10)
    assert (probabilities >= 0).all() and ((confidence >= 0) & (confidence <= 1)).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    padded = draw.batch.classes < 0
    assert padded.any() and not probabilities[np.broadcast_to(padded[:, None], probabilities.shape)].any()


@pytest.mark.parametrize("name", CLOSED)
def test_queries_never_see_each_other(name, model, task):
    """An episode's answer to a row does not change with the rows beside it: here, with a task of other queries."""
    few, many = (drawn(model, task, EpisodeConfig(n_way=3, k_shot=2, n_query=3, n_outside=n)) for n in (0, 4))
    np.testing.assert_array_equal(few.batch.query, many.batch.query[:, :9])
    np.testing.assert_allclose(answers(name, model, few)[0], answers(name, model, many)[0][:, :9], atol=1e-5)


def test_a_models_answer(model, task):
    draw = drawn(model, task)
    with torch.no_grad():
        answer, logits = by_model(model)(draw), model(draw.features)
    torch.testing.assert_close(answer.probabilities, logits.values.softmax(-1))
    torch.testing.assert_close(answer.confidence, 1 / (1 + logits.none.double().exp()))


def test_very_sure_rows_keep_their_order(model, task, monkeypatch):
    """In float32 the sigmoids of 18 and 20 are both 1, and their rows could not be ranked."""
    draw = drawn(model, task)
    none = torch.linspace(-18, -20, 36).view(4, 9)
    logits = model(draw.features)
    monkeypatch.setattr(model, "forward", lambda episodes: type(logits)(logits.values, none))
    assert (by_model(model)(draw).confidence.flatten().diff() > 0).all()


def test_logistic_regression_is_scikit_learn(model, task):
    draw = drawn(model, task)
    features, batch = draw.source, draw.batch
    found, confidence = answers("logistic_regression", model, draw)
    np.testing.assert_array_equal(confidence, found.max(-1))
    vectors = model.encoder.encode(task.inputs()).numpy()
    for i in range(len(batch)):
        fitted = LogisticRegression(C=10, max_iter=500).fit(vectors[batch.support[i]], batch.support_y[i])
        np.testing.assert_allclose(found[i], fitted.predict_proba(vectors[batch.query[i]]), atol=1e-3)
        np.testing.assert_allclose(
            found[i],
            LogisticRegression(C=10, max_iter=500)
            .fit(row_vectors(features, batch.support[i]), batch.support_y[i])
            .predict_proba(row_vectors(features, batch.query[i])),
            atol=1e-6,
        )


def test_logistic_regression_with_padding_and_classes_without_rows(model, task):
    shape = EpisodeConfig(n_way=(2, 4), k_shot=(0, 3), n_query=2, unbalanced=1.0)
    draw = drawn(model, task, shape, n=30)
    features, batch = draw.source, draw.batch
    found, _ = answers("logistic_regression", model, draw)
    for i in range(30):
        live = batch.support_y[i] >= 0
        y = batch.support_y[i][live]
        if len(set(y)) < 2:
            assert np.isnan(found[i]).all()
            continue
        fitted = LogisticRegression(C=10, max_iter=500).fit(row_vectors(features, batch.support[i][live]), y)
        expected = np.zeros((batch.query.shape[1], 4))
        expected[:, fitted.classes_] = fitted.predict_proba(row_vectors(features, batch.query[i]))
        np.testing.assert_allclose(found[i], expected, atol=1e-6)


def test_logistic_regression_with_the_names_as_rows(model, task):
    draw = drawn(model, task, EpisodeConfig(n_way=3, k_shot=(0, 3), n_query=2, unbalanced=1.0), n=12)
    found, _ = answers("logistic_regression_names", model, draw)
    for i in range(12):
        x, y, query, names = episode(draw, i)
        fitted = LogisticRegression(C=10, max_iter=500).fit(np.concatenate([x, names]), [*y, 0, 1, 2])
        np.testing.assert_allclose(found[i, : len(query)], fitted.predict_proba(query), atol=1e-5)


def test_cosine_baselines_by_hand(model, task):
    draw = drawn(model, task)
    found = {name: answers(name, model, draw) for name in ("nearest_centroid", "label_names", "naive_mean")}
    for i in range(4):
        x, y, query, names = episode(draw, i)
        means = unit(np.stack([x[y == way].mean(0) for way in range(3)]))
        for name, vectors in (("nearest_centroid", means), ("label_names", names), ("naive_mean", unit(means + names))):
            cosine = query @ vectors.T
            np.testing.assert_allclose(found[name][0][i], softmax(20 * cosine), atol=1e-4)
            np.testing.assert_allclose(found[name][1][i], (1 + cosine.max(-1)) / 2, atol=1e-5)


def test_nearest_neighbours_against_scikit_learn(model, task):
    draw = drawn(model, task, EpisodeConfig(n_way=3, k_shot=(1, 6), n_query=3), n=10)
    found, confidence = answers("knn", model, draw)
    for i in range(10):
        x, y, query, _ = episode(draw, i)
        vote = KNeighborsClassifier(min(5, len(x)), metric="cosine", weights=lambda distance: np.exp(20 * (1 - distance)))
        np.testing.assert_allclose(found[i, : len(query)], vote.fit(x, y).predict_proba(query), atol=1e-3)
        np.testing.assert_allclose(confidence[i, : len(query)], (1 + (query @ x.T).max(-1)) / 2, atol=1e-5)


def test_naive_mean_takes_what_is_there(model, task):
    names = drawn(model, task, EpisodeConfig(n_way=3, k_shot=0, n_query=3))
    np.testing.assert_allclose(answers("naive_mean", model, names)[0], answers("label_names", model, names)[0], atol=1e-6)
    rows = drawn(model, task.with_label_names([None] * 4))
    np.testing.assert_allclose(answers("naive_mean", model, rows)[0], answers("nearest_centroid", model, rows)[0], atol=1e-6)


def test_what_nothing_is_known_of_has_no_answer(model, task):
    rowless = drawn(model, task, EpisodeConfig(n_way=3, k_shot=0, n_query=3))
    for name in ("nearest_centroid", "knn", "logistic_regression"):
        assert np.isnan(answers(name, model, rowless)[0]).all()
    nameless = drawn(model, task.with_label_names(["a", None, "c", "d"]), EpisodeConfig(n_way=4, k_shot=2, n_query=2))
    assert np.isnan(answers("label_names", model, nameless)[0]).all()
    for name in ("naive_mean", "logistic_regression_names"):
        assert np.isfinite(answers(name, model, nameless)[0]).all()


def test_texts_of_rows_of_several_tasks(model, task):
    other = load_task([{"text": f"zz {i}", "label": "x"} for i in range(5)], name="other")
    draw = drawn(model, task)
    source = encode_tasks(draw.source.store, [task, other])
    rows = np.array([len(task) + 4, 0, len(task), 7, 0])
    texts = task.inputs()
    assert Draw(draw.features, draw.batch, source).texts(rows) == ["zz 4", texts[0], "zz 0", texts[7], texts[0]]


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def test_setfit_reads_the_texts_of_each_episode(model, task, monkeypatch):
    """What the package is given, and where its answer goes; the package itself is not needed."""
    seen = []

    def fit(examples, ways, w, names):
        def predict(rows):
            seen.append((examples, ways, names, rows))
            return torch.eye(w)[torch.arange(len(rows)) % w]

        return predict

    monkeypatch.setattr(baselines, "setfit", lambda encoder: fit)
    draw = drawn(model, task, EpisodeConfig(n_way=(2, 4), k_shot=(0, 2), n_query=2, unbalanced=1.0), n=12)
    found, confidence = answers("setfit", model, draw)
    texts, fits = task.inputs(), iter(seen)
    for i in range(12):
        rows, live = draw.batch.support[i] >= 0, draw.batch.query[i] >= 0
        if len(set(draw.batch.support_y[i, rows])) < 2:
            assert np.isnan(found[i]).all()
            continue
        examples, ways, names, asked = next(fits)
        assert examples == [texts[r] for r in draw.batch.support[i, rows]]
        np.testing.assert_array_equal(ways, draw.batch.support_y[i, rows])
        assert names == [task.label_names[c] for c in draw.batch.classes[i] if c >= 0]
        assert asked == [texts[r] for r in draw.batch.query[i, live]]
        np.testing.assert_array_equal(found[i, live], np.eye(4)[np.arange(live.sum()) % 4])
        assert confidence[i, live].tolist() == [1.0] * live.sum()
    assert next(fits, None) is None and 0 < len(seen) < 12


def test_setfit_is_given_pairs(model, monkeypatch):
    asked = []

    def fit(examples, ways, w, names):
        asked.extend(examples)
        return lambda rows: torch.full((len(rows), w), 1 / w)

    monkeypatch.setattr(baselines, "setfit", lambda encoder: fit)
    rows = [{"text": f"{c} {i}", "text_pair": f"{i} {c}", "label": c} for c in "abc" for i in range(6)]
    assert np.isfinite(answers("setfit", model, drawn(model, load_task(rows, name="pairs")))[0]).all()
    assert set(asked) <= {(row["text"], row["text_pair"]) for row in rows}


def test_names_that_may_not_be_seen_are_not_shown(model, task):
    draw = drawn(model, task.with_label_names(["a", None, "c", "d"]), EpisodeConfig(n_way=4, k_shot=1, n_query=1))
    batch = draw.batch
    assert {c: name for c, name in zip(batch.classes[0], draw.names(0))} == {0: "a", 1: None, 2: "c", 3: "d"}
    hidden = Draw(draw.features, replace(batch, named=np.zeros_like(batch.named)), draw.source)
    assert hidden.names(0) == [None] * 4


def test_one_example_gets_templated_ones_beside_it():
    names = ["joy", None, "anger"]
    expected = [(f"This sentence is {name}", way) for way, name in ((0, "joy"), (2, "anger")) for _ in range(8)]
    assert templated(np.array([0, 2, 1]), names) == templated(np.array([2]), names) == expected
    assert templated(np.array([0, 2, 2]), names) == []


@pytest.mark.parametrize("name", ["tiny", "embedded"])
def test_a_pair_is_read_as_in_the_format_for_pairs(name, request):
    encoder = request.getfixturevalue(name)
    pair = ("the moon is far", "is it, though?")
    read = encoder.tokenizer([between_pairs(encoder).join(pair)])["input_ids"][0]
    assert read == encoder.tokenizer(*pair)["input_ids"] == list(encoder.tokenize([pair]).flat)


def test_a_tokenizer_that_puts_nothing_between(tiny_writer_folder):
    from transformers import AutoTokenizer

    assert between_pairs(SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(tiny_writer_folder))) == " "


def test_setfit_that_is_not_installed(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"'setfit' needs the package setfit; install it with: pip install \"metatext\[bench\]\""
    ):
        setfit(tiny)


@pytest.mark.filterwarnings("default")  # the package's
def test_setfit_learns_and_leaves_the_encoder_alone(tiny):
    pytest.importorskip("setfit")
    texts, ways = ["aaaa", "aaab", "aaca", "zzzz", "zzzy", "zxzz"], np.array([2, 2, 2, 0, 0, 0])
    before = {name: tensor.clone() for name, tensor in tiny.backbone.state_dict().items()}
    names, fit = [None] * 4, setfit(tiny)
    found = fit(texts, ways, 4, names)(["aada", "zzwz"])
    assert found.shape == (2, 4) and found.argmax(1).tolist() == [2, 0] and not found[:, [1, 3]].any()
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    torch.testing.assert_close(fit(texts, ways, 4, names)(["aada", "zzwz"]), found)  # it starts from the same weights every time
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.backbone.state_dict().items())
    assert not any(p.requires_grad for p in tiny.backbone.parameters())


@pytest.mark.filterwarnings("default")  # the package's
def test_setfit_reads_pairs_and_names(tiny, monkeypatch):
    package = pytest.importorskip("setfit")
    seen = []
    trainer = package.Trainer
    monkeypatch.setattr(package, "Trainer", lambda **given: seen.append(given["train_dataset"].to_dict()) or trainer(**given))
    predict = setfit(tiny)([("aaaa", "b"), ("zzzz", "y")], np.array([1, 0]), 3, ["z", "a", "m"])
    assert seen[0] == {
        "text": ["aaaa[SEP]b", "zzzz[SEP]y", *(f"This sentence is {name}" for name in "zam" for _ in range(8))],
        "label": [1, 0, *np.repeat([0, 1, 2], 8)],
    }
    found = predict([("aaab", "b"), ("zzzy", "y")])
    assert found.shape == (2, 3) and (found > 0).all()  # the name alone makes a class known


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, message",
    [
        ("logistic_regresion", "unknown baseline 'logistic_regresion'; did you mean 'logistic_regression'"),
        ("centroid", "unknown baseline 'centroid'; did you mean 'nearest_centroid'"),
        ("qqq", "unknown baseline 'qqq'.* Known: untrained, label_names"),
    ],
)
def test_unknown_baseline(model, name, message):
    with pytest.raises(ConfigError, match=message):
        baseline(name, model)
