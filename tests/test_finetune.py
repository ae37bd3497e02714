"""finetune: better where there is something to learn, the adapted model where there is not, and every mistake in one error."""

from __future__ import annotations

import csv
import gc
import json
import logging
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from letters import make_task
from scripts.finetune_orders import orders, run
from scripts.processes import LAUNCH, finish, free_port, started

import metatext as mt
from metatext import AdaptedModel, ConfigError, DataError, EncoderConfig, FinetuneConfig, MetaModel
from metatext.card import make_card
from metatext.commands.finetune import table
from metatext.crossfit import FOLDS, assign_folds, hold_out, same_rows
from metatext.finetuning import class_weights, finetune
from metatext.fit import Fit
from metatext.loading import EncoderError
from metatext.run_folder import held
from metatext.storage import StorageError, read_folder, write_folder

FAST = {"lora": {"encoder_lr": 1e-2}, "full": {"encoder_lr": 3e-3}, "params": {}}
SMALL = {"per_device_train_batch_size": 16, "early_stopping_patience": None}


@pytest.fixture(scope="module")
def model(tiny) -> MetaModel:
    return MetaModel.from_encoder(tiny)


@pytest.fixture(scope="module", params=["params", "lora", "full"])
def tuned(model, request) -> AdaptedModel:
    """A classifier that gradient steps have changed, by all that can learn."""
    config = FinetuneConfig(what=request.param, num_train_epochs=6, **SMALL, **FAST[request.param])
    clf = finetune(model, orders(160), config=config)
    assert clf.is_finetuned and clf.finetuning["kept"] == "fine-tuned"
    return clf


def right(clf: AdaptedModel, task) -> float:
    return float(np.mean([a == b for a, b in zip(clf.predict(task.inputs()), task.answers(), strict=True)]))


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["lora", "full"])
def test_an_encoder_that_learns_answers_what_frozen_features_do_not_say(model, what):
    task, unseen = orders(160), orders(200, seed=1)
    config = FinetuneConfig(what=what, num_train_epochs=10, **SMALL, **FAST[what])
    adapted, clf = model.adapt(task), finetune(model, task, config=config)
    assert right(adapted, unseen) < 0.75 < 0.88 < right(clf, unseen)
    notes = clf.finetuning
    assert (notes["rows"], notes["held_out"], notes["kept"]) == (160, 32, "fine-tuned")
    assert notes["fine-tuned"]["accuracy"] > notes["adapted"]["accuracy"] + 0.1 and notes["adapted"]["epoch"] == 0
    assert not any(p.requires_grad for p in model.encoder.parameters())  # the model given stays frozen, and as it was
    np.testing.assert_array_equal(model.adapt(task).predict_proba(["aab"]), adapted.predict_proba(["aab"]))


def test_parameters_alone_learn_what_features_say(model):
    """The closed form of `prototype` is far from the best linear classifier; gradient steps on frozen features get nearer."""
    prototypes = MetaModel.from_encoder(model.encoder, "prototype")
    task, unseen = orders(400), orders(300, seed=1)
    config = FinetuneConfig(what="params", num_train_epochs=40, learning_rate=0.1, **SMALL)
    clf = finetune(prototypes, task, config=config)
    assert clf.is_finetuned and clf.encoder is prototypes.encoder
    assert clf.finetuning["fine-tuned"]["loss"] < clf.finetuning["adapted"]["loss"] - 0.02
    assert right(clf, unseen) > right(prototypes.adapt(task), unseen)


def test_what_pays_is_learned_anew_from_all_examples(model):
    """With ``refit`` the held-out rows, which chose the number of epochs, are learned from as well; what is said of them stays."""
    task, config = orders(160), FinetuneConfig(what="lora", num_train_epochs=6, **SMALL, **FAST["lora"])
    again, once = (finetune(model, task, config=replace(config, refit=refit)) for refit in (True, False))
    assert again.finetuning["kept"] == "fine-tuned" and again.finetuning["fine-tuned"] == once.finetuning["fine-tuned"]
    held = task.select(hold_out(task.targets, config.eval_share, config.seed)[1])
    sure = [clf.predict_proba(held.inputs())[np.arange(len(held)), held.targets].mean() for clf in (again, once)]
    assert sure[0] > sure[1] + 0.01


def test_the_first_fit_is_gone_before_all_examples_are_learned_from(model, monkeypatch):
    """Two encoders that learn, each with gradients and Adam's moments, would take twice the memory."""
    fits, alive, made = [], [], Fit.__init__

    def noted(self, *arguments):
        gc.collect()
        alive.extend(ref() is not None for ref in fits)
        made(self, *arguments)
        fits.extend(weakref.ref(part) for part in (self.module, self.optimizer, self.encoder))

    monkeypatch.setattr(Fit, "__init__", noted)
    config = FinetuneConfig(what="full", num_train_epochs=1, **SMALL, **FAST["full"])
    assert finetune(model, orders(40), config=config).finetuning["kept"] == "fine-tuned"
    assert alive == [False] * 3 and len(fits) == 6


@pytest.mark.parametrize("what", ["params", "lora"])
def test_rows_of_ones_own_judge(model, what):
    """They stop training and decide; the classifier has adapted to all examples and to no other row."""
    task, judges = orders(120), orders(60, seed=1)
    config = FinetuneConfig(what=what, num_train_epochs=6, **SMALL, **FAST[what])
    clf = finetune(model, task, config=config, eval_task=judges)
    notes = clf.finetuning
    assert (notes["rows"], notes["held_out"], notes["eval_task"]) == (120, 60, judges.name)
    assert clf.is_finetuned and clf.support.x.shape[1] == 120
    assert notes["fine-tuned"]["accuracy"] == pytest.approx(
        right(clf, judges)
    )  # the weights of the best epoch, nothing learned anew
    assert notes["adapted"]["accuracy"] == pytest.approx(right(model.adapt(task), judges))
    assert table(notes).startswith("60 rows of which letter comes first:")
    still = finetune(model, task, config=replace(config, learning_rate=0.0, encoder_lr=0.0), eval_task=judges)
    assert still.finetuning["kept"] == "adapted"
    np.testing.assert_array_equal(still.predict_proba(["aab"]), model.adapt(task).predict_proba(["aab"]))


def test_examples_may_come_from_a_generator(model):
    texts, labels = ["aaa", "aab", "zzz", "zzy"], ["x", "x", "y", "y"]
    config = FinetuneConfig(what="params", num_train_epochs=1)
    one, other = (finetune(model, rows, labels, config) for rows in (texts, (text for text in texts)))
    np.testing.assert_array_equal(one.predict_proba(["a"]), other.predict_proba(["a"]))


def test_rows_that_are_examples_do_not_judge(model, caplog):
    rows = [{"text": text, "label": label} for text, label in [("aaa", "x"), ("zzz", "y"), ("aab", "x"), ("zzy", "y")]]
    config = FinetuneConfig(what="params", num_train_epochs=1)
    clf = finetune(model, mt.load_task(rows[:3]), config=config, eval_task=mt.load_task(rows[1:]))
    assert clf.finetuning["held_out"] == 1 and "eval_task: 2 of 3 rows are among the examples, and judge nothing" in caplog.text
    with pytest.raises(DataError, match="eval_task: 2 of 2 rows are among the examples: none is left to judge"):
        finetune(model, mt.load_task(rows[:3]), config=config, eval_task=mt.load_task(rows[:2]))
    with pytest.raises(DataError, match="finetune: eval_task: targets: row 1: there is no class 'w'"):
        finetune(model, mt.load_task(rows), config=config, eval_task=mt.load_task([rows[0], {"text": "b", "label": "w"}]))
    with pytest.raises(DataError, match="eval_task is of kind multilabel, the examples of kind classification"):
        finetune(model, mt.load_task(rows), config=config, eval_task=mt.load_tasks("starter/multilabel/train")[0])


@pytest.mark.parametrize(
    "options", [{"learning_rate": 0.0}, {"learning_rate": 30.0, "max_grad_norm": 0.0}], ids=["no step", "wild steps"]
)
def test_the_adapted_model_is_kept_where_nothing_beats_it(model, options):
    task = orders(80)
    clf = finetune(model, task, config=FinetuneConfig(what="params", num_train_epochs=3, **options))
    assert clf.finetuning["kept"] == "adapted" and not clf.is_finetuned
    assert clf.finetuning["fine-tuned"]["loss"] >= clf.finetuning["adapted"]["loss"]
    rows = orders(20, seed=1).inputs()
    np.testing.assert_array_equal(clf.predict_proba(rows), model.adapt(task).predict_proba(rows))


@pytest.mark.parametrize("figure", ["accuracy", "macro_f1"])
def test_the_figure_that_decides(model, figure):
    """All held-out letters are answered rightly by adapting: a better loss alone is no reason then."""
    clf = finetune(
        model, make_task("letters", classes=3, size=20), config=FinetuneConfig(what="params", metric_for_best_model=figure)
    )
    assert clf.finetuning["adapted"]["accuracy"] == 1 and clf.finetuning["kept"] == "adapted"
    assert clf.finetuning["fine-tuned"]["epoch"] == 1 and clf.finetuning["fine-tuned"]["loss"] < clf.finetuning["adapted"]["loss"]


def test_two_examples_cannot_be_judged(model, caplog):
    clf = finetune(model, ["aaa", "zzz"], ["early", "late"])
    assert clf.finetuning["kept"] == "adapted" and "none can be held out" in caplog.text
    assert table(clf.finetuning).startswith("none of 2 examples could be held out, so nothing was learned")
    np.testing.assert_array_equal(clf.predict_proba(["a"]), model.adapt(["aaa", "zzz"], ["early", "late"]).predict_proba(["a"]))
    assert finetune(model, ["aaa", "aab", "zzz"], ["early", "early", "late"]).finetuning["held_out"] == 1


def test_the_seed_fixes_the_weights(model):
    config = {"what": "lora", "num_train_epochs": 5, **SMALL, **FAST["lora"]}
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    one, same, other = (finetune(model, orders(160), config=FinetuneConfig(seed=seed, **config)) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)  # the caller's random state is where it was
    assert one.is_finetuned and one.finetuning == same.finetuning
    rows = orders(20, seed=2).inputs()
    np.testing.assert_array_equal(one.predict_proba(rows), same.predict_proba(rows))
    assert one.finetuning["fine-tuned"] != other.finetuning["fine-tuned"]


def test_class_weights_move_answers_to_the_class_that_counts(model):
    config = {"what": "params", "num_train_epochs": 20, "learning_rate": 0.05, **SMALL}
    task, unseen = orders(160), orders(200, seed=1)
    share = {}
    for name, weights in (("plain", ()), ("ab", ("ab=8",)), ("ba", ("ba=8",))):
        answers = finetune(model, task, config=FinetuneConfig(class_weights=weights, **config)).predict(unseen.inputs())
        share[name] = answers.count("ab") / len(answers)
    assert share["ba"] < share["plain"] - 0.1 < share["plain"] + 0.1 < share["ab"]


def test_balanced_weights_count_every_class_alike():
    y = np.array([0] * 6 + [1] * 2)
    weights = class_weights(y, ["x", "y", "unseen"], ("balanced",))
    np.testing.assert_allclose(weights[:2] * np.bincount(y), [4, 4])
    np.testing.assert_array_equal(class_weights(y, [7, 8], ("8=3",)), [1, 3])


def test_what_is_held_out_is_of_every_class():
    y = np.repeat(np.arange(5), [1, 2, 3, 10, 100])
    train, held = hold_out(y, 0.2, seed=0)
    assert np.bincount(y[held], minlength=5).tolist() == [0, 1, 1, 2, 20]
    assert sorted([*train, *held]) == list(range(len(y))) and not set(train) & set(held)
    assert not np.array_equal(held, hold_out(y, 0.2, seed=1)[1])


def test_no_fold_takes_a_whole_class():
    y = np.repeat(np.arange(4), [1, 2, 7, 30])
    fold = assign_folds(y, seed=0)
    assert fold[0] == FOLDS  # nothing would be left of its class
    for c in range(1, 4):
        assert max(np.bincount(fold[y == c])) < (y == c).sum() and fold[y == c].max() < FOLDS


def test_a_repeated_row_judges_nothing(model):
    """Neither held-out rows nor folds share a text with what is learned from; meaningless labels then pay nothing, however often they stand there."""
    same = same_rows(["a", ("a", "b"), "a", "c", ("a", "b"), "d"])
    assert same.tolist() == [0, 1, 0, 2, 1, 3]
    y = np.tile(np.arange(2), 100)
    same = np.tile(np.arange(40), 5)  # 40 texts, five times each
    train, held = hold_out(y, 0.2, 0, same)
    assert len(held) == 40 and not set(same[train]) & set(same[held])
    fold = assign_folds(y, 0, same)
    assert all(len(set(fold[same == text])) == 1 for text in range(40)) and set(fold) == set(range(FOLDS))
    once, plain = hold_out(y, 0.2, 0, np.arange(200)), hold_out(y, 0.2, 0)
    assert all(np.array_equal(a, b) for a, b in zip(once, plain))
    texts = list(dict.fromkeys(orders(200).inputs()))[:40]
    clf = finetune(model, texts * 5, ["x", "y"] * 100, FinetuneConfig("params", num_train_epochs=2, learning_rate=0.05))
    assert clf.finetuning["adapted"]["accuracy"] < 0.9


def test_a_training_that_was_cut_off_before_leaves_no_trace(model):
    from accelerate.state import GradientState

    task, config = orders(80), FinetuneConfig("params", num_train_epochs=1, learning_rate=0.05)
    expected = finetune(model, task, config=config).finetuning
    GradientState()._set_sync_gradients(False)  # as `accumulate` leaves it where an error passes through
    assert finetune(model, task, config=config).finetuning == expected
    assert expected["fine-tuned"]["loss"] != expected["adapted"]["loss"]


def test_accumulation_of_a_launch_is_not_that_of_fine_tuning(model, monkeypatch):
    task, config = orders(80), FinetuneConfig("params", num_train_epochs=1, learning_rate=0.05)
    expected = finetune(model, task, config=config).finetuning
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1000")
    assert finetune(model, task, config=config).finetuning == expected


def test_labels_that_have_no_example_stay(model):
    task = orders(40)
    clf = finetune(model, task.inputs(), task.answers(), FinetuneConfig(num_train_epochs=2), label_names=["ba", "neither", "ab"])
    assert clf.labels == ["ba", "neither", "ab"] and clf.predict_proba(["a"]).shape == (1, 3)


@pytest.mark.parametrize("what", ["params", "lora"])
def test_pairs(model, what):
    task = orders(40)
    pairs = [(text[:3], text[3:]) for text in task.inputs()]
    clf = finetune(
        model, pairs, task.answers(), FinetuneConfig(what=what, num_train_epochs=2, metric_for_best_model="loss", **FAST[what])
    )
    assert clf.pairs is True and len(clf.predict(pairs[:3])) == 3


# --- from a classifier, and again -------------------------------------------------------------------------------------


def test_a_classifier_lends_its_labels_and_names(model):
    task = orders(80)
    names = {"ba": "b first", "ab": "a first"}
    config = FinetuneConfig(num_train_epochs=3, learning_rate=0.05)
    clf = finetune(model.adapt(["aab", "bba"], ["ab", "ba"], label_names=names), task.inputs(), task.answers(), config)
    by_hand = finetune(model, task.inputs(), task.answers(), config, label_names=names)
    assert clf.labels == ["ba", "ab"] and clf.label_names == ("b first", "a first")
    rows = orders(20, seed=1).inputs()  # its own two examples are gone: they might stand among those held out
    np.testing.assert_allclose(clf.predict_proba(rows), by_hand.predict_proba(rows), atol=1e-4)


def test_a_fine_tuned_model_goes_on(tuned):
    """From where it had come: without a step it answers as before."""
    what, task, rows = tuned.finetuning["settings"]["what"], orders(160), orders(20, seed=2).inputs()
    still = FinetuneConfig(what=what, num_train_epochs=1, learning_rate=0.0, encoder_lr=0.0, weight_decay=0.0)
    again = finetune(tuned, task, config=still)
    np.testing.assert_allclose(again.predict_proba(rows), tuned.predict_proba(rows), atol=1e-4)
    if what != "params":  # with which there is hardly anything to learn here
        assert again.finetuning["adapted"]["loss"] < tuned.finetuning["adapted"]["loss"] - 0.1


def test_a_head_whose_encoder_has_learned(tiny_folder, tmp_path):
    """Low-rank updates go on from where they are; other weights cannot be saved beside them."""
    start = MetaModel.from_encoder(EncoderConfig(str(tiny_folder), tuning="lora", lora_rank=3, pretrained_share=0.2))
    with torch.no_grad():
        for parameter in start.encoder.tuned_tensors().values():
            parameter += 0.05
    task = orders(80)
    clf = finetune(start, task, config=FinetuneConfig(what="lora", num_train_epochs=4, **SMALL, **FAST["lora"]))
    assert clf.is_finetuned
    clf.save_pretrained(tmp_path / "clf")
    rows = orders(20, seed=1).inputs()
    np.testing.assert_array_equal(AdaptedModel.from_pretrained(tmp_path / "clf").predict_proba(rows), clf.predict_proba(rows))
    with pytest.raises(EncoderError, match="trained with tuning lora, which tuning full cannot go on from"):
        finetune(start, task, config=FinetuneConfig(what="full"))


# --- to disk and back -------------------------------------------------------------------------------------------------


def test_round_trip(tuned, tmp_path):
    rows = orders(30, seed=1).inputs()
    tuned.save_pretrained(tmp_path / "clf")
    assert sorted(path.name for path in (tmp_path / "clf").iterdir()) == ["config.json", "model.safetensors"]
    again = AdaptedModel.from_pretrained(tmp_path / "clf")
    np.testing.assert_array_equal(again.predict_proba(rows), tuned.predict_proba(rows))
    np.testing.assert_array_equal(again.confidence(rows), tuned.confidence(rows))
    assert again.is_finetuned and again.finetuning == tuned.finetuning and again.labels == tuned.labels
    again.to("cpu").save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "clf" / "model.safetensors").read_bytes()


def test_folders_of_before_load(model, tmp_path):
    """What adapting writes has none of the new entries, as folders that older versions wrote."""
    clf = model.adapt(orders(20))
    clf.save_pretrained(tmp_path / "clf")
    config, tensors = read_folder(tmp_path / "clf", "adapted")
    assert "finetuning" not in config["task"] and not any(name.startswith("params.") for name in tensors)
    again = AdaptedModel.from_pretrained(tmp_path / "clf", model.encoder)
    assert again.finetuning is None and not again.is_finetuned


def test_columns_of_the_examples_are_kept(model, tuned, tmp_path):
    """Through what learned, to disk and back; a classifier that learns anew takes those of its new examples, where these say them."""
    assert tuned.columns == {"text": "text"}
    tuned.save_pretrained(tmp_path / "clf")
    assert (
        AdaptedModel.from_pretrained(tmp_path / "clf", model.encoder if not tuned.encoder.learned else None).columns
        == tuned.columns
    )
    rows = [{"letters": row["text"], "label": label} for row, label in zip(orders(20).rows, orders(20).answers())]
    task = mt.load_task(rows, columns={"text": "letters"})
    config = FinetuneConfig(what="params", num_train_epochs=1, **SMALL)
    start = model.adapt(orders(20))
    assert finetune(start, task, config=config).columns == {"text": "letters"}
    assert finetune(start, task.inputs(), task.answers(), config=config).columns == {"text": "text"}
    assert start.columns == {"text": "text"}


@pytest.mark.parametrize("damage", ["missing", "shape", "nan"])
def test_damaged_parameters(tuned, tmp_path, damage):
    tuned.save_pretrained(tmp_path / "clf")
    config, tensors = read_folder(tmp_path / "clf", "adapted")
    if damage == "missing":
        del tensors["params.residual_bias"]
    elif damage == "shape":
        tensors["params.residual_bias"] = torch.zeros(1, 5)
    else:
        tensors["params.residual_bias"][0, 0] = torch.nan
    del config["weights"]
    write_folder(tmp_path / "clf", config, tensors)
    with pytest.raises(StorageError, match="fine-tuned parameters are"):
        AdaptedModel.from_pretrained(tmp_path / "clf")


def test_no_text_is_written(tuned, tmp_path):
    tuned.save_pretrained(tmp_path / "clf")
    for path in (tmp_path / "clf").iterdir():
        content = path.read_bytes()
        assert not any(text.encode() in content for text in orders(160).inputs())


@pytest.mark.parametrize(
    "change", [("add_class", "x", ["aaa"]), ("add_examples", ["aaa"], ["ab"]), ("remove_class", "ab")], ids=lambda c: c[0]
)
def test_no_change_without_training(tuned, change):
    name, *arguments = change
    with pytest.raises(DataError, match=f"{name}: this model was fine-tuned, .* call metatext.finetune with all examples"):
        getattr(tuned, name)(*arguments)


# --- killed, and once more --------------------------------------------------------------------------------------------


def learn(model, folder: Path | None = None, what: str = "lora", rows: int = 80, judges: int = 0, **more) -> AdaptedModel:
    options = {key: more.pop(key) for key in ("overwrite_output_dir", "description") if key in more}
    config = FinetuneConfig(what=what, **{"num_train_epochs": 3, **SMALL, "learning_rate": 0.05, **FAST[what], **more})
    task, options["eval_task"] = orders(rows), orders(judges, seed=3) if judges else None
    return finetune(model, task.inputs(), task.answers(), config, output_dir=folder, **options)


def cut_off(model, folder: Path, monkeypatch, saves: int = 1, **options) -> Path:
    """The checkpoint that a fine-tuning leaves which is interrupted behind so many of them."""
    save, left = Fit.save, [None] * saves

    def saved(*arguments, **options):
        save(*arguments, **options)
        left.pop()
        if not left:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Fit, "save", saved)
        learn(model, folder, **options)
    (kept,) = (folder / "checkpoints").iterdir()  # those before are gone
    return kept


def alike(one: Path, other: Path) -> bool:
    (config, tensors), (expected, weights) = (read_folder(folder, "adapted") for folder in (one, other))
    return config == expected and all(torch.equal(tensors[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("saves", "options", "said"),
    [
        (2, {"what": "params"}, "fine-tuning, after epoch 2"),
        (1, {}, "fine-tuning, after epoch 1"),
        (3, {}, "fine-tuning, after epoch 3"),  # before it learns anew
        (4, {}, "fine-tuning on all examples, after epoch 1"),
        (2, {"judges": 40}, "fine-tuning, after epoch 2"),
        (3, {"what": "full", "refit": False}, "fine-tuning, after epoch 3"),  # before it is saved
        (2, {"what": "params", "learning_rate": 30.0, "max_grad_norm": 0.0}, "fine-tuning, after epoch 2"),  # nothing is better
    ],
)
def test_cut_off_and_called_again_it_ends_bit_for_bit_alike(model, tmp_path, monkeypatch, caplog, saves, options, said):
    whole = learn(model, **options)
    whole.save_pretrained(tmp_path / "whole")
    assert whole.is_finetuned is (options.get("learning_rate") != 30.0)
    kept = cut_off(model, tmp_path / "run", monkeypatch, saves, **options)
    assert not (tmp_path / "run" / "config.json").exists()
    assert not any(text.encode() in path.read_bytes() for path in kept.iterdir() for text in orders(80).inputs())
    with caplog.at_level(logging.INFO, "metatext"):
        again = learn(model, tmp_path / "run", **options)
    assert f"going on from {kept}: {said}" in caplog.text
    assert again.finetuning == whole.finetuning and alike(tmp_path / "run", tmp_path / "whole")
    rows = orders(20, seed=1).inputs()
    np.testing.assert_array_equal(again.predict_proba(rows), whole.predict_proba(rows))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "config.json", "model.safetensors"]


def test_a_checkpoint_of_other_examples_or_settings_is_refused(model, tmp_path, monkeypatch):
    kept = cut_off(model, tmp_path, monkeypatch, what="params")
    for options, message in (
        ({"num_train_epochs": 4}, r"finetune\.num_train_epochs: 3 -> 4"),
        ({"rows": 82}, r"examples\.labels: .*examples\.rows: 80 -> 82; examples\.texts: "),
        ({"judges": 40}, r"eval_task\.labels: .*eval_task\.rows: 0 -> 40"),
        ({"description": "which comes first"}, r"task\.description: "),
        ({"model": MetaModel.from_encoder(model.encoder, "ridge")}, r"head\.name: 'gp' -> 'ridge'; weights: "),
        ({"model": model.adapt(orders(10))}, r"weights: "),
    ):
        again = r"Give another output_dir, or set overwrite_output_dir to start anew\."
        with pytest.raises(ConfigError, match=rf"holds a run with other settings \({message}.*{again}"):
            learn(options.pop("model", model), tmp_path, **{"what": "params", **options})
        assert kept.is_dir()
    clf = learn(model, tmp_path, what="params", rows=82, overwrite_output_dir=True)
    assert clf.finetuning["rows"] == 82 and not kept.exists()
    assert learn(model, tmp_path, what="params").finetuning["rows"] == 80  # a classifier that is done is replaced, as before


def test_a_checkpoint_in_another_precision_is_refused(model, tmp_path, monkeypatch):
    cut_off(model, tmp_path, monkeypatch, what="params")
    with monkeypatch.context() as patch:
        patch.setattr(AcceleratorState(cpu=True), "_mixed_precision", "bf16")  # of all accelerators in this process
        with pytest.raises(ConfigError, match=r"other settings \(mixed_precision: 'no' -> 'bf16'\)"):
            learn(model, tmp_path, what="params")
    assert learn(model, tmp_path, what="params").finetuning["rows"] == 80


def test_a_damaged_checkpoint_is_passed_over(model, tmp_path, monkeypatch, caplog):
    whole = learn(model, what="params")
    kept = cut_off(model, tmp_path, monkeypatch, what="params")
    (kept / "model.safetensors").write_bytes((kept / "model.safetensors").read_bytes()[:-9])
    assert learn(model, tmp_path, what="params").finetuning == whole.finetuning
    assert "passing over a damaged checkpoint" in caplog.text and "going on" not in caplog.text


def test_folders_that_cannot_be_learned_in(model, tmp_path):
    model.save_pretrained(tmp_path / "head")
    with pytest.raises(StorageError, match="holds 'head'; saving 'adapted' there would destroy it"):
        learn(model, tmp_path / "head")
    with held(tmp_path / "busy"), pytest.raises(ConfigError, match=r"another run is writing to .*busy"):
        learn(model, tmp_path / "busy")
    with pytest.raises(ConfigError, match="output_dir: expected a text or Path or None, got 7"):
        learn(model, 7)
    learn(model, tmp_path / "two", rows=2)  # nothing can be held out
    assert AdaptedModel.from_pretrained(tmp_path / "two", model.encoder).finetuning["held_out"] == 0


@pytest.mark.parametrize(("processes", "what", "precision"), [(1, "lora", "no"), (2, "lora", "no"), (1, "full", "bf16")])
def test_killed_it_ends_bit_for_bit_alike(tiny_folder, tmp_path, processes, what, precision):
    config = {"what": what, "num_train_epochs": 3, "early_stopping_patience": None, **FAST[what]}
    common = {"encoder": str(tiny_folder), "rows": 81, "config": config, "save_to": str(tmp_path / "{rank}.npz")}
    common["double"] = precision == "no"
    one, other = ({**common, "output_dir": str(tmp_path / name)} for name in ("killed", "whole"))
    env = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": precision, "METATEXT_CACHE": str(tmp_path / "cache")}
    launcher = [*LAUNCH, free_port()] if processes == 2 else []
    with started("finetune_orders.py", [{**one, "die_at": 2}], tmp_path, launcher=launcher, **env) as process:
        assert process.wait(240) != 0
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").glob("checkpoint-*")] == [
        f"checkpoint-{10 if processes == 1 else 6}"
    ]
    with started("finetune_orders.py", [one, other], tmp_path, launcher=launcher, **env) as process:
        finish(process, 240)
    assert alike(tmp_path / "killed", tmp_path / "whole")
    assert (np.load(tmp_path / "0.npz")["half"] > 0) == (precision == "bf16")


# --- several processes ------------------------------------------------------------------------------------------------


def test_two_processes_take_the_steps_of_one(tiny_folder, tmp_path):
    """Batches of 16 and of 8 on each of two, in float64; the last batch of one row leaves a process without any."""

    def settings(processes: int) -> list[dict]:
        made = []
        for what in ("params", "lora"):
            config = {
                "what": what,
                "num_train_epochs": 3,
                "early_stopping_patience": None,
                "per_device_train_batch_size": 16 // processes,
            }
            config |= {"class_weights": ["ab=2"], "encoder_lr": 1e-3}
            path = str(tmp_path / (f"{what} {processes}" + "-{rank}.npz"))
            made.append({"encoder": str(tiny_folder), "save_to": path, "rows": 81, "config": config})
        return made

    env = {"ACCELERATE_USE_CPU": "true", "METATEXT_CACHE": str(tmp_path / "cache")}
    with started("finetune_orders.py", settings(2), tmp_path, launcher=[*LAUNCH, free_port()], **env) as process:
        for arguments in settings(1):
            run(**arguments)
        finish(process, 240)
    for what, near in (("params", 1e-9), ("lora", 1e-5)):
        expected, *found = (np.load(tmp_path / f"{what} {name}.npz") for name in ("1-0", "2-0", "2-1"))
        assert any(expected["residual_weights"].ravel())
        for key in expected.files:
            for other in found:
                np.testing.assert_allclose(other[key], expected[key], atol=near)


def test_a_launched_recipe_in_half_precision(tiny_folder, tmp_path):
    """Two processes, one folder, one table."""
    task, examples = orders(120), tmp_path / "examples.csv"
    with open(examples, "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(task.inputs(), task.answers(), strict=True)])
    MetaModel.from_encoder(str(tiny_folder)).save_pretrained(tmp_path / "head")
    root = Path(__file__).resolve().parents[1]
    launch = [*LAUNCH, free_port()]
    launch[launch.index("no")] = "bf16"
    recipe = [str(root / "recipes" / "finetune.py"), "--model", "head", "--examples", "examples.csv", "--output_dir", "out"]
    recipe += ["--what", "lora", "--encoder_lr", "0.01", "--num_train_epochs", "3", "--per_device_train_batch_size", "8"]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, *launch, *recipe], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("24 of 120 examples held out:") == 1
    assert len(AdaptedModel.from_pretrained(tmp_path / "out").predict(task.inputs())) == 120


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs, targets, message",
    [
        (["a", "b"], ["x"], "2 inputs but 1 targets"),
        (["a", "b"], None, "one target per input, got None"),
        (["a", " "], ["x", "y"], "row 1 is empty"),
        (["a", "b"], ["x", "x"], "a classifier needs at least two"),
        ([], [], "without examples the label_names must be given"),
        ("ab", ["x", "y"], "expected a list of texts, got one text"),
    ],
)
def test_what_cannot_be_learned_from(model, inputs, targets, message):
    with pytest.raises(DataError, match=message):
        finetune(model, inputs, targets)


def test_other_mistakes(model, tiny_folder):
    task = orders(20)
    clf = model.adapt(task)
    for arguments, options, message in (
        ((model, [], []), {"label_names": ["x", "y"]}, "there are no examples to learn from"),
        ((clf, task), {"label_names": ["ab", "ba"]}, "a classifier has its own label_names"),
        ((clf, ["a"], ["x"]), {}, "finetune: targets: row 0: there is no class 'x'"),
        ((clf, ["a"], None), {}, "finetune: targets: expected a list of one target per input, got None"),
        ((clf, [("a", "b")], ["ab"]), {}, "the examples were single texts"),
        ((model.adapt(["a", "b"], [1, 2], kind="regression"), ["a"], [1]), {}, "so far, the task is of kind regression"),
        ((model, mt.load_tasks("starter/multilabel/train")[0]), {}, "so far, the task is of kind multilabel"),
    ):
        with pytest.raises(DataError, match=message):
            finetune(*arguments, **options)
    for arguments, options, message in (
        (("gp", task), {}, "model: expected MetaModel or AdaptedModel, got 'gp'; load it with MetaModel.from_pretrained or"),
        ((model, task), {"config": {"what": "params"}}, "config: expected FinetuneConfig, got one dict"),
        ((model, task), {"eval_task": "dev.csv"}, "eval_task: expected Task or None, got 'dev.csv'; load it with load_task"),
    ):
        with pytest.raises(ConfigError, match=message):
            finetune(*arguments, **options)
    with pytest.raises(ConfigError, match="class_weights: no label is called 'abc'; did you mean"):
        finetune(model, task, config=FinetuneConfig(class_weights=("abc=2",)))
    with pytest.raises(ConfigError, match="class_weights: every held-out example has the weight 0, got ab=0 ba=0"):
        finetune(model, task, config=FinetuneConfig(class_weights=("ab=0", "ba=0")))
    steps = MetaModel.from_encoder(EncoderConfig(str(tiny_folder), tuning="lora"), mt.HeadConfig("inner_loop", encoder_steps=1))
    with pytest.raises(ConfigError, match="takes steps on the encoder for every task"):
        finetune(steps, task)
    for options, message in (({"what": "head"}, "what: expected one of"), ({"eval_share": 0.9}, "eval_share: must be between")):
        with pytest.raises(ConfigError, match=message):
            FinetuneConfig(**options)


def test_numbers_that_are_none_end_in_an_error(model):
    with pytest.raises(mt.launch.TrainingError, match=r"is not a number; lower learning_rate \(1e\+30\)"):
        finetune(model, orders(40), config=FinetuneConfig(learning_rate=1e30))


def test_few_judges_are_said(model, caplog):
    finetune(model, orders(40), config=FinetuneConfig(what="params", num_train_epochs=1))
    assert "8 examples judge what is learned: which model is kept is little more than chance" in caplog.text


def test_without_a_terminal_every_epoch_is_a_line(model, caplog):
    with caplog.at_level(logging.INFO, "metatext"):
        clf = finetune(model, orders(160), config=FinetuneConfig(what="lora", num_train_epochs=2, **SMALL, **FAST["lora"]))
    said = [line.message for line in caplog.records if line.name == "metatext.progress"]
    assert said[0].startswith("fine-tuning: epoch 1 of at most 2, held-out loss ") and said[0].endswith(" left")
    best = clf.finetuning["fine-tuned"]["epoch"]
    assert said[-1] == f"fine-tuning on all examples: epoch {best} of at most {best}, 0:00:00 left"


def test_pushed_and_loaded_by_its_id(hub, client):
    code = """
config = mt.FinetuneConfig(what="lora", num_train_epochs=6, encoder_lr=0.01, per_device_train_batch_size=16, early_stopping_patience=None)
clf = mt.finetune(mt.MetaModel.from_encoder(encoder), rows, targets, config)
clf.push_to_hub("alice/tuned", token=ALICE)
again = mt.AdaptedModel.from_pretrained("alice/tuned")
answer = [model.predict_proba(QUERIES).tolist() for model in (clf, again)] + [again.is_finetuned]
from metatext.commands.finetune import load_model_or_classifier  # what --model takes
answer.append(type(load_model_or_classifier("alice/tuned")).__name__)
"""
    task = orders(160)
    pushed, loaded, is_finetuned, read_as = client.run(code, rows=task.inputs(), targets=task.answers())
    assert pushed == loaded and is_finetuned and read_as == "AdaptedModel"
    assert b"fine-tuned by gradient steps" in next(
        f.content for p, f in hub.repo("alice/tuned").files("main").items() if p == "README.md"
    )


def test_the_card_tells_of_it(tuned, model, tmp_path):
    for name, clf in (("tuned", tuned), ("adapted", model.adapt(orders(20)))):
        clf.save_pretrained(tmp_path / name)
        card = str(make_card(read_folder(tmp_path / name, "adapted")[0], "me/classifier"))
        assert ("fine-tuned by gradient steps on its 160 examples" in card) is (name == "tuned")


def test_figures_are_plain_json(tuned):
    assert json.loads(json.dumps(tuned.finetuning)) == tuned.finetuning
