"""Calibration and abstention of pooled rows against values worked out by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from metatext.calibration import FAR, INSIDE, NEAR, Rows, concatenate, figures, judge, risk_coverage
from metatext.metrics import brier, ece, nll


def answered(top, right, group=None, confidence=None) -> Rows:
    """Rows of given answers whose loss and squared error do not matter."""
    n = len(top)
    confidence = np.ones(n) if confidence is None else np.array(confidence)
    group = np.full(n, INSIDE) if group is None else np.array(group)
    return Rows(np.zeros(n), np.zeros(n), np.array(top), confidence, np.array(right, bool), group)


def test_judge_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3]])
    rows = judge(probabilities, np.array([0.9, 0.8, 0.1]), np.array([0, 2, -1]), np.array([INSIDE, INSIDE, NEAR]))
    assert rows.loss[:2] == pytest.approx(-np.log([0.7, 0.3])) and np.isnan(rows.loss[2])
    assert rows.squared[:2] == pytest.approx([0.3**2 + 0.2**2 + 0.1**2, 0.1**2 + 0.6**2 + 0.7**2]) and np.isnan(rows.squared[2])
    assert rows.top.tolist() == [0.7, 0.6, 0.5] and rows.right.tolist() == [True, False, False]
    assert rows.answered and rows.group.tolist() == [INSIDE, INSIDE, NEAR]


def test_a_row_of_no_class_is_never_right():
    """Its target may be anything, the number of a class too, or -1, which numpy takes for the last."""
    certain = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert not judge(certain, np.ones(2), np.array([1, -1]), np.array([NEAR, FAR])).right.any()


def test_rows_of_several_numbers_of_classes_are_pooled():
    rng = np.random.default_rng(0)
    parts, sizes = [], (3, 7)
    answers = [(rng.dirichlet(np.ones(w), 50), rng.integers(0, w, 50)) for w in sizes]
    parts = [judge(p, np.ones(50), y, np.full(50, INSIDE)) for p, y in answers]
    found = figures(concatenate(parts))
    assert found["nll"] == pytest.approx(np.mean([nll(*a) for a in answers]), rel=1e-6)
    assert found["brier"] == pytest.approx(np.mean([brier(*a) for a in answers]), rel=1e-6)
    padded = np.concatenate([np.pad(answers[0][0], ((0, 0), (0, 4))), answers[1][0]])
    assert found["ece"] == pytest.approx(ece(padded, np.concatenate([answers[0][1], answers[1][1]])))
    assert set(found) == {"nll", "brier", "ece", "aurc"}


def test_no_figures_where_an_answer_is_missing():
    probabilities = np.array([[0.5, 0.5], [np.nan, np.nan]])
    rows = judge(probabilities, np.ones(2), np.zeros(2, int), np.full(2, INSIDE))
    assert not rows.answered and figures(rows) == {}


def test_auroc_of_each_score_against_each_group():
    rng = np.random.default_rng(1)
    top, confidence, group = rng.random(90), rng.random(90), np.repeat([INSIDE, NEAR, FAR], 30)
    found = figures(answered(top, group == INSIDE, group, confidence))
    for name, code in (("near", NEAR), ("far", FAR)):
        those = (group == INSIDE) | (group == code)
        for key, score in (("", confidence), ("_top", top), ("_product", top * confidence)):
            assert found[f"auroc_{name}{key}"] == pytest.approx(roc_auc_score((group == INSIDE)[those], score[those]))


def test_auroc_by_hand():
    rows = answered([0.9, 0.8, 0.5, 0.6], [1, 1, 0, 0], [INSIDE, INSIDE, FAR, FAR], [0.9, 0.4, 0.5, 0.1])
    found = figures(rows)
    assert found["auroc_far"] == 0.75 and found["auroc_far_top"] == 1.0 and "auroc_near" not in found


def test_risk_coverage_by_hand():
    coverage, error = risk_coverage(answered([0.9, 0.2, 0.6, 0.5], [1, 0, 0, 1]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert error.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    assert figures(answered([0.9, 0.2, 0.6, 0.5], [1, 0, 0, 1]))["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_confidence_takes_part_in_the_risk_and_an_answer_to_no_class_is_an_error():
    rows = answered([0.9, 0.8, 0.7], [0, 1, 1], [FAR, INSIDE, INSIDE], [0.1, 1.0, 1.0])
    assert risk_coverage(rows)[1].tolist() == pytest.approx([0, 0, 1 / 3])
    unaware = answered([0.9, 0.8, 0.7], [0, 1, 1], [FAR, INSIDE, INSIDE])
    assert risk_coverage(unaware)[1].tolist() == pytest.approx([1, 1 / 2, 1 / 3])


def test_rows_of_equal_risk_may_stand_in_any_order():
    rng = np.random.default_rng(2)
    top, right = np.repeat([0.9, 0.5], 6), np.array([1, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 0], bool)
    order = rng.permutation(12)
    curve = risk_coverage(answered(top, right))[1]
    np.testing.assert_allclose(risk_coverage(answered(top[order], right[order]))[1], curve)
    drawn = []  # the mean over orders that are drawn is what the even spread says
    for _ in range(4000):
        places = np.concatenate([rng.permutation(6), 6 + rng.permutation(6)])
        drawn.append(np.cumsum(~right[places]) / np.arange(1, 13))
    np.testing.assert_allclose(curve, np.mean(drawn, 0), atol=0.02)


def test_a_perfect_order_has_the_least_area():
    right = np.arange(100) < 80
    best = figures(answered(np.linspace(1, 0.01, 100), right))["aurc"]
    assert best == pytest.approx(np.mean([max(0, k - 80) / k for k in range(1, 101)]))
    assert figures(answered(np.linspace(0.01, 1, 100), right))["aurc"] > best
    assert figures(answered(np.full(100, 0.5), right))["aurc"] == pytest.approx(0.2)
