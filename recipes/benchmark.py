"""Speed on this machine, as figures that can be compared: medians of several runs, ratios where there is a rival.

What:   share of a meta-training step that is forward, backward and optimizer; time of 1,000 steps of 16 episodes
        (5-way 5-shot); adaptation beside encoding the same texts and beside fitting a logistic regression; start-up.
Needs:  nothing but the installation.
Launch: python recipes/benchmark.py [--repeats 5]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import metatext as mt
from metatext.episodes import train_episodes
from metatext.features import encode_tasks
from metatext.heads import HEADS
from metatext.losses import classification, meta_loss

SHAPE = mt.EpisodeConfig(n_way=5, k_shot=5, n_query=5)
STEPS = 200


def clock(call, repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def excess(call, base, repeats: int) -> float:
    """Median seconds by which a call takes longer than another, in turn: a machine that drifts slows both."""
    differences = []
    for _ in range(repeats):
        start = time.perf_counter()
        base()
        middle = time.perf_counter()
        call()
        differences.append(time.perf_counter() - middle - (middle - start))
    return statistics.median(differences)


def step_parts(model: mt.MetaModel, features) -> np.ndarray:
    """Seconds of (drawing, gathering, forward, backward, optimizer) in ``STEPS`` steps."""
    optimizer = torch.optim.AdamW(model.head.parameters())
    weights, total = np.ones(len(features.tasks)), np.zeros(5)
    for step in range(STEPS):
        marks = [time.perf_counter()]
        batch = train_episodes(features.pool, SHAPE, weights, 16, seed=0, step=step)
        marks.append(time.perf_counter())
        data = features.gather(batch)
        marks.append(time.perf_counter())
        loss = meta_loss(classification(model(data), data.query_y, data.query_mask, data.outside))
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(model.head.parameters(), 16.0)
        optimizer.step()
        optimizer.zero_grad()
        total += np.diff([*marks, time.perf_counter()])
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median is given [5]")
    repeats = parser.parse_args().repeats
    encoder = mt.Encoder.load("embedded")
    with tempfile.TemporaryDirectory() as folder:
        store = mt.FeatureStore(encoder, folder, progress=False)
        tasks = [task for task in mt.load_tasks("starter/train") if len(task.labels) >= 5]
        features = encode_tasks(store, tasks)
        print(f"meta-training, 16 episodes of {SHAPE.n_way}-way {SHAPE.k_shot}-shot per step, cached features:")
        for name in HEADS:
            runs = np.array([step_parts(mt.MetaModel.from_encoder(encoder, name), features) for _ in range(repeats)])
            parts = np.median(runs, 0)
            share = 100 * parts[2:].sum() / parts.sum()
            print(
                f"  {name:10} {parts.sum() / STEPS * 1000:6.1f} s per 1,000 steps; forward + backward + optimizer {share:.0f} %"
            )

    task = tasks[0].with_classes(tasks[0].labels[:5])
    rows = np.concatenate([np.flatnonzero(task.targets == c)[:5] for c in range(5)])
    task = task.select(rows)
    texts, names = task.inputs(), [name for name in task.label_names if name]
    x, y = encoder.encode(texts).numpy(), task.targets
    logistic = clock(lambda: LogisticRegression(C=10, max_iter=500).fit(x, y), repeats)
    read = lambda: encoder.encode([*texts, *names])  # noqa: E731
    encoding = clock(read, repeats)
    print(f"adapting to 5-way 5-shot; encoding its 25 texts and 5 label names takes {1000 * encoding:.1f} ms:")
    for name in HEADS:
        model = mt.MetaModel.from_encoder(encoder, name)
        more = excess(lambda model=model: model.adapt(texts, list(y), label_names=names), read, 5 * repeats)
        support = model._support(texts, torch.from_numpy(y), names, None)
        with torch.no_grad():
            alone = clock(lambda model=model, support=support: model.head.adapt(support), repeats)
        print(
            f"  {name:10} adds {1000 * more:+.1f} ms; the head alone "
            f"{1000 * alone:.2f} ms, {logistic / alone:.1f} x as fast as fitting the logistic regression"
        )

    def start(code: str) -> float:
        return clock(lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True), repeats)

    bare = start("pass")
    print(f"import metatext: {start('import metatext') - bare:.3f} s above bare Python")
    print(f"metatext --help: {start('from metatext.cli import main; main([])'):.3f} s")
    print(
        f"recipes/adapt.py --help: {clock(lambda: subprocess.run([sys.executable, 'recipes/adapt.py', '--help'], check=True, capture_output=True), repeats):.3f} s"
    )


if __name__ == "__main__":
    main()
