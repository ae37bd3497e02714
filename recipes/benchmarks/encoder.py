"""The encoder: encoding beside sentence-transformers, learning beside a bare PyTorch loop, two processes beside one."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

import metatext as mt
from metatext.episodes import EpisodeBatch, train_episodes
from metatext.features import TaskFeatures, encode_tasks
from metatext.launch import best_device
from metatext.losses import meta_loss
from metatext.objective import MetaLoss, parameter_groups
from metatext.store import TokenStore

from .clock import in_turn, ratio

SHAPE = mt.EpisodeConfig(n_way=(2, 8), k_shot=(1, 4), n_query=4)
EPISODES, STEPS = 4, 5  # per step; steps per run


def texts_of(tasks: list[mt.Task]) -> list[str]:
    """All texts of tasks, alone and in pairs and threes: short ones and long ones in no order, as in real corpora."""
    texts = [text for task in tasks for text in task.inputs() if isinstance(text, str)]
    order = np.random.default_rng(0).permutation(len(texts))
    return [" ".join(texts[(i + j) % len(texts)] for j in range(1 + i % 3)) for i in order]


def encoding(encoder: mt.Encoder, repeats: int) -> None:
    """Print texts per second without gradients, and the ratio to ``SentenceTransformer.encode`` of the same model."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    from metatext.rivals import _sentence_transformer

    logging.set_verbosity_error()  # it would say that there is no pooler
    rival: SentenceTransformer = _sentence_transformer(encoder)
    texts = texts_of(mt.load_tasks("starter"))
    theirs = lambda: rival.encode(texts, show_progress_bar=False)  # noqa: E731
    assert np.allclose(theirs(), encoder.encode(texts).numpy(), atol=1e-4)
    (ours, _), (fast, slow) = in_turn([lambda: encoder.encode(texts), theirs], repeats)
    print(
        f"encoding {len(texts)} texts: {len(texts) / ours:.0f} texts/s, {ratio(slow, fast):.2f} x sentence-transformers encode",
        flush=True,
    )


def learning(repeats: int) -> None:
    """Print texts per second of forward and backward pass and update, the ratio to a loop that does nothing else on the same batches, and
    those of the same steps in other precisions, as ``accelerate launch --mixed_precision`` takes them, to float32; on a GPU also of a
    compiled encoder, and the peak memory with and without gradient checkpointing."""
    device = best_device()
    gpu = device.type == "cuda"
    features = encode_tasks(TokenStore(mt.Encoder.load("embedded")), mt.load_tasks("starter/train"))
    weights, episodes = np.ones(len(features.tasks)), EPISODES * (8 if gpu else 1)
    batches = [train_episodes([features.pool], SHAPE, weights, episodes, seed=0, step=step).batches[0] for step in range(STEPS)]
    count = sum(len(features.store.tokens(features.gather(batch).ids)) for batch in batches)
    for tuning in ("lora", "full"):
        steps = partial(_steps, features, batches, device, tuning)
        ways = {"bfloat16": steps(torch.bfloat16)}
        if gpu:
            ways |= {"float16": steps(torch.float16), "bfloat16, compiled": steps(torch.bfloat16, compiled=True)}
        _, (own, bare, *others) = in_turn([steps(), _bare_steps(features, batches, device, tuning), *ways.values()], repeats)
        print(
            f"learning ({tuning}, {device.type}): {count / statistics.median(own):.0f} texts/s in float32, {ratio(bare, own):.2f} x a bare "
            f"PyTorch loop"
        )
        for way, seconds in zip(ways, others, strict=True):
            print(f"    {way}: {count / statistics.median(seconds):.0f} texts/s, {ratio(own, seconds):.2f} x float32", flush=True)
        if gpu:
            most = [_peak(steps(torch.bfloat16, checkpointing=kept), device) / 2**20 for kept in (False, True)]
            print("    peak memory in bfloat16: {:.0f} MiB, with gradient checkpointing {:.0f} MiB".format(*most), flush=True)


def _steps(
    features: TaskFeatures,
    batches: list[EpisodeBatch],
    device: torch.device,
    tuning: str,
    precision: torch.dtype | None = None,
    compiled: bool = False,
    checkpointing: bool = False,
) -> Callable[[], None]:
    """The steps of meta-training on these episodes."""
    model = mt.MetaModel.from_encoder(mt.EncoderConfig(tuning=tuning, gradient_checkpointing=checkpointing), "gp").to(device)
    if compiled:
        model.encoder.backbone.compile(dynamic=True)
    objective = MetaLoss(model, None, anew=True).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, mt.TrainConfig()))
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    def loop() -> None:
        for batch in batches:
            with torch.autocast(device.type, precision, enabled=precision is not None):
                losses, _, _ = objective([features.gather(batch, device)])
            scaler.scale(meta_loss(losses)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        _wait(device)

    return loop


def _bare_steps(features: TaskFeatures, batches: list[EpisodeBatch], device: torch.device, tuning: str) -> Callable[[], None]:
    """Forward and backward pass and update of the backbone alone, on the same texts, padded beforehand."""
    encoder = mt.MetaModel.from_encoder(mt.EncoderConfig(tuning=tuning), "gp").to(device).train().encoder
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad])
    tokens = [features.store.tokens(features.gather(batch).ids) for batch in batches]
    padded = [[each.padded(rows, device) for rows in each.batches(encoder.batch_tokens)] for each in tokens]

    def loop() -> None:
        for parts in padded:
            vectors = []
            for ids, mask, segments in parts:
                states = encoder.backbone(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
                vectors.append((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
            x = torch.cat(vectors)
            (x @ x.T).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        _wait(device)

    return loop


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(loop: Callable[[], None], device: torch.device) -> int:
    """Bytes that a loop needs at its peak above what is there already."""
    loop()  # what is made once only, the optimizer's moments, is there before
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    loop()
    return torch.cuda.max_memory_allocated(device) - before


def processes(repeats: int) -> None:
    """Print texts per second of `meta_train.py` in two processes, and the ratio to one; one thread each."""

    def speed(count: int) -> float:
        recipes = Path(__file__).parents[1]
        file = recipes / "launch" / ("two_cpu_processes.yaml" if count == 2 else "one_process.yaml")
        with tempfile.TemporaryDirectory() as folder:
            settings = ["--tasks", "starter/train", "--tuning", "lora", "--meta_steps", "10", "--meta_batch_size", "8"]
            settings += ["--n_way", "2", "8", "--k_shot", "1", "4", "--output_dir", folder]
            launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
            env = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
            subprocess.run([*launch, str(recipes / "meta_train.py"), *settings], check=True, capture_output=True, env=env)
            return json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))["texts_per_second"]

    speeds = [(speed(1), speed(2)) for _ in range(max(1, repeats // 2))]
    two = statistics.median(b for _, b in speeds)
    gains = sorted(b / a for a, b in speeds)
    spread = f" ({gains[0]:.2f} to {gains[-1]:.2f})" if len(gains) > 1 else ""
    print(f"two processes: {two:.0f} texts/s, {statistics.median(gains):.2f} x one process{spread}; one thread each")
