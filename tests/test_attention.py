"""The head `attention`: its relations by hand, what it starts as, and what it may not depend on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from metatext import HeadConfig
from metatext.heads import make_head
from metatext.heads.attention import RELATIONS, SHARPNESS, SelfAttention, _contrast, _relations
from metatext.losses import classification, meta_loss
from metatext.representation import Support


def task(shots, d: int = 6, b: int = 2, q: int = 4, seed: int = 0) -> tuple[Support, torch.Tensor, torch.Tensor]:
    """b random tasks whose rows and queries lie near their class's name; support, (b, q, d) queries, (b, q) ways."""
    g = torch.Generator().manual_seed(seed)
    w, y = len(shots), torch.repeat_interleave(torch.arange(len(shots)), torch.tensor(shots))
    way = torch.arange(q).remainder(w).expand(b, -1)
    names = normalize(torch.randn(b, w, d, generator=g, dtype=torch.float64), dim=-1)

    def near(of: torch.Tensor) -> torch.Tensor:
        return normalize(names[:, of] + 0.5 * torch.randn(b, len(of), d, generator=g, dtype=torch.float64), dim=-1)

    yes = lambda *shape: torch.ones(*shape, dtype=torch.bool)  # noqa: E731
    support = Support(
        x=near(y),
        y=torch.nn.functional.one_hot(y, w).double().expand(b, -1, -1),
        label_x=names,
        task_x=normalize(torch.randn(b, d, generator=g, dtype=torch.float64), dim=-1),
        row_mask=yes(b, len(y)),
        class_mask=yes(b, w),
        label_mask=yes(b, w),
        task_mask=yes(b),
    )
    return support, near(way[0]), way


def head_of(dim: int = 6, shake: float = 0.0, **settings):
    torch.manual_seed(0)
    head = make_head(HeadConfig("attention", **settings), dim).double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += shake * torch.randn_like(parameter)
    return head


def answer(head, support: Support, query: torch.Tensor) -> torch.Tensor:
    return head.logits(head.adapt(support), query, torch.ones(query.shape[:2], dtype=torch.bool)).values


@pytest.mark.parametrize("shots", [[2, 1, 3], [0, 0], [4, 0, 1]], ids=str)
def test_untrained_it_is_the_head_gp(shots):
    support, query, _ = task(shots)
    gp = make_head(HeadConfig("gp"), 6).double().eval()
    torch.testing.assert_close(answer(head_of(), support, query), answer(gp, support, query), rtol=0, atol=0)


def plane() -> dict[str, torch.Tensor]:
    """Two rows of the first class, one of the second, in the plane; only the first class has a name."""
    values = {
        "rows": [[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]],
        "y": [[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]],
        "names": [[[0.8, 0.6], [0.0, 0.0]]],
    }
    masks = {"named": torch.tensor([[True, False]]), "mask": torch.tensor([[True, True]])}
    return {**{k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}, **masks}


def contrasted(values) -> np.ndarray:
    """What two known classes become: 4 x the difference to the mean, (log-probability at 15 + log 2) / 3."""
    values = np.array(values)
    scores = 15 * values
    return np.stack([4 * (values - values.mean()), (scores - np.log(np.exp(scores).sum()) + math.log(2)) / 3], -1)


def test_relations_of_a_query_by_hand():
    found = _relations(torch.tensor([[[0.8, 0.6]]], dtype=torch.float64), **plane())[0, 0].numpy()
    assert found.shape == (2, RELATIONS)
    np.testing.assert_allclose(found[0, :2], [0, 0], atol=1e-12)  # the only name is its own mean, and certain
    np.testing.assert_allclose(found[1, :2], [0, 0], atol=1e-12)
    # cosines of the query to the rows are 0.8, 0.96, 0.6; the mean of the first class points to (1.6, 0.8)
    np.testing.assert_allclose(found[:, 2:4], contrasted([(0.8 * 1.6 + 0.6 * 0.8) / math.hypot(1.6, 0.8), 0.6]), rtol=1e-9)
    for i, t in enumerate(SHARPNESS):
        soft = [math.log((math.exp(-0.2 * t) + math.exp(-0.04 * t)) / 2) / t, -0.4]
        np.testing.assert_allclose(found[:, 4 + 2 * i : 6 + 2 * i], contrasted(soft), rtol=1e-9)


def test_a_row_leaves_itself_out():
    """The relation of each row is that of a query in its place to a support without it."""
    case = plane()
    found = _relations(case["rows"], **case, own=case["y"])
    for i in range(3):
        others = [j for j in range(3) if j != i]
        less = {**case, "rows": case["rows"][:, others], "y": case["y"][:, others]}
        torch.testing.assert_close(found[:, i], _relations(case["rows"][:, i : i + 1], **less)[:, 0])


def test_relations_do_not_know_directions():
    """The same logits in any rotation of the feature space: nothing learned can be tied to the data sets of the training."""
    support, query, _ = task([2, 3, 1, 0])
    g = torch.Generator().manual_seed(7)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q
    turned = dataclasses.replace(support, x=support.x @ turn, label_x=support.label_x @ turn, task_x=support.task_x @ turn)
    head = head_of(shake=0.3)
    torch.testing.assert_close(answer(head, support, query), answer(head, turned, query @ turn), rtol=1e-9, atol=1e-9)


def test_contrast_of_nothing_known_is_zero():
    value = torch.full((1, 2, 3), 5.0)
    assert not _contrast(value, torch.zeros(1, 2, 3, dtype=torch.bool), 15.0).any()


def test_attention_by_hand():
    """One head of scaled dot-product attention over the unmasked tokens, added to them."""
    torch.manual_seed(0)
    attention = SelfAttention(4, 0.0).double()
    tokens, mask = torch.randn(1, 3, 4, dtype=torch.float64), torch.tensor([[True, True, False]])
    x = attention.norm(tokens)[0]
    scores = (x @ attention.query.weight.T) @ (x @ attention.key.weight.T).T / 2  # the root of the width 4
    weights = torch.cat([scores[:, :2].softmax(-1), torch.zeros(3, 1, dtype=torch.float64)], -1)
    torch.testing.assert_close(attention(tokens, mask)[0], tokens[0] + weights @ (x @ attention.value.weight.T))


def test_what_the_support_shows_changes_what_is_added():
    """Two tasks with the same rows and names for a query, but labels that contradict the names in one: another residual."""
    support, query, _ = task([3, 3])
    head = head_of(shake=0.3)
    crossed = dataclasses.replace(support, y=support.y.flip(-1))
    added = [answer(head, s, query) - answer(head.base, s, query) for s in (support, crossed)]
    assert not torch.allclose(added[0], added[1].flip(-1), atol=1e-3)


def test_it_learns_where_gp_is_unsure():
    """A few steps lower the loss of tasks on which they were not taken, with the head `gp` below it left alone."""
    head = head_of()
    head.base.requires_grad_(False)

    def loss(seed: int) -> torch.Tensor:
        support, query, way = task([2, 1, 3], b=8, q=9, seed=seed)
        mask = torch.ones(way.shape, dtype=torch.bool)
        return meta_loss(classification(head.logits(head.adapt(support), query, mask), way, mask, ~mask)) / 8

    before = loss(1000).item()
    optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], lr=0.01)
    for step in range(30):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    assert loss(1000).item() < 0.9 * before


def test_dropout_is_active_in_training_only():
    support, query, _ = task([2, 2])
    head = head_of(shake=0.3, dropout=0.5)
    once = answer(head, support, query)
    torch.testing.assert_close(once, answer(head, support, query), rtol=0, atol=0)
    assert not torch.equal(once, answer(head.train(), support, query))


def test_task_parameters_of_150_ways_grow_with_rows_and_classes_only():
    """No value of the parameters is larger than the rows' own solve: (n + w) x max(w, d)."""
    shots, d = [4] * 150, 32
    support, query, _ = task(shots, d=d, b=1)
    head = make_head(HeadConfig("attention"), d).eval()
    params = head.adapt(support.to(torch.float32))
    n = len(shots)
    assert {k: tuple(params[k].shape) for k in ("tokens", "rows", "labels", "names")} == {
        "tokens": (1, n, 32),
        "rows": (1, 4 * n, d),
        "labels": (1, 4 * n, n),
        "names": (1, n, d),
    }
    assert max(p.numel() for p in params.values()) <= (4 * n + n) * n
    values = head.logits(params, query.float(), torch.ones(1, 4, dtype=torch.bool)).values
    assert values.shape == (1, 4, 150) and values.isfinite().all()


def test_rows_beyond_the_limit_are_averaged(monkeypatch):
    """Copies of a row are one row that stands for several: there a query relates to the groups as it does to the rows."""
    support, query, _ = task([6, 6])
    copies = dataclasses.replace(support, x=support.x[:, torch.tensor([0, 1, 2, 0, 1, 2, 6, 7, 8, 6, 7, 8])])
    head = head_of(shake=0.3)

    def related() -> tuple[int, torch.Tensor]:
        params = head.adapt(copies)
        parts = (params[k] for k in ("rows", "labels", "names", "named", "class_mask"))
        return params["rows"].shape[1], _relations(query, *parts)

    rows, exact = related()
    monkeypatch.setattr("metatext.heads.gp.ROWS", 6)
    groups, averaged = related()
    assert (rows, groups) == (12, 6)
    torch.testing.assert_close(averaged, exact)
