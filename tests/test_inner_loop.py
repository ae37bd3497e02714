"""The head `inner_loop`: its steps by hand, its gradients of both orders, its precision."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_heads import D, answer, close, loss_of, plane, shaken, task
from torch.nn.functional import log_softmax, normalize

from metatext import HeadConfig, MetaModel
from metatext.features import EpisodeFeatures
from metatext.heads import make_head
from metatext.heads.inner_loop import support_gradient
from metatext.settings import ConfigError

SHOTS = pytest.mark.parametrize("shots", [[1, 1], [2, 0, 1], [5, 4, 1]], ids=str)


def inner(steps: int, first_order: bool = False, **changes):
    """A head in float64, every number moved from its start except those in ``changes``."""
    head = shaken(HeadConfig("inner_loop", inner_steps=steps, first_order=first_order))
    with torch.no_grad():
        for name, value in changes.items():
            getattr(head, name).copy_(torch.as_tensor(value, dtype=torch.float64))
    return head


def support_loss(head, support, weights, bias):
    """The inner loss, written with torch's own cross-entropy: mean over the rows of a class, summed over the classes."""
    sharpness = head.log_sharpness.exp()
    present = support.y[0].sum(0) > 0
    scores = sharpness * (support.x[0] @ weights[present].T + bias[present])
    own = (log_softmax(scores, -1) * support.y[0][:, present]).sum(0)
    return -(own / support.y[0].sum(0)[present]).sum() / sharpness


def test_one_step_by_hand():
    """Two rows of the first class and one of the second in the plane, without names: the start is the class means."""
    support, query = plane()
    support = dataclasses.replace(
        support, label_mask=torch.zeros(1, 2, dtype=torch.bool), task_mask=torch.zeros(1, dtype=torch.bool)
    )
    head = inner(1, log_rate=[[np.log(0.5)], [np.log(0.2)]], log_sharpness=np.log(2.0))
    x, y = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), np.array([[0.5, 0], [0.5, 0], [0, 1.0]])
    start = np.array([[2 / 5**0.5, 1 / 5**0.5], [0.0, 1.0]])
    centre = (np.array([0.8, 0.4]) + np.array([0.0, 1.0])) / 2  # mean of the class means
    first = 1 / (1 + np.exp(2 * (x @ start[1] - x @ start[0])))  # probability of the first class
    residual = np.stack([first, 1 - first], 1) * y.sum(1, keepdims=True) - y
    weights = start - 0.5 * residual.T @ (x - centre)
    bias = start @ centre - 0.2 * residual.sum(0) - weights @ centre
    params = head.adapt(support)
    np.testing.assert_allclose(params["weights"][0].detach(), weights, rtol=1e-12)
    np.testing.assert_allclose(params["bias"][0].detach(), bias, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        answer(head, support, query).values[0].detach(),
        params["scale"].item() * (query[0].numpy() @ weights.T + bias),
        rtol=1e-12,
    )


@SHOTS
def test_closed_form_is_the_gradient_of_the_loss(shots):
    head = inner(0)
    support, _ = task(shots)
    g = torch.Generator().manual_seed(2)
    weights = torch.randn(len(shots), D, generator=g, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(len(shots), generator=g, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(support_loss(head, support, weights, bias), [weights, bias])
    count = support.y.sum(1)
    target = support.y / count.clamp_min(1)[:, None]
    found = support_gradient(weights[None], bias[None], support.x, target, count > 0, head.log_sharpness.exp())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[0], other, rtol=1e-12, atol=1e-12)


@SHOTS
def test_steps_are_gradient_descent(shots):
    """Three steps by autograd, in the coordinates around the centre of the support."""
    head = inner(3)
    support, _ = task(shots)
    present = support.y[0].sum(0) > 0
    centre = torch.stack([support.x[0][support.y[0][:, c] > 0].mean(0) for c in torch.where(present)[0]]).mean(0)
    moved = dataclasses.replace(support, x=support.x - centre)
    weights = head.adapt(support)["classes"][0].detach().requires_grad_()
    bias = (weights @ centre).detach().requires_grad_()
    for rate, bias_rate in head.log_rate.exp().T:
        to_weights, to_bias = torch.autograd.grad(support_loss(head, moved, weights, bias), [weights, bias])
        weights = (weights - rate * to_weights).detach().requires_grad_()
        bias = (bias - bias_rate * to_bias).detach().requires_grad_()
    params = head.adapt(support)
    torch.testing.assert_close(params["weights"][0], weights, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(params["bias"][0], bias - weights @ centre, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 4])
@SHOTS
def test_second_order_by_finite_differences(steps, shots):
    """What the outer loss says of the start (through the names), the rates, the inner temperature and the support."""
    head = inner(steps)
    support, query = task(shots)

    def loss(x, label_x, alpha, log_rate, log_sharpness):
        parameters = {"log_rate": log_rate, "log_sharpness": log_sharpness, "representation.alpha": alpha}
        given = dataclasses.replace(support, x=x, label_x=label_x)
        names = [k for k, _ in head.named_parameters() if k not in parameters]
        rest = {k: v.detach() for k, v in head.named_parameters() if k in names}
        return torch.func.functional_call(
            Outer(head, given, query), {f"head.{k}": v for k, v in {**rest, **parameters}.items()}, ()
        )

    values = [support.x, support.label_x, head.representation.alpha, head.log_rate, head.log_sharpness]
    assert torch.autograd.gradcheck(loss, [v.detach().clone().requires_grad_() for v in values])


class Outer(torch.nn.Module):
    def __init__(self, head, support, query):
        super().__init__()
        self.head, self.support, self.query = head, support, query

    def forward(self):
        return loss_of(self.head, self.support, self.query)


def test_orders_differ_by_the_hessian():
    """One step: with g the outer gradient behind it, the start's is (I - rate H) g in second order and g in first."""
    support, query = task([3, 2, 1])
    # class means at the origin: the start is the label names alone, and there is no centre to move
    means = (support.y / support.y.sum(1, keepdim=True)).mT @ support.x
    support = dataclasses.replace(support, x=support.x - support.y @ means)
    gradients = {}
    for first_order in (False, True):
        head = inner(1, first_order)
        label_x = support.label_x.clone().requires_grad_()
        loss_of(head, dataclasses.replace(support, label_x=label_x), query).backward()
        gradients[first_order] = label_x.grad
    head = inner(1)
    label_x = support.label_x.clone().requires_grad_()
    given = dataclasses.replace(support, label_x=label_x)
    start = head.representation(given).classes
    behind = [p.detach().requires_grad_() for p in (head.adapt(given)["weights"], head.adapt(given)["bias"])]
    params = {**head.adapt(given), "weights": behind[0], "bias": behind[1], "classes": start.detach()}

    class Fixed:
        adapt = staticmethod(lambda _: params)
        logits = head.logits

    g = torch.autograd.grad(loss_of(Fixed(), support, query), behind)

    def inner_gradient(weights):
        zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(support_loss(head, support, weights, zero), [weights, zero], create_graph=True)

    weights = start[0].detach().requires_grad_()
    to_weights, to_bias = inner_gradient(weights)
    rate, bias_rate = head.log_rate.exp()[:, 0].detach()
    # the step is W - rate dW(W), b - rate' db(W): the term that first order leaves out
    term = -torch.autograd.grad([to_weights, to_bias], weights, [rate * g[0][0], bias_rate * g[1][0]])[0]
    (expected,) = torch.autograd.grad(start, label_x, term[None])
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(gradients[False] - gradients[True], expected, rtol=1e-9, atol=1e-12)


def test_first_order_changes_no_value_and_trains_the_rates():
    support, query = task([2, 3, 1], b=2)
    close(answer(inner(4), support, query), answer(inner(4, first_order=True), support, query), 0.0)
    head = inner(4, first_order=True)
    loss_of(head, support, query).backward()
    assert (head.log_rate.grad != 0).all() and head.representation.alpha.grad.abs().min() > 0
    assert head.log_sharpness.grad is None


def test_zero_steps_are_the_prototype_head():
    heads = [make_head(HeadConfig(name, inner_steps=0), D).double() for name in ("inner_loop", "prototype")]
    heads[0].temperature.load_state_dict(heads[1].temperature.state_dict())
    support, query = task([2, 0, 1])
    close(*(answer(head, support, query) for head in heads), 1e-12)


def test_zero_shots_take_no_step():
    params = inner(4).adapt(task([0, 0, 0], b=2)[0])
    assert torch.equal(params["weights"], params["classes"]) and not params["bias"].any()


def test_a_class_without_rows_keeps_its_start():
    params = inner(4).adapt(task([3, 0, 2])[0])
    moved = (params["weights"] - params["classes"])[0].abs().amax(-1)
    assert moved[1] == 0 and moved[[0, 2]].min() > 1e-2


@pytest.mark.parametrize("shots", [[1, 1], [4, 0, 3], [5, 4, 1]], ids=str)
def test_more_steps_lower_the_support_loss(shots):
    support, _ = task(shots)
    losses = []
    for steps in (0, 1, 2, 4, 8, 16):
        head = make_head(HeadConfig("inner_loop", inner_steps=steps), D).double()
        params = head.adapt(support)
        losses.append(support_loss(head, support, params["weights"][0], params["bias"][0]).item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.95 * losses[0]


def test_classes_count_alike():
    """Every row of one class twice, and the classifier is the same; only its temperature knows of more shots."""
    support, _ = task([2, 3])
    no = torch.zeros(1, 2, dtype=torch.bool)
    support = dataclasses.replace(support, label_mask=no, task_mask=no[:, 0])  # how much a name weighs depends on the shots
    twice = [0, 1, 0, 1, 2, 3, 4]
    rows = {name: getattr(support, name)[:, twice] for name in ("x", "y", "row_mask")}
    one, other = (inner(4).adapt(s) for s in (support, dataclasses.replace(support, **rows)))
    torch.testing.assert_close(one["weights"], other["weights"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one["bias"], other["bias"], rtol=1e-12, atol=1e-12)
    assert (one["weights"] - one["classes"]).abs().max() > 1e-2 and one["scale"] != other["scale"]


def test_steps_do_not_overshoot_at_many_ways():
    """77 classes of one domain share a direction; untrained, the steps lower the loss there too."""
    g = torch.Generator().manual_seed(0)
    support, _ = task([3] * 77, d=64)
    shared = normalize(torch.randn(64, generator=g, dtype=torch.float64), dim=0)
    names = normalize(support.label_x + 3 * shared, dim=-1)
    rows = normalize(names.repeat_interleave(3, 1) + 0.3 * support.x, dim=-1)
    support = dataclasses.replace(support, x=rows, label_x=names)
    losses = []
    for steps in (0, 2, 5, 10):
        head = make_head(HeadConfig("inner_loop", inner_steps=steps), 64).double()
        params = head.adapt(support)
        losses.append(support_loss(head, support, params["weights"][0], params["bias"][0]).item())
    assert losses == sorted(losses, reverse=True)


def test_float32_under_autocast(tiny):
    model = MetaModel.from_encoder(tiny, HeadConfig("inner_loop", rank=2))
    support, query = task([2, 1, 3], d=tiny.dim)
    support, query, mask = support.to(torch.float32), query.float(), torch.ones(1, 4, dtype=torch.bool)
    params = model.head.adapt(support)
    plain = model.head.logits(params, query, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert (query @ query.mT).dtype == torch.bfloat16
        mixed = model.head.adapt(support)
        logits = model.head.logits(mixed, query, mask)
        y = torch.zeros(1, 4, dtype=torch.long)
        whole = model(EpisodeFeatures(support, query, mask, y, torch.zeros_like(mask)))
    assert all(torch.equal(mixed[name], value) for name, value in params.items())
    for one in (logits, whole):
        assert one.values.dtype == one.none.dtype == torch.float32
        close(one, plain, 0.0)


def test_half_precision_features_are_adapted_in_float32():
    head = make_head(HeadConfig("inner_loop"), D)
    support, query = task([2, 1])
    params = head.adapt(support.to(torch.bfloat16))
    logits = head.logits(params, query.bfloat16(), torch.ones(1, 4, dtype=torch.bool))
    assert params["weights"].dtype == logits.values.dtype == torch.float32


def test_negative_inner_steps_are_refused():
    with pytest.raises(ConfigError, match="inner_steps: must be at least 0, got -1"):
        HeadConfig("inner_loop", inner_steps=-1)
