"""The parts of recipes/benchmark.py that measure accuracy: episodes, fits of SetFit that are kept, tables."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from letters import make_task

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import benchmark
from benchmarks import abstention, accuracy, corpora, predictions, rival, tables
from benchmarks import encoder as encoder_benchmark
from benchmarks import heads as heads_benchmark

import metatext as mt
from metatext.heads import HEADS
from metatext.pools import EpisodeError
from metatext.report import Report
from metatext.settings import MetatextError

SHOTS = [1, 2]


@pytest.fixture(scope="module")
def tasks():
    rows = [{"text": f"{c} {i}", "text_pair": f"{i} {c}{c}", "label": c} for c in "abc" for i in range(9)]
    return [make_task("letters", classes=3, size=9), mt.load_task(rows, name="pairs")]


@pytest.fixture
def fits(monkeypatch):
    """A rival in the place of SetFit that is sure of class 0: the number of its examples at each fit."""
    seen = []

    def fit(examples, ways, w, names):
        seen.append(len(examples))
        answer = torch.full((w,), 0.1)
        answer[0] = 1 - 0.1 * (w - 1)
        return lambda rows: answer.expand(len(rows), w)

    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2" if name == "setfit" else version(name))
    monkeypatch.setattr(rival, "setfit", lambda encoder: fit)
    return seen


@pytest.fixture
def heads(tiny, monkeypatch):
    """The tiny encoder in the place of the embedded one."""
    monkeypatch.setattr(accuracy, "load", lambda names, n: {name: mt.MetaModel.from_encoder(tiny, name).eval() for name in names})


# --- episodes --------------------------------------------------------------------------------------------------------


def test_episodes_ask_as_many_rows_as_there_are(tiny, tasks):
    (source,) = corpora.tokenized(tiny, [make_task("uneven", classes=3, size=9).select(np.arange(25))])  # 9, 9, 7
    assert [corpora.shape(source.pool, k).n_query for k in (0, 1, 4, 16)] == [7, 6, 3, 1]
    assert corpora.shape(source.pool, 1, 5).n_query == 5
    with pytest.raises(EpisodeError, match="uneven"):
        corpora.draws(source, 16, [0])
    wide = make_task("wide", classes=5, size=40)
    assert corpora.shape(corpora.tokenized(tiny, [wide])[0].pool, 1).n_query == corpora.QUERY


def test_an_episode_does_not_depend_on_the_others(tiny, tasks):
    for source in corpora.tokenized(tiny, tasks):
        all_of_them = corpora.draws(source, 2, [0, 1, 2])
        assert len({tuple(rows) for rows in all_of_them.support}) == 3
        np.testing.assert_array_equal(all_of_them.query[1:2], corpora.draws(source, 2, [1]).query)
        np.testing.assert_array_equal(all_of_them[2:].support, corpora.draws(source, 2, [2]).support)


def test_few_shots_come_first():
    assert rival.order([0, 16, 4, 1, 8], 2) == [(1, 0), (4, 0), (1, 1), (4, 1), (8, 0), (16, 0), (8, 1), (16, 1)]


def test_corpora_by_name(tmp_path):
    (tmp_path / "trec").mkdir()
    (tmp_path / "trec" / "train.csv").write_text(
        "text,label\nwho,person\nwhen,time\nwhose,person\nsince when,time\nwhom,person\n"
    )
    assert [task.name for task in corpora.load(str(tmp_path), ["trec"])] == ["trec"]
    assert [len(task) for task in corpora.load(str(tmp_path), ["trec"], max_rows=2)] == [2]
    with pytest.raises(
        mt.DataError, match=r"holds no corpus 'poem_sentiment' \(1 of 2 are missing\); expected a folder with trec, poem"
    ):
        corpora.load(str(tmp_path), ["trec", "poem_sentiment"])


# --- fits that are kept ----------------------------------------------------------------------------------------------


def test_a_run_that_is_cut_off_goes_on(tiny, tasks, fits, tmp_path, monkeypatch):
    real, left = rival.write_text, [3]

    def write(*given):
        if not left[0]:
            raise KeyboardInterrupt  # after the fit, before it is kept
        left[0] -= 1
        real(*given)

    monkeypatch.setattr(rival, "write_text", write)
    with pytest.raises(KeyboardInterrupt):
        rival.measure(rival.SETFIT, tiny, tasks, SHOTS, 2, tmp_path)
    files = sorted((tmp_path / "setfit").iterdir())
    assert [file.name for file in files] == ["letters-1-0.json", "letters-2-0.json", "pairs-1-0.json"] and len(fits) == 4
    before = [file.read_bytes() for file in files]
    monkeypatch.setattr(rival, "write_text", real)
    rival.measure(rival.SETFIT, tiny, tasks, SHOTS, 2, tmp_path)
    assert len(fits) == 4 + 5 and fits[:4] == [3, 3, 6, 6]
    assert [file.read_bytes() for file in files] == before
    rival.measure(rival.SETFIT, tiny, tasks, SHOTS, 2, tmp_path)
    rival.measure(rival.SETFIT, tiny, tasks[:1], [0, 2], 1, tmp_path)  # fewer are among them
    assert len(fits) == 9


def test_what_is_kept_of_a_fit(tiny, tasks, fits, tmp_path):
    rival.measure(rival.SETFIT, tiny, tasks, [2], 1, tmp_path)
    cell = json.loads((tmp_path / "setfit" / "pairs-2-0.json").read_text())
    assert (cell["task"], cell["k"], cell["draw"], cell["examples"], cell["setfit"]) == ("pairs", 2, 0, 6, "1.2")
    assert np.shape(cell["probabilities"]) == (3 * 7, 3) and cell["targets"] == [0] * 7 + [1] * 7 + [2] * 7
    assert cell["accuracy"] == pytest.approx(1 / 3) and cell["nll"] == pytest.approx(-np.log([0.8, 0.1, 0.1]).mean(), abs=1e-6)
    assert all(wall > 0 and processor >= 0 for wall, processor in cell["seconds"].values())


def test_fits_that_come_with_metatext_are_not_made_again(tiny_folder, tiny, tasks, fits, tmp_path, monkeypatch):
    rival.measure(rival.SETFIT, tiny, tasks, [1], 1, tmp_path)
    monkeypatch.setattr(rival, "MADE", tmp_path)
    own = tmp_path / "own"
    rival.measure(rival.SETFIT, tiny, tasks, SHOTS, 1, own)
    assert sorted(file.name for file in (own / "setfit").iterdir()) == ["letters-2-0.json", "pairs-2-0.json"] and len(fits) == 4
    assert all(cell for *_, cell in rival.cells(rival.SETFIT, tiny, corpora.tokenized(tiny, tasks), SHOTS, 1, own))
    shorter = mt.Encoder.load(mt.EncoderConfig(str(tiny_folder), max_length=9))  # of another reading they say nothing
    rival.measure(rival.SETFIT, shorter, tasks, [1], 1, tmp_path / "shorter")
    assert len(fits) == 6


def test_the_fits_that_come_with_metatext_are_of_the_embedded_encoder():
    """They are looked up by its key: where that is made otherwise, nobody's tables would hold them."""
    encoder = mt.Encoder.load(mt.EncoderConfig("embedded", max_length=64))
    files = list((rival.MADE / "setfit").glob("*.json"))
    said = [json.loads(file.read_text(encoding="utf-8"))["settings"] for file in files]
    assert len(said) == 132
    assert {(settings["encoder"], settings["max_tokens"]) for settings in said} == {(encoder.key, 64)}


@pytest.mark.parametrize("change", ["text", "length", "damage"])
def test_a_fit_with_other_settings_is_refused(tiny_folder, tiny, tasks, fits, tmp_path, change):
    rival.measure(rival.SETFIT, tiny, tasks[:1], [1], 1, tmp_path)
    encoder, given, message = (
        tiny,
        tasks[:1],
        r"letters-1-0.json was measured with max_tokens 64, now it is 9; give another --output_dir",
    )
    if change == "length":
        encoder = mt.Encoder.load(mt.EncoderConfig(str(tiny_folder), max_length=9))
    elif change == "text":
        given, message = [make_task("letters", classes=3, size=9, seed=1)], "was measured with episode "
    else:
        next((tmp_path / "setfit").iterdir()).write_text('{"settings"')
        message = "letters-1-0.json is not valid JSON"
    for sought in (given, corpora.tokenized(encoder, given)):
        call = rival.measure if sought is given else lambda *of: list(rival.cells(*of))
        with pytest.raises(MetatextError, match=message):
            call(rival.SETFIT, encoder, sought, [1], 1, tmp_path)
    assert len(fits) == 1


def test_a_rival_that_is_not_installed(tiny, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(mt.ConfigError, match="needs the package setfit"):
        rival.measure(rival.SETFIT, tiny, tasks, SHOTS, 2, tmp_path)


@pytest.mark.filterwarnings("default")  # the package's
def test_setfit_itself(tiny, tasks, tmp_path):
    pytest.importorskip("setfit")
    rival.measure(rival.SETFIT, tiny, tasks[1:], [1], 1, tmp_path)
    cell = json.loads((tmp_path / "setfit" / "pairs-1-0.json").read_text())
    np.testing.assert_allclose(np.sum(cell["probabilities"], 1), 1, atol=1e-5)
    assert cell["seconds"]["fit"][1] > cell["seconds"]["adapt"][1]


def test_a_head_that_is_fine_tuned(tiny, tasks, fits, heads, tmp_path, capsys):
    """What it answered is found again by its weights; another head of that name is refused."""
    head = mt.MetaModel.from_encoder(tiny, "gp").eval()
    own = rival.finetuned("gp", head)
    for each in (rival.SETFIT, own):
        rival.measure(each, tiny, tasks[:1], [4], 1, tmp_path)
    cell = json.loads((tmp_path / "gp, fine-tuned" / "letters-4-0.json").read_text())
    ((*_, draw, _),) = rival.cells(own, tiny, corpora.tokenized(tiny, tasks[:1]), [4], 1, tmp_path)
    texts, ways = draw.texts(draw.batch.support[0]), draw.batch.support_y[0].tolist()
    clf = mt.finetune(head, texts, ways, label_names=dict(enumerate(draw.names(0))))
    np.testing.assert_allclose(cell["probabilities"], clf.predict_proba(draw.texts(draw.batch.query[0])), atol=1e-5)
    accuracy.run(["gp"], tasks[:1], tiny, [4], 1, 0, tmp_path)
    printed = capsys.readouterr().out
    assert "1 of 1 fits of gp, fine-tuned are measured" in printed and "gp, fine-tuned - setfit" in printed
    with torch.no_grad():
        next(head.heads.parameters()).add_(1)
    with pytest.raises(mt.ConfigError, match="was measured with weights"):
        rival.measure(rival.finetuned("gp", head), tiny, tasks[:1], [4], 1, tmp_path)


def test_what_adapting_costs(tiny, capsys):
    heads_benchmark.adaptation(tiny, 1)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(HEADS)


def test_what_learning_costs(monkeypatch, capsys):
    """The steps of meta-training, in either precision, and the bare loop beside them: they run, and figures are printed."""
    monkeypatch.setattr(encoder_benchmark, "STEPS", 1)
    monkeypatch.setattr(encoder_benchmark, "EPISODES", 1)
    monkeypatch.setattr(encoder_benchmark, "best_device", lambda: torch.device("cpu"))
    encoder_benchmark.learning(1)
    said = capsys.readouterr().out
    assert len(re.findall(r"learning \((?:lora|full), cpu\): \d+ texts/s in float32, [\d.]+ x a bare PyTorch loop", said)) == 2
    assert len(re.findall(r"bfloat16: \d+ texts/s, [\d.]+ x float32", said)) == 2


def test_probabilities_that_are_no_numbers_differ():
    recorded = {"one": [[0.5, 0.5]], "two": [[0.5, 0.5]]}
    assert predictions.difference(recorded, recorded) == 0
    assert not predictions.difference(recorded, {**recorded, "two": [[float("nan"), 0.5]]}) <= predictions.TOLERANCE


# --- tables ----------------------------------------------------------------------------------------------------------


def test_heads_answer_the_episodes_that_setfit_was_fitted_to(tiny, tasks, fits, heads, tmp_path, capsys):
    rival.measure(rival.SETFIT, tiny, tasks, [1], 2, tmp_path)
    rival.path(tmp_path, rival.SETFIT, "pairs", 1, 0).unlink()  # only one of its two episodes is left
    accuracy.run(["gp"], tasks, tiny, [0, 1, 4], 2, 4, tmp_path)
    printed, found = capsys.readouterr().out, json.loads((tmp_path / "accuracy.json").read_text())
    assert "3 of 8 fits of setfit are measured" in printed and "gp - setfit" in printed and "times as fast" in printed
    assert "4 examples per class, the query rows of all tasks together" in printed
    few = found["beside_setfit"]
    assert set(few) == {"0", "1"} and "setfit" not in few["0"]["mean"] and set(found["many_episodes"]) == {"0", "1", "4"}
    assert few["1"]["mean"]["setfit"]["accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert few["1"]["reference"] == "setfit" and len(few["1"]["over_tasks"]["gp"]) == 3
    assert found["speed"]["setfit"]["1"]["fits"] == 3
    assert (tmp_path / "accuracy.png").stat().st_size and (tmp_path / "risk.png").stat().st_size


def test_the_same_answers_as_an_evaluation_of_all_rows(tiny, tasks, heads):
    """Only the rows of the episodes are encoded; what is found is what `compare` finds."""
    from metatext.evaluation import compare, draw_for

    (source,) = corpora.tokenized(tiny, tasks[:1])
    shape, columns = corpora.shape(source.pool, 2, 3), accuracy.methods(accuracy.load(["gp", "ridge"], None), tiny)
    ours = accuracy.measured(columns, tiny, [(tasks[0], draw_for(source, shape, 5, 0))], {"k_shot": 2})
    theirs = compare(columns, tasks[:1], shape, 5, 0, store=mt.FeatureStore(tiny, progress=False), progress=False)
    for name in columns:
        np.testing.assert_allclose(ours.scores["letters"][name], theirs.scores["letters"][name], atol=1e-6)
        np.testing.assert_allclose(ours.rows["letters"][name].top, theirs.rows["letters"][name].top, atol=1e-4)


def test_nothing_to_show(tiny, tasks, heads, tmp_path):
    with pytest.raises(mt.ConfigError, match="holds no fit of SetFit at these shots yet; run the part setfit first"):
        accuracy.run(["gp"], tasks, tiny, [1], 2, 0, tmp_path)


def test_differences_over_tasks():
    scores = {f"task {i}": {"a": np.full(2, 0.5 + 0.01 * i), "b": np.full(2, 0.4)} for i in range(11)}
    report = Report("accuracy", scores, {}, {"k_shot": 1})
    mean, low, high = tables.over_tasks(report, "a", "b")
    spread = np.std(0.01 * np.arange(11)) / np.sqrt(11)  # of a mean of eleven tasks drawn with replacement
    assert mean == pytest.approx(0.15) and [low, high] == pytest.approx([0.15 - 1.96 * spread, 0.15 + 1.96 * spread], abs=0.002)
    one = Report("accuracy", {"task": scores["task 3"]}, {}, {"k_shot": 1})
    assert tables.over_tasks(one, "a", "b") == (pytest.approx(0.13),)
    assert "a - b  +13.0\n" in tables.means({1: one}, "b")


def test_ratios_are_of_fits_on_the_same_examples():
    fits = [{"k": 1, "seconds": {"fit": [9, fit], "adapt": [1, adapt]}} for fit, adapt in ((10, 0.1), (30, 0.1), (40, 0.2))]
    found = tables.ratios([*fits, {**fits[0], "k": 4}])
    assert found["1"] == {"fits": 3, "fitting": 30, "adapting": 0.1, "times": 200, "times_at_least": 100}
    assert found["4"]["fits"] == 1 and "200" in tables.speed("setfit", found)


def test_heads_by_name():
    found = accuracy.load(["gp", "ridge"], 64)
    assert list(found) == ["untrained gp", "untrained ridge"] and {m.encoder.max_length for m in found.values()} == {64}
    with pytest.raises(mt.ConfigError, match="two columns would be called 'untrained gp'"):
        accuracy.load(["gp", "gp"], 64)


def test_abstention(tiny, heads, tmp_path, capsys):
    task, outside = make_task("first", classes=5, size=12), make_task("other", classes=2, size=20)
    shape = mt.EpisodeConfig(n_way=3, k_shot=3, n_query=4, n_outside=10)
    abstention.run(["gp"], task, outside, tiny, tmp_path, shape)
    printed, found = capsys.readouterr().out, json.loads((tmp_path / "abstention.json").read_text())
    assert "3 classes of first, 3 examples each, 5 draws" in printed and "far: rows of other" in printed
    mean, half = found["auroc"]["label_names"]["auroc_near"]
    assert 0 < mean < 1 and half > 0 and mean == pytest.approx(found["pooled"]["label_names"]["auroc_near"], abs=0.2)
    assert (tmp_path / "abstention.png").stat().st_size


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["accuracy"], "accuracy needs --tasks_dir, a folder of corpora with one folder each: poem_sentiment, trec"),
        (["speed"], "unknown part 'speed'; known: heads, adapting"),
        (["setfit", "--tasks_dir", "x", "--draws", "0"], "--draws must be at least 1, got 0"),
        (["setfit", "--tasks_dir", "x", "--shots", "1", "1"], "--shots must be different numbers from 0 on, got 1 1"),
    ],
)
def test_mistakes_in_the_arguments(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert message in capsys.readouterr().err


def test_a_missing_corpus_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "setfit", "--tasks_dir", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"benchmark setfit: tasks_dir: .* holds no corpus"):
        benchmark.main()
