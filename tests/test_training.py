"""meta_train: what it learns, keeps and writes, the same on any launch, and after any interruption."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import importlib.metadata
import json
import shutil
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from scripts.processes import LAUNCH, finish, free_port, kill_when, started
from scripts.train_head import letter_task, letter_tasks, train

import metatext as mt
from metatext import launch, run_folder, training
from metatext import run as run_module
from metatext.checkpoints import Checkpoints
from metatext.evaluation import draw_for, episode_scores
from metatext.features import encode_tasks
from metatext.heldout import EVAL_EPISODES
from metatext.pools import EpisodeError
from metatext.run_folder import read_metrics
from metatext.settings import ConfigError
from metatext.stopping import Stopped
from metatext.storage import read_folder
from metatext.store import FeatureStore
from metatext.training import TrainingError, meta_train
from metatext.warm_start import warm_start

EPISODES = mt.EpisodeConfig(n_way=(2, 4), k_shot=(0, 4), n_query=3, n_outside=2)


def loop(folder, **settings) -> mt.TrainConfig:
    """A short loop, without the evaluation's default length."""
    common = {"meta_steps": 6, "meta_batch_size": 4, "meta_lr": 1e-2, "logging_steps": 2, "eval_steps": 2, "eval_episodes": 4}
    return mt.TrainConfig(output_dir=str(folder), **{**common, "save_steps": 2, **settings})


def fresh(tiny, head="ridge", rank=2, seed=0) -> mt.MetaModel:
    return mt.MetaModel.from_encoder(tiny, mt.HeadConfig(name=head, rank=rank, hidden_dim=16), seed)


def copy_of(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a, b) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(tiny, folder, *, unseen=False, head="ridge", model=None, episodes=EPISODES, tasks=None, **settings):
    """(model, result) of a short run."""
    model = model or fresh(tiny, head)
    eval_tasks = [letter_task("unseen", seed=9)] if unseen else []
    config = loop(folder, **settings)
    result = meta_train(model, tasks or letter_tasks(), eval_tasks=eval_tasks, episodes=episodes, config=config)
    return model, result


def scripted_evaluations(monkeypatch, losses) -> list[dict[str, torch.Tensor]]:
    """Evaluations answer with these losses, one after the other; the list fills with the heads that were evaluated."""
    heads = []

    def evaluate(model, *_):
        heads.append(copy_of(model.heads))
        return {"eval_accuracy": 0.5, "eval_loss": losses[len(heads) - 1]}

    monkeypatch.setattr(run_module, "watch", evaluate)
    return heads


def poison_from(monkeypatch, step: int, task: int) -> None:
    """From ``step`` on, every vector of a training task is NaN."""
    encode, draw = training.encode_tasks, training.train_episodes
    seen = []

    def encode_and_remember(*args, **options):
        seen.append(encode(*args, **options))
        return seen[-1]

    def draw_and_poison(*args, **options):
        if options["step"] == step:
            features = seen[0]
            features.store.tables[:] = [np.array(table) for table in features.store.tables]
            ends = np.cumsum([len(t) for t in features.tasks])
            for i in features.rows[ends[task] - len(features.tasks[task]) : ends[task], 0]:
                table = np.searchsorted(features.store.offsets, i, side="right") - 1
                features.store.tables[table][i - features.store.offsets[table]] = np.nan
        return draw(*args, **options)

    monkeypatch.setattr(training, "encode_tasks", encode_and_remember)
    monkeypatch.setattr(training, "train_episodes", draw_and_poison)


def interrupt_at(monkeypatch, step: int, act=None) -> None:
    """Before it draws the episodes of ``step`` the run is interrupted, or ``act`` is called."""
    draw = training.train_episodes

    def drawn(*args, **options):
        if options["step"] == step:
            if act is None:
                raise KeyboardInterrupt
            act()
        return draw(*args, **options)

    monkeypatch.setattr(training, "train_episodes", drawn)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("head", ["prototype", "ridge", "metanet"])
def test_loss_falls_and_every_parameter_moves_but_the_encoder_stays(tiny, tmp_path, head):
    model = fresh(tiny, head)
    before, encoder = copy_of(model.heads), copy_of(tiny)
    _, result = run(tiny, tmp_path / "run", model=model, meta_steps=60, meta_batch_size=8, logging_steps=5, save_steps=60)
    losses = [point["loss"] for point in result.history]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3]), losses
    still = [name for name, tensor in model.heads.state_dict().items() if torch.equal(tensor, before[name])]
    assert not still, f"never moved: {still}"
    assert same(copy_of(tiny), encoder)
    assert all(p.grad is None for p in tiny.parameters())


def test_same_seed_same_weights_other_seed_other_weights(tiny, tmp_path):
    a, b, c = (run(tiny, tmp_path / name, seed=seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert same(copy_of(a.heads), copy_of(b.heads))
    assert not same(copy_of(a.heads), copy_of(c.heads))


def test_same_seed_same_dropout(tiny, tmp_path):
    def final(name, dropout):
        torch.rand(len(name))  # what was drawn before must not matter
        model = mt.MetaModel.from_encoder(tiny, mt.HeadConfig(name="metanet", hidden_dim=16, dropout=dropout))
        return copy_of(run(tiny, tmp_path / name, model=model)[0].heads)

    assert same(final("a", 0.5), final("other", 0.5))
    assert not same(final("b", 0.5), final("c", 0.0))


def test_a_data_loader_that_another_loop_left_does_not_cut_accumulation_short(tiny, tmp_path):
    from accelerate import Accelerator

    def final(name, parts):
        return copy_of(run(tiny, tmp_path / name, gradient_accumulation_steps=parts)[0].heads)

    expected = final("one", 1)
    loader = iter(Accelerator(cpu=True).prepare(torch.utils.data.DataLoader([0.0])))
    next(loader)  # its last batch: to Accelerate the loader is in use, and at its end, until somebody asks for another
    found = final("two", 2)
    next(loader, None)
    assert all(torch.allclose(found[name], expected[name], atol=1e-4) for name in expected)


def test_max_grad_norm_0_means_no_clipping(tiny, tmp_path):
    off, never, always = (run(tiny, tmp_path / str(norm), max_grad_norm=norm)[0] for norm in (0, 1e9, 1e-4))
    assert same(copy_of(off.heads), copy_of(never.heads))
    assert not same(copy_of(off.heads), copy_of(always.heads))


def test_weight_decay_leaves_vectors_and_scalars_alone(tiny, tmp_path):
    """With a rate of zero gradient (no episode uses the map's input side at first) only matrices may shrink."""
    groups = []

    class Spy(torch.optim.AdamW):
        def __init__(self, parameters, **options):
            super().__init__(parameters, **options)
            groups.extend(self.param_groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Spy)
        run(tiny, tmp_path / "run", weight_decay=0.3, meta_steps=1)
    decays = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {0: 0.0, 1: 0.0, 2: 0.3}


def test_learning_rate_follows_the_schedule(tiny, tmp_path):
    settings = {"meta_steps": 10, "logging_steps": 1, "warmup_ratio": 0.2, "lr_scheduler_type": "linear", "meta_lr": 0.1}
    _, result = run(tiny, tmp_path / "run", **settings)
    rates = [point["lr"] for point in result.history]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125])


def test_a_larger_task_is_drawn_more_often(tiny, tmp_path, monkeypatch):
    drawn, draw = [], training.train_episodes
    monkeypatch.setattr(training, "train_episodes", lambda *a, **k: drawn.append(batch := draw(*a, **k)) or batch)
    tasks = [letter_task("large", rows=40), letter_task("small", rows=10, seed=1)]
    for exponent in (1.0, 0.0):
        run(tiny, tmp_path / str(exponent), tasks=tasks, task_size_exponent=exponent, meta_batch_size=64, meta_steps=4)
    share = [np.mean(np.concatenate([batch.batches[0].task for batch in part]) == 0) for part in (drawn[:4], drawn[4:])]
    assert share == pytest.approx([0.8, 0.5], abs=0.1)


# ---------------------------------------------------------------- what is kept and written


def test_early_stopping_keeps_the_best_head(tiny, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    heads = scripted_evaluations(monkeypatch, [3.0, 2.0, 1.0, 1.5, 1.6, 0.1, 0.1])
    model, result = run(tiny, tmp_path / "run", unseen=True, meta_steps=20, eval_steps=1, early_stopping_patience=2)
    assert (result.steps, result.best) == (4, {"step": 2, "eval_accuracy": 0.5, "eval_loss": 1.0})
    assert len(heads) == 5
    assert same(copy_of(model.heads), heads[2])
    assert same(read_folder(tmp_path / "run", "head")[1], heads[2])
    assert not same(heads[2], heads[4])
    assert not model.training
    assert "step 4: stopped early, no lower loss in 2 evaluations than 1.000 at step 2" in caplog.text
    # stopped is stopped, also when called again
    model, again = run(tiny, tmp_path / "run", unseen=True, meta_steps=20, eval_steps=1, early_stopping_patience=2)
    assert (again.steps, again.best, again.history, len(heads)) == (4, result.best, result.history, 5)
    assert same(copy_of(model.heads), heads[2])


def test_kept_head_has_the_best_loss(tiny, tmp_path):
    model, result = run(tiny, tmp_path / "run", unseen=True, meta_steps=8, meta_lr=0.3)
    losses = {point["step"]: point["eval_loss"] for point in result.history if "eval_loss" in point}
    assert list(losses) == [0, 2, 4, 6, 8]
    assert result.best["eval_loss"] == min(losses.values()) == losses[result.best["step"]]
    features = encode_tasks(FeatureStore(tiny, progress=False), [letter_task("unseen", seed=9)])
    saved = mt.MetaModel.from_pretrained(tmp_path / "run", encoder=tiny).eval()
    for kept in (model, saved):
        figures, loss = episode_scores(kept, features, draw_for(features, EVAL_EPISODES, 4, 0))
        assert loss.mean() == pytest.approx(result.best["eval_loss"], abs=1e-6)
        assert figures.mean() == pytest.approx(result.best["eval_accuracy"], abs=1e-6)
    assert saved.notes["kept"] == model.notes["kept"] == result.best


def test_that_the_start_was_best_is_said(tiny, tmp_path, monkeypatch, caplog):
    scripted_evaluations(monkeypatch, [0.5, 0.9, 0.8, 0.7])
    _, result = run(tiny, tmp_path / "run", unseen=True)
    assert result.best["step"] == 0 and "no step was better on the unseen tasks than the start" in caplog.text


def test_tasks_that_are_too_small_show_before_the_first_evaluation(tiny, tmp_path, monkeypatch):
    heads = scripted_evaluations(monkeypatch, [0.5] * 9)
    few = letter_tasks()[0].select(range(3))
    with pytest.raises(EpisodeError, match=f"task '{few.name}': "):
        run(tiny, tmp_path / "run", unseen=True, tasks=[*letter_tasks()[1:], few])
    with pytest.raises(EpisodeError, match=r"eval_tasks: task 'unseen': .*weights are chosen with n_query 5"):
        unseen = letter_task("unseen", seed=9)
        meta_train(
            fresh(tiny), letter_tasks(), eval_tasks=[unseen.select(range(8))], episodes=EPISODES, config=loop(tmp_path / "b")
        )
    assert not heads


def test_without_unseen_tasks_the_last_head_is_kept(tiny, tmp_path):
    model, result = run(tiny, tmp_path / "run")
    last = Checkpoints(tmp_path / "run" / "checkpoints", 2).latest()
    assert result.best == {}
    assert result.steps == last.state["step"] == 6
    assert same(copy_of(model.heads), last.tensors)
    assert same(read_folder(tmp_path / "run", "head")[1], last.tensors)


def test_metrics_and_learning_curve_are_written(tiny, tmp_path):
    _, result = run(tiny, tmp_path / "run", unseen=True)
    assert result.output_dir == tmp_path / "run"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["history"], metrics["best"], metrics["steps"]) == (result.history, result.best, 6)
    assert metrics["settings"]["tasks"] == {"task 0": 56, "task 1": 56, "task 2": 56}
    assert metrics["versions"]["metatext"] == mt.__version__ and metrics["versions"]["torch"] == importlib.metadata.version(
        "torch"
    )
    assert [(p["step"], "loss" in p) for p in result.history] == [
        (0, False), (2, True), (2, False), (4, True), (4, False), (6, True), (6, False),
    ]  # fmt: skip
    picture = (tmp_path / "run" / "learning_curve.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.rstrip().endswith(b"IEND\xaeB`\x82")


def test_features_of_another_encoder_are_refused(tiny_folder, tiny, tmp_path):
    other = FeatureStore(mt.Encoder.load(mt.EncoderConfig(str(tiny_folder), pooling="cls")), tmp_path / "store")
    with pytest.raises(ConfigError, match="store: its features are of another encoder"):
        meta_train(fresh(tiny), letter_tasks(), episodes=EPISODES, config=loop(tmp_path / "run"), store=other)


def test_progress_is_logged_where_no_terminal_is(tiny, tmp_path, caplog, capsys):
    with caplog.at_level("INFO"):
        run(tiny, tmp_path / "run", unseen=True)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("metatext.")]
    assert [line.split(",")[0] for line in lines if line.endswith(" left")] == [f"step {n} of 6" for n in (2, 4, 6)]
    assert [line.split(":")[0] for line in lines if "unseen tasks" in line] == [f"step {n}" for n in (0, 2, 4, 6)]
    assert "meta-training" not in capsys.readouterr().err


def test_tensorboard_gets_the_training_curve(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    run(tiny, tmp_path / "run", unseen=True, report_to=("tensorboard",))
    events = [path for path in (tmp_path / "run").rglob("events.out.tfevents*") if path.stat().st_size > 0]
    assert events
    written = b"".join(path.read_bytes() for path in events)
    assert all(tag in written for tag in (b"loss", b"eval_loss", b"eval_accuracy", b"lr"))


# ---------------------------------------------------------------- errors


def test_too_few_episodes_for_the_shares(tiny, tmp_path):
    with pytest.raises(
        TrainingError, match=r"meta_batch_size 4 is smaller than processes x accumulation steps \(1 x 5\).*to 5 or more"
    ):
        run(tiny, tmp_path / "run", gradient_accumulation_steps=5)


def test_processes_that_would_not_synchronise_are_refused(tiny, tmp_path, monkeypatch):
    from accelerate import PartialState

    assert PartialState(cpu=not torch.accelerator.is_available()).num_processes == 1  # fixed before the launch variables appear
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(
        TrainingError, match=r"WORLD_SIZE is 2 but Accelerate runs one process.*ACCELERATE_USE_CPU=true.*--multi_gpu"
    ):
        run(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nan_names_step_and_task_and_the_last_checkpoint_goes_on(tiny, tmp_path, monkeypatch):
    undisturbed, _ = run(tiny, tmp_path / "whole", meta_steps=8, meta_batch_size=12)
    with monkeypatch.context() as patch:
        poison_from(patch, step=5, task=1)
        model = fresh(tiny)
        with pytest.raises(
            TrainingError,
            match=r"step 5: the loss of an episode of task 1 is not a number .*checkpoint-4.*meta_lr; encoder_lr .*, or look at the rows of task 1\.",
        ):
            run(tiny, tmp_path / "run", model=model, meta_steps=8, meta_batch_size=12)
    assert all(torch.isfinite(p).all() for p in model.head.parameters())
    last = Checkpoints(tmp_path / "run" / "checkpoints", 2).latest()
    assert last.state["step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in last.tensors.values())
    resumed, _ = run(tiny, tmp_path / "run", meta_steps=8, meta_batch_size=12)
    assert same(copy_of(resumed.heads), copy_of(undisturbed.heads))


def test_nan_parameter_before_any_checkpoint(tiny, tmp_path):
    model = fresh(tiny, "prototype")
    with torch.no_grad():
        model.head.representation.gamma.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"step 0: .*task \d.* is not a number .*no checkpoint had been written"):
        run(tiny, tmp_path / "run", model=model)


def test_nan_on_an_unseen_task_is_named(tiny, tmp_path):
    """An evaluation that is not a number must not be kept as the best one, nor end in a message about JSON."""
    model = fresh(tiny, "prototype")
    with torch.no_grad():
        model.head.representation.gamma.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"step 0: .*unseen.* not a number"):
        run(tiny, tmp_path / "run", model=model, unseen=True)


def test_patience_without_unseen_tasks_is_said_to_have_no_effect(tiny, tmp_path, caplog):
    run(tiny, tmp_path / "run", meta_steps=1, early_stopping_patience=1)
    assert "early_stopping_patience has no effect: there are no eval_tasks" in caplog.text


# ---------------------------------------------------------------- going on


def test_a_finished_run_called_again_does_not_train(tiny, tmp_path, monkeypatch):
    first, result = run(tiny, tmp_path / "run", unseen=True)

    def never(*_, **__):
        raise AssertionError("trained or evaluated again")

    monkeypatch.setattr(training, "train_episodes", never)
    monkeypatch.setattr(run_module, "watch", never)
    again, other = run(tiny, tmp_path / "run", unseen=True)
    assert same(copy_of(first.heads), copy_of(again.heads))
    assert (other.steps, other.best, other.history) == (result.steps, result.best, result.history)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta_lr": 0.5}, r"train\.meta_lr: 0\.01 -> 0\.5"),
        ({"meta_steps": 9}, r"train\.meta_steps: 6 -> 9"),
        ({"episodes": mt.EpisodeConfig(n_way=2, n_query=3)}, r"episodes\.n_way: \[2, 4\] -> 2"),
        ({"head": "prototype"}, r"head\.name: 'ridge' -> 'prototype'"),
        ({"unseen": True}, r"eval_tasks.unseen"),
    ],
)
def test_going_on_with_other_settings_is_refused(tiny, tmp_path, change, message):
    run(tiny, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=message + ".*overwrite_output_dir"):
        run(tiny, tmp_path / "run", **change)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_going_on_in_another_precision_is_refused(tiny, tmp_path, monkeypatch):
    """Half of the steps in bfloat16 and half in float32 are the weights of neither launch."""
    first, _ = run(tiny, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(AcceleratorState(cpu=True), "_mixed_precision", "bf16")  # of all accelerators in this process
        with pytest.raises(ConfigError, match=r"mixed_precision: 'no' -> 'bf16'.*overwrite_output_dir"):
            run(tiny, tmp_path / "run")
    again, _ = run(tiny, tmp_path / "run")
    assert same(copy_of(first.heads), copy_of(again.heads))


@pytest.mark.parametrize("change", ["labels", "label names", "a text", "description", "order"])
def test_going_on_with_other_data_is_refused(tiny, tmp_path, change):
    """A user who mends labels must not get yesterday's model: names and sizes of the tasks say nothing of that."""
    run(tiny, tmp_path / "run")
    tasks = letter_tasks()
    first = tasks[0]
    texts = ["z", *first.inputs()[1:]]
    other = {
        "labels": lambda: dataclasses.replace(first, targets=first.targets[::-1]),
        "label names": lambda: first.with_label_names([f"other {name}" for name in first.label_names]),
        "a text": lambda: dataclasses.replace(first, rows=Dataset.from_dict({"text": texts})),
        "description": lambda: dataclasses.replace(first, description="another"),
    }
    tasks = tasks[::-1] if change == "order" else [other[change](), *tasks[1:]]
    with pytest.raises(ConfigError, match="order: " if change == "order" else f"data.{first.name}: '"):
        run(tiny, tmp_path / "run", tasks=tasks)


def test_the_same_model_object_goes_on_after_an_interruption(tiny, tmp_path, monkeypatch):
    """Ctrl-C in a notebook, and the cell once more: the weights in memory have moved, the checkpoint decides."""
    whole, _ = run(tiny, tmp_path / "whole")
    model = fresh(tiny)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 5)
        run(tiny, tmp_path / "run", model=model)
    run(tiny, tmp_path / "run", model=model)
    assert same(copy_of(whole.heads), copy_of(model.heads))


def test_a_warm_started_model_object_goes_on_after_an_interruption(tiny, tmp_path, monkeypatch):
    """What it began with stands in its notes, which say of a saved model what it was trained with."""
    fresh(tiny).save_pretrained(tmp_path / "before")
    model = fresh(tiny)
    warm_start(model, [str(tmp_path / "before")])
    began = model.notes
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 5)
        run(tiny, tmp_path / "run", model=model, unseen=True)
    assert model.notes == began
    assert "kept" in read_folder(tmp_path / "run", "head")[0]["training"]
    _, result = run(tiny, tmp_path / "run", model=model, unseen=True)
    assert result.steps == 6 and model.notes["kept"] == result.best


def test_a_finished_run_knows_its_own_model(tiny, tmp_path, caplog, monkeypatch):
    """What it holds in memory is neither the start nor the last checkpoint, but what served the unseen tasks best."""
    scripted_evaluations(monkeypatch, [3.0, 1.0, 2.0])
    model, result = run(tiny, tmp_path / "run", unseen=True, meta_steps=4, eval_steps=2, save_steps=2)
    assert result.best["step"] == 2
    run(tiny, tmp_path / "run", unseen=True, meta_steps=4, eval_steps=2, save_steps=2, model=model)
    assert "began with other weights" not in caplog.text


def test_figures_are_of_the_weights_that_a_killed_start_kept(tiny, tmp_path, monkeypatch, caplog):
    """It kept those of step 6 behind the checkpoint of step 4; on another machine the next start does not find them again."""
    heads = scripted_evaluations(monkeypatch, [1.0, 0.9, 0.8, 0.7, 0.81, 0.9])
    settings = {"unseen": True, "meta_steps": 8, "save_steps": 4}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 6)
        run(tiny, tmp_path / "run", **settings)
    for _ in range(2):  # and called again when it is done
        model, result = run(tiny, tmp_path / "run", **settings)
        assert result.best == read_metrics(tmp_path / "run")["best"] == model.notes["kept"]
        assert (result.best["step"], result.best["eval_loss"]) == (6, 0.7)
        assert same(copy_of(model.heads), heads[3])
        assert "the weights kept are those of step 6 of an earlier start" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("steps", [4, 8])  # of which 4 were done: nothing is left to do, and something is
def test_a_checkpoint_whose_kept_model_is_gone(tiny, tmp_path, monkeypatch, caplog, steps):
    """The best weights so far are lost; the best of those that are left take their place, and the run does not fail at its end."""
    heads = scripted_evaluations(monkeypatch, [1.0, 0.5, 0.6, 0.7, 0.9, 0.8])
    settings = {"unseen": True, "meta_steps": steps, "save_steps": 4}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) if steps > 4 else contextlib.nullcontext():
        interrupt_at(patch, 5)
        run(tiny, tmp_path / "run", **settings)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    model, result = run(tiny, tmp_path / "run", **settings)
    assert "no longer holds the best weights so far, those of step 2; those of the checkpoint take their place" in caplog.text
    assert (result.steps, result.best["step"], result.best["eval_loss"]) == (steps, 4, 0.7)
    assert same(copy_of(model.heads), heads[3]) and same(heads[3], heads[2])
    assert read_metrics(tmp_path / "run")["best"] == result.best


def test_a_folder_whose_run_began_with_another_model_says_so(tiny, tmp_path, caplog):
    """Two seeds of a head and one output_dir: the second would be the first's model, without a word."""
    heads = [mt.MetaModel.from_encoder(tiny, mt.HeadConfig("metanet"), seed=seed) for seed in (0, 0, 1)]
    first, _ = run(tiny, tmp_path / "run", model=heads[0])
    run(tiny, tmp_path / "run", model=heads[1])
    run(tiny, tmp_path / "run", model=heads[1])  # in memory it is what the run ended with
    assert "began with other weights" not in caplog.text
    other, _ = run(tiny, tmp_path / "run", model=heads[2])
    assert "began with other weights than those of the model given" in caplog.text and "another output_dir" in caplog.text
    assert same(copy_of(first.heads), copy_of(other.heads))


STOP = {"unseen": True, "head": "metanet", "meta_steps": 9, "logging_steps": 1, "save_steps": 100}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [4, 5, 8])  # before an evaluation, before none, before the last
def test_a_signal_ends_the_step_behind_a_checkpoint_and_the_run_ends_bit_for_bit_alike(tiny, tmp_path, monkeypatch, number, step):
    whole, result = run(tiny, tmp_path / "whole", **STOP)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        interrupt_at(patch, step, lambda: signal.raise_signal(number))
        message = rf"^step {step + 1} of 9: stopped by {number.name}; .*checkpoint-{step + 1} is kept, and the same command goes on from there$"
        with pytest.raises(Stopped, match=message) as stopped:
            run(tiny, tmp_path / "run", **STOP)
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).latest().state["step"] == step + 1
    assert stopped.value.signal == number and [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    resumed, other = run(tiny, tmp_path / "run", **STOP)
    assert same(copy_of(whole.heads), copy_of(resumed.heads))
    assert (other.best, other.history, other.steps) == (result.best, result.history, result.steps)


def test_a_run_that_overwrote_says_how_it_goes_on(tiny, tmp_path, monkeypatch, caplog):
    """With overwrite_output_dir the same call would begin anew."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Stopped, match=r"is kept, and the same command, without overwrite_output_dir, goes on from there$"):
            run(tiny, tmp_path / "run", **STOP, overwrite_output_dir=True)
    with caplog.at_level("INFO", "metatext"):
        run(tiny, tmp_path / "run", **STOP)
    assert f"going on from {tmp_path / 'run' / 'checkpoints' / 'checkpoint-5'}" in caplog.messages


def test_a_second_signal_ends_at_once(tiny, tmp_path, monkeypatch, capfd):
    def twice():
        signal.raise_signal(signal.SIGINT)
        assert "a second time stops at once" in capfd.readouterr().err
        signal.raise_signal(signal.SIGINT)

    interrupt_at(monkeypatch, 4, twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(tiny, tmp_path / "run", **STOP)
    assert not isinstance(caught.value, Stopped) and not (tmp_path / "run" / "checkpoints").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_comes_behind_the_last_step_is_not_lost(tiny, tmp_path, monkeypatch):
    inner = Checkpoints.save

    def saved(*args):
        inner(*args)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", saved)
        run(tiny, tmp_path / "run", **STOP)
    assert run(tiny, tmp_path / "run", **STOP)[1].steps == 9


def test_signals_that_the_caller_handles_stay_his(tiny, tmp_path, monkeypatch):
    got, before = [], signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    try:
        with monkeypatch.context() as patch:
            interrupt_at(patch, 4, lambda: signal.raise_signal(signal.SIGTERM))
            run(tiny, tmp_path / "run", **STOP)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [1]
    errors = []

    def elsewhere():  # in no other thread than the main one may handlers be set
        try:
            run(tiny, tmp_path / "thread", meta_steps=2)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not errors


def test_settings_that_do_not_decide_the_weights_may_change(tiny, tmp_path):
    first, _ = run(tiny, tmp_path / "run")
    again, _ = run(tiny, tmp_path / "run", save_steps=5, logging_steps=1, save_total_limit=1, gradient_accumulation_steps=2)
    assert same(copy_of(first.heads), copy_of(again.heads))


def test_overwrite_output_dir_starts_anew(tiny, tmp_path):
    run(tiny, tmp_path / "run", seed=3)
    other, result = run(tiny, tmp_path / "run", meta_steps=4, overwrite_output_dir=True)
    direct, _ = run(tiny, tmp_path / "direct", meta_steps=4)
    assert result.steps == 4
    assert same(copy_of(other.heads), copy_of(direct.heads))


def test_overwriting_drops_the_old_checkpoints(tiny, tmp_path, monkeypatch):
    """Old and new checkpoints in one folder: a run that is interrupted would go on from, or be refused for, the old ones."""
    run(tiny, tmp_path / "run", seed=3, meta_steps=8)
    direct, _ = run(tiny, tmp_path / "direct", meta_steps=6)
    with monkeypatch.context() as patch:
        poison_from(patch, step=5, task=1)
        with pytest.raises(TrainingError, match="checkpoint-4"):
            run(tiny, tmp_path / "run", overwrite_output_dir=True, meta_batch_size=12)
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-4"]
    run(tiny, tmp_path / "run", overwrite_output_dir=True)
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).latest().state["settings"]["train"]["seed"] == 0
    again, _ = run(tiny, tmp_path / "run")
    assert same(copy_of(again.heads), copy_of(direct.heads))


@pytest.mark.parametrize("unseen", [False, True])
def test_overwriting_takes_away_all_that_the_earlier_run_kept(tiny, tmp_path, monkeypatch, unseen):
    """Stopped half way, the new run's weights must not stand beside the old one's figures, nor the old weights beside new checkpoints."""
    folder = tmp_path / "run"
    run(tiny, folder, unseen=unseen)
    (folder / "README.md").write_text("by hand")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 3)
        run(tiny, folder, unseen=unseen, head="prototype", overwrite_output_dir=True)
    own = {"config.json", "model.safetensors"} if unseen else set()
    assert {path.name for path in folder.iterdir()} == {"checkpoints", ".lock", "README.md", *own}
    run(tiny, folder, unseen=unseen, head="prototype")
    assert read_metrics(folder)["settings"]["head"]["name"] == "prototype"


def test_figures_say_whose_they_are(tiny, tmp_path, monkeypatch):
    """A run that begins anew because its checkpoints were deleted keeps other weights than the figures tell of, until its end."""
    folder = tmp_path / "run"
    run(tiny, folder, unseen=True, encoder_share=0.5)
    assert read_metrics(folder)["weights"] == read_folder(folder, "head")[0]["weights"]
    shutil.rmtree(folder / "checkpoints")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 3)
        run(tiny, folder, unseen=True, head="prototype")
    assert (folder / "metrics.json").exists() and read_metrics(folder) is None


@pytest.mark.parametrize("overwrite", [False, True])
def test_checkpoints_of_another_program_stop_the_run_before_it_begins(tiny, tmp_path, overwrite):
    theirs = tmp_path / "run" / "checkpoints" / "checkpoint-500" / "pytorch_model.bin"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("weights")
    with pytest.raises(ConfigError, match=r"checkpoint-500 holds no trainer_state\.json that metatext wrote"):
        run(tiny, tmp_path / "run", overwrite_output_dir=overwrite)
    assert theirs.read_text() == "weights" and not (tmp_path / "run" / "config.json").exists()


def test_a_mistake_leaves_the_run_that_was_to_be_overwritten(tiny, tmp_path):
    run(tiny, tmp_path / "run")
    few = letter_tasks()[0].select(range(3))
    with pytest.raises(EpisodeError, match=f"task '{few.name}': "):
        run(tiny, tmp_path / "run", tasks=[few], overwrite_output_dir=True)
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).latest().state["step"] == 6


def test_two_runs_in_one_folder(tiny, tmp_path, monkeypatch):
    """The second is refused and touches nothing, draft and all; whoever ends, well or not, lets go of the folder."""
    whole, _ = run(tiny, tmp_path / "whole")
    draw, folder = training.train_episodes, tmp_path / "run" / "checkpoints"

    def another(*args, step, **options):
        if step == 3:
            (folder / ".draft-4-1").mkdir()
            for overwrite in (False, True):
                with pytest.raises(
                    ConfigError, match=r"another run is writing to .*run; wait for its end, or give another output_dir"
                ):
                    run(tiny, tmp_path / "run", overwrite_output_dir=overwrite)
            assert {path.name for path in folder.iterdir()} == {"checkpoint-2", ".draft-4-1"}
        if step == 5:
            raise KeyboardInterrupt
        return draw(*args, step=step, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "train_episodes", another)
        run(tiny, tmp_path / "run")
    resumed, _ = run(tiny, tmp_path / "run")
    assert same(copy_of(resumed.heads), copy_of(whole.heads))


def test_a_file_system_without_locks(tiny, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_folder.fcntl, "flock", refuse)
    run(tiny, tmp_path / "run", meta_steps=1)
    monkeypatch.setattr(run_folder, "fcntl", None)  # Windows
    run(tiny, tmp_path / "run", meta_steps=1)


def test_interrupted_in_the_middle_of_a_save_and_of_an_evaluation(tiny, tmp_path, monkeypatch):
    """An exception anywhere leaves a run that goes on to the same end."""
    settings = {"unseen": True, "meta_steps": 9, "save_steps": 3, "eval_steps": 2, "logging_steps": 3}
    whole, result = run(tiny, tmp_path / "whole", **settings)
    for module, name, call in ((training, "train_episodes", 2), (run_module, "watch", 3), (Checkpoints, "save", 2)):
        calls, inner = [], getattr(module, name)

        def interrupted(*args, calls=calls, inner=inner, call=call, **options):
            calls.append(1)
            if len(calls) == call:
                raise KeyboardInterrupt
            return inner(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(tiny, tmp_path / "run", **settings)
    resumed, other = run(tiny, tmp_path / "run", **settings)
    assert same(copy_of(whole.heads), copy_of(resumed.heads))
    assert (other.best, other.history, other.steps) == (result.best, result.history, result.steps)


def test_killed_twice_ends_bit_for_bit_alike(tiny_folder, tmp_path):
    config = {"meta_steps": 60, "meta_batch_size": 4, "meta_lr": 1e-2, "eval_steps": 7, "eval_episodes": 4, "save_steps": 4}
    settings = {
        "encoder": str(tiny_folder),
        "config": {**config, "logging_steps": 5},
        "unseen": True,
        "head": {"name": "metanet"},
    }
    settings = {**settings, "threads": torch.get_num_threads(), "save_to": str(tmp_path / "killed.npz")}
    run_dir = tmp_path / "run"

    def checkpoint_since(step):
        numbers = [int(p.name.split("-")[1]) for p in (run_dir / "checkpoints").glob("checkpoint-*")]
        return max(numbers, default=-1) >= step

    def saving_after(step):
        return checkpoint_since(step) and any((run_dir / "checkpoints").glob(".draft-*"))

    killed = [{**settings, "output_dir": str(run_dir), "pause": 0.05}]
    for moment in (lambda: checkpoint_since(8), lambda: saving_after(28)):
        with started("train_head.py", killed, tmp_path, METATEXT_CACHE=str(tmp_path / "cache")) as process:
            kill_when(process, moment)
        assert not (tmp_path / "killed.npz").exists()
        assert not (run_dir / "metrics.json").exists()
    with started("train_head.py", [{**killed[0], "pause": 0.0}], tmp_path, METATEXT_CACHE=str(tmp_path / "cache")) as process:
        undisturbed = train(**{**settings, "save_to": str(tmp_path / "whole.npz")}, output_dir=str(tmp_path / "whole"))
        finish(process)
    with np.load(tmp_path / "killed.npz") as after, np.load(tmp_path / "whole.npz") as before:
        assert set(after.files) == set(before.files) == {*undisturbed, "result"}
        assert [name for name in undisturbed if not np.array_equal(after[name], before[name])] == []
        results = [json.loads(str(file["result"])) for file in (after, before)]
    assert results[0]["best"] == results[1]["best"]
    evaluations = [[p for p in result["history"] if "eval_loss" in p] for result in results]
    assert evaluations[0] == evaluations[1]
    assert read_folder(run_dir, "head")[0]["weights"] == read_folder(tmp_path / "whole", "head")[0]["weights"]


# ---------------------------------------------------------------- any launch


@pytest.fixture(scope="module")
def launches(tiny_folder, tmp_path_factory):
    """name -> finals of the same run on (processes x accumulation steps), in float64; one launch makes all of two processes."""
    folder = tmp_path_factory.mktemp("launches")
    common = {"encoder": str(tiny_folder), "double": True, "threads": 1}
    config = {"meta_steps": 10, "meta_batch_size": 5, "meta_lr": 1e-2, "logging_steps": 2, "save_steps": 10, "eval_steps": 5}
    config["eval_episodes"] = 4

    def settings(name, accumulation, **more):
        own = {**config, "gradient_accumulation_steps": accumulation}
        paths = {"output_dir": str(folder / f"run {name}"), "save_to": str(folder / (name + "-{rank}.npz"))}
        return {**common, "config": own, **paths, **more}

    two = [settings("2x1", 1, unseen=True), settings("2x2", 2, unseen=True), settings("starved 2x1", 1, starved=True)]
    two += [settings("tracked 2x1", 1, unseen=True), settings("after it 2x1", 1, unseen=True)]
    two[3]["config"]["report_to"] = ["tensorboard"]
    launcher = [*LAUNCH, free_port()]
    env = {"ACCELERATE_USE_CPU": "true", "METATEXT_CACHE": str(folder / "cache two")}
    error = None
    threads = torch.get_num_threads()
    with started("train_head.py", two, folder, launcher=launcher, **env) as process, pytest.MonkeyPatch.context() as patch:
        patch.setenv("METATEXT_CACHE", str(folder / "cache one"))
        train(**settings("1x1", 1, unseen=True))
        train(**settings("1x2", 2, unseen=True))
        train(**settings("starved 1x1", 1, starved=True))
        torch.set_num_threads(threads)
        try:
            finish(process)
        except AssertionError as failure:
            error = failure  # the runs that ended before it are still looked at

    def final(name):
        path = folder / f"{name}.npz"
        if not path.is_file() and error:
            raise AssertionError(f"{name}: no result") from error
        with np.load(path) as file:
            return {key: file[key] for key in file.files if key != "result"}, json.loads(str(file["result"]))

    return final


@pytest.mark.parametrize("name", ["1x2-0", "2x1-0", "2x1-1", "2x2-0", "2x2-1"])
def test_same_trajectory_on_any_launch(launches, name):
    (weights, result), (expected, reference) = launches(name), launches("1x1-0")
    assert all(value.dtype == np.float64 for value in weights.values())
    distance = {key: np.abs(weights[key] - expected[key]).max() for key in expected}
    assert max(distance.values()) < 1e-9, distance
    assert result["steps"] == 10
    assert result["best"] == pytest.approx(reference["best"], abs=1e-6)


@pytest.mark.parametrize("name", ["1x2-0", "2x1-0", "2x1-1", "2x2-0", "2x2-1"])
def test_same_history_on_any_launch(launches, name):
    """Five episodes do not divide by two: the logged loss is the mean over episodes, not over processes."""
    history, expected = (launches(which)[1]["history"] for which in (name, "1x1-0"))
    assert len(history) == len(expected)
    for point, reference in zip(history, expected, strict=True):
        assert point == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_parameters_that_one_process_does_not_use_do_not_stop_training(launches, rank):
    (weights, _), (expected, _) = launches(f"starved 2x1-{rank}"), launches("starved 1x1-0")
    assert max(np.abs(weights[key] - expected[key]).max() for key in expected) < 1e-9
    assert (weights["classification.idle"] == 1).all()
    assert weights["classification.spare"] != 1.5


@pytest.mark.parametrize("name", ["tracked 2x1-0", "tracked 2x1-1", "after it 2x1-0", "after it 2x1-1"])
def test_trackers_leave_the_processes_connected(launches, name):
    """The script may evaluate or train again after a run that reports to a tracker."""
    (weights, _), (expected, _) = launches(name), launches("1x1-0")
    assert max(np.abs(weights[key] - expected[key]).max() for key in expected) < 1e-9


def test_processes_started_as_torchrun_does_synchronise(tiny_folder, tmp_path, launches):
    """Two plain processes with RANK and WORLD_SIZE but without ACCELERATE_USE_CPU: over gloo, or an error; never each alone."""
    config = {"meta_steps": 10, "meta_batch_size": 5, "meta_lr": 1e-2, "logging_steps": 2, "save_steps": 10, "eval_steps": 5}
    arguments = {"encoder": str(tiny_folder), "double": True, "config": {**config, "eval_episodes": 4}, "unseen": True}
    arguments |= {"output_dir": str(tmp_path / "run"), "save_to": str(tmp_path / "{rank}.npz")}
    env = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    env["METATEXT_CACHE"] = str(tmp_path / "cache")
    with (
        started("train_head.py", [arguments], tmp_path / "0", RANK="0", LOCAL_RANK="0", **env) as zero,
        started("train_head.py", [arguments], tmp_path / "1", RANK="1", LOCAL_RANK="1", **env) as one,
    ):
        for process in (zero, one):
            finish(process)
    expected, _ = launches("1x1-0")
    for rank in "01":
        with np.load(tmp_path / f"{rank}.npz") as file:
            assert max(np.abs(file[key] - expected[key]).max() for key in expected) < 1e-9


def all_shares(sizes, processes: int, steps: int) -> list[list[np.ndarray]]:
    launches = [
        SimpleNamespace(num_processes=processes, gradient_accumulation_steps=steps, process_index=i) for i in range(processes)
    ]
    return [launch.shares(np.array(sizes), each) for each in launches]


@pytest.mark.parametrize("processes, steps", [(1, 1), (1, 4), (2, 2), (4, 1), (3, 1)])
def test_shares_of_the_episodes_cover_each_once(processes, steps):
    rng = np.random.default_rng(0)
    for n in range(4, 40):
        sizes = np.sort(rng.integers(1, 100, n))
        sizes[-1] *= n  # one that is as much work as all others
        shares = all_shares(sizes, processes, steps)
        assert sorted(np.concatenate([part for parts in shares for part in parts])) == list(range(n))
        assert all(len(parts) == steps and all(len(part) for part in parts) for parts in shares)
        assert all((np.diff(np.concatenate(parts)) > 0).all() for parts in shares)  # like sizes together
        work = [sum(sizes[part].sum() for part in parts) for parts in shares]
        if steps == 1 and n > processes:  # Graham's bound for taking the largest first
            assert max(work) <= max((4 / 3 - 1 / (3 * processes)) * sizes.sum() / processes, 2 * sizes[-1])


def test_shares_by_hand():
    found = [[own[0].tolist() for own in all_shares(sizes, 2, 1)] for sizes in ([1, 1, 1, 3], [2, 3, 4, 5])]
    assert found == [[[3], [0, 1, 2]], [[0, 3], [1, 2]]]


def test_model_is_reusable_after_training(tiny, tmp_path):
    """Deep copies and a second run of the same model object: nothing of the loop clings to it."""
    model, _ = run(tiny, tmp_path / "a")
    clone = copy.deepcopy(model.head)
    run(tiny, tmp_path / "b", model=model, meta_steps=3)
    assert not same(copy_of(clone), copy_of(model.heads))
    assert model.adapt(["aaa", "bbb"], ["x", "y"]).predict(["aaa"]) == ["x"]


def test_tasks_are_checked_before_anything_is_done(tiny, tmp_path):
    tasks = letter_tasks()
    for given, unseen, message in (
        ([], (), "none given"),
        (tasks[0], (), r"tasks: expected a list of tasks, got one Task; write \[task\]"),
        (tasks[1:], tasks[0], r"eval_tasks: expected a list of tasks, got one Task; write \[task\]"),
        (
            "starter/train",
            (),
            "tasks: entry 0: expected Task, got 'starter/train'; load it with load_task, or many with load_tasks",
        ),
        (["starter/train"], (), "tasks: entry 0: expected Task, got 'starter/train'"),
        (tasks, ["unseen"], "eval_tasks: entry 0: expected Task, got 'unseen'"),
        ({"a": tasks[0]}, (), "tasks: expected a list of tasks, got one dict"),
        (None, (), "none given"),
        ([tasks[0], tasks[0]], (), "two bear the same name, 'task 0'"),
        (tasks, tasks[:1], "task 'task 0' stands among the tasks to train on and among those to choose"),
    ):
        with pytest.raises(mt.DataError, match=message):
            meta_train(fresh(tiny), given, eval_tasks=unseen, config=loop(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_tasks_may_come_one_by_one(tiny, tmp_path):
    config, first, second = loop(tmp_path / "a", meta_steps=2), fresh(tiny), fresh(tiny)
    meta_train(first, (task for task in letter_tasks()), eval_tasks=None, episodes=EPISODES, config=config)
    meta_train(second, letter_tasks(), episodes=EPISODES, config=loop(tmp_path / "b", meta_steps=2))
    assert same(copy_of(first.heads), copy_of(second.heads))


def test_arguments_of_another_type(tiny, tmp_path):
    model = fresh(tiny)
    for changed, message in (
        ({"model": "gp"}, "model: expected MetaModel, got 'gp'; load a head with MetaModel.from_pretrained"),
        ({"model": model.adapt(["a", "b"], ["x", "y"])}, "got one AdaptedModel; .* that of a classifier is its `model`"),
        ({"episodes": {"n_way": 5}}, r"episodes: expected EpisodeConfig, got one dict; write EpisodeConfig\(...\)"),
        ({"config": {"meta_steps": 5}}, r"config: expected TrainConfig, got one dict; write TrainConfig\(...\)"),
    ):
        given = {"model": model, "tasks": letter_tasks(), "config": loop(tmp_path / "run"), **changed}
        with pytest.raises(ConfigError, match=message):
            meta_train(**given)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_saved_to_shows_before_the_work(tiny, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        mt.storage.StorageError, match="holds files that metatext did not write; saving 'head' there would destroy it"
    ):
        run(tiny, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(mt.storage.StorageError, match="file is a file; give another folder"):
        run(tiny, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "file"]


def test_trackers_by_name(tiny, tmp_path):
    run(tiny, tmp_path / "none", report_to=("none",), meta_steps=1)
    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        run(tiny, tmp_path / "typo", report_to=("tensorbord",), meta_steps=1)
    with pytest.raises(ConfigError, match="the tracker 'wandb' is not installed here, and the run would go untracked"):
        run(tiny, tmp_path / "missing", report_to=("tensorboard", "wandb"), meta_steps=1)
