"""Reports: means, paired differences and tables worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from metatext import Report
from metatext.calibration import Rows
from metatext.report import POINTS, align, summary

SETTINGS = {"n_way": 5, "k_shot": [0, 4], "n_query": 5, "n_outside": 0, "n_episodes": 3, "seed": 7}
SCORES = {
    "emotion": {"trained": np.array([0.5, 0.75, 1.0]), "base_line": np.array([0.25, 0.5, 0.25]), "none": np.full(3, np.nan)},
    "a longer name": {"trained": np.array([1.0, 1.0, 1.0]), "base_line": np.array([0.0, 1.0, 0.5]), "none": np.full(3, np.nan)},
}


def rows(loss, squared, top, right) -> Rows:
    loss, squared, top, right = (np.array(values, float) for values in (loss, squared, top, right))
    return Rows(loss, squared, top, np.ones(len(top)), right.astype(bool), np.zeros(len(top), np.int8))


NO_ANSWER = rows([np.nan], [np.nan], [np.nan], [0])
ROWS = {
    "emotion": {
        "trained": rows([0.25, 0.75], [0.1, 0.3], [0.9, 0.6], [1, 1]),
        "base_line": rows([1.0], [0.5], [0.5], [0]),
        "none": NO_ANSWER,
    },
    "a longer name": {
        "trained": rows([0.125], [0.2], [0.8], [0]),
        "base_line": rows([3.0], [1.5], [1.0], [1]),
        "none": NO_ANSWER,
    },
}
REPORT = Report("accuracy", SCORES, ROWS, SETTINGS)


def half(values) -> float:
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))


def test_means_and_intervals():
    assert REPORT.methods == ["trained", "base_line", "none"]
    assert REPORT.mean("trained", "emotion") == pytest.approx((0.75, half([0.5, 0.75, 1.0])))
    assert REPORT.mean("trained", "emotion")[1] == pytest.approx(4.302653 * 0.25 / 3**0.5)
    assert REPORT.mean(task="a longer name") == (1.0, 0.0)
    assert REPORT.mean() == REPORT.mean("trained") == pytest.approx((0.875, half([0.75, 1.0])))  # over the two tasks
    assert REPORT.mean("base_line") == pytest.approx((5 / 12, half([1 / 3, 1 / 2])))
    assert np.isnan(REPORT.mean("none")[0]) and np.isnan(REPORT.mean("none", "emotion")[0])


def test_the_mean_over_one_task_is_over_its_episodes():
    one = Report("accuracy", {"emotion": SCORES["emotion"]}, {"emotion": ROWS["emotion"]}, SETTINGS)
    assert one.mean("trained") == one.mean("trained", "emotion") == pytest.approx((0.75, half([0.5, 0.75, 1.0])))
    assert one.difference("trained", "base_line") == one.difference("trained", "base_line", "emotion")
    assert "mean over tasks" not in str(one).splitlines()[-2]


def test_paired_differences():
    first, second = [0.25, 0.25, 0.75], [1.0, 0.0, 0.5]
    assert REPORT.difference("trained", "base_line", "emotion") == pytest.approx((np.mean(first), half(first)))
    mean, width = REPORT.difference("trained", "base_line")
    error = np.sqrt(np.var(first, ddof=1) / 3 + np.var(second, ddof=1) / 3) / 2  # of the mean of two independent means
    assert (mean, width) == pytest.approx(((np.mean(first) + np.mean(second)) / 2, stats.t.ppf(0.975, 4) * error))
    assert REPORT.difference("base_line", "trained")[0] == pytest.approx(-mean)
    assert REPORT.difference("trained", "trained") == (0.0, 0.0)


def test_the_reference_is_the_first_that_answers():
    assert REPORT.reference(["missing", "none", "base_line", "trained"]) == "base_line"
    assert REPORT.reference(["none"]) is None and REPORT.reference([]) is None


def test_table_text():
    assert str(REPORT).splitlines()[:5] == [
        "                                       base",
        "                      trained          line  none",
        "emotion           75.0 ± 62.1   33.3 ± 35.9     -",
        "a longer name     100.0 ± 0.0  50.0 ± 124.2     -",
        "mean over tasks  87.5 ± 158.8  41.7 ± 105.9     -",
    ]
    last = str(REPORT).splitlines()[5]
    assert last.startswith("accuracy in %, mean ± 95 % interval")
    assert "n_way 5, k_shot [0, 4], n_query 5, n_episodes 3, seed 7 per task" in last


def test_what_is_said_of_the_episodes():
    up_to = replace(REPORT, settings={**SETTINGS, "fewer_ways": True})
    assert "; n_way up to 5, k_shot" in str(up_to).splitlines()[5]
    scored = replace(up_to, metric="rmse", rows={})
    assert "; k_shot [0, 4], n_query 5" in str(scored).splitlines()[5] and "n_way" not in str(scored)
    hyphens = replace(REPORT, scores={"a": {"small-head": np.zeros(2)}})
    assert [line.strip() for line in str(hyphens).splitlines()[:2]] == ["small-", "head"]


def test_table_of_differences():
    assert REPORT.differences("base_line").splitlines() == [
        "                              trained  none",
        "emotion                  +41.7 ± 71.7     -",
        "a longer name           +50.0 ± 124.2     -",
        "mean over tasks          +45.8 ± 46.3     -",
        "the same, ± over tasks   +45.8 ± 52.9     -",
        "accuracy minus that of base_line in points, paired: mean ± 95 % interval, over episodes; in the last line over tasks, for further ones",
    ]
    one = Report("accuracy", {"emotion": SCORES["emotion"]}, {"emotion": ROWS["emotion"]}, SETTINGS)
    assert len(one.differences("base_line").splitlines()) == 3 and one.differences("base_line").endswith("over episodes")


def test_a_difference_over_tasks_counts_every_task_once():
    means = [5 / 12, 1 / 2]
    assert REPORT.difference_over_tasks("trained", "base_line") == pytest.approx(
        (np.mean(means), 12.706205 / 24)
    )  # t(1) x half of 1/12
    assert REPORT.difference_over_tasks("trained", "base_line") == pytest.approx((np.mean(means), half(means)))
    assert np.isnan(REPORT.difference_over_tasks("trained", "none")[0])
    one = Report("accuracy", {"emotion": SCORES["emotion"]}, {"emotion": ROWS["emotion"]}, SETTINGS)
    assert one.difference_over_tasks("trained", "base_line") == one.difference("trained", "base_line")
    assert "differences_over_tasks" not in one.to_dict(["base_line"])


def test_calibration_is_of_the_rows_of_all_tasks():
    found = REPORT.figures("trained")
    assert found["nll"] == pytest.approx((0.25 + 0.75 + 0.125) / 3) and found["brier"] == pytest.approx(0.2)
    assert found["ece"] == pytest.approx((0.1 + 0.4 + 0.8) / 3)  # three bins, one row in each
    assert REPORT.figures("trained", "emotion")["nll"] == pytest.approx(0.5)
    assert REPORT.figures("none") == {}
    assert REPORT.calibration().splitlines() == [
        "             nll  brier    ece   aurc",
        "trained    0.375  0.200  0.433  0.278",
        "base_line  2.000  1.000  0.250  0.250",
        "none           -      -      -      -",
    ]


def test_to_dict():
    values = json.loads(json.dumps(REPORT.to_dict(["base_line"]), allow_nan=False))
    assert values["metric"] == "accuracy" and values["settings"] == SETTINGS
    assert {"python", "metatext", "torch", "transformers", "numpy"} <= set(values["versions"])
    assert set(values["tasks"]) == set(SCORES) and set(values["tasks"]["emotion"]) == {"trained", "base_line", "none"}
    assert values["tasks"]["emotion"]["trained"] == {
        "accuracy": 0.75,
        "interval_95": round(half([0.5, 0.75, 1.0]), 6),
        "nll": 0.5,
        "brier": 0.2,
        "ece": 0.25,
        "aurc": 0.0,
    }
    assert values["tasks"]["emotion"]["none"] == {} and values["mean"]["none"] == {} and values["pooled"]["none"] == {}
    assert values["mean"]["trained"] == {"accuracy": 0.875, "interval_95": round(half([0.75, 1.0]), 6)}
    assert values["pooled"]["trained"]["nll"] == 0.375
    assert values["risk_coverage"] == {
        "trained": {"coverage": [0.3333, 0.6667, 1.0], "error": [0.0, 0.5, 0.3333]},
        "base_line": {"coverage": [0.5, 1.0], "error": [0.0, 0.5]},
    }
    assert values["reference"] == "base_line"
    mean, width = REPORT.difference("trained", "base_line", "emotion")
    assert values["differences"]["emotion"] == {"trained": [round(mean, 6), round(width, 6)]}
    assert set(values["differences"]) == {*SCORES, "mean over tasks"}
    assert values["differences_over_tasks"]["trained"] == [
        round(v, 6) for v in REPORT.difference_over_tasks("trained", "base_line")
    ]
    assert "differences" not in REPORT.to_dict() and "differences" not in REPORT.to_dict(["none"])


def test_scores_of_each_episode_are_told_where_they_are_asked_for():
    thirds = {"t": {"a": np.array([1, 1 / 3, np.nan]), "b": np.array([0.0, 2 / 3, 1.0]), "none": np.full(3, np.nan)}}
    values = Report("accuracy", thirds, {}, SETTINGS).to_dict(scores=True)
    assert values["scores"] == {"t": {"a": [1.0, 0.333333, None], "b": [0.0, 0.666667, 1.0]}}
    json.dumps(values, allow_nan=False)
    asked, bare = REPORT.to_dict(["base_line"], scores=True), REPORT.to_dict(["base_line"])
    assert asked == {**bare, "scores": asked["scores"]} and "scores" not in bare


def test_long_curves_are_thinned_and_keep_their_ends():
    rng = np.random.default_rng(0)
    many = rows(np.ones(1000), np.ones(1000), rng.random(1000), rng.random(1000) < 0.7)
    report = Report("accuracy", {"t": {"m": np.ones(2)}}, {"t": {"m": many}}, {})
    coverage, error = report.risk_coverage("m")
    assert len(coverage) == POINTS and (coverage[0], coverage[-1]) == (0.001, 1.0)
    assert error[-1] == pytest.approx((~many.right).mean())


def test_summary_has_a_column_per_report():
    other = Report("accuracy", {"t": {"trained": np.array([0.5, 0.25]), "new": np.ones(2)}}, {}, {})
    assert summary({"real 1": REPORT, "real 4": other}).splitlines() == [
        "           real 1  real 4",
        "trained      87.5    37.5",
        "base_line    41.7       -",
        "none            -       -",
        "new             -   100.0",
    ]


def test_align():
    assert align([["", "a"], ["long", "1"], ["b", "100"]]) == "        a\nlong    1\nb     100"
