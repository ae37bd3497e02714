"""Heads on cached features: meta-training beside the same head driven one episode at a time; adaptation beside logistic regression."""

import tempfile
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import metatext as mt
from metatext.episodes import train_episodes
from metatext.features import TaskFeatures, encode_tasks
from metatext.heads import HEADS
from metatext.losses import classification, meta_loss

from .clock import clock, excess

META_BATCH, STEPS = 32, 3
SHAPES = [mt.EpisodeConfig(n_way=n_way, k_shot=k_shot, n_query=5) for n_way, k_shot in ((5, 1), (5, 5), (20, 5))]


def joined(tasks: list[mt.Task]) -> mt.Task:
    """One task with the classes of all of them: wide enough for any shape."""
    named = [(text, f"{task.name}: {task.labels[y]}") for task in tasks for text, y in zip(task.inputs(), task.targets)]
    return mt.load_task([{"text": text, "label": label} for text, label in named], name="joined")


def meta_train(model: mt.MetaModel, features: TaskFeatures, shape: mt.EpisodeConfig, size: int) -> np.ndarray:
    """Seconds of (drawing and gathering, forward and backward, optimizer) in ``STEPS`` outer steps of ``META_BATCH`` episodes,
    drawn, gathered and passed through the head ``size`` at a time."""
    optimizer = torch.optim.AdamW(model.head.parameters())
    total = np.zeros(3)
    for step in range(STEPS):
        for seed in range(META_BATCH // size):
            start = time.perf_counter()
            batch = train_episodes([features.pool], shape, np.ones(1), size, seed=seed, step=step).batches[0]
            data = features.gather(batch)
            gathered = time.perf_counter()
            meta_loss(classification(model(data), data.query_y, data.query_mask, data.outside)).backward()
            done = time.perf_counter()
            total += gathered - start, done - gathered, 0
        torch.nn.utils.clip_grad_norm_(model.head.parameters(), META_BATCH)
        optimizer.step()
        optimizer.zero_grad()
        total[2] += time.perf_counter() - done
    return total


def compare(model: mt.MetaModel, features: TaskFeatures, shape: mt.EpisodeConfig, repeats: int) -> str:
    """A row of the table: both ways in turn, so that a machine that drifts slows both; medians, the first run not counted."""
    runs = [[meta_train(model, features, shape, size) for size in (META_BATCH, 1)] for _ in range(repeats + 1)]
    batched, single = np.array(runs[1:]).transpose(1, 0, 2)  # (repeats, 3) each
    fast, slow = (META_BATCH * STEPS / np.median(parts.sum(1)) for parts in (batched, single))
    ratio, share = np.median(single.sum(1) / batched.sum(1)), 100 * np.median(1 - batched[:, 0] / batched.sum(1))
    return f"{fast:6.0f} episodes/s, {ratio:4.1f} x one at a time ({slow:.0f}); {share:.0f} % of it in head and optimizer"


def training(encoder: mt.Encoder, repeats: int) -> None:
    """Print the table of all heads and shapes."""
    tasks = [task for task in mt.load_tasks("starter/train") if len(task.labels) >= 5]
    with tempfile.TemporaryDirectory() as folder:
        features = encode_tasks(mt.FeatureStore(encoder, folder, progress=False), [joined(tasks)])
        for shape in SHAPES:
            kind = f"{shape.n_way}-way {shape.k_shot}-shot, {shape.n_query} queries per class"
            print(f"meta-training, {META_BATCH} episodes a step ({kind}), features cached, {torch.get_num_threads()} threads:")
            for name in HEADS:
                print(f"  {name:11} {compare(mt.MetaModel.from_encoder(encoder, name), features, shape, repeats)}", flush=True)


def adaptation(encoder: mt.Encoder, repeats: int) -> None:
    """Print what adapting costs beside encoding the same texts, and beside fitting a logistic regression."""
    tasks = [task for task in mt.load_tasks("starter/train") if len(task.labels) >= 5]
    task = tasks[0].with_classes(tasks[0].labels[:5])
    task = task.select(np.concatenate([np.flatnonzero(task.targets == c)[:5] for c in range(5)]))
    texts, names = task.inputs(), [name for name in task.label_names if name]
    x, y = encoder.encode(texts).numpy(), task.targets
    logistic = clock(lambda: LogisticRegression(C=10, max_iter=500).fit(x, y), repeats)
    read = lambda: encoder.encode([*texts, *names])  # noqa: E731
    encoding = clock(read, repeats)
    print(f"adapting to 5-way 5-shot; encoding its 25 texts and 5 label names takes {1000 * encoding:.1f} ms:")
    for name in HEADS:
        model = mt.MetaModel.from_encoder(encoder, name)
        more = excess(lambda model=model: model.adapt(texts, list(y), label_names=names), read, 5 * repeats)
        support = model.adapt(texts, list(y), label_names=names).support
        with torch.no_grad():
            alone = clock(lambda model=model, support=support: model.head.adapt(support), repeats)
        rival = f"{logistic / alone:.1f} x as fast as fitting the logistic regression"
        print(f"  {name:11} adds {1000 * more:+.1f} ms; the head alone {1000 * alone:.2f} ms, {rival}")
