"""Every head in the table keeps the protocol; each also gives the numbers of its formula."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, normalize

from metatext import ConfigError, HeadConfig
from metatext.heads import HEADS, Logits, gp, make_head, solving
from metatext.heads.metanet import MetaNetwork
from metatext.heads.protocol import Novelty
from metatext.losses import classification, meta_loss
from metatext.representation import Support

D = 6


@pytest.fixture(params=[(name, rank) for name in HEADS for rank in (0, 2)], ids=lambda p: f"{p[0]}-rank{p[1]}")
def config(request) -> HeadConfig:
    return HeadConfig(name=request.param[0], rank=request.param[1], hidden_dim=7, token_dim=3)


@pytest.fixture
def head(config):
    """A head in float64 whose every number has left its start, as after training."""
    return shaken(config)


def shaken(config: HeadConfig, dim: int = D, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    head = make_head(config, dim).to(dtype).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    return head


def learned(head) -> list[tuple[str, torch.nn.Parameter]]:
    """The parameters that training may move, by name."""
    return [(name, parameter) for name, parameter in head.named_parameters() if parameter.requires_grad]


def unit(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def task(shots, b: int = 1, d: int = D, seed: int = 0, q: int = 4) -> tuple[Support, torch.Tensor]:
    """b random tasks with ``shots[c]`` rows of class c, all parts given, and their (b, q, d) queries."""
    g = torch.Generator().manual_seed(seed)
    w, y = len(shots), torch.repeat_interleave(torch.arange(len(shots)), torch.tensor(shots))
    s = len(y)
    support = Support(
        x=unit(b, s, d, generator=g),
        y=torch.nn.functional.one_hot(y, w).double().expand(b, -1, -1).clone(),
        label_x=unit(b, w, d, generator=g),
        task_x=unit(b, d, generator=g),
        row_mask=torch.ones(b, s, dtype=torch.bool),
        class_mask=torch.ones(b, w, dtype=torch.bool),
        label_mask=torch.ones(b, w, dtype=torch.bool),
        task_mask=torch.ones(b, dtype=torch.bool),
    )
    return support, unit(b, q, d, generator=g)


def answer(head, support: Support, query: torch.Tensor) -> Logits:
    return head.logits(head.adapt(support), query, torch.ones(query.shape[:2], dtype=torch.bool))


def close(one: Logits, other: Logits, tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(one.values, other.values, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one.none, other.none, rtol=tolerance, atol=tolerance)


SHAPES = pytest.mark.parametrize("shots", [[1, 1], [5, 5, 5], [0, 0, 0], [3, 0, 1], [0, 9], [8, 1, 0, 4]], ids=str)


def test_the_help_names_every_head():
    said = next(item.metadata["help"] for item in dataclasses.fields(HeadConfig) if item.name == "name")
    assert f": {', '.join(HEADS)}, or one of your own" in said


def test_a_head_that_nobody_has():
    expected = r"head: expected one of gp, .*, got 'rigde'; did you mean 'ridge'\? A head of your own needs a row in metatext.heads.HEADS"
    with pytest.raises(ConfigError, match=expected):
        make_head(HeadConfig("rigde"), D)


def test_a_head_without_parameters(monkeypatch):
    monkeypatch.setitem(HEADS, "nothing", lambda dim, config: torch.nn.Identity())
    with pytest.raises(ConfigError, match="head: 'nothing' has no parameter, so nothing could be learned"):
        make_head(HeadConfig("nothing"), D)


@SHAPES
def test_no_seed_moves_what_an_untrained_head_answers(config, shots):
    """So the baseline "untrained" is no draw of a start, and says so."""
    support, query = task(shots)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(answer(make_head(config, D).double().eval(), support, query))
    assert torch.equal(found[0].values, found[1].values) and torch.equal(found[0].none, found[1].none)


def test_make_head_takes_its_settings(config):
    head = make_head(config, D)
    assert type(head) is HEADS[config.name]
    assert (head.representation.down is None) == (config.rank == 0)


@SHAPES
def test_shapes(head, shots):
    support, query = task(shots, b=3)
    params = head.adapt(support)
    assert all(isinstance(p, torch.Tensor) and p.shape[0] == 3 for p in params.values())
    logits = head.logits(params, query, torch.ones(3, 4, dtype=torch.bool))
    assert logits.values.shape == (3, 4, len(shots)) and logits.none.shape == (3, 4)
    assert logits.values.isfinite().all() and logits.none.isfinite().all()


@pytest.mark.parametrize("n_way", [2, 3, 10, 77, 150])
@pytest.mark.parametrize("k_shot", [0, 1, 3])
def test_any_n_way_in_float32(config, n_way, k_shot):
    head = make_head(config, 16).eval()
    support, query = task([k_shot] * n_way, d=16)
    logits = answer(head, support.to(torch.float32), query.float())
    assert logits.values.shape == (1, 4, n_way) and logits.values.dtype == torch.float32
    assert logits.values.isfinite().all() and logits.none.isfinite().all()


def test_zero_shots_follow_the_names(config):
    head = make_head(config, D).double().eval()
    support, _ = task([0, 0, 0])
    logits = answer(head, dataclasses.replace(support, task_mask=torch.zeros(1, dtype=torch.bool)), support.label_x)
    assert logits.values[0].argmax(-1).tolist() == [0, 1, 2]


def test_masked_rows_are_zero_shots(head):
    support, query = task([2, 1, 3])
    nothing, _ = task([0, 0, 0])
    nothing = dataclasses.replace(nothing, label_x=support.label_x, task_x=support.task_x)
    masked = dataclasses.replace(support, row_mask=torch.zeros_like(support.row_mask))
    close(answer(head, masked, query), answer(head, nothing, query))


@SHAPES
def test_order_of_rows_does_not_matter(head, shots):
    support, query = task(shots)
    order = torch.randperm(sum(shots), generator=torch.Generator().manual_seed(3))
    other = dataclasses.replace(support, x=support.x[:, order], y=support.y[:, order], row_mask=support.row_mask[:, order])
    close(answer(head, support, query), answer(head, other, query))


@SHAPES
def test_columns_follow_a_permutation_of_the_classes(head, shots):
    support, query = task(shots)
    order = torch.randperm(len(shots), generator=torch.Generator().manual_seed(5))
    changes = {name: getattr(support, name)[:, order] for name in ("label_x", "class_mask", "label_mask")}
    other = dataclasses.replace(support, y=support.y[..., order], **changes)
    one = answer(head, support, query)
    close(Logits(one.values[..., order], one.none), answer(head, other, query))


def padded(support: Support, query: torch.Tensor, rows: int, classes: int, queries: int):
    """The same task in wider tensors; what stands in the padding is loud."""
    b, s, w = support.y.shape
    d = support.x.shape[-1]
    no = lambda *shape: torch.zeros(*shape, dtype=torch.bool)  # noqa: E731
    y = torch.zeros(b, s + rows, w + classes, dtype=support.y.dtype)
    y[:, :s, :w] = support.y
    y[:, s:] = 1.0
    wide = Support(
        x=torch.cat([support.x, torch.full((b, rows, d), 3.0, dtype=support.x.dtype)], 1),
        y=y,
        label_x=torch.cat([support.label_x, torch.full((b, classes, d), -2.0, dtype=support.x.dtype)], 1),
        task_x=support.task_x,
        row_mask=torch.cat([support.row_mask, no(b, rows)], 1),
        class_mask=torch.cat([support.class_mask, no(b, classes)], 1),
        label_mask=torch.cat([support.label_mask, no(b, classes)], 1),
        task_mask=support.task_mask,
    )
    query = torch.cat([query, torch.full((b, queries, d), 5.0, dtype=query.dtype)], 1)
    mask = torch.ones(query.shape[:2], dtype=torch.bool)
    mask[:, mask.shape[1] - queries :] = False
    return wide, query, mask


@SHAPES
@pytest.mark.parametrize("extra", [(3, 0, 0), (0, 2, 0), (0, 0, 3), (40, 3, 1)], ids=str)
def test_padding_changes_nothing(head, shots, extra):
    support, query = task(shots, b=2)
    wide, long, mask = padded(support, query, *extra)
    params = head.adapt(wide)
    logits = head.logits(params, long, mask)
    n, w = query.shape[1], len(shots)
    one = answer(head, support, query)
    close(one, Logits(logits.values[:, :n, :w], logits.none[:, :n]), 1e-6)
    assert (logits.values[:, :n, w:] == torch.finfo(torch.float64).min).all()
    assert not logits.values[:, :n].softmax(-1)[..., w:].any()  # a padded class has no probability
    y, outside = torch.zeros(mask.shape, dtype=torch.long), torch.zeros(mask.shape, dtype=torch.bool)
    torch.testing.assert_close(
        classification(logits, torch.where(mask, y, -1), mask, outside),
        classification(one, y[:, :n], mask[:, :n], outside[:, :n]),
        rtol=1e-6,
        atol=1e-6,
    )


def test_padded_classes_are_not_near(config):
    """Whatever the threshold has learned: a padded class is further away than any other."""
    head = make_head(config, D).double().eval()
    novelty = next(module for module in head.modules() if isinstance(module, Novelty))
    with torch.no_grad():
        novelty.threshold.copy_(torch.tensor([0.9, 0.9, 0.9]))
    support, query = task([3, 3, 3, 3])
    wide, long, mask = padded(support, query, 0, 5, 0)
    close(Logits(query, answer(head, support, query).none), Logits(query, head.logits(head.adapt(wide), long, mask).none), 1e-6)


def test_batching_changes_nothing(head):
    tasks = [task([2, 0, 1], seed=1), task([1, 1], seed=2), task([0, 0, 0, 0], seed=3)]
    alone = [answer(head, *one) for one in tasks]
    rows, ways = max(s.x.shape[1] for s, _ in tasks), max(s.y.shape[2] for s, _ in tasks)
    wide = [padded(s, q, rows - s.x.shape[1], ways - s.y.shape[2], 0) for s, q in tasks]
    support = Support(*(torch.cat([getattr(w[0], f.name) for w in wide]) for f in dataclasses.fields(Support)))
    together = answer(head, support, torch.cat([w[1] for w in wide]))
    for i, one in enumerate(alone):
        close(one, Logits(together.values[i : i + 1, :, : one.values.shape[2]], together.none[i : i + 1]), 1e-6)


@SHAPES
def test_queries_do_not_see_each_other(head, shots):
    support, query = task(shots, b=2)
    params, mask = head.adapt(support), torch.ones(2, 4, dtype=torch.bool)
    logits = head.logits(params, query, mask)
    for i in range(4):
        one = head.logits(params, query[:, i : i + 1], mask[:, i : i + 1])
        close(Logits(logits.values[:, i : i + 1], logits.none[:, i : i + 1]), one)


def test_a_masked_query_may_hold_anything(head):
    support, query = task([2, 2])
    broken, mask = query.clone(), torch.ones(1, 4, dtype=torch.bool)
    broken[:, 2], mask[:, 2] = torch.nan, False
    logits, one = head.logits(head.adapt(support), broken, mask), answer(head, support, query)
    keep = [0, 1, 3]
    close(Logits(one.values[:, keep], one.none[:, keep]), Logits(logits.values[:, keep], logits.none[:, keep]))


def test_adapt_and_logits_keep_nothing(head):
    support, query = task([2, 1])
    before = {k: v.clone() for k, v in head.state_dict().items()}
    first = answer(head, support, query)
    answer(head, *task([0, 4, 1], seed=9))
    close(first, answer(head, support, query), 0.0)
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())


def differ(one: dict, other: dict) -> bool:
    return any(one[k].shape != other[k].shape or not torch.allclose(one[k], other[k], atol=1e-9) for k in one)


CHANGES = {
    "support texts": lambda s: dataclasses.replace(s, x=s.x.flip(1).flip(2)),
    "support labels": lambda s: dataclasses.replace(s, y=s.y.roll(1, 1)),
    "label names": lambda s: dataclasses.replace(s, label_x=s.label_x.flip(2)),
    "description": lambda s: dataclasses.replace(s, task_x=s.task_x.flip(1)),
}
MISSING = {
    "support": lambda s: dataclasses.replace(s, row_mask=torch.zeros_like(s.row_mask)),
    "label names": lambda s: dataclasses.replace(s, label_mask=torch.zeros_like(s.label_mask)),
    "one label name": lambda s: dataclasses.replace(s, label_mask=torch.tensor([[True, False, True]])),
    "description": lambda s: dataclasses.replace(s, task_mask=torch.zeros_like(s.task_mask)),
    "names and description": lambda s: MISSING["label names"](MISSING["description"](s)),
}


@pytest.mark.parametrize("part", CHANGES)
def test_each_part_changes_the_parameters(head, part):
    support, _ = task([2, 3, 1])
    assert differ(head.adapt(support), head.adapt(CHANGES[part](support)))


@pytest.mark.parametrize("part", MISSING)
def test_each_part_may_be_missing(head, part):
    support, query = task([2, 3, 1])
    less = MISSING[part](support)
    params = head.adapt(less)
    logits = answer(head, less, query)
    assert all(p.isfinite().all() for p in params.values())
    assert logits.values.isfinite().all() and logits.none.isfinite().all()
    assert differ(head.adapt(support), params)


@pytest.mark.parametrize(
    "mask, field", [("row_mask", "x"), ("row_mask", "y"), ("label_mask", "label_x"), ("task_mask", "task_x")], ids=str
)
def test_what_is_masked_is_not_read(head, mask, field):
    support, query = task([2, 3, 1])
    hidden = dataclasses.replace(support, **{mask: torch.zeros_like(getattr(support, mask))})
    loud = dataclasses.replace(hidden, **{field: torch.full_like(getattr(hidden, field), 4.0)})
    close(answer(head, hidden, query), answer(head, loud, query))


def loss_of(head, support: Support, query: torch.Tensor) -> torch.Tensor:
    """The meta-loss with one outside and one padded query row."""
    b, q = query.shape[:2]
    mask = torch.ones(b, q, dtype=torch.bool)
    mask[:, -1] = False
    outside = torch.zeros(b, q, dtype=torch.bool)
    outside[:, -2] = True
    y = (torch.arange(q) % support.y.shape[2]).expand(b, -1).masked_fill(outside | ~mask, -1)
    return meta_loss(classification(head.logits(head.adapt(support), query, mask), y, mask, outside))


@pytest.mark.parametrize("shots", [[1, 1], [2, 0, 1], [5, 4]], ids=str)
def test_gradients_of_the_features(config, shots):
    head = shaken(config, 4)
    support, query = task(shots, d=4)

    def loss(x, label_x, task_x, query):
        return loss_of(head, dataclasses.replace(support, x=x, label_x=label_x, task_x=task_x), query)

    inputs = [t.clone().requires_grad_() for t in (support.x, support.label_x, support.task_x, query)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_gradients_of_the_parameters(config):
    head = shaken(config, 4)
    support, query = task([2, 1, 0], d=4)
    names, values = zip(*((n, p.detach().clone().requires_grad_()) for n, p in learned(head)), strict=True)

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self):
            return loss_of(self.head, support, query)

    def loss(*parameters):
        return torch.func.functional_call(Both(), {f"head.{n}": p for n, p in zip(names, parameters, strict=True)}, ())

    assert torch.autograd.gradcheck(loss, values)


@SHAPES
@pytest.mark.parametrize("zeros", [0, 3], ids=["", "padded"])
@pytest.mark.parametrize("start", ["untrained", "shaken"])
def test_every_parameter_has_a_finite_gradient(config, shots, zeros, start):
    head = make_head(config, D).double().eval() if start == "untrained" else shaken(config)
    support, query = task(shots, b=2)
    if zeros:  # padding as the features give it: zeros, whose length no gradient may be divided by
        wide, query, _ = padded(support, query, zeros, 2, 1)
        support = dataclasses.replace(
            wide,
            x=wide.x * wide.row_mask[..., None],
            y=wide.y * wide.row_mask[..., None],
            label_x=wide.label_x * wide.class_mask[..., None],
            task_x=torch.zeros_like(wide.task_x),
            task_mask=torch.zeros_like(wide.task_mask),
        )
        query[:, -1] = 0.0
    loss = loss_of(head, support, query)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in learned(head):
        assert parameter.grad is not None, f"{name} has no part in the loss"
        assert parameter.grad.isfinite().all(), name


def test_training_moves_every_parameter(config):
    """Two steps, as what starts behind a zero matrix moves in the second only."""
    head = make_head(config, D).double()
    shots = [2, 1, 3, 0]
    support, query = task(shots, b=3)
    near = support.label_x.repeat_interleave(torch.tensor(shots), 1)  # rows that their names explain in part
    support = dataclasses.replace(support, x=normalize(support.x + 0.5 * near, dim=-1))
    before = {n: p.detach().clone() for n, p in head.named_parameters()}
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(head, support, query).backward()
        optimizer.step()
    assert not [n for n, p in learned(head) if torch.equal(p, before[n])]
    assert not [n for n, p in head.named_parameters() if not p.requires_grad and not torch.equal(p, before[n])]


# --- the numbers of each formula -------------------------------------------------------------------------------------


def plane(**changes) -> tuple[Support, torch.Tensor]:
    """Two classes in the plane: two rows of the first, one of the second, and two queries."""
    support, _ = task([2, 1], d=2)
    values = {
        "x": [[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]],
        "label_x": [[[0.8, -0.6], [-0.6, 0.8]]],
        "task_x": [[0.0, 1.0]],
        **changes,
    }
    support = dataclasses.replace(support, **{k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()})
    return support, torch.tensor([[[0.6, 0.8], [1.0, 0.0]]], dtype=torch.float64)


def gain_by_numpy(scores: np.ndarray, y: np.ndarray) -> float:
    """1 + mean log-likelihood / log w."""
    return max(1 + (scores[y > 0] - np.log(np.exp(scores).sum(1))).mean() / np.log(y.shape[1]), -1)


def trust_by_numpy(x: np.ndarray, y: np.ndarray, names: np.ndarray) -> float:
    """The gate on label names."""
    explained = gain_by_numpy(15 * (x @ names.T - (x @ names.T).mean(0)), y) if len(x) else 1.0
    return max(1 / (1 + np.exp(-14 * (explained - 0.12))), 0.02)


def test_prototype_by_hand():
    support, query = plane()
    head = make_head(HeadConfig("prototype"), 2).double().eval()
    with torch.no_grad():
        head.representation.alpha.copy_(torch.tensor([0.3, 0.7]))
        head.temperature.log_scale.copy_(torch.tensor([1.0, 0.5, -0.25]))
        head.novelty.slope.fill_(1.5)
        head.novelty.threshold.copy_(torch.tensor([0.4, 0.1, -0.2]))
    gamma = head.representation.gamma.item()
    names = np.array([[0.8, -0.6], [-0.6, 0.8]]) + gamma * np.array([0.0, 1.0])
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    count = np.array([2.0, 1.0])
    sums = np.array([[1.6, 0.8], [0.0, 1.0]])
    trust = trust_by_numpy(support.x[0].numpy(), support.y[0].numpy(), names)
    classes = sums + trust * (np.exp(0.3) * (1 + count) ** 0.7)[:, None] * names
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    temperature = np.exp(1.0) * (1 + 1.5) ** 0.5 * 2**-0.25  # 1.5 shots in the mean, 2 ways
    cosine = query[0].numpy() @ classes.T
    logits = answer(head, support, query)
    np.testing.assert_allclose(logits.values[0].detach(), temperature * cosine, rtol=1e-6)
    own = np.array([(support.x[0].numpy()[:2] @ classes[0]).mean(), support.x[0].numpy()[2] @ classes[1]])  # cohesion
    level = 0.4 + 0.1 * np.log(1 + 1.5) - 0.2 * np.log(2) + 0.5 * own
    expected = -np.exp(1.5) * ((cosine - level).max(1) + 0.6 * cosine.max(1))
    np.testing.assert_allclose(logits.none[0].detach(), expected, rtol=1e-6)


def test_a_class_without_rows_is_as_close_as_is_learned():
    support, _ = task([0, 0])
    head = make_head(HeadConfig("prototype"), D).double().eval()
    with torch.no_grad():
        head.novelty.alone.fill_(0.2)
    level = head.novelty.threshold[0] + head.novelty.threshold[2] * np.log(2) + 0.5 * 0.2
    torch.testing.assert_close(head.adapt(support)["level"].detach(), level.detach().expand(1, 2))


def test_prototype_without_names_is_the_mean():
    support, query = plane()
    support = MISSING["names and description"](support)
    head = make_head(HeadConfig("prototype"), 2).double().eval()
    classes = np.array([[2, 1], [0, 1]]) / np.array([[5**0.5], [1.0]])
    np.testing.assert_allclose(answer(head, support, query).values[0].detach(), 20 * query[0].numpy() @ classes.T, rtol=1e-6)


def ridge_by_numpy(head, support: Support, dual: bool) -> np.ndarray:
    """W = W0 + X^T (X X^T + lam I)^-1 (Y - X W0), or the same in its primal form: (w, d)."""
    x, y = support.x[0].numpy(), support.y[0].numpy()
    w = y.shape[1]
    names = support.label_x[0].numpy() + head.representation.gamma.item() * support.task_x[0].numpy()
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    shots = np.log1p(len(x) / w)
    (a, b), (e, f) = head.log_lambda.tolist(), head.log_beta.tolist()
    lam, beta = np.exp(a + b * shots), np.exp(e + f * shots)
    prior = trust_by_numpy(x, y, names) * beta * (names - names.mean(0)).T  # (d, w)
    residual = (y - 1 / w) - x @ prior
    if dual:
        return (prior + x.T @ np.linalg.inv(x @ x.T + lam * np.eye(len(x))) @ residual).T
    return (prior + np.linalg.inv(x.T @ x + lam * np.eye(x.shape[1])) @ x.T @ residual).T


@pytest.mark.parametrize("shots", [[1, 2], [2, 0, 1], [4, 5, 6], [2, 2, 2], [7, 0]], ids=str)
def test_ridge_against_numpy_in_both_forms(shots):
    head = shaken(HeadConfig("ridge"))
    support, query = task(shots)
    params = head.adapt(support)
    for dual in (True, False):  # D = 6: the head itself takes the first form for 2, 3, 6 rows, the second for 7 and 15
        weights = ridge_by_numpy(head, support, dual)
        np.testing.assert_allclose(params["weights"][0].detach(), weights, rtol=1e-9, atol=1e-9)
    expected = params["scale"].item() * query[0].numpy() @ weights.T
    np.testing.assert_allclose(answer(head, support, query).values[0].detach(), expected, rtol=1e-9, atol=1e-9)


def test_ridge_minimises_its_objective():
    head = shaken(HeadConfig("ridge"))
    support, _ = task([3, 2, 4])
    x, y = support.x[0], support.y[0] - 1 / 3
    shots = np.log1p(3)
    lam = (head.log_lambda[0] + head.log_lambda[1] * shots).exp().item()
    nothing = dataclasses.replace(support, row_mask=torch.zeros_like(support.row_mask))
    beta = (head.log_beta[1] * shots).exp()  # the prior at no rows has beta(0)
    names = normalize(support.label_x[0] + head.representation.gamma.detach() * support.task_x[0], dim=-1).numpy()
    trust = trust_by_numpy(x.numpy(), support.y[0].numpy(), names) / trust_by_numpy(x.numpy()[:0], None, names)
    prior = (trust * beta * head.adapt(nothing)["weights"][0]).detach()

    def objective(weights):
        return ((x @ weights.T - y) ** 2).sum() + lam * ((weights - prior) ** 2).sum()

    best = head.adapt(support)["weights"][0].detach()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = 1e-2 * torch.randn(best.shape, generator=generator, dtype=torch.float64)
        assert objective(best + step) > objective(best)


def test_ridge_without_rows_is_its_prior():
    head = make_head(HeadConfig("ridge"), D).double()
    support, _ = task([0, 0, 0])
    support = MISSING["description"](support)
    names = support.label_x[0]
    trust = 1 / (1 + np.exp(-14 * 0.88))  # nothing speaks against the names
    torch.testing.assert_close(head.adapt(support)["weights"][0].detach(), trust * (names - names.mean(0)))


@pytest.mark.parametrize("shots", [[0, 0, 0], [2, 1, 3], [4, 0, 1]], ids=str)
@pytest.mark.parametrize("near", [0.0, 0.8, 1.0])
def test_gp_by_numpy(shots, near):
    """The formulas of the class's docstring, written down again for one task without padding; every row really left out."""
    head = shaken(HeadConfig("gp"))
    support, query = task(shots)
    support = dataclasses.replace(
        support, x=normalize(support.x + near * support.label_x.repeat_interleave(torch.tensor(shots), 1), dim=-1)
    )
    x, y, q, w = support.x[0].numpy(), support.y[0].numpy(), query[0].numpy(), len(shots)
    names = support.label_x[0].numpy() + head.representation.gamma.item() * support.task_x[0].numpy()
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    explained = gain_by_numpy(15 * (x @ names.T - (x @ names.T).mean(0)), y) if len(x) else 1.0
    gate = trust_by_numpy(x, y, names)

    def kernel(a, b):
        return np.exp(2 * (a @ b.T - 1))

    def prior(a, p):
        values = a @ names.T
        return gate * p * (values - values.mean(1, keepdims=True))

    def predict(a, z, labels, noise, p):
        return prior(a, p) + kernel(a, z) @ np.linalg.inv(kernel(z, z) + noise) @ (labels - 1 / w - prior(z, p))

    base = head.temperature(head.representation(support)).item()
    p = 0.6
    expected = prior(q, p)  # without rows
    statistics = [np.log1p(len(x) / w) - 1.5, explained, 1.0, 0.0]
    if len(x):
        z, labels = np.concatenate([x, names]), np.concatenate([y, np.eye(w)])
        noise = np.diag([0.35 - 0.3 * max(explained, 0)] * len(x) + [0.07 / gate] * w)
        rest = [np.arange(len(z)) != i for i in range(len(x))]

        def leave_out(p):
            return np.concatenate([predict(x[i : i + 1], z[r], labels[r], noise[r][:, r], p) for i, r in enumerate(rest)])

        lack = np.clip(explained - gain_by_numpy(12 * leave_out(p), y), 0, 1)
        assert (lack > 0.05) == (near > 0 and 0 not in shots)  # both are seen
        p += 5 * lack * (1 - max(explained, 0))
        left_out, expected = base * leave_out(p), predict(q, z, labels, noise, p)
        likely = np.exp(left_out) / np.exp(left_out).sum(1, keepdims=True)
        statistics[2:] = gain_by_numpy(left_out, y), np.clip(((y - likely) * left_out).sum(1).mean(), -3, 3)
    read = torch.tensor([statistics], dtype=torch.float64)
    scale = base * np.exp(2 * np.tanh(head.network(read).item() / 2))
    assert head.adapt(support)["scale"].item() == pytest.approx(scale, rel=1e-8)
    np.testing.assert_allclose(answer(head, support, query).values[0].detach(), scale * expected, rtol=1e-8, atol=1e-8)


def test_gp_averages_rows_beyond_its_limit(monkeypatch):
    """Copies of a row are one row with so much less noise: there the averages are exact."""
    head = shaken(HeadConfig("gp", generated=False))  # a left-out group is more than a left-out row
    support, query = task([9, 9, 0], b=2)  # a limit of 6 makes 3 groups in each class that has rows
    source = torch.tensor([0, 1, 2] * 3 + [9, 10, 11] * 3)
    support = dataclasses.replace(support, x=support.x[:, source])
    exact = answer(head, support, query)
    wide, _, _ = padded(support, query, 4, 0, 0)
    monkeypatch.setattr(gp, "ROWS", 6)
    assert head.adapt(support)["rows"].shape[1] == 6
    close(exact, answer(head, support, query))
    close(exact, answer(head, wide, query))


def test_a_class_has_as_many_groups_as_its_share_of_the_rows(monkeypatch):
    monkeypatch.setattr(gp, "ROWS", 10)
    support, _ = task([17, 3, 0])
    rows, labels, size = gp.grouped(support.x, support.y, support.row_mask)
    assert (labels > 0).sum(1).tolist() == [[8, 1, 0]] and rows.shape[1] == 9
    assert (labels * size[..., None]).sum(1).tolist() == [[17, 3, 0]]


@pytest.mark.parametrize("name", ["gp", "attention"])
def test_order_of_rows_does_not_matter_beyond_the_limit(name, monkeypatch):
    monkeypatch.setattr(gp, "ROWS", 12)
    head = shaken(HeadConfig(name))
    support, query = task([9, 14, 5], b=2)
    order = torch.randperm(28, generator=torch.Generator().manual_seed(3))
    other = dataclasses.replace(support, x=support.x[:, order], y=support.y[:, order], row_mask=support.row_mask[:, order])
    close(answer(head, support, query), answer(head, other, query))


def test_gp_beyond_its_limit_has_finite_gradients(monkeypatch):
    monkeypatch.setattr(gp, "ROWS", 5)
    head = shaken(HeadConfig("gp", rank=2))
    loss_of(head, *task([7, 0, 1], b=2)).backward()
    assert all(p.grad.isfinite().all() for _, p in learned(head))


@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 16, 1)])
def test_meta_network_is_two_layers(shape):
    torch.manual_seed(0)
    network = MetaNetwork(*shape).eval()
    x = torch.randn(4, 6, shape[0])
    out = network(x)
    hidden = gelu(x @ network.hidden.weight.T + network.hidden.bias)
    torch.testing.assert_close(out, hidden @ network.output.weight.T + network.output.bias)
    assert out.shape == (4, 6, shape[2])
    assert [tuple(p.shape) for p in network.parameters()] == [
        (shape[1], shape[0]),
        (shape[1],),
        (shape[2], shape[1]),
        (shape[2],),
    ]


def test_meta_network_drops_in_training_only():
    network = MetaNetwork(5, 64, 3, dropout=0.5)
    x = torch.randn(2, 5)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@SHAPES
def test_metanet_untrained_is_the_prototype_head(shots):
    support, query = task(shots)
    heads = [make_head(HeadConfig(name), D).double().eval() for name in ("metanet", "prototype")]
    close(*(answer(head, support, query) for head in heads), 1e-12)


def test_metanet_adds_what_its_network_writes():
    head = shaken(HeadConfig("metanet", hidden_dim=5))
    support, query = task([2, 1, 0])
    params = head.adapt(support)
    read = head.representation(support)
    written = head.network(torch.cat([read.classes, read.task[:, None].expand(-1, 3, -1)], -1))
    values = params["scale"] * (query[0] @ (read.classes + written[..., :-1])[0].T + written[0, :, -1])
    torch.testing.assert_close(answer(head, support, query).values[0], values)


@pytest.mark.parametrize("name", HEADS)
def test_names_that_say_nothing_are_not_believed(name):
    """Twelve rows near their class's axis, names that stand for other classes: no head answers with the name's class."""
    axes = torch.eye(D, dtype=torch.float64)[:3]
    support, _ = task([4, 4, 4], seed=4)
    x = normalize(axes.repeat_interleave(4, 0) + 0.3 * support.x[0], dim=-1)
    support = dataclasses.replace(support, x=x[None], label_x=axes[[1, 2, 0]][None], task_mask=torch.zeros(1, dtype=torch.bool))
    head = make_head(HeadConfig(name), D).double().eval()
    assert answer(head, support, axes[None]).values[0].argmax(-1).tolist() == [0, 1, 2]
    nothing, _ = task([0, 0, 0])
    nothing = dataclasses.replace(nothing, label_x=support.label_x, task_mask=support.task_mask)
    assert answer(head, nothing, axes[None]).values[0].argmax(-1).tolist() == [2, 0, 1]  # without rows there is nothing else


def test_systems_are_solved_where_rounding_took_a_matrix_out_of_the_positive_definite_ones():
    good, bad = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues 3 and 1, 3 and -1
    for matrix in (good[None], torch.stack([good, bad])):
        torch.testing.assert_close(solving.inverse(matrix) @ matrix, torch.eye(2).expand_as(matrix))
        values = torch.ones(len(matrix), 2, 1)
        torch.testing.assert_close(solving.solve(matrix, values), values / 3)


def test_several_tasks_of_many_rows_with_threads_set_by_hand():
    """`torch.set_num_threads` breaks torch's own batched LU (pytorch issue 142815), in a process that began with one thread."""
    code = """
import torch
from metatext import HeadConfig
from metatext.heads import make_head
from test_heads import task

support, query = task([90, 90], b=3, d=8)
for name in ("gp", "ridge"):
    head, answers = make_head(HeadConfig(name), 8).double(), []
    for n in (1, 2):
        torch.set_num_threads(n)
        answers.append(head.logits(head.adapt(support), query, torch.ones(query.shape[:2], dtype=bool)).values)
    torch.testing.assert_close(*answers)
"""
    here = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **here}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
