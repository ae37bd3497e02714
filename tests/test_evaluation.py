"""Evaluation: all methods stand before the same episodes, with rows of no class where they are asked for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from letters import make_task
from sklearn.metrics import roc_auc_score

from metatext import (
    EncoderConfig,
    EpisodeConfig,
    FeatureStore,
    HeadConfig,
    MetaModel,
    Report,
    Task,
    evaluate_tasks,
    evaluation,
    load_task,
)
from metatext.baselines import BASELINES
from metatext.evaluation import chunks, draw_for, episode_scores
from metatext.features import encode_tasks
from metatext.kinds import KINDS
from metatext.methods import Answer, Method
from metatext.metrics import brier, ece, interval, nll
from metatext.rows import DataError
from metatext.settings import ConfigError

SHAPE = EpisodeConfig(n_way=3, k_shot=2, n_query=3)


@pytest.fixture(scope="module")
def model(tiny) -> MetaModel:
    return MetaModel.from_encoder(tiny, HeadConfig("ridge"))


@pytest.fixture(scope="module")
def tasks() -> list:
    return [make_task("first"), make_task("second", classes=3), make_task("third", classes=5)]


def run(model, tasks, shape=SHAPE, **more) -> Report:
    return evaluate_tasks(model, tasks, shape, **{"n_episodes": 8, "progress": False, **more})


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
    assert report.settings["data"] == {task.name: task.digest() for task in tasks}  # on which rows
    for task in report.scores:
        np.testing.assert_array_equal(report.scores[task]["trained"], report.scores[task]["untrained"])  # nothing was trained
        assert report.figures("trained", task) == report.figures("untrained", task)
        assert set(report.figures("trained", task)) == {"nll", "brier", "ece", "aurc"}


def test_runs_repeat_and_seeds_differ(model, tasks):
    one, again, other = run(model, tasks), run(model, tasks), run(model, tasks, seed=1)
    assert one.to_dict() == again.to_dict()
    assert all(one.figures("trained", t) != other.figures("trained", t) for t in one.scores)


def test_figures_of_a_task_do_not_depend_on_the_others(model, tasks):
    together, alone = run(model, tasks), run(model, tasks[1:2])
    turned = run(model, tasks[::-1])
    for report in (alone, turned):
        for method in together.methods:
            np.testing.assert_array_equal(report.scores["second"][method], together.scores["second"][method])


def test_all_methods_stand_before_the_same_episodes(model, tasks, monkeypatch):
    seen = {"one": [], "two": []}

    def spy(name):
        def method(draw):
            seen[name].append(draw.features)
            shape = (*draw.features.query.shape[:2], draw.features.support.y.shape[2])
            return Answer(torch.full(shape, 1 / 3), torch.ones(shape[:2]))

        return (lambda model: Method(method)), KINDS

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
            assert parts.figures(method, task) == pytest.approx(whole.figures(method, task), abs=1e-5)


def test_chunks_cover_the_batch(model, tasks, monkeypatch):
    features = encode_tasks(FeatureStore(model.encoder, progress=False), tasks[:1])
    batch = draw_for(features, SHAPE, 7, 0)
    monkeypatch.setattr(evaluation, "ROWS", 2 * (6 + 9))
    parts = chunks(batch)
    assert [len(p) for p in parts] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([p.query for p in parts]), batch.query)
    monkeypatch.setattr(evaluation, "CELLS", 9 * (6 + 3) - 1)  # less than the tables of one episode
    assert [len(p) for p in chunks(batch)] == [1] * 7


def test_figures_by_hand(model, tasks):
    """Accuracy of each episode, calibration of all rows and AUROC of `confidence`, computed again from the model's answers."""
    shape = EpisodeConfig(n_way=(2, 3), k_shot=(0, 2), n_query=3, n_outside=2)
    report = run(model, tasks[:1], shape, baselines=())
    features = encode_tasks(FeatureStore(model.encoder, progress=False), tasks[:1])
    batch = draw_for(features, shape, 8, 0)
    with torch.no_grad():
        logits = model(features.gather(batch))
    probabilities, known = logits.values.softmax(-1).numpy(), logits.none.neg().sigmoid().numpy()
    inside, real = batch.query_y >= 0, batch.query >= 0
    right = probabilities.argmax(-1) == batch.query_y
    np.testing.assert_allclose(report.scores["first"]["trained"], [right[i][inside[i]].mean() for i in range(8)])
    rows, targets = probabilities[inside], batch.query_y[inside]
    top = probabilities.max(-1)
    expected = {"nll": nll(rows, targets), "brier": brier(rows, targets), "ece": ece(rows, targets)}
    for key, score in (("", known), ("_top", top), ("_product", known * top)):
        expected[f"auroc_near{key}"] = roc_auc_score(inside[real], score[real])
    found = report.figures("trained", "first")
    assert found.pop("aurc") > 0
    assert found == pytest.approx(expected, abs=1e-5) and report.figures("trained") == report.figures("trained", "first")


def test_scores_during_training(model, tasks):
    features = encode_tasks(FeatureStore(model.encoder, progress=False), tasks[:1])
    batch = draw_for(features, SHAPE, 8, 0)
    figures, losses = episode_scores(model, features, batch)
    np.testing.assert_allclose(figures, run(model, tasks[:1], baselines=()).scores["first"]["trained"])
    episodes = features.gather(batch)
    with torch.no_grad():
        expected = KINDS["classification"].loss(model(episodes), episodes.query_y, episodes.query_mask, episodes.outside)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_zero_shots(model, tasks):
    report = run(model, tasks[:2], EpisodeConfig(n_way=3, k_shot=0, n_query=2))
    for task in report.scores:
        for method in ("nearest_centroid", "logistic_regression"):
            assert np.isnan(report.scores[task][method]).all() and report.figures(method, task) == {}
        for method in ("trained", "untrained", "label_names"):
            assert np.isfinite(report.scores[task][method]).all()
    for line in str(report).splitlines()[2:5]:
        assert line.split()[-2:] == ["-", "-"] and line.count("±") == 3
    assert "NaN" not in json.dumps(report.to_dict(), allow_nan=False)


def test_classes_without_names(model):
    report = run(model, [make_task("numbers", names=False)])
    assert np.isnan(report.scores["numbers"]["label_names"]).all()
    assert np.isfinite(report.scores["numbers"]["trained"]).all()
    assert str(report).splitlines()[2].split().count("-") == 1


def test_untrained_has_the_heads_settings_and_start(tiny, tasks):
    model = MetaModel.from_encoder(tiny, HeadConfig("metanet", rank=2, hidden_dim=8))
    with torch.no_grad():
        model.head.representation.alpha += 3.0
        model.head.network.output.weight += 0.3
    before = {k: v.clone() for k, v in model.head.state_dict().items()}
    report = run(model, tasks[:1], baselines=("untrained",))
    fresh = run(MetaModel.from_encoder(tiny, model.head_config), tasks[:1], baselines=())
    np.testing.assert_array_equal(report.scores["first"]["untrained"], fresh.scores["first"]["trained"])
    assert report.figures("untrained") != report.figures("trained")
    assert all(torch.equal(v, before[k]) for k, v in model.head.state_dict().items())


def test_baselines_in_the_order_asked(model, tasks):
    assert run(model, tasks[:1], baselines=("label_names", "untrained")).methods == ["trained", "label_names", "untrained"]
    assert run(model, tasks[:1], baselines=()).methods == ["trained"]


def test_further_heads_are_columns_behind_the_model(model, tiny, tasks):
    other = MetaModel.from_encoder(tiny, HeadConfig("prototype"))
    report = run(model, tasks[:2], heads={"prototypes": other}, baselines=("knn",))
    assert report.methods == ["trained", "prototypes", "knn"]
    alone = run(other, tasks[:2], baselines=())
    for task in alone.scores:
        np.testing.assert_array_equal(report.scores[task]["prototypes"], alone.scores[task]["trained"])


@pytest.fixture(scope="module", params=["other weights", "other pooling"])
def other(request, tiny_folder, tmp_path_factory) -> MetaModel:
    """A head on an encoder that is not the model's: vectors of another length, or the same weights read otherwise."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    config = EncoderConfig(str(tiny_folder), pooling="max")
    if request.param == "other weights":
        folder = tmp_path_factory.mktemp("other encoder")
        AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            BertModel(BertConfig.from_pretrained(tiny_folder, hidden_size=24)).save_pretrained(folder)
        config = EncoderConfig(str(folder))
    return MetaModel.from_encoder(config, HeadConfig("ridge"))


@pytest.mark.parametrize("outside_rows", [None, 2])
def test_a_head_on_another_encoder_is_measured_as_it_is_alone(model, other, tasks, outside_rows):
    shape = EpisodeConfig(n_way=(2, 3), k_shot=(0, 3), n_query=3, n_outside=2)
    more = {"outside": queries("strange", ["zz 1", "zz 2", "zz 1", "zz 3"]), "outside_rows": outside_rows}
    both = run(model, tasks[:2], shape, heads={"far": other}, baselines=("knn", "naive_mean"), **more)
    near, far = (run(which, tasks[:2], shape, baselines=("knn", "naive_mean"), **more) for which in (model, other))
    assert both.methods == ["trained", "far", "knn", "naive_mean"]
    for method, alone, name in (("far", far, "trained"), *((name, near, name) for name in near.methods)):
        for task in alone.scores:
            np.testing.assert_array_equal(both.scores[task][method], alone.scores[task][name])
            assert both.figures(method, task) == alone.figures(name, task)
        assert both.figures(method) == alone.figures(name)
    for task in both.scores:
        assert both.figures("far", task) != both.figures("trained", task)
        gain = far.scores[task]["trained"] - near.scores[task]["trained"]  # of the same episodes, one by one
        assert both.difference("far", "trained", task) == pytest.approx(interval(gain))


def test_encoders_stand_before_the_same_episodes_with_features_of_their_own(model, other, tasks, monkeypatch):
    seen, measured = [], evaluation.by_model

    def spy(which):
        method = measured(which)
        return Method(lambda draw: (seen.append((which, draw)), method(draw))[1], method.encoder)

    monkeypatch.setattr(evaluation, "by_model", spy)
    outside = queries("strange", ["zz 1", "zz 2", "zz 3"])
    run(model, tasks[:1], heads={"far": other}, outside=outside, outside_rows=2)
    (first, near), (second, far) = seen
    assert (first, second) == (model, other)
    assert near.batch is far.batch and near.texts(near.batch.query[0]) == far.texts(far.batch.query[0])
    texts = [*tasks[0].inputs(), *outside.inputs()]
    for which, draw in seen:
        assert draw.source.store.folder.name == which.encoder.key
        for rows, vectors in ((draw.batch.support, draw.features.support.x), (draw.batch.query, draw.features.query)):
            expected = which.encoder.encode([texts[row] for row in rows.reshape(-1)])
            torch.testing.assert_close(vectors.reshape(-1, which.encoder.dim), expected, atol=1e-5, rtol=1e-5)


def test_stores_of_two_encoders_lie_side_by_side(model, other, tasks, tmp_path):
    store = FeatureStore(model.encoder, tmp_path / "kept", progress=False)
    run(model, tasks[:1], heads={"far": other}, store=store)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {model.encoder.key, other.encoder.key}
    for which in (model, other):
        found = FeatureStore(which.encoder, tmp_path / "kept", progress=False)
        texts = tasks[0].inputs()
        vectors = found.gather(found.add(texts))
        assert found.encoded == 0
        np.testing.assert_allclose(vectors, which.encoder.encode(texts).numpy(), atol=1e-5)


# --- rows of no class ------------------------------------------------------------------------------------------------


def queries(name: str, texts) -> Task:
    return load_task([{"text": text, "label": "none"} for text in texts], name=name)


@pytest.fixture
def asked(monkeypatch):
    """The draws that a method was asked about; its name among the baselines is "spy"."""
    seen = []

    def spy(draw):
        seen.append(draw)
        shape = (*draw.features.query.shape[:2], draw.features.support.y.shape[2])
        return Answer(torch.full(shape, 1 / 3), torch.ones(shape[:2]))

    monkeypatch.setitem(BASELINES, "spy", ((lambda model: Method(spy)), KINDS))
    return seen


def test_outside_rows_join_every_episode(model, tasks, asked):
    inside = tasks[0].inputs(0, 1)  # a text of the task itself is no query of no class, and none is asked twice
    outside = queries("strange", ["zz 1", "zz 2", "zz 1", *inside, "zz 3"])
    plain = run(model, tasks[:1])
    report = run(model, tasks[:1], outside=outside, baselines=("spy",))
    np.testing.assert_array_equal(report.scores["first"]["trained"], plain.scores["first"]["trained"])
    assert {k: v for k, v in report.figures("trained").items() if k in ("nll", "brier", "ece")} == {
        k: v for k, v in plain.figures("trained").items() if k in ("nll", "brier", "ece")
    }
    assert report.settings["outside"] == "strange" and "outside" not in plain.settings
    (draw,) = asked
    assert draw.batch.outside.sum(1).tolist() == [3] * 8 and not draw.batch.outside[:, :9].any()
    for i in range(8):
        assert draw.texts(draw.batch.query[i, 9:]) == ["zz 1", "zz 2", "zz 3"]
    vectors = model.encoder.encode(["zz 1", "zz 2", "zz 3"])
    torch.testing.assert_close(draw.features.query[:, 9:], vectors.expand(8, 3, -1), atol=1e-5, rtol=1e-5)


def test_rows_of_no_class_leave_the_names_that_are_shown(model, tasks, asked):
    shape = EpisodeConfig(n_way=3, k_shot=2, n_query=3, name_noise=0.8, name_variation=0.3, name_dropout=0.1)
    outside = load_task(
        [{"text": f"zz {i}", "label": f"label {i}"} for i in range(9)], name="strange"
    )  # more labels than the task
    run(model, tasks[:1], shape, baselines=("spy",))
    run(model, tasks[:1], shape, outside=outside, baselines=("spy",))
    plain, both = ([draw.names(i) for draw in part for i in range(len(draw.batch))] for part in (asked[:1], asked[1:]))
    assert plain == both and len({name for names in plain for name in names}) > 6


def test_so_many_outside_rows_of_an_episode_are_drawn(model, tasks, asked):
    outside = queries("strange", [f"zz {i}" for i in range(20)])
    run(model, tasks[:1], EpisodeConfig(n_way=3, k_shot=2, n_query=3), outside=outside, outside_rows=4, baselines=("spy",))
    run(model, tasks, EpisodeConfig(n_way=3, k_shot=2, n_query=3), outside=outside, outside_rows=4, baselines=("spy",))
    drawn = asked[0].batch.query[:, 9:]
    assert drawn.shape == (8, 4) and all(len(set(row)) == 4 for row in drawn.tolist())
    assert len({tuple(sorted(row)) for row in drawn.tolist()}) > 1
    np.testing.assert_array_equal(drawn, asked[1].batch.query[:, 9:])  # whatever other tasks there are


def test_near_and_far_rows_are_told_apart(model):
    """Rows of other letters of the task are near; rows of digits, for which the encoder has other words, are far."""
    digits = queries("digits", ["".join(map(str, np.random.default_rng(i).integers(0, 10, 8))) for i in range(30)])
    shape = EpisodeConfig(n_way=3, k_shot=5, n_query=5, n_outside=6)
    report = run(model, [make_task("letters", classes=5)], shape, outside=digits, baselines=("nearest_centroid",))
    for method in report.methods:
        found = report.figures(method)
        assert {k for k in found if k.startswith("auroc")} == {
            f"auroc_{group}{score}" for group in ("near", "far") for score in ("", "_top", "_product")
        }
        assert found["auroc_far"] > 0.9
        coverage, error = report.risk_coverage(method)
        share = 36 / (36 + 15)  # of the rows are of no class: answered or not, they are errors
        assert coverage[-1] == 1 and error[-1] == pytest.approx(share + (1 - share) * (1 - report.mean(method)[0]))


def test_an_outside_task_that_is_measured_itself(model, tasks):
    with pytest.raises(
        ValueError, match="outside: the task 'second' is measured itself, so its rows cannot be queries of no class"
    ):
        run(model, tasks, outside=tasks[1])


def test_what_cannot_be_rows_of_no_class(model, tasks):
    strange = queries("strange", ["zz 1", "zz 2"])
    scores = load_task([{"text": "zz 1", "score": 1.5}, {"text": "zz 2", "score": 2.5}], name="scores")
    for more, message in (
        ({"outside": "strange"}, "outside: expected Task or None, got 'strange'; load it with load_task"),
        ({"outside": scores}, "outside: 'scores' is of kind regression, the tasks are of kind classification; load it with kind"),
        *(
            ({"outside": strange, "outside_rows": rows}, f"outside_rows: expected a whole number of at least 1, got {rows}")
            for rows in (0, -1, 2.5)
        ),
    ):
        with pytest.raises(DataError, match=message):
            run(model, tasks[:1], **more)


def test_an_outside_task_without_a_text_of_its_own(model, tasks):
    with pytest.raises(ValueError, match="every text of the task 'strange' is also a text of 'first'"):
        run(model, tasks[:1], outside=queries("strange", tasks[0].inputs(0, 3)))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_unknown_baseline(model, tasks):
    with pytest.raises(ValueError, match="unknown baseline 'logistic_regresion'; did you mean 'logistic_regression'"):
        run(model, tasks, baselines=("untrained", "logistic_regresion"))


def test_two_tasks_of_one_name(model, tasks):
    with pytest.raises(ValueError, match="two bear the same name"):
        run(model, [tasks[0], make_task("first", classes=3)])


def test_no_tasks(model):
    with pytest.raises(ValueError, match="task"):
        run(model, [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "gp"}, "model: expected MetaModel, got 'gp'; load a head with MetaModel.from_pretrained"),
        ({"tasks": "starter/test"}, "tasks: entry 0: expected Task, got 'starter/test'; load it with"),
        ({"episodes": {"n_way": 5}}, "episodes: expected EpisodeConfig, got one dict"),
        ({"n_episodes": 1}, "n_episodes: expected a whole number of at least 2, got 1"),
        ({"n_episodes": 2.0}, r"n_episodes: expected a whole number of at least 2, got 2\.0"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"seed": None}, "seed: expected a whole number of at least 0, got None"),
        ({"heads": ["ridge"]}, "heads: expected a dict or None, got one list; write {'name of its column': model}"),
        ({"heads": {"other": "ridge"}}, "heads: other: expected MetaModel, got 'ridge'"),
        ({"baselines": "knn"}, "baselines: expected a list of names, got one text"),
    ],
)
def test_arguments_of_another_type(model, tasks, given, message):
    with pytest.raises(ValueError, match=message):
        evaluate_tasks(**{"model": model, "tasks": tasks, "episodes": SHAPE, "progress": False, **given})


def test_tasks_and_baselines_may_come_one_by_one(model, tasks):
    found = run(model, (task for task in tasks), baselines=(name for name in ("knn", "label_names")))
    assert str(found) == str(run(model, tasks, baselines=("knn", "label_names")))


def test_a_task_that_is_too_small_is_named_before_anything_is_measured(model, tasks):
    with pytest.raises(ValueError, match=r"'second'.* at least 4"):
        run(model, tasks, EpisodeConfig(n_way=4, k_shot=1, n_query=1))


def test_names_that_are_varied_or_say_nothing(model, tasks):
    """What trains with names of other styles can be measured with them; the rows drawn are the same."""
    plain, varied = (run(model, tasks, replace(SHAPE, name_variation=share)) for share in (0.0, 1.0))
    assert varied.scores.keys() == plain.scores.keys() and str(varied) != str(plain)


def test_columns_do_not_replace_each_other(model, tiny, tasks):
    other = MetaModel.from_encoder(tiny, "ridge")
    for name in ("trained", "knn"):
        with pytest.raises(ConfigError, match=f"heads: two columns would be called '{name}'; give the head another name"):
            run(model, tasks, heads={name: other}, baselines=("knn",))
