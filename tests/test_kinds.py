"""Tasks whose labels are no classes: several labels to a row, and scores. Episodes, heads, training, adapting, saving."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from scripts.train_head import find_the_run, letters_present, share_of_a
from test_heads import close, unit

import metatext as mt
from metatext import targets, task_loading
from metatext.baselines import USUAL
from metatext.card import make_card
from metatext.columns import KIND_NAMES
from metatext.episodes import draw_episodes, train_episodes
from metatext.evaluation import THRESHOLDS, draw_for, threshold_figures
from metatext.features import encode_tasks
from metatext.heads import KIND_HEADS, Logits, gp, make_head
from metatext.kinds import KINDS
from metatext.losses import multilabel, regression
from metatext.metrics import METRICS
from metatext.pools import EpisodeError
from metatext.representation import Support, alike_direction, likelihood_gain
from metatext.rows import DataError
from metatext.settings import ConfigError
from metatext.snippets import EXAMPLES
from metatext.storage import StorageError, read_json
from metatext.store import FeatureStore, TokenStore

D = 6


def shaken(kind: str, dim: int = D):
    generator = torch.Generator().manual_seed(1)
    head = make_head(mt.HeadConfig("gp"), dim, kind).double().eval()
    with torch.no_grad():
        for p in head.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return head


def episode(kind: str, s: int = 7, w: int = 4, b: int = 2, q: int = 5, d: int = D) -> tuple[Support, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    w = w if kind == "multilabel" else 1
    y = (torch.rand(b, s, w, generator=g) < 0.4).double() if kind == "multilabel" else torch.randn(b, s, 1, generator=g).double()
    yes = lambda *shape: torch.ones(*shape, dtype=torch.bool)  # noqa: E731
    support = Support(
        x=unit(b, s, d, generator=g),
        y=y,
        label_x=unit(b, w, d, generator=g),
        task_x=unit(b, d, generator=g),
        row_mask=yes(b, s),
        class_mask=yes(b, w),
        label_mask=yes(b, w),
        task_mask=yes(b),
    )
    return support, unit(b, q, d, generator=g)


def answer(head, support: Support, query: torch.Tensor) -> Logits:
    return head.logits(head.adapt(support), query, torch.ones(query.shape[:2], dtype=torch.bool))


def test_every_kind_has_its_name_its_baselines_and_a_head():
    assert {*KINDS} == {*KIND_NAMES} == {*USUAL} == {*KIND_HEADS}


def test_a_kind_of_ones_own_is_the_rows_that_the_readme_names(tiny, tmp_path, monkeypatch, caplog):
    """Another kind of scores, from the table of its rows to an answer."""
    monkeypatch.setitem(KINDS, "stars", dataclasses.replace(KINDS["regression"], name="stars", metrics=("rmse", "spearman")))
    monkeypatch.setitem(targets.ENCODERS, "stars", targets.encode_scores)
    monkeypatch.setattr(task_loading, "KIND_NAMES", (*KIND_NAMES, "stars"))
    monkeypatch.setitem(USUAL, "stars", ("untrained",))
    monkeypatch.setitem(KIND_HEADS, "stars", KIND_HEADS["regression"])
    monkeypatch.setitem(EXAMPLES, "stars", "# how it is used")
    rows = [{"text": c * (k + 1) + str(k), "label": str(k + 1)} for c in "abcdef" for k in range(5)]
    first, second = (mt.load_task(rows, kind="stars", name=name) for name in ("first", "second"))
    assert repr(first) == "Task('first', stars, 30 rows, 1 to 5)" and first.labels == (1.0, 5.0)
    model, shape = mt.MetaModel.from_encoder(tiny), mt.EpisodeConfig(k_shot=4, n_query=5)
    loop = mt.TrainConfig(output_dir=tmp_path / "run", meta_steps=2, meta_batch_size=2, eval_episodes=2)
    with caplog.at_level("INFO"):
        mt.meta_train(model, [first], eval_tasks=[second], episodes=shape, config=loop)
    assert re.search(r"step 2: unseen tasks rmse \d\.\d{3}, loss", caplog.text)  # in its own unit
    report = mt.evaluate_tasks(model, [second], shape, n_episodes=3, progress=False)
    assert report.metric == "rmse" and report.methods == ["trained", "untrained"]
    clf = mt.MetaModel.from_pretrained(tmp_path / "run").adapt(first)
    clf.save_pretrained(tmp_path / "clf")
    np.testing.assert_array_equal(mt.AdaptedModel.from_pretrained(tmp_path / "clf").predict(["abc"]), clf.predict(["abc"]))
    assert "# how it is used" in str(make_card(read_json(tmp_path / "run" / "config.json"), "me/stars"))


BOTH = pytest.mark.parametrize("kind", ["multilabel", "regression"])


# --- losses ----------------------------------------------------------------------------------------------------------


def test_binary_cross_entropy_by_hand():
    low = torch.finfo(torch.float32).min
    values = torch.tensor([[[2.0, -1.0, low], [0.0, 3.0, low]]])
    y, mask = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]]), torch.tensor([[True, True]])
    row = lambda *cells: sum(math.log1p(math.exp(-x)) for x in cells) / 2  # noqa: E731
    outside = torch.zeros_like(mask)
    loss = multilabel(Logits(values, torch.zeros(1, 2)), y, mask, outside)
    assert loss.item() == pytest.approx((row(2.0, 1.0) + row(0.0, 3.0)) / 2, rel=1e-6)
    only = multilabel(Logits(values, torch.zeros(1, 2)), y, torch.tensor([[True, False]]), outside)
    assert only.item() == pytest.approx(row(2.0, 1.0), rel=1e-6)


def test_squared_error_by_hand():
    values, y = torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([[[0.0], [4.0], [0.0]]])
    mask = torch.tensor([[True, True, False]])
    assert regression(Logits(values, torch.zeros(1, 3)), y, mask, ~mask).item() == 2.5


# --- episodes --------------------------------------------------------------------------------------------------------


def test_episodes_take_rows_of_the_whole_task(tiny):
    tasks = [letters_present(), letters_present("others", seed=1)]
    features = encode_tasks(FeatureStore(tiny, progress=False), tasks)
    shape = mt.EpisodeConfig(k_shot=(0, 6), n_query=5, max_support=4)
    batch = draw_episodes(features.pool, shape, np.arange(40) % 2, np.random.default_rng(0))
    sizes = (batch.support >= 0).sum(1)
    assert {*sizes.tolist()} == {0, 1, 2, 3, 4} and ((batch.query >= 0).sum(1) == 5).all()
    assert (batch.classes == np.arange(4)).all() and batch.named.all() and not batch.outside.any()
    for i in range(len(batch)):
        rows = np.concatenate([batch.support[i], batch.query[i]])
        rows = rows[rows >= 0]
        texts = [tasks[batch.task[i]].inputs()[row - 40 * batch.task[i]] for row in rows]
        assert len({*texts}) == len(rows)  # no text twice, in support and query together
    hidden = dataclasses.replace(batch, named=np.zeros_like(batch.named))
    seen = features.gather(hidden).support
    assert torch.equal(seen.label_mask, ~seen.y.bool().any(1))  # only a label without a row keeps its name
    data = features.gather(batch)
    assert data.query_y.shape == (40, 5, 4) and data.support.y.shape == (40, 4, 4)
    own = [task.targets for task in tasks]
    for i, j in ((0, 0), (1, 3)):
        assert data.query_y[i, j].bool().tolist() == own[i][batch.query[i, j] - 40 * i].tolist()


def test_scores_come_in_units_of_their_scale(tiny):
    tasks = [share_of_a(), share_of_a("wide", seed=2, unit=1000.0)]
    features = encode_tasks(FeatureStore(tiny, progress=False), tasks)
    batch = draw_episodes(features.pool, mt.EpisodeConfig(k_shot=30, n_query=10), np.array([0, 1]), np.random.default_rng(0))
    data = features.gather(batch)
    for i, length in enumerate((10.0, 1000.0)):  # the middle is 0, the ends are 2 units away from it
        expected = (tasks[i].targets[batch.query[i] - 40 * i] / length - 0.5) * 4
        np.testing.assert_allclose(data.query_y[i, :, 0], expected, atol=1e-5)
    a, b = (tiny.encode([letter])[0] for letter in "ab")
    assert torch.allclose(data.support.label_x[0, 0], torch.nn.functional.normalize(a - b, dim=0), atol=1e-6)


@BOTH
def test_a_task_that_is_too_small_is_named(tiny, kind):
    task = {"multilabel": letters_present, "regression": share_of_a}[kind]("small", rows=6)
    features = encode_tasks(FeatureStore(tiny, progress=False), [task])
    with pytest.raises(EpisodeError, match=r"task 'small': it has 6 distinct texts, an episode needs 8 \(k_shot 3 \+ n_query 5"):
        draw_episodes(features.pool, mt.EpisodeConfig(k_shot=(3, 9), n_query=5), np.zeros(2, int), np.random.default_rng(0))


def test_a_step_mixes_kinds_and_its_parts_are_the_whole(tiny):
    from metatext.corpora import load_tasks

    store = FeatureStore(tiny, progress=False)
    groups = [load_tasks("starter/train")[:3], [letters_present()], [share_of_a()]]
    pools = [encode_tasks(store, group).pool for group in groups]
    shape, weights = mt.EpisodeConfig(n_way=(2, 4), k_shot=(0, 4), n_query=3), np.array([1.0, 1.0, 1.0, 3.0, 3.0])
    batch = train_episodes(pools, shape, weights, 30, seed=0, step=4)
    assert len(batch) == 30 and {*batch.group.tolist()} == {0, 1, 2}
    assert sum(len(own) for own in batch.batches) == 30
    for stride in (2, 7):
        found = {0: [], 1: [], 2: []}
        for start in range(stride):
            for group, own in batch.part(np.arange(start, 30, stride)):
                found[group] += [tuple(row[row >= 0]) for row in own.query]
        for group, whole in enumerate(batch.batches):
            assert sorted(found[group]) == sorted(tuple(row[row >= 0]) for row in whole.query)
    assert (np.diff(batch.size) >= 0).all()
    rows = [(own.support >= 0).sum(1) + (own.query >= 0).sum(1) for own in batch.batches]
    assert sorted(np.concatenate(rows)) == batch.size.tolist()
    again = train_episodes(pools, shape, weights, 30, seed=0, step=4)
    assert all(np.array_equal(a.query, b.query) for a, b in zip(batch.batches, again.batches, strict=True))


def test_a_row_is_as_much_work_as_its_tokens(tiny):
    """Where texts are read again and again episodes come by what there is to read, so that processes can share it."""
    short = mt.load_task([{"text": c + d, "label": c} for c in "ab" for d in "cdefgh"], name="short")
    pairs = mt.load_task([{"text": 9 * (c + d), "text_pair": c + d, "label": c} for c in "ab" for d in "cdefgh"], name="pairs")
    features = encode_tasks(TokenStore(tiny), [short, pairs])
    assert features.pool.row_tokens.tolist() == [4, (18 + 2 + 3) + (18 + 2) + (2 + 2)]  # special tokens, and pairs read thrice
    batch = train_episodes([features.pool], mt.EpisodeConfig(n_way=2, k_shot=1, n_query=1), np.ones(2), 8, seed=0, step=0)
    assert batch.size.tolist() == [4 * features.pool.row_tokens[task] for task in sorted(batch.batches[0].task)]
    asked = encode_tasks(TokenStore(tiny), [find_the_run("a"), find_the_run("b", seed=1)])
    assert asked.pool.row_tokens.tolist() == [asked.windows.tokens.lengths[asked.shown[i : i + 40]].mean() for i in (0, 40)]
    assert encode_tasks(FeatureStore(tiny, progress=False), [short]).pool.row_tokens is None


# --- heads -----------------------------------------------------------------------------------------------------------


@BOTH
def test_heads_do_not_mind_order_padding_or_company(kind):
    head = shaken(kind)
    support, query = episode(kind)
    one = answer(head, support, query)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    moved = {name: getattr(support, name)[:, order] for name in ("x", "y", "row_mask")}
    close(one, answer(head, dataclasses.replace(support, **moved), query))
    close(Logits(one.values[:, 1:2], one.none[:, 1:2]), answer(head, support, query[:, 1:2]))  # queries never see each other
    loud = lambda tensor, value: torch.cat([tensor, torch.full_like(tensor[:, :3], value)], 1)  # noqa: E731
    wide = dataclasses.replace(support, x=loud(support.x, 3.0), y=loud(support.y, 1.0), row_mask=loud(support.row_mask, False))
    close(one, answer(head, wide, query), 1e-8)


def test_labels_follow_a_permutation_and_padded_ones_are_never_given():
    head, (support, query) = shaken("multilabel"), episode("multilabel")
    one = answer(head, support, query)
    order = [2, 0, 3, 1]
    changes = {name: getattr(support, name)[:, order] for name in ("label_x", "class_mask", "label_mask")}
    other = answer(head, dataclasses.replace(support, y=support.y[..., order], **changes), query)
    close(Logits(one.values[..., order], one.none), other)
    loud = lambda tensor, value: torch.cat([tensor, torch.full_like(tensor[:, :2], value)], 1)  # noqa: E731
    wide = dataclasses.replace(
        support,
        y=torch.cat([support.y, torch.zeros(2, 7, 2).double()], 2),
        label_x=loud(support.label_x, 2.0),
        class_mask=loud(support.class_mask, False),
        label_mask=loud(support.label_mask, False),
    )
    padded = answer(head, wide, query)
    close(Logits(padded.values[..., :4], padded.none), one, 1e-8)
    assert not padded.values[..., 4:].sigmoid().any()


def test_scores_against_the_formula():
    """The posterior mean of a Gaussian process, written out for one task."""
    head, (support, query) = shaken("regression"), episode("regression", b=1)
    x, y, q = support.x[0].numpy(), support.y[0, :, 0].numpy(), query[0].numpy()
    directions = np.stack([support.label_x[0, 0].numpy(), alike_direction(support.x).numpy()], 1)  # (d, 2)
    a, b = head.log_rows.exp().tolist()
    centre = ((x @ directions).sum(0) + a * head.centre.detach().numpy()) / (7 + a)
    f, fq = x @ directions - centre, q @ directions - centre
    mean, deviation = y.sum() / (7 + a), np.sqrt((7 * y.var() + b) / (7 + b))
    beta, spread = head.slope.detach().numpy(), head.log_spread.exp().detach().numpy()
    alpha, noise = head.log_alpha.exp().item(), head.log_noise.exp().item()
    k = lambda a, b, fa, fb: alpha * np.exp(2 * (a @ b.T - 1)) + (fa * spread) @ fb.T  # noqa: E731
    z = (y - mean) / deviation - f @ beta
    expected = mean + deviation * (fq @ beta + k(q, x, fq, f) @ np.linalg.solve(k(x, x, f, f) + noise * np.eye(7), z))
    np.testing.assert_allclose(answer(head, support, query).values[0, :, 0].detach().numpy(), expected, rtol=1e-8)


def test_labels_do_not_compete(embedded):
    """A row with two topics has both labels, and a label alone can be wrong."""
    model = mt.MetaModel.from_encoder(embedded)
    clf = model.adapt([], [], kind="multilabel", label_names=["credit card", "weather", "music"])
    both, _, neither = clf.predict_proba(
        ["my credit card was stolen in stormy, rainy weather", "my credit card was stolen", "I will be late for the meeting"]
    )
    assert both[0] > 1.5 * neither[0] and both[1] > 1.5 * neither[1] and both[2] < both[:2].min()
    alone = model.adapt([], [], kind="multilabel", label_names=(name for name in ["weather"]))
    rainy, other = alone.predict_proba(["it will rain all day", "the meeting starts at nine"])[:, 0]
    assert rainy > other + 0.05


def test_the_trust_in_names_does_not_count_labels():
    """Names that explain every label of a row explain the row, however many labels it has."""
    y = torch.tensor([[[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    perfect = likelihood_gain(60 * y, y, torch.ones(1, 4, dtype=torch.bool))
    assert perfect.item() == pytest.approx(1.0, abs=1e-6)


@BOTH
@pytest.mark.parametrize("s", [0, 1, 2])
def test_few_rows_give_finite_answers_and_gradients(kind, s):
    head, (support, query) = shaken(kind), episode(kind, s=s)
    values = answer(head, support, query).values
    assert values.isfinite().all()
    values.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@BOTH
def test_every_learned_number_of_a_head_matters(kind):
    head = shaken(kind).train()
    for s in (0, 7):  # what stands for missing rows needs an episode without any
        support, query = episode(kind, s=s)
        logits = answer(head, support, query)
        (logits.values.square().sum() + logits.none.square().sum()).backward()
    learned = {name: p for name, p in head.named_parameters() if p.requires_grad}
    assert [name for name, p in learned.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


@BOTH
def test_many_rows_are_averaged_with_their_neighbours(kind, monkeypatch):
    head, (support, query) = shaken(kind), episode(kind, s=60)
    one = answer(head, support, query).values
    monkeypatch.setattr(gp, "ROWS", 30)
    x, y, size = gp.grouped(support.x, support.y, support.row_mask, by_class=False)
    assert x.shape[1] == 30 and (size.sum(1) == 60).all() and torch.allclose((y * size[..., None]).sum(1), support.y.sum(1))
    fewer = answer(head, support, query).values
    assert not torch.equal(fewer, one)
    assert torch.corrcoef(torch.stack([fewer.flatten(), one.flatten()]))[0, 1] > 0.4
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    moved = {name: getattr(support, name)[:, order] for name in ("x", "y", "row_mask")}
    torch.testing.assert_close(answer(head, dataclasses.replace(support, **moved), query).values, fewer)


# --- adapting --------------------------------------------------------------------------------------------------------


def test_several_labels_to_a_row(embedded, tmp_path):
    model = mt.MetaModel.from_encoder(embedded)
    inputs = ["My card was stolen in Rome", "How is the weather in Rome?", "Block my card", "Will it rain?"]
    targets = [["card", "travel"], ["weather", "travel"], ["card"], ["weather"]]
    clf = model.adapt(inputs, targets, kind="multilabel", label_names=["card", "weather", "travel", "music"])
    assert clf.labels == ["card", "weather", "travel", "music"]
    probabilities = clf.predict_proba(["Is it sunny in Paris?", "Freeze the credit card", "Play some jazz music"])
    assert probabilities.shape == (3, 4) and ((probabilities >= 0) & (probabilities <= 1)).all()
    assert probabilities[0, 1] > probabilities[1, 1] and probabilities[1, 0] > probabilities[0, 0]
    assert probabilities[2, 3] > probabilities[:2, 3].max()  # a label without a row lives by its name
    np.testing.assert_allclose(clf.confidence(inputs), 1 - (1 - clf.predict_proba(inputs)).prod(1), rtol=1e-4)
    assert clf.predict(inputs) == [[clf.labels[c] for c in np.flatnonzero(row >= 0.5)] for row in clf.predict_proba(inputs)]
    table = clf.predict_table(["Block my card", "zzz"])
    assert [len(row) for row in table["probability"]] == [len(row) for row in table["label"]]
    assert table["probability"][0][0] == pytest.approx(clf.predict_proba(["Block my card"])[0, 0])
    clf.save_pretrained(tmp_path)
    again = mt.AdaptedModel.from_pretrained(tmp_path, embedded)
    assert np.array_equal(again.predict_proba(inputs), clf.predict_proba(inputs)) and again.kind == "multilabel"
    with pytest.raises(DataError, match="max_risk: there is none for a task of kind multilabel"):
        clf.predict(inputs, max_risk=0.1)
    with pytest.raises(DataError, match="class 'odd' has neither an example nor a name"):
        model.adapt(
            inputs, targets, kind="multilabel", label_names={"card": "card", "weather": None, "travel": None, "odd": None}
        )


def test_scores_on_their_own_scale(embedded, tmp_path):
    model = mt.MetaModel.from_encoder(embedded)
    pairs = [
        ("A man plays a guitar.", "A man is playing the guitar."),
        ("A dog runs.", "The stock market fell."),
        ("A child eats an apple.", "A kid is eating fruit."),
        ("Two women talk.", "A plane lands."),
        ("He drives a red car.", "He is in a car."),
    ]
    scores = [98.0, 2.0, 75.0, 0.0, 60.0]
    clf = model.adapt(pairs, scores, kind="regression", label_names={0: "different meaning", 100: "same meaning"})
    asked = [("A cat sleeps.", "A cat is sleeping."), ("A cat sleeps.", "The bank raised its rates.")]
    answers = clf.predict(asked)
    assert answers.dtype == np.float64 and answers.shape == (2,) and ((answers >= 0) & (answers <= 100)).all()
    assert answers[0] > 60 > 30 > answers[1]
    clf.save_pretrained(tmp_path)
    again = mt.AdaptedModel.from_pretrained(tmp_path, embedded)
    assert np.array_equal(again.predict(asked), answers) and again.labels == [0.0, 100.0]
    tenth = model.adapt(
        pairs, [s / 10 for s in scores], kind="regression", label_names={0: "different meaning", 10: "same meaning"}
    )
    np.testing.assert_allclose(tenth.predict(asked), answers / 10, rtol=1e-5)
    for method in ("predict_proba", "confidence", "risk"):
        with pytest.raises(DataError, match=f"{method}: there is none for a task of kind regression"):
            getattr(clf, method)(asked)
    assert clf.predict([]).shape == (0,)


def test_scores_without_examples(embedded):
    model = mt.MetaModel.from_encoder(embedded)
    clf = model.adapt([], [], kind="regression", label_names={1: "awful, terrible film", 5: "wonderful, great film"})
    bad, good = clf.predict(["A terrible, awful waste of time.", "A wonderful film, simply great."])
    assert 1 <= bad < 3 < good <= 5
    with pytest.raises(DataError, match="without examples the label_names must be given"):
        model.adapt([], [], kind="regression")


def test_scores_that_are_all_alike_or_few(embedded, tmp_path):
    """Nothing depends on the unit of the scale, and the first examples do not make answers worse than none."""
    model, asked = mt.MetaModel.from_encoder(embedded), ["awful food", "wonderful food"]
    for scores in ([0.5, 0.5], [0.5]):
        small, large = (
            model.adapt(["it was fine", "so so"][: len(scores)], [unit * s for s in scores], kind="regression", label_names=ends)
            for unit, ends in ((1, {0: "awful", 1: "wonderful"}), (100, {0: "awful", 100: "wonderful"}))
        )
        np.testing.assert_allclose(large.predict(asked), 100 * small.predict(asked), rtol=1e-5)
        assert small.predict(asked)[0] < small.predict(asked)[1]
    same = model.adapt(["a", "b", "c"], [0.1, 0.1, 0.1], kind="regression")  # a scale of unknown ends
    assert same.labels == [] and np.abs(same.predict(asked) - 0.1).max() < 0.1
    same.save_pretrained(tmp_path)
    assert np.array_equal(mt.AdaptedModel.from_pretrained(tmp_path, embedded).predict(asked), same.predict(asked))
    tasks = mt.load_tasks("starter/regression/train")
    shapes = [mt.EpisodeConfig(k_shot=k, n_query=20) for k in (0, 1, 2, 4, 16)]
    reports = [mt.evaluate_tasks(model, tasks, shape, 40, metric="rmse", baselines=(), progress=False) for shape in shapes]
    errors = [np.mean([report.mean("trained", task.name)[0] / task.targets.std() for task in tasks]) for report in reports]
    assert all(b < 1.03 * a for a, b in itertools.pairwise(errors)) and errors[-1] < 0.9 * errors[0], errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(targets=[1.0, "2"]), r"row 1 has the score '2' \(str\); expected a finite number"),
        (dict(targets=[1.0, 9.0], label_names={0: "a", 5: "b"}), "row 1 has the score 9, the scale runs from 0 to 5"),
        (dict(targets=[1.0]), "2 inputs but 1 targets"),
        (dict(targets=[1.0, 2.0], label_names=["bad", "good"]), "they name two scores of its scale at least"),
    ],
)
def test_scores_that_cannot_be_adapted_to(tiny, given, message):
    with pytest.raises(DataError, match=message):
        mt.MetaModel.from_encoder(tiny).adapt(["a", "b"], kind="regression", **given)


# --- training and measuring ------------------------------------------------------------------------------------------


def mixed(seed: int = 0) -> list:
    return [letters_present("many", seed=seed), share_of_a("score", seed=seed), *mt.load_tasks("starter/train")[:2]]


def test_kinds_train_together(tiny, tmp_path, caplog):
    model = mt.MetaModel.from_encoder(tiny)
    before = {name: tensor.clone() for name, tensor in model.tensors().items()}
    result = mt.meta_train(
        model,
        mixed(),
        eval_tasks=[letters_present("new", seed=9), share_of_a("new score", seed=9)],
        episodes=mt.EpisodeConfig(n_way=(2, 3), k_shot=(0, 5), n_query=4, n_outside=1),
        config=mt.TrainConfig(
            output_dir=str(tmp_path), meta_steps=12, meta_batch_size=8, meta_lr=0.02, eval_steps=6, eval_episodes=4
        ),
    )
    assert {"eval_multilabel_macro_f1", "eval_spearman", "eval_loss"} < {*result.best}
    assert "no eval_tasks of kind classification: the other kinds choose the step" in caplog.text
    assert model.kinds == ("classification", "multilabel", "regression") and model.risk is None  # no unseen classification
    loaded = mt.MetaModel.from_pretrained(tmp_path)
    assert loaded.kinds == model.kinds
    fixed = {name for name, p in model.heads.named_parameters() if not p.requires_grad}
    last = [name for name, tensor in loaded.tensors().items() if torch.equal(tensor, before[name]) and name not in fixed]
    assert result.best["step"] == 0 or last == []
    for task in mixed():
        tables = [m.adapt(task.select(range(12))).predict_table(task.inputs(12, 15)) for m in (model, loaded)]
        assert all(list(tables[0][key]) == list(tables[1][key]) for key in tables[0])


def test_the_threshold_of_several_labels_is_learned(tiny, tmp_path):
    """On the held-out tasks, where it serves macro-F1 best; saved, and what predictions and figures go by."""
    config = mt.TrainConfig(output_dir=str(tmp_path), meta_steps=4, meta_batch_size=2)
    model, unseen = mt.MetaModel.from_encoder(tiny), letters_present("unseen", seed=3)
    model.threshold = 0.9  # of other weights
    mt.meta_train(
        model, [letters_present()], eval_tasks=[unseen], episodes=mt.EpisodeConfig(k_shot=(0, 5), n_query=4), config=config
    )
    features = encode_tasks(FeatureStore(tiny, progress=False), [unseen])
    figures = threshold_figures(model, features, 0)
    assert model.threshold == pytest.approx(THRESHOLDS[figures.argmax()]) and figures.max() > figures.min()
    assert mt.MetaModel.from_pretrained(tmp_path).threshold == model.threshold
    task = letters_present("new", seed=4)
    clf = model.adapt(task.select(range(10)))
    rows = task.inputs(10, 40)
    for threshold in (0.2, model.threshold, 0.8):
        clf.threshold = threshold
        expected = [[clf.labels[c] for c in np.flatnonzero(row >= threshold)] for row in clf.predict_proba(rows)]
        assert clf.predict(rows) == expected
    clf.save_pretrained(tmp_path / "clf")  # with the threshold that was set last
    assert mt.AdaptedModel.from_pretrained(tmp_path / "clf").predict(rows) == expected
    for wrong in (0, 1.5, "high", None, float("nan")):
        with pytest.raises(DataError, match="threshold: expected a probability between 0 and 1, got"):
            clf.threshold = wrong
    shape = mt.EpisodeConfig(k_shot=5, n_query=10)
    found = []
    for threshold in (0.02, 0.98):
        model.threshold = threshold
        found.append(mt.evaluate_tasks(model, [task], shape, 20, baselines=(), progress=False).mean()[0])
    batch = draw_for(encode_tasks(FeatureStore(tiny, progress=False), [task]), shape, 20, 0)
    of_new = encode_tasks(FeatureStore(tiny, progress=False), [task])
    p = torch.sigmoid(model(of_new.gather(batch)).values).detach().numpy()
    by_hand = [np.mean([METRICS["multilabel_macro_f1"](a >= t, y) for a, y in of_new.judged(p, batch, "")]) for t in (0.02, 0.98)]
    assert found == pytest.approx(by_hand)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "threshold": 1.5}))
    with pytest.raises(StorageError, match=r"threshold: expected a probability, got 1.5"):
        mt.MetaModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("make, metric", [(letters_present, None), (share_of_a, "rmse")])
def test_the_same_model_without_its_examples(tiny, make, metric):
    """What examples are worth: the column is what the model says at 0 examples, on the same queries."""
    model, task = mt.MetaModel.from_encoder(tiny), make("new", seed=4)
    measure = partial(mt.evaluate_tasks, model, [task], metric=metric, baselines=("without_examples",), progress=False)
    scores = measure(mt.EpisodeConfig(k_shot=6, n_query=10), 5).scores["new"]
    assert not np.isnan(scores["without_examples"]).any() and (scores["without_examples"] != scores["trained"]).any()
    none = measure(mt.EpisodeConfig(k_shot=0, n_query=10), 5).scores["new"]
    assert (none["trained"] == none["without_examples"]).all()


def test_only_the_kinds_trained_on_are_kept(tiny, tmp_path):
    model = mt.MetaModel.from_encoder(tiny)
    config = mt.TrainConfig(output_dir=str(tmp_path), meta_steps=2, meta_batch_size=2)
    mt.meta_train(model, [share_of_a()], episodes=mt.EpisodeConfig(k_shot=(0, 5), n_query=4), config=config)
    assert model.kinds == ("regression",) == mt.MetaModel.from_pretrained(tmp_path).kinds
    with pytest.raises(DataError, match="kind 'multilabel', but this head was trained for regression"):
        model.adapt(letters_present())
    with pytest.raises(ConfigError, match=r"kind 'multilabel': this model serves regression; make a new model for further kinds"):
        mt.meta_train(model, [letters_present()], config=config)
    with pytest.raises(
        ConfigError, match=r"kind 'regression': this model serves classification; the head 'ridge' has no form for it"
    ):
        mt.meta_train(mt.MetaModel.from_encoder(tiny, "ridge"), [share_of_a()], config=config)
    fresh = mt.MetaModel.from_encoder(tiny)
    with pytest.raises(
        DataError, match=r"eval_tasks: 'letters' is of kind multilabel, the tasks to train on are of kind regression"
    ):
        mt.meta_train(fresh, [share_of_a()], eval_tasks=[letters_present()], config=config)
    assert len(fresh.kinds) == len(KINDS) - 1  # a call that fails changes nothing; only a language model writes
    with pytest.raises(DataError, match=r"'letters' is of kind multilabel, trained serves regression"):
        mt.evaluate_tasks(model, [letters_present()], progress=False)


def test_kind_weights_scale_the_losses_of_a_kind(tiny, tmp_path):
    ends = {}
    for weight in ("0", "1"):
        model = mt.MetaModel.from_encoder(tiny)
        start = {name: tensor.clone() for name, tensor in model.tensors().items()}
        config = mt.TrainConfig(
            output_dir=str(tmp_path / weight), meta_steps=3, meta_batch_size=6, kind_weights=(f"regression={weight}",)
        )
        mt.meta_train(model, mixed(), episodes=mt.EpisodeConfig(n_way=2, k_shot=(1, 5), n_query=4), config=config)
        ends[weight] = [name for name, tensor in model.tensors().items() if not torch.equal(tensor, start[name])]
    assert not any(name.startswith("regression.") for name in ends["0"]) and any(
        name.startswith("multilabel.") for name in ends["0"]
    )
    assert any(name.startswith("regression.") for name in ends["1"])
    for wrong, message in (
        (("span=2",), "no kind is called 'span'"),
        (("regression",), "expected name=factor"),
        ([f"{kind}=0" for kind in sorted({task.kind for task in mixed()})], r"every kind has the factor 0 \(.*\); give one"),
    ):
        with pytest.raises(ConfigError, match=f"kind_weights: {message}"):
            mt.meta_train(
                mt.MetaModel.from_encoder(tiny),
                mixed(),
                config=mt.TrainConfig(output_dir=str(tmp_path / "no"), kind_weights=wrong),
            )


@BOTH
def test_no_seed_moves_what_an_untrained_head_answers(kind):
    support, query = episode(kind)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        head = make_head(mt.HeadConfig("gp", rank=2), D, kind).double().eval()
        found.append(answer(head, support, query).values)
    assert torch.equal(*found)


@BOTH
def test_measured_beside_the_baselines_of_its_kind(tiny, kind):
    task = {"multilabel": letters_present, "regression": share_of_a}[kind](rows=60)
    model = mt.MetaModel.from_encoder(tiny)
    shape = mt.EpisodeConfig(k_shot=16, n_query=20)
    report = mt.evaluate_tasks(model, [task], shape, n_episodes=8, progress=False)
    assert report.metric == KINDS[kind].metrics[0] and not report.judged and "%" in str(report)
    rivals = {"multilabel": ["logistic_regression"], "regression": ["ridge_regression", "pair_cosine"]}[kind]
    assert report.methods == ["trained", "untrained", *rivals]
    assert report.mean("trained") == report.mean("untrained")
    assert report.to_dict(["untrained"])["pooled"]["trained"] == {}
    names = mt.evaluate_tasks(model, [task], shape, n_episodes=4, baselines=("label_names",), progress=False)
    assert np.isnan(names.mean("label_names")[0])  # it answers classifications only
    with pytest.raises(ConfigError, match=rf"metric: 'accuracy'.* For {kind}"):
        mt.evaluate_tasks(model, [task], shape, n_episodes=2, metric="accuracy", progress=False)
    with pytest.raises(DataError, match="measure each kind by itself"):
        mt.evaluate_tasks(model, [task, mt.load_tasks("starter/test")[0]], shape, progress=False)


def test_errors_of_scores_are_in_their_own_unit(tiny):
    model, shape = mt.MetaModel.from_encoder(tiny), mt.EpisodeConfig(k_shot=16, n_query=20)
    found = [
        mt.evaluate_tasks(model, [share_of_a("s", rows=60, unit=unit)], shape, n_episodes=6, metric="rmse", progress=False)
        for unit in (1.0, 100.0)
    ]
    small, large = (report.mean("trained")[0] for report in found)
    assert large == pytest.approx(100 * small, rel=1e-3) and 0 < small < 0.3
    assert "rmse in its own unit" in str(found[1]) and "%" not in str(found[1]).replace("95 %", "")


def test_the_cosine_of_a_pair_orders_as_its_feature_says(embedded):
    """What heads read along `alike_direction` is the baseline, up to what the joint reading adds."""
    task = next(task for task in mt.load_tasks("starter/regression/test") if task.is_pair)
    report = mt.evaluate_tasks(
        mt.MetaModel.from_encoder(embedded),
        [task],
        mt.EpisodeConfig(k_shot=0, n_query=40),
        4,
        baselines=("pair_cosine",),
        progress=False,
    )
    assert abs(report.mean("trained")[0] - report.mean("pair_cosine")[0]) < 0.05


def test_one_against_the_rest_is_scikit_learn(tiny):
    from sklearn.linear_model import LogisticRegression

    from metatext.baselines import baseline
    from metatext.evaluation import draw_for
    from metatext.methods import Draw

    features = encode_tasks(FeatureStore(tiny, progress=False), [letters_present()])
    batch = draw_for(features, mt.EpisodeConfig(k_shot=12, n_query=5), 3, 0)
    draw = Draw(features.gather(batch), batch, features)
    found = baseline("logistic_regression", mt.MetaModel.from_encoder(tiny))(draw).probabilities.numpy()
    support, query = draw.features.support, draw.features.query
    for i in range(3):
        for c in range(4):
            fitted = LogisticRegression(C=10, max_iter=500).fit(support.x[i].numpy(), support.y[i, :, c].numpy())
            np.testing.assert_allclose(found[i, :, c], fitted.predict_proba(query[i].numpy())[:, 1], rtol=1e-4)
