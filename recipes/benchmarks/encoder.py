"""The encoder: encoding beside sentence-transformers, learning beside a bare PyTorch loop, two processes beside one."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import metatext as mt
from metatext.episodes import train_episodes
from metatext.features import encode_tasks
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
    that of the same steps in bfloat16 to float32, as ``accelerate launch --mixed_precision bf16`` takes them."""
    tasks = mt.load_tasks("starter/train")
    for tuning in ("lora", "full"):
        ours, bare = (mt.MetaModel.from_encoder(mt.EncoderConfig(tuning=tuning), "gp").train() for _ in range(2))
        optimizers = [torch.optim.AdamW(parameter_groups(model, mt.TrainConfig())) for model in (ours, bare)]
        features = encode_tasks(TokenStore(ours.encoder), tasks)
        objective = MetaLoss(ours, None, ()).train()
        batches = [
            train_episodes([features.pool], SHAPE, np.ones(len(tasks)), EPISODES, seed=0, step=step).batches[0]
            for step in range(STEPS)
        ]
        tokens = [features.store.tokens(features.gather(batch).ids) for batch in batches]
        padded = [[each.padded(rows) for rows in each.batches(ours.encoder.batch_tokens)] for each in tokens]

        def loop(features=features, batches=batches, objective=objective, optimizer=optimizers[0]) -> None:
            for batch in batches:
                losses, _ = objective([features.gather(batch)])
                meta_loss(losses).backward()
                optimizer.step()
                optimizer.zero_grad()

        def bare_loop(backbone=bare.encoder.backbone, padded=padded, optimizer=optimizers[1]) -> None:
            for parts in padded:
                vectors = []
                for ids, mask, segments in parts:
                    states = backbone(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
                    vectors.append((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
                x = torch.cat(vectors)
                (x @ x.T).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()

        def half(loop=loop) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                loop()

        (seconds, _, _), (own, rival, short) = in_turn([loop, bare_loop, half], repeats)
        count = sum(map(len, tokens))
        print(
            f"learning ({tuning}): {count / seconds:.0f} texts/s, {ratio(rival, own):.2f} x a bare PyTorch loop; in bfloat16 "
            f"{ratio(own, short):.2f} x float32",
            flush=True,
        )


def processes(repeats: int) -> None:
    """Print texts per second of `meta_train.py` in two processes, and the ratio to one; one thread each."""

    def speed(count: int) -> float:
        recipes = Path(__file__).parents[1]
        file = recipes / "launch" / ("two_cpu_processes.yaml" if count == 2 else "one_process.yaml")
        with tempfile.TemporaryDirectory() as folder:
            settings = ["--tasks", "starter/train", "--tuning", "lora", "--meta_steps", "30", "--meta_batch_size", "8"]
            settings += ["--n_way", "2", "8", "--k_shot", "1", "4", "--output_dir", folder]
            launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
            env = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
            subprocess.run([*launch, str(recipes / "meta_train.py"), *settings], check=True, capture_output=True, env=env)
            return json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))["texts_per_second"]

    speeds = [(speed(1), speed(2)) for _ in range(max(1, repeats // 2))]
    two = statistics.median(b for _, b in speeds)
    gain = statistics.median(b / a for a, b in speeds)
    print(f"two processes: {two:.0f} texts/s, {gain:.2f} x one process; one thread each")
