"""Accuracy of fine-tuning beside adapting, logistic regression, and full fine-tuning of the bare encoder: a JSON file for each cell, then tables."""

import time
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

import metatext as mt
from metatext.commands.common import load_model
from metatext.metrics import interval
from metatext.settings import to_dict
from metatext.storage import read_json, write_json

TASKS, TEST_ROWS = ("financial_phrasebank", "trec"), 1000
EPOCHS = {8: 10, 64: 5, 1000: 4}  # of all that takes steps, by examples per class
METHODS = ("frozen", "full", "bare", "params", "lora")
PASSES = (range(3), METHODS[:-1]), (range(3), METHODS[-1:]), (range(3, 5), METHODS)  # what can be done without comes last
PLAN = [(k, draw, method) for draws, methods in PASSES for k in EPOCHS for draw in draws for method in methods]
PLAN = [(k, draw, method) for k, draw, method in PLAN if k < 1000 or (draw < 3 and method != "lora")]


def bare(encoder: mt.Encoder, task: mt.Task, draw: int, epochs: int):
    """What is done without metatext: all weights, with dropout, and a linear layer learn; batches of 16, AdamW, a linear fall to 0."""
    encoder = encoder.learning(mt.EncoderConfig(tuning="full"), {}).train()
    torch.manual_seed(draw)
    layer, rows, y = (
        torch.nn.Linear(encoder.dim, len(task.labels)),
        task.inputs(),
        torch.from_numpy(task.targets).to(encoder.device),
    )
    layer.to(encoder.device)
    weights = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": weights}, {"params": layer.parameters(), "lr": 1e-3}], lr=1e-4, weight_decay=0.01)
    batches = [part for e in range(epochs) for part in torch.from_numpy(_order(len(rows), draw, e)).split(16)]
    rise = max(1, len(batches) // 10)
    slope = lambda step: min((step + 1) / rise, (len(batches) - step) / (len(batches) - rise + 1))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, slope)
    for batch in batches:  # 20: features are of unit length, a layer would learn slowly from them
        loss = cross_entropy(layer(20 * encoder.learn(encoder.tokenize([rows[i] for i in batch]))), y[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*weights, *layer.parameters()], 1.0)
        optimizer.step()
        schedule.step()
    return lambda texts: layer(20 * encoder.encode(texts).to(encoder.device)).argmax(1).cpu().numpy()


def _order(n: int, *seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n)


def answers(method: str, model: mt.MetaModel, task: mt.Task, texts: list, config: mt.FinetuneConfig) -> tuple[dict, dict]:
    """Classes (n,) of texts by the names of what answers them, and notes."""
    place = {label: c for c, label in enumerate(task.labels)}
    numbers = lambda clf: np.array([place[label] for label in clf.predict(texts)])  # noqa: E731
    if method == "frozen":
        clf = model.adapt(task)
        logistic = LogisticRegression(C=10, max_iter=500).fit(clf.support.x[0].cpu().numpy(), task.targets)
        return {"adapted": numbers(clf), "logistic regression": logistic.predict(model.encoder.encode(texts).numpy())}, {}
    if method == "bare":
        return {"bare encoder, full": bare(model.encoder, task, config.seed, config.num_train_epochs)(texts)}, {}
    clf = mt.finetune(model, task, config=config)
    return {f"fine-tuned, {method}": numbers(clf)}, clf.finetuning


def measure(model: str, tasks_dir: str, output_dir: str) -> None:
    """Measure the cells that ``output_dir``/finetuning lacks, and print the tables."""
    loaded, folder = load_model(model), Path(output_dir) / "finetuning"
    tasks = [mt.load_task(str(Path(tasks_dir) / name), split=None) for name in TASKS]
    for (k, draw, method), task in product(PLAN, tasks):
        path, what = folder / f"{task.name}-{k}-{draw}-{method}.json", "params" if method in ("frozen", "bare") else method
        config = mt.FinetuneConfig(what, num_train_epochs=EPOCHS[k], seed=draw)
        settings = {"model": model, "encoder": loaded.encoder.fingerprint, "test_rows": TEST_ROWS, **to_dict(config)}
        if path.exists() and read_json(path)["settings"] == settings:
            continue
        fixed = _order(len(task), 99)
        test, rest = task.select(fixed[:TEST_ROWS]), fixed[TEST_ROWS:][_order(len(task) - TEST_ROWS, draw, 7)]
        support = task.select(np.concatenate([rest[task.targets[rest] == c][:k] for c in range(len(task.labels))]))
        start = time.perf_counter()
        found, notes = answers(method, loaded, support, test.inputs(), config)
        right = {name: float(np.mean(answer == test.targets)) for name, answer in found.items()}
        cell = {"settings": settings, "task": task.name, "k": k, "draw": draw, "examples": len(support), "accuracy": right}
        write_json(path, {**cell, "seconds": time.perf_counter() - start, "notes": notes})
        print(f"{path.stem}: {right}", flush=True)
    tables(folder)


def tables(folder: Path) -> None:
    """Print means with 95 % intervals over the draws, and paired differences to adapting and to the bare encoder, in points."""
    cells = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        cell = read_json(path)
        for method, accuracy in cell["accuracy"].items():
            cells[cell["task"], cell["k"], method][cell["draw"]] = 100 * accuracy
    for (task, k, method), own in sorted(cells.items()):
        line = f"{task:22}{k:5} {method:22}" + "{:6.1f} ± {:4.1f}".format(*interval(list(own.values()))) + f" ({len(own)} draws)"
        for rival in ("adapted", "bare encoder, full"):
            both = [own[draw] - other for draw, other in cells[task, k, rival].items() if draw in own] if rival != method else []
            line += f"  - {rival}: {{:+.1f}} ± {{:.1f}}".format(*interval(both)) if both else ""
        print(line)
