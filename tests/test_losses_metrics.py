"""Losses and figures of merit against values worked out by hand, scikit-learn and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss

from metatext.baselines import USUAL
from metatext.columns import ROLES
from metatext.heads import KIND_HEADS, Logits
from metatext.kinds import KINDS
from metatext.losses import classification, meta_loss
from metatext.metrics import METRICS, accuracy, as_metric, brier, ece, interval, macro_f1, nll, stratified_interval
from metatext.targets import ENCODERS

LOW = torch.finfo(torch.float32).min


def bce(none: float, outside: bool) -> float:
    return math.log1p(math.exp(-none if outside else none))


def ce(values, target: int) -> float:
    return math.log(sum(math.exp(v) for v in values)) - values[target]


def batch():
    """Two episodes of 3 queries: a full one of two ways, and one of three ways with an outside row and a padded row."""
    values = torch.tensor(
        [[[1.0, 0.0, LOW], [0.0, 2.0, LOW], [0.5, 0.5, LOW]], [[0.0, 1.0, 3.0], [9.0, -9.0, 4.0], [7.0, 7.0, -7.0]]]
    )
    none = torch.tensor([[5.0, -5.0, 1.0], [-0.5, 0.25, 8.0]])
    y = torch.tensor([[0, 1, 1], [2, -1, -1]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    outside = torch.tensor([[False, False, False], [False, True, False]])
    return Logits(values, none), y, mask, outside


def test_classification_by_hand():
    loss = classification(*batch())
    first = (ce([1, 0], 0) + ce([0, 2], 1) + ce([0.5, 0.5], 1)) / 3  # no outside row: `none` has no part in it
    second = ce([0, 1, 3], 2) + (bce(-0.5, False) + bce(0.25, True)) / 2
    assert loss.shape == (2,) and loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor([first, second]))


def test_loss_ignores_padding_and_stays_finite():
    logits, y, mask, outside = batch()
    changed = Logits(logits.values.masked_fill(~mask[..., None], 123.0), logits.none.masked_fill(~mask, -77.0))
    assert torch.equal(classification(changed, y, mask, outside), classification(logits, y, mask, outside))
    wider = Logits(torch.cat([logits.values, torch.full((2, 3, 2), LOW)], -1), logits.none)
    torch.testing.assert_close(classification(wider, y, mask, outside), classification(logits, y, mask, outside))


def test_outside_rows_have_no_part_in_the_cross_entropy():
    logits, y, mask, outside = batch()
    values = logits.values.clone()
    values[1, 1] = torch.tensor([-50.0, 50.0, 0.0])
    torch.testing.assert_close(
        classification(Logits(values, logits.none), y, mask, outside), classification(logits, y, mask, outside)
    )


@pytest.mark.parametrize(
    "dtype, expected", [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)]
)
def test_loss_is_float32_or_wider(dtype, expected):
    logits, y, mask, outside = batch()
    values = logits.values.to(dtype).masked_fill(logits.values == LOW, torch.finfo(dtype).min)
    low = Logits(values, logits.none.to(dtype))
    loss = classification(low, y, mask, outside)
    assert loss.dtype == expected and loss.isfinite().all()


def test_loss_has_finite_gradients():
    logits, y, mask, outside = batch()
    values, none = logits.values.requires_grad_(), logits.none.requires_grad_()
    classification(Logits(values, none), y, mask, outside).sum().backward()
    assert values.grad.isfinite().all() and none.grad.isfinite().all()
    assert not values.grad[1, 1:].any() and not none.grad[0].any() and none.grad[1, 2] == 0


def test_meta_loss_is_the_sum_of_the_means():
    losses = classification(*batch())
    assert meta_loss(losses).shape == () and math.isclose(
        meta_loss(losses).item(), losses[0].item() + losses[1].item(), rel_tol=1e-6
    )
    assert meta_loss(torch.tensor([1.0, 2.0, 4.5])).item() == 7.5


def test_kinds_name_their_parts():
    assert KINDS["classification"].loss is classification and KINDS["classification"].metrics[0] == "accuracy"
    for name, kind in KINDS.items():
        assert kind.name == name and name in KIND_HEADS and {*kind.metrics} <= {*METRICS}
        assert name in {*ENCODERS, *ROLES} and name in USUAL


PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.05, 0.05, 0.9]])
TARGETS = np.array([0, 1, 2, 2])


def random_answers(seed: int, n: int = 60, w: int = 5):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(w), n).astype(np.float32), rng.integers(0, w, n)


def test_figures_by_hand():
    assert accuracy(PROBABILITIES, TARGETS) == 0.75
    assert macro_f1(PROBABILITIES, TARGETS) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert nll(PROBABILITIES, TARGETS) == pytest.approx(-np.log([0.7, 0.6, 0.3, 0.9]).mean())
    squares = [0.3**2 + 0.2**2 + 0.1**2, 0.1**2 + 0.4**2 + 0.3**2, 0.2**2 + 0.5**2 + 0.7**2, 0.05**2 + 0.05**2 + 0.1**2]
    assert brier(PROBABILITIES, TARGETS) == pytest.approx(np.mean(squares))
    assert ece(PROBABILITIES, TARGETS, bins=2) == pytest.approx(abs(3 - 2.7) / 4)  # 0.7, 0.6, 0.9 and the wrong 0.5: one bin


def test_ece_by_hand():
    # bins of width 0.2: confidence 0.5 (wrong), 0.55 (right) | 0.7 (right) | 0.9, 0.95 (one right); w = 2 keeps them above 0.5
    confidence, right = np.array([0.5, 0.55, 0.7, 0.9, 0.95]), np.array([False, True, True, True, False])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    expected = (abs(1 - (0.5 + 0.55)) + abs(1 - 0.7) + abs(1 - (0.9 + 0.95))) / 5
    assert ece(probabilities, np.where(right, 0, 1), bins=5) == pytest.approx(expected)


def test_ece_of_certain_answers():
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert ece(certain, np.array([0, 1, 2, 0])) == 0.0
    assert ece(certain, np.array([1, 2, 0, 1])) == 1.0
    assert ece(certain, np.array([0, 1, 0, 1])) == 0.5


def test_brier_of_certain_answers():
    assert brier(np.eye(3), np.array([0, 1, 2])) == 0.0 and brier(np.eye(3), np.array([1, 2, 0])) == 2.0


@pytest.mark.parametrize("seed", range(4))
def test_figures_against_scikit_learn(seed):
    probabilities, targets = random_answers(seed)
    answers = probabilities.argmax(1)
    assert accuracy(probabilities, targets) == pytest.approx(accuracy_score(targets, answers))
    assert macro_f1(probabilities, targets) == pytest.approx(f1_score(targets, answers, average="macro", zero_division=0))
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    assert nll(exact, targets) == pytest.approx(log_loss(targets, exact, labels=range(5)))
    assert brier(exact, targets) == pytest.approx(brier_score_loss(targets, exact, labels=range(5), scale_by_half=False))


def test_macro_f1_counts_the_classes_that_occur():
    probabilities = np.eye(4)[[0, 0, 1]]  # class 2 is a target but never answered, class 3 never occurs
    targets = np.array([0, 2, 1])
    assert macro_f1(probabilities, targets) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert macro_f1(probabilities, targets) == pytest.approx(f1_score(targets, [0, 0, 1], average="macro", zero_division=0))


def test_nll_of_an_impossible_answer_is_finite():
    assert nll(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-math.log(1e-12))


OF_TEXTS = (*KINDS["span"].metrics, *KINDS["generation"].metrics)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_figures_are_plain_floats(name):
    probabilities, targets = random_answers(0)
    given = (probabilities, np.eye(5)[targets] > 0) if "multilabel" in name else (probabilities, targets)
    given = (probabilities[:, :1], targets) if name in KINDS["regression"].metrics else given
    given = TEXTS if name in KINDS["span"].metrics else given
    given = (["a", "b c"], [["a"], ["b d", "c"]]) if name in OF_TEXTS else given
    assert type(METRICS[name](*given)) is float


TEXTS = ["the red House", "a boat", "", "1,000"], [["red house!", "barn"], ["a small boat", "boats"], [], ["1000", "many"]]


def test_squad_figures_by_hand():
    f1, em = METRICS["squad_f1"], METRICS["squad_em"]
    assert f1(*TEXTS) == pytest.approx((1 + 2 * 1 / (1 + 2) + 1 + 1) / 4)  # "boat" of "small boat"
    assert em(*TEXTS) == 0.75
    assert f1(["red red"], [["red"]]) == pytest.approx(2 * 1 / 3)  # a word counts as often as it stands there
    assert f1(["x"], [[]]) == em(["x"], [[]]) == 0 == f1([""], [["x"]])
    assert f1(["the"], [["a"]]) == 1  # nothing is left of either


def test_figures_of_several_labels_against_scikit_learn():
    rng = np.random.default_rng(0)
    probabilities, targets = rng.random((50, 6)), rng.random((50, 6)) < 0.3
    targets[:, 5], probabilities[:, 5] = False, 0.1  # occurs nowhere: does not count
    answers = probabilities >= 0.5
    assert METRICS["multilabel_micro_f1"](probabilities, targets) == pytest.approx(f1_score(targets, answers, average="micro"))
    expected = f1_score(targets[:, :5], answers[:, :5], average="macro")
    assert METRICS["multilabel_macro_f1"](probabilities, targets) == pytest.approx(expected)
    nothing = np.zeros((3, 2), bool)
    assert METRICS["multilabel_macro_f1"](nothing.astype(float), nothing) == 1.0
    assert METRICS["multilabel_macro_f1"](nothing + 0.9, nothing) == 0.0


def test_figures_of_scores_against_scipy():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 6, 40).astype(float)
    scores = targets + rng.normal(size=40)
    assert METRICS["pearson"](scores[:, None], targets[:, None]) == pytest.approx(stats.pearsonr(scores, targets).statistic)
    assert METRICS["spearman"](scores[:, None], targets) == pytest.approx(stats.spearmanr(scores, targets).statistic)
    assert METRICS["rmse"]([1.0, 3.0], [0.0, 1.0]) == pytest.approx(math.sqrt(2.5))
    for name in ("pearson", "spearman"):
        assert METRICS[name](np.ones((4, 1)), targets[:4]) == 0.0  # nothing is said


def test_matthews_correlation_by_hand():
    # answers 0 1 1 2 for targets 0 1 2 2: 3 of 4 right
    assert METRICS["mcc"](PROBABILITIES, TARGETS) == pytest.approx((3 * 4 - 5) / math.sqrt((16 - 6) * (16 - 6)))


@pytest.mark.parametrize("n", [2, 3, 10, 600])
def test_interval_against_scipy(n):
    values = np.random.default_rng(n).random(n)
    mean, half = interval(values)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert mean == pytest.approx(values.mean()) and (mean - half, mean + half) == pytest.approx((low, high))


def test_interval_of_one_value():
    assert interval(np.array([0.25])) == (0.25, 0.0)


def test_stratified_interval_by_hand():
    groups = [np.array([0.0, 1.0, 0.5]), np.array([2.0, 4.0])]
    error = math.sqrt(0.25 / 3 + 2.0 / 2) / 2
    assert stratified_interval(groups) == pytest.approx(((0.5 + 3.0) / 2, stats.t.ppf(0.975, 3) * error))
    assert stratified_interval([np.array([1.0]), np.array([2.0])]) == (1.5, 0.0)


def test_stratified_interval_covers_the_mean_of_the_groups():
    """Groups that differ much among themselves and little within: their differences do not widen the interval."""
    rng = np.random.default_rng(0)
    centres, covered = np.array([-3.0, 0.0, 5.0]), 0
    for _ in range(2000):
        mean, half = stratified_interval([c + rng.standard_normal(8) for c in centres])
        covered += abs(mean - centres.mean()) <= half
    assert 0.94 <= covered / 2000 <= 0.965


@pytest.mark.parametrize("name", sorted(METRICS))
def test_figures_as_metrics_of_evaluate(name, monkeypatch):
    """The same number as the plain function, with not one network call."""
    import socket

    import evaluate

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("asked the network"))
    rng = np.random.default_rng(0)
    probabilities, targets = random_answers(0)
    if name.startswith("multilabel"):
        targets = (rng.random(probabilities.shape) < 0.3).astype(int)
    elif name in KINDS["regression"].metrics:
        probabilities, targets = rng.random(40), rng.random(40)
    elif name in KINDS["span"].metrics:
        probabilities, targets = TEXTS
    elif name in OF_TEXTS:
        probabilities, targets = ["a", "b c d e", "f g"], [["a"], ["b c d e f", "c"], ["h"]]
    expected = METRICS[name](probabilities, targets)
    answers = probabilities.argmax(1) if name in KINDS["classification"].metrics else probabilities
    metric = as_metric(name)
    assert isinstance(metric, evaluate.Metric)
    assert metric.compute(predictions=answers, references=targets)[name] == pytest.approx(expected, rel=1e-6)
    for answer, target in zip(answers, targets, strict=True):  # row by row, as evaluate's users add them
        metric.add(prediction=answer, reference=target)
    assert metric.compute()[name] == pytest.approx(expected, rel=1e-6)


def test_other_metrics_are_loaded_by_evaluate(tmp_path):
    script = tmp_path / "double.py"
    script.write_text(
        "import datasets\nimport evaluate\n"
        "class Double(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        features = datasets.Features({k: datasets.Value('int64') for k in ('predictions', 'references')})\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'double': 2 * sum(predictions)}\n",
        encoding="utf-8",
    )
    assert as_metric(str(script)).compute(predictions=[1, 2], references=[0, 0]) == {"double": 6}
