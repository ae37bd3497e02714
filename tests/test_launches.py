"""An encoder that learns, on any number of processes: the same update, no hang, an end when a process dies, exact resumption."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scripts.processes import LAUNCH, SHARDS, finish, free_port, kill_when, started
from scripts.train_head import letter_tasks, pairs_task, train

import metatext as mt
from metatext.launch import SMALLEST_SCALE
from metatext.shards import to_shard
from metatext.storage import read_tensors
from metatext.training import TrainingError, meta_train

LAUNCHES = ["1x2-0", "2x1-0", "2x1-1", "2x2-0", "2x2-1", "2sx1-0", "2sx1-1", "2sx2-0"]  # s: weights in shards (FSDP2)
CONFIG = {"meta_steps": 10, "meta_batch_size": 6, "meta_lr": 1e-2, "encoder_lr": 1e-2, "logging_steps": 2, "save_steps": 10}
EPISODES = {"k_shot": [0, 3], "name_dropout": 0.2}


def settings(folder: Path, tiny_folder: Path, name: str, how: str, accumulation: int, *, double: bool, **more) -> dict:
    """Arguments of `train`: letters and pairs of texts, so that the two processes see other things."""
    config = {**CONFIG, "gradient_accumulation_steps": accumulation, **more.pop("config", {})}
    encoder = {"name": str(tiny_folder), "tuning": how, "lora_rank": 4, "batch_tokens": 128, **more.pop("encoder", {})}
    paths = {"output_dir": str(folder / f"run {name}"), "save_to": str(folder / (name + "-{rank}.npz"))}
    common = {"encoder": encoder, "head": {"name": "gp", "rank": 0}, "episodes": EPISODES, "pairs": True, "double": double}
    return {**common, "config": config, **paths, **more}


@pytest.fixture(scope="module")
def launches(tiny_folder, tmp_path_factory):
    """folder that holds what `train` saved for every run on (processes x accumulation steps); one launch makes all of two processes."""
    folder = tmp_path_factory.mktemp("encoder launches")

    def runs(processes: str) -> list[dict]:
        made = []
        for how in ("lora", "full"):
            for accumulation in (1, 2):
                name = f"{processes}x{accumulation}"
                made.append(settings(folder, tiny_folder, f"{how} {name}", how, accumulation, double=True))
                one = {"meta_steps": 1, "max_grad_norm": 0, "warmup_ratio": 0}
                made.append(settings(folder, tiny_folder, f"first {how} {name}", how, accumulation, double=False, config=one))
        distilled = {"distillation": 5.0, "distillation_tasks": ["task 0", "pairs"], "encoder_share": 0.5}
        bounded = {"memory_tokens": 200, "gradient_checkpointing": True}
        made.append(
            settings(folder, tiny_folder, f"options {processes}x1", "full", 1, double=True, config=distilled, encoder=bounded)
        )
        of_kinds = {"task_weights": ["letters=3", "share=3", "runs=3"], "task_size_exponent": 0}
        for accumulation in (1, 2):
            name = f"kinds {processes}x{accumulation}"
            made.append(settings(folder, tiny_folder, name, "lora", accumulation, double=True, kinds=True, config=of_kinds))
        return made

    env = {"ACCELERATE_USE_CPU": "true", "METATEXT_CACHE": str(folder / "cache")}
    threads = torch.get_num_threads()
    alone = runs("1")
    distilled = next(arguments for arguments in alone if arguments["config"].get("distillation"))
    with pytest.MonkeyPatch.context() as patch:  # a teacher's vectors are kept in float32: all launches find the same
        patch.setenv("METATEXT_CACHE", env["METATEXT_CACHE"])
        train(**distilled)
    with started("train_head.py", runs("2"), folder, launcher=[*LAUNCH, free_port()], **env) as process:
        for arguments in alone:
            if arguments is not distilled:
                train(**arguments)
        torch.set_num_threads(threads)
        finish(process)
    with started("train_head.py", runs("2s"), folder, launcher=[*SHARDS, free_port()], **env) as process:
        finish(process)
    return folder


def final(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if key != "result"}


@pytest.mark.parametrize("how", ["lora", "full"])
@pytest.mark.parametrize("name", LAUNCHES)
def test_same_trajectory_on_any_launch(launches, how, name):
    weights, expected = final(launches, f"{how} {name}"), final(launches, f"{how} 1x1-0")
    assert any(key.startswith("encoder.") for key in expected)
    assert all(value.dtype == np.float64 for value in weights.values())
    distance = {key: np.abs(weights[key] - expected[key]).max() for key in expected}
    assert max(distance.values()) < 1e-9, max(distance, key=distance.get)


@pytest.mark.parametrize("name", ["2x1-0", "2x1-1", "2sx1-0", "2sx1-1"])
def test_same_trajectory_with_distillation_and_bounded_memory(launches, name):
    weights, expected = final(launches, f"options {name}"), final(launches, "options 1x1-0")
    assert max(np.abs(weights[key] - expected[key]).max() for key in expected) < 1e-9


@pytest.mark.parametrize("name", LAUNCHES)
def test_same_trajectory_with_kinds_mixed(launches, name):
    """Four kinds in steps of six episodes: some part lacks some kind in every step, which must not stop the others."""
    weights, expected = final(launches, f"kinds {name}"), final(launches, "kinds 1x1-0")
    assert {key.split(".")[0] for key in expected} == {"classification", "multilabel", "regression", "span", "encoder"}
    assert max(np.abs(weights[key] - expected[key]).max() for key in expected) < 1e-9


@pytest.mark.parametrize("how", ["lora", "full"])
@pytest.mark.parametrize("name", ["1x2", "2x1", "2x2", "2sx1", "2sx2"])
def test_gradients_of_the_first_step_in_float32(launches, how, name):
    """AdamW's first moment after one step is a tenth of the gradient."""

    def gradient(launch: str) -> torch.Tensor:
        tensors = read_tensors(launches / f"run first {how} {launch}" / "checkpoints" / "checkpoint-1" / "optimizer.safetensors")
        return torch.cat([tensors[key].flatten() for key in sorted(tensors) if key.endswith("exp_avg")])

    expected, found = gradient("1x1"), gradient(name)
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_process_that_dies_ends_the_run(tiny_folder, tmp_path):
    """Within a minute, with an error, and without a process that waits for ever for the one that is gone."""
    arguments = settings(tmp_path, tiny_folder, "dying", "lora", 1, double=False, die_at=3)
    env = {"ACCELERATE_USE_CPU": "true", "METATEXT_CACHE": str(tmp_path / "cache")}
    with started("train_head.py", [arguments], tmp_path, launcher=[*LAUNCH, free_port()], **env) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run dying").exists() and process.poll() is None:  # start-up is not counted
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.wait(60) != 0
    assert "SIGKILL" in process.log.read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("launch", [LAUNCH, SHARDS], ids=["whole", "in shards"])
def test_a_signal_to_one_process_stops_all_behind_one_checkpoint(tiny_folder, tmp_path, launch):
    """Whoever gets it, all agree on the step, and the run goes on to the same bits."""
    common = dict(double=False, unseen=True, config={"meta_steps": 60, "save_steps": 100, "eval_steps": 20, "eval_episodes": 4})
    whole, stopped = (settings(tmp_path, tiny_folder, name, "lora", 1, **common) for name in ("whole", "stopped"))
    checkpoints = tmp_path / "run stopped" / "checkpoints"
    env = {"ACCELERATE_USE_CPU": "true", "METATEXT_CACHE": str(tmp_path / "cache")}
    slow = {**stopped, "pause": 0.1, "die_at": 7, "die_by": signal.SIGTERM}
    with started("train_head.py", [slow], tmp_path, launcher=[*launch, free_port()], **env) as process:
        assert process.wait(120) != 0
    (kept,) = checkpoints.iterdir()
    step = int(kept.name.removeprefix("checkpoint-"))
    said = process.log.read_text(encoding="utf-8")
    assert 8 <= step < 60 and said.count(f"Stopped: step {step} of 60: stopped by SIGTERM; {kept} is kept") == 2, said[-3000:]
    with started("train_head.py", [stopped, whole], tmp_path, launcher=[*launch, free_port()], **env) as process:
        finish(process)
    for rank in "01":
        after, before = final(tmp_path, f"stopped-{rank}"), final(tmp_path, f"whole-{rank}")
        assert [key for key in before if not np.array_equal(after[key], before[key])] == []


@pytest.mark.parametrize(("how", "precision"), [("lora", "no"), ("full", "bf16")])
def test_killed_run_ends_bit_for_bit_alike(tiny_folder, tmp_path, how, precision):
    config = {"meta_steps": 24, "save_steps": 4, "eval_steps": 6, "eval_episodes": 4, "logging_steps": 5}
    encoder = {"dropout": 0.1}  # its random numbers follow from the step
    common = dict(double=False, unseen=True, config=config, encoder=encoder)
    whole = settings(tmp_path, tiny_folder, "whole", how, 1, **common)
    killed = settings(tmp_path, tiny_folder, "killed", how, 1, **common)
    checkpoints = tmp_path / "run killed" / "checkpoints"
    env = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": precision}
    with started("train_head.py", [{**killed, "pause": 0.05}], tmp_path, **env) as process:
        kill_when(process, lambda: (checkpoints / "checkpoint-8").is_dir())
    assert len(list(checkpoints.glob("checkpoint-*"))) <= 2  # rotated
    with started("train_head.py", [killed, whole], tmp_path, **env) as process:
        finish(process)
    after, before = final(tmp_path, "killed-0"), final(tmp_path, "whole-0")
    assert [key for key in before if not np.array_equal(after[key], before[key])] == []
    histories = [json.loads((tmp_path / f"run {name}" / "metrics.json").read_text())["history"] for name in ("killed", "whole")]
    assert histories[0] == histories[1]  # the mean loss of steps before and after the kill too


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision(tiny_folder, tmp_path, precision):
    """The encoder computes in half precision (on a CPU fp16 is float32), weights, heads and losses stay in float32. In bfloat16 on a
    CPU its attention is the one that learns fastest there."""
    code = (
        "import json, sys, torch, metatext as mt; sys.path.insert(0, sys.argv[3])\n"
        "from scripts.train_head import letter_tasks\n"
        "seen = set()\n"
        "model = mt.MetaModel.from_encoder(mt.EncoderConfig(sys.argv[1], tuning='full'), 'gp')\n"
        "linear = model.encoder.backbone.encoder.layer[0].attention.self.query\n"
        "linear.register_forward_hook(lambda module, inputs, out: seen.add(str(out.dtype)))\n"
        "used = lambda: model.encoder.backbone.config._attn_implementation\n"
        "linear.register_forward_hook(lambda module, inputs, out: seen.add(used()) if torch.is_grad_enabled() else None)\n"
        "logits = model.head.logits\n"
        "model.head.logits = lambda *args: (seen.add('head ' + str(args[1].dtype)), logits(*args))[1]\n"
        "config = mt.TrainConfig(output_dir=sys.argv[2], meta_steps=8, meta_batch_size=2, encoder_lr=1e-2, logging_steps=2)\n"
        "shape = mt.EpisodeConfig(n_way=(2, 4), k_shot=(1, 3), n_query=3)\n"
        "result = mt.meta_train(model, letter_tasks(2), episodes=shape, config=config)\n"
        "assert {p.dtype for p in model.parameters()} == {torch.float32}\n"
        "assert used() == 'sdpa'\n"
        "print(json.dumps([sorted(seen), [point['loss'] for point in result.history]]))\n"
    )
    command = [sys.executable, "-c", code, str(tiny_folder), str(tmp_path / "run"), str(Path(__file__).parent)]
    env = {**os.environ, "ACCELERATE_MIXED_PRECISION": precision, "ACCELERATE_USE_CPU": "true", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    seen, losses = json.loads(done.stdout.splitlines()[-1])
    expected = ["head torch.float32", *(["torch.bfloat16", "eager"] if precision == "bf16" else ["torch.float32", "sdpa"])]
    assert sorted(seen) == sorted(expected)
    assert losses[-1] < losses[0]


def test_a_compiled_run_takes_the_same_steps(tiny_folder, tmp_path):
    """What ``accelerate launch --dynamo_backend`` sets; the backend here traces and compiles nothing, which needs no C++ compiler."""
    common = {"double": False, "unseen": True, "config": {"meta_steps": 4, "eval_episodes": 4}}
    for name, backend in (("plain", "NO"), ("compiled", "EAGER")):
        arguments = settings(tmp_path, tiny_folder, name, "lora", 1, **common)
        with started(
            "train_head.py", [arguments], tmp_path, ACCELERATE_DYNAMO_BACKEND=backend, TORCH_LOGS="graph_code"
        ) as process:
            finish(process)
        assert ("TRACED GRAPH" in process.log.read_text(encoding="utf-8")) is (name == "compiled")
    plain, compiled = final(tmp_path, "plain-0"), final(tmp_path, "compiled-0")
    assert all(np.allclose(plain[key], compiled[key], atol=1e-4) for key in plain)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_other_shards_are_refused(tiny_folder, tmp_path, monkeypatch, kind):
    import accelerate

    monkeypatch.setattr(accelerate.Accelerator, "distributed_type", property(lambda self: accelerate.DistributedType[kind]))
    model = mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder), tuning="lora"), "gp")
    with pytest.raises(TrainingError, match=f"asks for {kind}; of what cuts weights into shards metatext has FSDP2"):
        meta_train(model, letter_tasks(1), config=mt.TrainConfig(output_dir=str(tmp_path)))


def test_fine_tuning_has_no_shards(tiny_folder, monkeypatch):
    import accelerate

    for name, value in (("distributed_type", accelerate.DistributedType.FSDP), ("is_fsdp2", True)):
        monkeypatch.setattr(accelerate.Accelerator, name, property(lambda self, value=value: value))
    model = mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder)), "gp")
    with pytest.raises(TrainingError, match="metatext has FSDP2, for meta-training"):
        mt.finetune(model, letter_tasks(1)[0])


@pytest.mark.parametrize(
    "asked, match",
    [
        ("old", "not go with accelerate before 1.15; pip install"),  # it clips no gradients of which some are in shards
        ("maml", "not go with encoder_steps; launch with DDP"),
        ("scaler", "not go with fp16; launch with --mixed_precision bf16"),
        ("offload", "not go with fsdp_offload_params; set it to false"),
        ("activations", "not go with fsdp_activation_checkpointing; set gradient_checkpointing"),
    ],
)
def test_what_shards_do_not_have(tiny_folder, monkeypatch, asked, match):
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

    if asked == "old":
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.14.0")
    offload = CPUOffloadPolicy() if asked == "offload" else OffloadPolicy()
    plugin = SimpleNamespace(cpu_offload=offload, activation_checkpointing=asked == "activations")
    launch = SimpleNamespace(
        is_fsdp2=True, scaler=object() if asked == "scaler" else None, state=SimpleNamespace(fsdp_plugin=plugin)
    )
    head = mt.HeadConfig("inner_loop", encoder_steps=1) if asked == "maml" else "gp"
    model = mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder), tuning="lora"), head)
    with pytest.raises(TrainingError, match=match):
        to_shard(model, launch)


def test_a_loss_that_is_no_number_ends_a_run_with_a_scaler(tiny_folder, tmp_path, monkeypatch):
    """A scale that is too large skips a step; a loss that is not a number would skip all of them, in silence."""
    import accelerate

    class Scaled(accelerate.Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)

    monkeypatch.setattr(accelerate, "Accelerator", Scaled)
    model = mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder), tuning="lora"), "gp")
    with torch.no_grad():
        model.head.temperature.log_scale.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss of an episode of task 0 is not a number"):
        meta_train(model, letter_tasks(1), config=mt.TrainConfig(output_dir=str(tmp_path), meta_batch_size=2))


def test_gradients_that_overflow_at_every_scale_end_a_run(tiny_folder, tmp_path, monkeypatch):
    import accelerate

    class Scaled(accelerate.Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=4 * SMALLEST_SCALE)

    monkeypatch.setattr(accelerate, "Accelerator", Scaled)
    model = mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder), tuning="lora"), "gp")
    model.head.temperature.log_scale.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match="step 2: a gradient is not a number"):  # two steps are skipped, the scale halved
        meta_train(model, letter_tasks(1), config=mt.TrainConfig(output_dir=str(tmp_path), meta_batch_size=2))


def test_state_of_the_gradient_scaler_is_kept(tiny_folder, tmp_path, monkeypatch):
    """What a GPU run in float16 needs: the scaler that Accelerate made goes into the checkpoint and comes back."""
    import accelerate

    scalers = []

    class Scaled(accelerate.Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=3)
            scalers.append(self.scaler)

    monkeypatch.setattr(accelerate, "Accelerator", Scaled)

    def run(steps: int, **more) -> mt.MetaModel:
        model = mt.MetaModel.from_encoder(mt.EncoderConfig(str(tiny_folder), tuning="lora"), "gp")
        config = mt.TrainConfig(
            output_dir=str(tmp_path / "run"), meta_steps=8, meta_batch_size=2, encoder_lr=1e-2, save_steps=4, **more
        )
        meta_train(
            model, [*letter_tasks(1), pairs_task()], episodes=mt.EpisodeConfig(n_way=2, k_shot=2, n_query=2), config=config
        )
        return model

    draw = mt.training.train_episodes
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def interrupted(*args, step, **options):
            if step == 5:
                raise KeyboardInterrupt
            return draw(*args, step=step, **options)

        patch.setattr(mt.training, "train_episodes", interrupted)
        run(8)
    state = json.loads((tmp_path / "run" / "checkpoints" / "checkpoint-4" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["scaler"]["scale"] == 2.0**5  # it grew after three good steps
    resumed = run(8)
    assert scalers[-1].get_scale() == 2.0**6  # 8 good steps
    again = run(8, overwrite_output_dir=True)
    for name, tensor in again.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
