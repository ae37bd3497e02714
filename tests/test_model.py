"""MetaModel and AdaptedModel: a task in, answers out, and both to disk and back."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from letters import token_lists
from safetensors.torch import load_file, save_file

import metatext
from metatext import (
    AdaptedModel,
    ConfigError,
    DataError,
    Encoder,
    EncoderConfig,
    EpisodeConfig,
    FeatureStore,
    HeadConfig,
    MetaModel,
    load_task,
)
from metatext.evaluation import draw_for
from metatext.features import encode_tasks
from metatext.heads import HEADS, KIND_HEADS
from metatext.hub_errors import HubError
from metatext.loading import EMBEDDED_FINGERPRINT, EMBEDDED_ID, EncoderError
from metatext.storage import StorageError, read_folder, write_folder

TEXTS = ["aaa bbb", "abab ab", "aab aaab", "xyz zz", "zzzy xxyz", "z y x"]
TARGETS = ["early", "early", "early", "late", "late", "late"]
QUERIES = ["aa bb", "zz yy", "mm nn", "a", "z z z"]
PAIRS = [("aa", "ab"), ("bb", "ba"), ("aa", "zz"), ("bb", "xx")]
PAIR_TARGETS = ["same", "same", "other", "other"]
GIVEN = {
    "texts": dict(inputs=TEXTS, targets=TARGETS),
    "described": dict(inputs=TEXTS, targets=TARGETS, description="where in the alphabet"),
    "names": dict(inputs=TEXTS, targets=TARGETS, label_names={"late": "end of it", "early": "start of it"}),
    "ints": dict(inputs=TEXTS, targets=[5, 5, 5, -1, -1, -1]),
    "bools": dict(inputs=TEXTS, targets=[True, True, True, False, False, False]),
    "more": dict(inputs=TEXTS, targets=TARGETS, label_names=["early", "middle", "late"]),
    "zero": dict(inputs=[], targets=[], label_names=["early", "late"]),
    "pairs": dict(inputs=PAIRS, targets=PAIR_TARGETS),
}


@pytest.fixture(scope="module")
def model(tiny) -> MetaModel:
    return MetaModel.from_encoder(tiny)


@pytest.fixture(params=list(HEADS))
def any_model(tiny, request) -> MetaModel:
    """One of each head, its numbers off their start: a round trip must carry them."""
    model = MetaModel.from_encoder(tiny, HeadConfig(request.param, rank=2, hidden_dim=8))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def queries(given: str) -> list:
    return [("ab", "ba"), ("ab", "yy")] if given == "pairs" else QUERIES


def rows(texts=TEXTS, targets=TARGETS) -> list[dict]:
    return [{"text": t, "label": y} for t, y in zip(texts, targets, strict=True)]


# --- making models and classifiers ---------------------------------------------------------------------------------


def test_from_encoder(tiny, tiny_folder):
    by_name = MetaModel.from_encoder(str(tiny_folder), "prototype")
    by_config = MetaModel.from_encoder(EncoderConfig(str(tiny_folder), max_length=16), HeadConfig("metanet", hidden_dim=9))
    assert type(by_name.head) is HEADS["prototype"] and by_name.encoder.fingerprint == tiny.fingerprint
    assert by_config.encoder.max_length == 16 and by_config.head.network.hidden.out_features == 9
    shared = MetaModel.from_encoder(tiny)  # without a language model, nothing that writes
    assert shared.encoder is tiny and shared.head_config == HeadConfig()
    assert shared.kinds == tuple(KIND_HEADS)[:-1] and by_name.kinds == ("classification",)


@pytest.mark.parametrize("head", [None, {"name": "gp"}])
def test_a_head_is_a_config_or_a_name(tiny, head):
    with pytest.raises(ConfigError, match=r"head: expected HeadConfig or a text, got .*; write HeadConfig\(...\) or its name"):
        MetaModel.from_encoder(tiny, head)


def test_the_seed_fixes_the_start_and_nothing_else(tiny):
    config = HeadConfig("metanet", rank=3)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, again, other = (MetaModel.from_encoder(tiny, config, seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.rand(3), expected)  # the caller's random state is where it was
    weights = [m.head.network.hidden.weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_encoder_is_frozen_and_the_head_is_not(model):
    assert not any(p.requires_grad for p in model.encoder.parameters())
    kept = {"representation.alpha", "representation.gamma"}  # by the head `gp`, see `Representation`
    assert {name for name, p in model.head.named_parameters() if not p.requires_grad} == kept


@pytest.mark.parametrize("given", GIVEN)
def test_predictions(any_model, given):
    clf = any_model.adapt(**GIVEN[given])
    inputs = queries(given)
    probabilities, known = clf.predict_proba(inputs), clf.confidence(inputs)
    assert probabilities.shape == (len(inputs), len(clf.labels)) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities >= 0).all()
    assert isinstance(known, np.ndarray) and known.shape == (len(inputs),) and ((known >= 0) & (known <= 1)).all()
    answers = clf.predict(inputs)
    assert isinstance(answers, list) and answers == [clf.labels[c] for c in probabilities.argmax(1)]


@pytest.mark.parametrize(
    "given, labels, names",
    [
        ("texts", ["early", "late"], ("early", "late")),
        ("names", ["late", "early"], ("end of it", "start of it")),
        ("ints", [-1, 5], (None, None)),
        ("bools", [False, True], (None, None)),
        ("more", ["early", "middle", "late"], ("early", "middle", "late")),
        ("zero", ["early", "late"], ("early", "late")),
        ("pairs", ["other", "same"], ("other", "same")),
    ],
)
def test_order_and_type_of_the_labels(model, given, labels, names):
    clf = model.adapt(**GIVEN[given])
    assert clf.labels == labels and clf.label_names == names and clf.kind == "classification"
    assert [type(x) for x in clf.labels] == [type(x) for x in labels]
    assert {type(a) for a in clf.predict(queries(given))} == {type(labels[0])}


def test_ints_index_a_list_of_names(model):
    clf = model.adapt(TEXTS, [1, 1, 1, 0, 0, 0], label_names=["late", "early"])
    assert clf.labels == ["late", "early"]
    by_text = model.adapt(TEXTS, TARGETS, label_names=["late", "early"])
    np.testing.assert_array_equal(clf.predict_proba(QUERIES), by_text.predict_proba(QUERIES))


@pytest.mark.parametrize(
    "targets", [np.array([1, 1, 1, 0, 0, 0]), np.array(TARGETS), tuple(TARGETS)], ids=["int64", "str_", "tuple"]
)
def test_arrays_are_lists(model, targets):
    clf = model.adapt(np.array(TEXTS), targets)
    plain = model.adapt(TEXTS, [t.item() if isinstance(t, np.generic) else t for t in targets])
    assert clf.labels == plain.labels and [type(x) for x in clf.labels] == [type(x) for x in plain.labels]
    np.testing.assert_array_equal(clf.predict_proba(np.array(QUERIES)), plain.predict_proba(QUERIES))


def test_numpy_labels_as_keys_can_be_saved(model, tmp_path):
    """Keys that come out of np.unique are the caller's labels as well."""
    clf = model.adapt(TEXTS, np.array([1, 1, 1, 0, 0, 0]), label_names={np.int64(1): "early", np.int64(0): "late"})
    assert clf.labels == [1, 0]
    clf.save_pretrained(tmp_path / "clf")
    assert AdaptedModel.from_pretrained(tmp_path / "clf", model.encoder).predict(QUERIES) == clf.predict(QUERIES)


def test_names_are_read_as_words(model):
    assert model.adapt([], label_names=["Refund_not_showing_up", "PlayMusic"]).label_names == (
        "Refund not showing up",
        "Play Music",
    )


@pytest.mark.parametrize("description", [None, "a to m or n to z"])
def test_a_task_is_its_rows_names_and_prompt(model, description):
    names = {"late": "end of it", "early": "start of it"}
    task = load_task(rows(), label_names=names, name="half_of_alphabet", description=description)
    by_hand = model.adapt(TEXTS, TARGETS, label_names=names, description=description or "half of alphabet")
    clf = model.adapt(task)
    assert clf.labels == by_hand.labels
    np.testing.assert_array_equal(clf.predict_proba(QUERIES), by_hand.predict_proba(QUERIES))
    np.testing.assert_array_equal(clf.confidence(QUERIES), by_hand.confidence(QUERIES))


def test_a_task_of_pairs(model):
    task = load_task(
        [{"text": a, "text_pair": b, "label": y} for (a, b), y in zip(PAIRS, PAIR_TARGETS, strict=True)], name="pairs"
    )
    clf, by_hand = model.adapt(task), model.adapt(PAIRS, PAIR_TARGETS, description="pairs", label_names=["other", "same"])
    assert clf.labels == ["other", "same"] and clf.pairs is True
    inputs = queries("pairs")
    np.testing.assert_array_equal(clf.predict_proba(inputs), by_hand.predict_proba(inputs))


def test_pairs_as_lists_and_in_order(model):
    clf = model.adapt([list(p) for p in PAIRS], PAIR_TARGETS)
    one, turned = clf.predict_proba([["ab", "zz"]]), clf.predict_proba([("zz", "ab")])
    np.testing.assert_array_equal(one, clf.predict_proba([("ab", "zz")]))
    assert one.shape == turned.shape == (1, 2)


def test_zero_shot_takes_texts_and_pairs(model):
    clf = model.adapt([], label_names=["early", "late"])
    assert clf.pairs is None
    assert len(clf.predict(QUERIES)) == 5 and len(clf.predict(PAIRS)) == 4
    np.testing.assert_array_equal(
        clf.predict_proba(QUERIES), model.adapt([], [], label_names=["early", "late"]).predict_proba(QUERIES)
    )


def test_every_part_of_the_task_counts(any_model):
    plain = any_model.adapt(TEXTS, TARGETS).predict_proba(QUERIES)
    for other in (
        dict(inputs=TEXTS[::-1], targets=TARGETS),
        dict(inputs=TEXTS, targets=["early", "late"] * 3),
        dict(inputs=TEXTS, targets=TARGETS, label_names={"early": "q", "late": "late"}),
        dict(inputs=TEXTS, targets=TARGETS, description="where in the alphabet"),
    ):
        assert not np.array_equal(any_model.adapt(**other).predict_proba(QUERIES), plain)


def test_order_of_examples_and_labels(any_model):
    plain = any_model.adapt(TEXTS, TARGETS)
    turned = any_model.adapt(TEXTS[::-1], TARGETS[::-1], label_names=["late", "early"])
    np.testing.assert_allclose(turned.predict_proba(QUERIES)[:, ::-1], plain.predict_proba(QUERIES), atol=1e-4)
    np.testing.assert_allclose(turned.confidence(QUERIES), plain.confidence(QUERIES), atol=1e-4)


def test_rows_are_answered_one_by_one(any_model):
    clf = any_model.adapt(TEXTS, TARGETS)
    together = clf.predict_proba(QUERIES)
    alone = np.concatenate([clf.predict_proba([q]) for q in QUERIES])
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_long_inputs_come_in_chunks(model, monkeypatch):
    clf = model.adapt(TEXTS, TARGETS)
    whole = clf.predict_proba(QUERIES), clf.confidence(QUERIES)
    monkeypatch.setattr(sys.modules["metatext.answering"], "CHUNK", 2)
    np.testing.assert_allclose(clf.predict_proba(QUERIES), whole[0], atol=1e-4)
    np.testing.assert_allclose(clf.confidence(QUERIES), whole[1], atol=1e-4)


def test_adapting_changes_nothing_in_the_model(any_model):
    before = {k: v.clone() for k, v in any_model.state_dict().items()}
    first = any_model.adapt(TEXTS, TARGETS)
    answers = first.predict_proba(QUERIES)
    any_model.adapt([], label_names=["q", "r", "s"]).predict(QUERIES)
    np.testing.assert_array_equal(first.predict_proba(QUERIES), answers)
    assert all(torch.equal(v, before[k]) for k, v in any_model.state_dict().items())


@pytest.mark.parametrize("given", ["texts", "zero"])
def test_a_head_in_double_precision(tiny, given):
    model = MetaModel.from_encoder(tiny)
    plain = model.adapt(**GIVEN[given]).predict_proba(QUERIES)
    model.head.double()
    np.testing.assert_allclose(model.adapt(**GIVEN[given]).predict_proba(QUERIES), plain, atol=1e-4)


def test_forward_of_an_episode_is_adapt_and_predict(any_model):
    task = load_task(rows(TEXTS + QUERIES, [*TARGETS, "early", "late", "late", "early", "late"]), name="letters")
    features = encode_tasks(FeatureStore(any_model.encoder, progress=False), [task])
    batch = draw_for(features, EpisodeConfig(n_way=2, k_shot=2, n_query=2), 3, seed=0)
    logits = any_model.eval()(features.gather(batch))
    texts = np.array(task.inputs())
    for i in range(3):
        ways = [task.labels[c] for c in batch.classes[i]]
        clf = any_model.adapt(
            texts[batch.support[i]], [ways[y] for y in batch.support_y[i]], label_names=ways, description=task.prompt
        )
        expected = logits.values[i].softmax(-1).detach().numpy()
        np.testing.assert_allclose(clf.predict_proba(texts[batch.query[i]]), expected, atol=1e-4)
        np.testing.assert_allclose(clf.confidence(texts[batch.query[i]]), (-logits.none[i]).sigmoid().detach(), atol=1e-4)


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["texts", "zero", "pairs"])
def test_no_inputs(model, given):
    clf = model.adapt(**GIVEN[given])
    assert clf.predict([]) == [] and clf.predict([], max_risk=0.1) == []
    assert clf.predict_proba([]).shape == (0, 2) and clf.predict_proba([]).dtype == np.float32
    assert clf.confidence([]).shape == (0,)


def test_max_risk(tiny):
    model = MetaModel.from_encoder(tiny)
    clf = model.adapt(TEXTS, TARGETS)
    answers, risk = clf.predict(QUERIES), 1 - clf.predict_proba(QUERIES).max(1) * clf.confidence(QUERIES)
    limit = float(np.sort(risk)[2])
    expected = [a if r <= limit else None for a, r in zip(answers, risk, strict=True)]
    assert clf.predict(QUERIES, max_risk=limit) == expected and 0 < expected.count(None) < 5
    assert clf.predict(QUERIES, max_risk=1.0) == answers
    assert clf.predict(QUERIES, max_risk=0.0) == [None] * 5


def test_unlike_anything_seen_is_none(tiny):
    model = MetaModel.from_encoder(tiny)
    with torch.no_grad():
        model.head.novelty.threshold[0] = 3.0  # no cosine reaches it
    clf = model.adapt(TEXTS, TARGETS)
    assert (clf.confidence(QUERIES) < 0.01).all() and clf.predict(QUERIES, max_risk=0.5) == [None] * 5
    assert None not in clf.predict(QUERIES)


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(inputs=TEXTS, targets=TARGETS[:4]), "6 inputs but 4 targets"),
        (dict(inputs=[], targets=TARGETS, label_names=["early", "late"]), "0 inputs but 6 targets"),
        (dict(inputs=TEXTS[:3], targets=TARGETS[:3]), r"1 class \(\['early'\]\); a classifier needs at least two"),
        (dict(inputs=[], label_names=["early"]), r"1 class \(\['early'\]\)"),
        (dict(inputs=[], label_names=[]), "0 classes"),
        (dict(inputs=TEXTS, targets=[0] * 6, label_names={0: "a", 1: None}), "class 1 has neither an example nor a name"),
        (dict(inputs=TEXTS, targets=[0] * 6, label_names={0: "a", 1: ""}), "class 1 has neither an example nor a name"),
        (dict(inputs=TEXTS), "adapt: targets: expected a list of one target per input, got None"),
        (dict(inputs=TEXTS, label_names=["a", "b"]), "one target per input, got None"),
        (dict(inputs=[]), "without examples the label_names must be given"),
        (dict(inputs=[], targets=[]), "without examples the label_names must be given"),
        (dict(inputs=TEXTS, targets=TARGETS, kind="regresion"), "unknown kind 'regresion'; did you mean 'regression'"),
        (dict(inputs="aaa", targets=["early"]), "expected a list of texts, got one text"),
        (dict(inputs=["a", " ", "b"], targets=["x", "y", "x"]), "row 1 is empty"),
        (dict(inputs=[("a", ""), ("b", "c")], targets=["x", "y"]), "row 0 is empty"),
        (dict(inputs=["a", ("b", "c")], targets=["x", "y"]), "row 1 and row 0 differ"),
        (dict(inputs=["a", ("b", "c", "d")], targets=["x", "y"]), "row 1 must be a text or a pair of texts"),
        (dict(inputs=["a", None], targets=["x", "y"]), "row 1 must be a text or a pair of texts, got None"),
        (dict(inputs=[("a",), ("b",)], targets=["x", "y"]), r"row 0 must be a text or a pair of texts, got \('a',\)"),
        (dict(inputs=["a", "b"], targets=["x", None]), r"row 1 has no label \(None\)"),
        (dict(inputs=["a", "b"], targets=["x", 1]), "row 1 has the label 1, row 0 'x'"),
        (dict(inputs=["a", "b"], targets=[0.5, 1.0]), r"row 0 has the label 0.5 \(float\)"),
        (dict(inputs=["a", "b"], targets=[0, 2], label_names=["x", "y"]), "row 1 has the label 2; .* must be 0 to 1"),
        (dict(inputs=["a", "b"], targets=["x", "erly"], label_names=["x", "early"]), "'erly', .*did you mean 'early'"),
        (dict(inputs=["a", "b"], targets=["x", "y"], label_names="xy"), "label_names: expected a list of texts, or a dict"),
        (dict(inputs=["a", "b"], targets=["x", "y"], label_names=["x", "y", "x"]), "'x' stands there twice"),
        (dict(inputs="a" * 5000, targets=["x"]), "expected a list of texts, got one text"),
        (
            dict(inputs=np.array(TEXTS)[:, None], targets=TARGETS),
            "row 0 must be a text .*; of a table give one column, flattened",
        ),
        (dict(inputs=TEXTS, targets=set(TARGETS)), "one target per input, got one set"),
        (
            dict(inputs=TEXTS, targets=dict(zip(TEXTS, TARGETS))),
            r"got one dict; of a table give one column, as in list\(table\['label'\]\)",
        ),
        (dict(inputs=TEXTS, targets=3), "one target per input, got one int"),
        (dict(inputs=TEXTS, targets=np.eye(2)[[0, 0, 0, 1, 1, 1]]), "targets: got a table of 6 x 2; .* not a flag for each"),
        (
            dict(inputs=TEXTS, targets=list(np.eye(2)[[0, 0, 0, 1, 1, 1]])),
            r"row 0 has the label array\(\[1., 0.\]\) .* kind='multilabel'",
        ),
        (dict(inputs=TEXTS, targets=TARGETS, description=3), "description: expected a text or None, got 3; write one sentence"),
        (dict(inputs=TEXTS, targets=TARGETS, description=["x"]), "description: expected a text or None, got one list"),
        (dict(inputs=TEXTS, targets=TARGETS, kind=None), "unknown kind None. Known: classification"),
        (dict(inputs=TEXTS, targets=TARGETS, kind=["span"]), "unknown kind"),
    ],
)
def test_what_cannot_be_adapted_to(model, given, message):
    with pytest.raises(DataError, match=message):
        model.adapt(**given)


def test_one_text_is_no_list_of_targets(model):
    with pytest.raises(DataError, match="targets"):
        model.adapt(["aa", "zz", "ab"], "abc")


def test_a_task_brings_its_own_targets(model):
    task = load_task(rows(), name="letters")
    for more in (dict(targets=TARGETS), dict(label_names=["early", "late"])):
        with pytest.raises(DataError, match="a Task brings its own targets and label_names"):
            model.adapt(task, **more)


def test_a_task_has_its_own_kind(model):
    task = load_task(rows(targets=[1, 2, 3, 4, 5, 6]), kind="regression", name="scores")
    assert model.adapt(task).kind == model.adapt(task, kind="regression").kind == "regression"
    message = r"kind 'multilabel': the task 'scores' is of kind regression; load it with load_task\(..., kind='multilabel'\)"
    with pytest.raises(DataError, match=message):
        model.adapt(task, kind="multilabel")


def test_flags_are_no_labels(model):
    """Two labels would be read as both on every row."""
    import pandas

    flags = np.array([[0, 1], [1, 0]] * 3)
    for given in (flags, pandas.DataFrame(flags)):
        with pytest.raises(
            DataError, match=r"adapt: targets: got a table of 6 x 2; .* where several labels apply a list of those"
        ):
            model.adapt(TEXTS, given, kind="multilabel")


def test_what_is_read_once_is_a_list(model):
    one = lambda values: (value for value in values)  # noqa: E731
    clf, more = model.adapt(one(TEXTS), one(TARGETS)), (["m", "n"], ["early", "late"])
    assert clf(one(QUERIES)) == clf(QUERIES) and clf.evaluate(one(TEXTS), one(TARGETS)) == clf.evaluate(TEXTS, TARGETS)
    np.testing.assert_array_equal(
        clf.add_examples(*map(one, more)).predict_proba(QUERIES), clf.add_examples(*more).predict_proba(QUERIES)
    )


def test_a_head_of_other_kinds(tiny):
    with pytest.raises(DataError, match="kind 'classification', but this head was trained for regression, multilabel"):
        MetaModel(tiny, HeadConfig(), kinds=("regression", "multilabel")).adapt(TEXTS, TARGETS)
    with pytest.raises(ConfigError, match="head: 'ridge' has no form for the kind 'regression'; gp has"):
        MetaModel(tiny, HeadConfig("ridge"), kinds=("regression",))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "confidence"])
@pytest.mark.parametrize(
    "given, inputs, message",
    [
        ("texts", "aaa", "expected a list of texts, got one text"),
        ("texts", ["a", "  "], "row 1 is empty"),
        ("texts", ["a", 3], "row 1 must be a text or a pair of texts, got 3"),
        ("texts", ["a", ("b", "c")], "row 1 and row 0 differ"),
        ("texts", [("b", "c")], "the examples were single texts"),
        ("pairs", ["a"], "the examples were pairs of texts"),
        ("zero", ["a", ("b", "c")], "row 1 and row 0 differ"),
    ],
)
def test_what_cannot_be_predicted(model, method, given, inputs, message):
    with pytest.raises(DataError, match=message):
        getattr(model.adapt(**GIVEN[given]), method)(inputs)


def test_repr_says_what_it_is(model):
    said = repr(model.adapt(TEXTS, TARGETS))
    assert "'early', 'late'" in said and "6 examples" in said and model.head_config.name in said


# --- to disk and back ------------------------------------------------------------------------------------------------


def assert_same(one: AdaptedModel, other: AdaptedModel, inputs: list) -> None:
    """Bit for bit."""
    assert one.labels == other.labels and [type(x) for x in one.labels] == [type(x) for x in other.labels]
    assert one.label_names == other.label_names and (one.kind, one.pairs) == (other.kind, other.pairs)
    np.testing.assert_array_equal(one.predict_proba(inputs), other.predict_proba(inputs))
    np.testing.assert_array_equal(one.confidence(inputs), other.confidence(inputs))
    assert one.predict(inputs, max_risk=0.6) == other.predict(inputs, max_risk=0.6)


@pytest.mark.parametrize("reuse", [True, False], ids=["reused encoder", "loaded encoder"])
def test_round_trip_of_a_model(any_model, tmp_path, reuse):
    any_model.notes = {"steps": 3, "tasks": ["é"]}
    any_model.save_pretrained(tmp_path / "head")
    again = MetaModel.from_pretrained(str(tmp_path / "head"), any_model.encoder if reuse else None)
    assert again.head_config == any_model.head_config and again.kinds == any_model.kinds and again.notes == any_model.notes
    assert (again.encoder is any_model.encoder) == reuse
    for given in ("described", "zero", "pairs"):
        assert_same(any_model.adapt(**GIVEN[given]), again.adapt(**GIVEN[given]), queries(given))
    assert {p.name for p in (tmp_path / "head").iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("given", GIVEN)
def test_round_trip_of_a_classifier(any_model, tmp_path, given):
    clf = any_model.adapt(**GIVEN[given])
    clf.save_pretrained(tmp_path / "clf")
    assert_same(clf, AdaptedModel.from_pretrained(tmp_path / "clf", any_model.encoder), queries(given))
    if given == "texts":
        assert_same(clf, AdaptedModel.from_pretrained(str(tmp_path / "clf")), queries(given))


def test_round_trip_keeps_how_texts_are_read(tiny_folder, tmp_path):
    config = EncoderConfig(str(tiny_folder), pooling="max", max_length=8, prompt="q ")
    model = MetaModel.from_encoder(config)
    clf = model.adapt(TEXTS, TARGETS)
    clf.save_pretrained(tmp_path / "clf")
    again = AdaptedModel.from_pretrained(tmp_path / "clf")
    assert again.model.encoder.key == model.encoder.key
    assert_same(clf, again, QUERIES)


@pytest.mark.parametrize("given", ["texts", "pairs", "described"])
def test_no_text_of_the_support_is_written(model, tmp_path, given):
    secret = {"texts": TEXTS, "described": TEXTS, "pairs": [t for p in PAIRS for t in p]}[given]
    words = {t: f"secret{i} {t}" for i, t in enumerate(secret)}
    settings = dict(GIVEN[given])
    settings["inputs"] = [tuple(words[t] for t in row) if isinstance(row, tuple) else words[row] for row in settings["inputs"]]
    model.adapt(**settings).save_pretrained(tmp_path / "clf")
    files = [p for p in (tmp_path / "clf").rglob("*") if p.is_file()]
    assert len(files) == 2
    for path in files:
        content = path.read_bytes()
        assert b"secret" not in content and not any(t.encode() in content for t in words.values())


def test_config_json(model, tmp_path):
    model.adapt(**GIVEN["names"]).save_pretrained(tmp_path / "clf")
    config = json.loads((tmp_path / "clf" / "config.json").read_text(encoding="utf-8"))
    assert config["library"] == "metatext" and config["format_version"] == 1 and config["content"] == "adapted"
    assert config["kinds"] == ["classification"] and config["head"]["name"] == model.head_config.name
    assert config["encoder"]["fingerprint"] == model.encoder.fingerprint and config["encoder"]["dim"] == 32
    assert config["task"]["labels"] == ["late", "early"]


@pytest.mark.parametrize(
    ("columns", "saved"),
    [
        ({"text": "mail", "label": "queue"}, {"text": "mail"}),
        ({"text": ["note", "mail"], "label": "queue"}, {"text": ["note", "mail"]}),
        ({"text": "note", "text_pair": "mail", "label": "queue"}, {"text": "note", "text_pair": "mail"}),
    ],
)
def test_a_classifier_knows_the_columns_of_its_examples(model, tmp_path, columns, saved):
    """From the task to the folder and back, and through every change of the classifier."""
    rows = [{"mail": text, "note": text[::-1], "queue": label} for text, label in zip(TEXTS, TARGETS)]
    task = load_task(rows, columns=columns)
    expected = {role: tuple(named) if isinstance(named, list) else named for role, named in saved.items()}
    clf = model.adapt(task)
    assert clf.columns == expected
    clf.save_pretrained(tmp_path / "clf")
    assert read_folder(tmp_path / "clf", "adapted")[0]["task"]["columns"] == saved
    again = AdaptedModel.from_pretrained(tmp_path / "clf", model.encoder)
    assert again.columns == expected
    more = again.add_examples(task.inputs()[:1], TARGETS[:1]).add_class("new", task.inputs()[:1]).remove_class("new")
    assert more.columns == expected
    assert load_task(rows, columns={"label": "queue"}, default_columns=more.columns).inputs() == task.inputs()


def test_a_classifier_of_texts_knows_no_columns_and_folders_of_before_load(model, tmp_path):
    clf = model.adapt(TEXTS, TARGETS)
    clf.save_pretrained(tmp_path / "clf")
    assert "columns" not in read_folder(tmp_path / "clf", "adapted")[0]["task"]  # as older versions wrote
    assert clf.columns == AdaptedModel.from_pretrained(tmp_path / "clf", model.encoder).columns == {}


def other_weights(folder: Path) -> None:
    """The encoder in ``folder`` becomes another one of the same shape."""
    weights = load_file(folder / "model.safetensors")
    name = next(n for n in weights if n.endswith("word_embeddings.weight"))
    weights[name] = weights[name] + 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("what", ["head", "adapted"])
def test_another_encoder_is_refused(tiny_folder, tmp_path, what):
    folder, saved = tmp_path / "encoder", tmp_path / "saved"
    shutil.copytree(tiny_folder, folder)
    model = MetaModel.from_encoder(str(folder))
    (model if what == "head" else model.adapt(TEXTS, TARGETS)).save_pretrained(saved)
    load = (MetaModel if what == "head" else AdaptedModel).from_pretrained
    other_weights(folder)
    with pytest.raises(EncoderError, match=f"the head was trained on {model.encoder.fingerprint[:12]}"):
        load(saved)
    other = Encoder.load(str(folder))
    with pytest.raises(EncoderError, match=f"{model.encoder.fingerprint[:12]}.* {other.fingerprint[:12]}"):
        load(saved, other)
    load(saved, model.encoder)  # the right one, still in memory, serves
    shutil.rmtree(folder)
    with pytest.raises(EncoderError, match="could not load the encoder"):
        load(saved)
    with pytest.raises(EncoderError, match=f"encoder: expected Encoder or None, got '{folder}'; load it with Encoder.load"):
        load(saved, str(folder))


@pytest.mark.parametrize(
    "tuning, way", [("frozen", r"from_pretrained\(..., encoder="), ("lora", "put it there, or write in config.json")]
)
@pytest.mark.parametrize("name", ["./my enc", "enc"])
def test_an_encoder_in_a_relative_folder(tiny_folder, tmp_path, monkeypatch, tuning, way, name):
    """Seen from another folder it is not there."""
    shutil.copytree(tiny_folder, tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    MetaModel.from_encoder(EncoderConfig(name, tuning=tuning)).save_pretrained("head")
    MetaModel.from_pretrained("head")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        EncoderError, match=rf"could not load the encoder '{name}' .* If it is a folder that lies elsewhere: {way}"
    ) as caught:
        MetaModel.from_pretrained("../head")
    assert "alphanumeric" not in str(caught.value)
    if tuning == "frozen":
        MetaModel.from_pretrained("../head", encoder=Encoder.load(f"../{name}"))


@pytest.mark.parametrize("change", [dict(pooling="cls"), dict(max_length=8), dict(prompt="q ")], ids=str)
def test_an_encoder_that_reads_otherwise_is_refused(model, tiny_folder, tmp_path, change):
    """Equal weights are not equal features: another pooling, length or prompt would give other answers without a word."""
    model.save_pretrained(tmp_path / "head")
    with pytest.raises(EncoderError):
        MetaModel.from_pretrained(tmp_path / "head", Encoder.load(EncoderConfig(str(tiny_folder), **change)))


def rewrite(folder: Path, content: str, change) -> None:
    """Save the folder again with a config that ``change`` has spoiled; the digest of the weights stays right."""
    config, tensors = read_folder(folder, content)
    del config["weights"]
    change(config, tensors)
    write_folder(folder, config, tensors)


def drop(*path: str):
    def change(config, tensors):
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    change.__name__ = "no " + ".".join(path)
    return change


def put(value, *path: str):
    def change(config, tensors):
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    change.__name__ = f"{'.'.join(path)} = {value!r}"
    return change


DAMAGE = [
    *(drop(*path) for path in [("encoder",), ("head",), ("kinds",), ("encoder", "fingerprint"), ("encoder", "dim")]),
    *(put(None, key) for key in ("encoder", "head", "kinds")),
    *(put("nonsense", key) for key in ("encoder", "head")),
    put("newest", "head", "name"),
    put(3, "head", "depth"),
    put("some", "encoder", "pooling"),
    put(7, "encoder", "dim"),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
@pytest.mark.parametrize("what", ["head", "adapted"])
def test_a_damaged_config(model, tmp_path, damage, what):
    (model if what == "head" else model.adapt(TEXTS, TARGETS)).save_pretrained(tmp_path / "saved")
    rewrite(tmp_path / "saved", what, damage)
    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "saved"))) as error:
        (MetaModel if what == "head" else AdaptedModel).from_pretrained(tmp_path / "saved", model.encoder)
    if "newest" in damage.__name__:  # a head of one's own, loaded by who does not have it
        assert "config.json is of a metatext with other settings, or damaged: head: expected one of" in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        drop("task"),
        *(drop("task", key) for key in ("labels", "label_names", "kind", "pairs")),
        put(None, "task"),
        put(["early"], "task", "labels"),  # the support knows two
        put(["early", "late", "never"], "task", "labels"),
        put(["early"], "task", "label_names"),
        *(put(wrong, "task", "columns") for wrong in ("body", {"text": []}, {"text": ["body", 3]}, {"label": "queue"})),
    ],
    ids=lambda d: d.__name__,
)
def test_a_damaged_task(model, tmp_path, damage):
    model.adapt(TEXTS, TARGETS).save_pretrained(tmp_path / "saved")
    rewrite(tmp_path / "saved", "adapted", damage)
    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "saved"))):
        AdaptedModel.from_pretrained(tmp_path / "saved", model.encoder)


def test_missing_tensors_of_the_support(model, tmp_path):
    model.adapt(TEXTS, TARGETS).save_pretrained(tmp_path / "saved")
    rewrite(tmp_path / "saved", "adapted", lambda config, tensors: tensors.pop("support.label_x"))
    with pytest.raises(StorageError, match=r"support\.label_x"):
        AdaptedModel.from_pretrained(tmp_path / "saved", model.encoder)


@pytest.mark.parametrize("what", ["another head", "another width", "one tensor less", "one tensor more"])
def test_tensors_that_are_not_the_heads(tiny, tmp_path, what):
    model = MetaModel.from_encoder(tiny, HeadConfig("metanet", hidden_dim=8))
    model.save_pretrained(tmp_path / "head")

    def change(config, tensors):
        if what == "another head":
            config["head"]["name"] = "ridge"
        elif what == "another width":
            config["head"]["hidden_dim"] = 9
        elif what == "one tensor less":
            del tensors["classification.network.hidden.bias"]
        else:
            tensors["classification.network.third.bias"] = torch.zeros(2)

    rewrite(tmp_path / "head", "head", change)
    with pytest.raises(StorageError, match=r"model\.safetensors does not fit the head '(metanet|ridge)'"):
        MetaModel.from_pretrained(tmp_path / "head", tiny)


def test_a_head_is_no_classifier(model, tmp_path):
    model.save_pretrained(tmp_path / "head")
    model.adapt(TEXTS, TARGETS).save_pretrained(tmp_path / "clf")
    with pytest.raises(StorageError, match=r"holds 'head', expected 'adapted'; MetaModel.from_pretrained loads it"):
        AdaptedModel.from_pretrained(tmp_path / "head", model.encoder)
    with pytest.raises(
        StorageError,
        match=r"holds 'adapted', expected 'head'; AdaptedModel.from_pretrained loads it, .* metatext finetune --model learns",
    ):
        MetaModel.from_pretrained(tmp_path / "clf", model.encoder)
    with pytest.raises(StorageError, match="is not a folder"):
        MetaModel.from_pretrained(tmp_path / "nothing", model.encoder)


# --- the real encoder ------------------------------------------------------------------------------------------------


REVIEWS = ["I loved every minute of it", "a wonderful, warm film", "what a waste of time", "dull, boring and far too long"]


@pytest.mark.parametrize("name", list(HEADS))
def test_the_real_encoder_tells_good_from_bad(embedded, name):
    clf = MetaModel.from_encoder(embedded, HeadConfig(name)).adapt(
        REVIEWS, ["positive", "positive", "negative", "negative"], description="What is the feeling of this film review?"
    )
    unseen = ["an excellent, moving film that I loved", "terrible: boring and a waste of money"]
    assert clf.predict(unseen) == ["positive", "negative"]
    zero = MetaModel.from_encoder(embedded, HeadConfig(name)).adapt([], label_names=["sport", "cooking"])
    assert zero.predict(["The team won the match in the last minute", "Add two eggs and stir the flour in"]) == [
        "sport",
        "cooking",
    ]


def test_the_real_encoder_is_named_and_no_path_is_written(embedded, tmp_path):
    MetaModel.from_encoder(embedded).adapt(REVIEWS, [1, 1, 0, 0]).save_pretrained(tmp_path / "clf")
    text = (tmp_path / "clf" / "config.json").read_text(encoding="utf-8")
    encoder = json.loads(text)["encoder"]
    assert encoder["name"] == EMBEDDED_ID == "sentence-transformers/all-MiniLM-L6-v2"
    assert re.fullmatch(r"[0-9a-f]{40}", encoder["revision"]) and encoder["dim"] == 384
    assert re.fullmatch(r"[0-9a-f]{32}", encoder["fingerprint"]) and encoder["fingerprint"] == EMBEDDED_FINGERPRINT
    places = [
        sys.prefix,
        Path(torch.__file__).parents[1],
        Path(metatext.__file__).parents[1],
        tmp_path,
        "site-packages",
        "embedded",
    ]
    for name in ("config.json", "model.safetensors"):
        content = (tmp_path / "clf" / name).read_bytes()
        assert not [p for p in places if str(p).encode() in content]


def test_the_real_tokenizer_knows_plain_english(embedded):
    unknown = embedded.tokenizer.unk_token_id
    rows = token_lists(
        embedded.tokenize(
            [*REVIEWS, "My card hasn't arrived yet; it's been 12 days! (Where is it?)", "RE: INVOICE #42, 19.99 EUR"]
        )
    )
    assert unknown is not None and all(len(row) > 4 and unknown not in row for row in rows)
    assert unknown in token_lists(embedded.tokenize(["\U0001f9ff\U000131cb"]))[0]  # the check itself can fail


def test_a_very_long_text(embedded):
    clf = MetaModel.from_encoder(embedded).adapt([*REVIEWS[:3], "boring " * 14_300], ["good", "good", "bad", "bad"])
    long = ["wonderful film " * 6_667, "x" * 100_000, "\n" * 99_999 + "x"]
    assert min(map(len, long)) >= 100_000
    assert np.isfinite(clf.predict_proba(long)).all() and clf.predict(long)[0] == "good"


def test_a_classifier_is_a_value(tiny, tmp_path):
    """Changing the model's head afterwards reaches neither the classifier nor what it saves."""
    model = MetaModel.from_encoder(tiny)
    clf = model.adapt(["aa", "zz", "ab", "zy"], ["a", "z", "a", "z"])
    before = clf.predict_proba(["aaa", "zab"])
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(0.3)
    assert (clf.predict_proba(["aaa", "zab"]) == before).all()
    clf.save_pretrained(tmp_path / "clf")
    assert (AdaptedModel.from_pretrained(tmp_path / "clf").predict_proba(["aaa", "zab"]) == before).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert (clf.predict_proba(["aaa", "zab"]) == before).all()
    assert (clf.to("cpu").predict_proba(["aaa", "zab"]) == before).all()


# --- as a pipeline, and with other examples and classes ----------------------------------------------------------------


def test_a_call_answers_as_a_pipeline(model):
    clf = model.adapt(TEXTS, TARGETS)
    probabilities = clf.predict_proba(QUERIES)
    assert clf("aa bb") == [{"label": clf.predict(["aa bb"])[0], "score": pytest.approx(float(probabilities[0].max()), abs=1e-6)}]
    for row, expected in zip(clf(QUERIES, top_k=None, batch_size=2), probabilities, strict=True):
        assert [answer["label"] for answer in row] == [clf.labels[c] for c in np.argsort(-expected)]
        np.testing.assert_allclose([answer["score"] for answer in row], np.sort(expected)[::-1], atol=1e-6)
    assert clf(QUERIES) == [best for (best,) in clf(QUERIES, top_k=1)] and clf([]) == []
    assert [len(row) for row in clf(QUERIES[:1], top_k=9)] == [2]
    pairs = model.adapt(PAIRS, PAIR_TARGETS)
    assert (
        pairs(("ab", "ba"))
        == pairs([("ab", "ba")])
        == pairs({"text": "ab", "text_pair": "ba"})
        == pairs([{"text": "ab", "text_pair": "ba"}])
    )
    assert clf({"text": "aa bb"}) == clf("aa bb")
    tags = model.adapt(TEXTS, [["x"], ["x", "y"], ["x"], ["y"], [], ["y"]], kind="multilabel")
    assert {answer["label"]: answer["score"] for answer in tags("aa", top_k=None)} == pytest.approx(
        dict(zip(tags.labels, map(float, tags.predict_proba(["aa"])[0]), strict=True)), abs=1e-6
    )


def test_a_table_is_no_list_of_texts(model):
    """Iterating one would give the names of its columns, which are texts as well."""
    import datasets
    import pandas

    clf, columns = model.adapt(TEXTS, TARGETS), {"text": ["aa", "zz"], "number": [1, 2]}
    frame, table = pandas.DataFrame(columns), datasets.Dataset.from_dict(columns)
    for given in (frame, columns, table, np.array("aa"), 3):
        with pytest.raises(
            DataError, match=rf"expected a list of texts, got one {type(given).__name__}; of a table give one column"
        ):
            clf.predict(given)
    for given in (frame, 3):
        with pytest.raises(
            DataError, match=rf"expected a list of texts, got one {type(given).__name__}; of a table give one column"
        ):
            clf(given)
    with pytest.raises(DataError, match="expected a list of texts, got None"):
        clf(None)
    assert clf(table.select_columns("text")) == clf([{"text": "aa"}, {"text": "zz"}]) == clf(["aa", "zz"])
    with pytest.raises(DataError, match="got one DataFrame"):
        clf.add_class("new", frame)
    assert clf.predict(frame["text"]) == clf.predict(table["text"]) == clf.predict(["aa", "zz"])


def test_names_of_heads_are_no_folders():
    with pytest.raises(
        StorageError, match=r"gp is the name of a head that nobody has trained: MetaModel.from_encoder\('embedded', 'gp'\)"
    ):
        MetaModel.from_pretrained("gp")
    with pytest.raises(HubError, match="no head that comes with metatext; did you mean 'metatext-minilm-general'"):
        MetaModel.from_pretrained("metatext-minilm-generl")


@pytest.mark.parametrize(
    "targets, message",
    [([["x"], ["y"]], "lists of labels give kind='multilabel'"), ([0.5, 1.0], "scores give kind='regression'")],
)
def test_labels_of_another_kind(model, targets, message):
    with pytest.raises(DataError, match=message):
        model.adapt(["a", "b"], targets)
    with pytest.raises(DataError, match=r"label_names: entry 1 is None, and a list is of texts; give a dict"):
        model.adapt(["a", "b"], [0, 1], label_names=["x", None])


def test_what_no_pipeline_answers(model):
    clf = model.adapt(TEXTS, TARGETS)
    for options, message in (({"top_k": 0}, "top_k: expected a whole number"), ({"batch_size": 0}, "batch_size: expected")):
        with pytest.raises(DataError, match=message):
            clf("a", **options)
    with pytest.raises(DataError, match="the examples were single texts"):
        clf(("a", "b"))
    with pytest.raises(DataError, match=r"row 0 must be a text or a pair of texts, got \{'label': 'a'\}"):
        clf({"label": "a"})
    with pytest.raises(DataError, match="a call: there is none for a task of kind regression; use predict"):
        model.adapt(TEXTS, [1, 2, 3, 4, 5, 6], kind="regression")("a")


@pytest.mark.parametrize("given", ["texts", "described", "names", "more", "zero", "pairs"])
def test_a_class_more_is_adapting_anew(any_model, given):
    arguments, more = dict(GIVEN[given]), [("m", "n"), ("nm", "mm")] if given == "pairs" else ["mmm n", "nn mn"]
    clf = any_model.adapt(**arguments)
    before = clf.predict_proba(queries(given))
    made = clf.add_class("in_between", more)
    names = {label: name for label, name in zip(clf.labels, clf.label_names)} | {"in_between": "in between"}
    rows, targets = [*arguments["inputs"], *more], [*arguments["targets"], "in_between", "in_between"]
    anew = any_model.adapt(rows, targets, label_names=names, description=arguments.get("description"))
    assert made.labels == [*clf.labels, "in_between"] == anew.labels and made.label_names == anew.label_names
    assert made.pairs == anew.pairs
    np.testing.assert_allclose(made.predict_proba(queries(given)), anew.predict_proba(queries(given)), atol=1e-5)
    np.testing.assert_allclose(made.confidence(queries(given)), anew.confidence(queries(given)), atol=1e-5)
    np.testing.assert_array_equal(clf.predict_proba(queries(given)), before)  # a value: it stays as it was
    back = made.remove_class("in_between")
    assert back.labels == clf.labels and back.label_names == clf.label_names and back.pairs == clf.pairs
    np.testing.assert_array_equal(back.predict_proba(queries(given)), before)  # bit for bit: the same features


def test_more_examples_are_adapting_anew(any_model):
    names = {"late": "end of it", "early": "start of it", "middle": None}
    clf = any_model.adapt([*TEXTS[1:5], "mm"], [*TARGETS[1:5], "middle"], label_names=names)
    made = clf.add_examples([TEXTS[0], TEXTS[5]], np.array(["early", "late"]))
    anew = any_model.adapt([*TEXTS[1:5], "mm", TEXTS[0], TEXTS[5]], [*TARGETS[1:5], "middle", "early", "late"], label_names=names)
    np.testing.assert_allclose(made.predict_proba(QUERIES), anew.predict_proba(QUERIES), atol=1e-5)
    fewer = made.remove_class("late")
    anew = any_model.adapt([TEXTS[1], TEXTS[2], "mm", TEXTS[0]], ["early", "early", "middle", "early"], label_names={"early": "start of it", "middle": None})  # fmt: skip
    assert fewer.labels == ["early", "middle"]
    np.testing.assert_allclose(fewer.predict_proba(QUERIES), anew.predict_proba(QUERIES), atol=1e-5)
    np.testing.assert_array_equal(clf.add_examples([], []).predict_proba(QUERIES), clf.predict_proba(QUERIES))


def test_classes_that_are_numbers(model):
    clf = model.adapt(TEXTS, GIVEN["ints"]["targets"])
    made = clf.add_class(np.int64(7), ["mm nn"])
    anew = model.adapt([*TEXTS, "mm nn"], [*GIVEN["ints"]["targets"], 7])
    assert made.labels == [-1, 5, 7] == anew.labels and type(made.labels[2]) is int and made.label_names == (None, None, None)
    np.testing.assert_allclose(made.predict_proba(QUERIES), anew.predict_proba(QUERIES), atol=1e-5)
    named = clf.add_class(7, [], label_name="middle")
    assert named.predict_proba(QUERIES).shape == (5, 3)


def test_the_last_examples_may_go(model):
    """Then the names alone are left, and nothing says whether rows are pairs."""
    clf = model.adapt(["aa"], ["early"], label_names=["early", "middle", "late"]).remove_class("early")
    assert clf.pairs is None
    anew = model.adapt([], label_names=["middle", "late"])
    np.testing.assert_allclose(clf.predict_proba(QUERIES), anew.predict_proba(QUERIES), atol=1e-5)


@pytest.mark.parametrize("names", [None, {0: "low", 5: "high"}], ids=["no ends", "ends"])
def test_more_examples_of_other_kinds(model, names):
    scores = [0.5, 1, 1.5, 3, 4.5, 5]
    clf = model.adapt(TEXTS[:4], scores[:4], kind="regression", label_names=names).add_examples(TEXTS[4:], scores[4:])
    anew = model.adapt(TEXTS, scores, kind="regression", label_names=names)
    np.testing.assert_allclose(clf.predict(QUERIES), anew.predict(QUERIES), atol=1e-4)
    sets = [["x"], ["x", "y"], ["x"], ["y"], [], ["y"]]
    tags = model.adapt(TEXTS[:4], sets[:4], kind="multilabel").add_examples(TEXTS[4:], sets[4:])
    np.testing.assert_allclose(
        tags.predict_proba(QUERIES), model.adapt(TEXTS, sets, kind="multilabel").predict_proba(QUERIES), atol=1e-5
    )


def test_training_on_does_not_reach_a_changed_classifier(tiny, tmp_path):
    model = MetaModel.from_encoder(tiny)
    clf, anew = (
        model.adapt(TEXTS, TARGETS),
        model.adapt([*TEXTS, "mm"], [*TARGETS, "middle"], label_names=["early", "late", "middle"]),
    )
    with torch.no_grad():
        model.head.temperature.log_scale += 1
    made = clf.add_class("middle", ["mm"])
    np.testing.assert_allclose(made.predict_proba(QUERIES), anew.predict_proba(QUERIES), atol=1e-5)
    made.save_pretrained(tmp_path / "clf")
    assert_same(made, AdaptedModel.from_pretrained(tmp_path / "clf", tiny), QUERIES)


@pytest.mark.parametrize(
    ("own", "read"), [(["1", "2", "n/a"], [2, 1]), ([1, 2, 3], ["2", "1"]), (["True", "False", "?"], [False, True])]
)
def test_labels_of_a_further_table_may_be_read_as_another_type(model, own, read):
    """A csv whose labels are 1, 2 and n/a has texts, one without n/a has numbers."""
    texts = ["aa", "bb", "cc"]
    clf, right = model.adapt(texts, own), [own[1], own[0]]
    assert clf.evaluate(texts[:2], read) == clf.evaluate(texts[:2], right)
    expected = clf.add_examples(["ab", "ba"], right).predict_proba(texts)
    np.testing.assert_array_equal(clf.add_examples(["ab", "ba"], read).predict_proba(texts), expected)


@pytest.mark.parametrize(
    "given, method, arguments, message",
    [
        ("texts", "add_class", ("early", ["a"]), "there is a class 'early' already; give it more examples with add_examples"),
        ("texts", "add_class", (3, ["a"]), "the label 3 is of another type than the labels"),
        ("texts", "add_class", (None, ["a"]), r"expected a label, text or number, got None"),
        ("texts", "add_class", ("x", [("a", "b")]), "the examples were single texts"),
        ("pairs", "add_class", ("x", ["a"]), "the examples were pairs of texts"),
        ("texts", "add_class", ("x", "a"), "expected a list of texts, got one text"),
        ("ints", "add_class", (3, []), "class 3 has neither an example nor a name"),
        ("texts", "add_examples", (["a"], ["erly"]), "row 0: there is no class 'erly'; did you mean 'early'"),
        ("texts", "add_examples", (["a", "b"], ["early"]), "add_examples: 2 inputs but 1 targets"),
        ("texts", "add_examples", (["a", "b"], "ab"), "one target per input, got one text"),
        ("texts", "add_examples", (["a", "b"], 3), "add_examples: targets: expected a list of one target per input, got one int"),
        ("pairs", "add_examples", (["a"], ["same"]), "the examples were pairs of texts"),
        ("texts", "remove_class", ("never",), "there is no class 'never'"),
        ("texts", "remove_class", ("late",), "without 'late' one class would be left"),
    ],
)
def test_what_cannot_be_changed(model, given, method, arguments, message):
    with pytest.raises(DataError, match=message):
        getattr(model.adapt(**GIVEN[given]), method)(*arguments)


def test_kinds_without_such_a_change(model):
    tags = model.adapt(TEXTS, [["x"], ["x", "y"], ["x"], ["y"], [], ["y"]], kind="multilabel")
    context = {"question": "a", "context": "b c", "answers": {"text": ["c"], "answer_start": [2]}}
    for change in (lambda: tags.add_class("z", ["a"]), lambda: tags.remove_class("x")):
        with pytest.raises(DataError, match="a task of kind multilabel has no such change; adapt anew to all examples"):
            change()
    with pytest.raises(DataError, match="add_examples: a task of kind span has no such change"):
        model.adapt([context], kind="span").add_examples(["a"], ["b"])
