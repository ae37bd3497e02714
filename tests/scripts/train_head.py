"""Trains heads on letter tasks, in this process: ``python train_head.py settings.json`` with a list of `train` arguments."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np


def letter_task(name: str, classes: int = 4, rows: int = 14, seed: int = 0, described: bool = True):
    """Easy: every class writes with three letters of its own."""
    import metatext as mt

    rng = np.random.default_rng(seed)
    letters = rng.permutation(list("abcdefghijklmnopqrstuvwxyz"))
    table = []
    for c in range(classes):
        own, texts = letters[3 * c : 3 * c + 3], set()
        while len(texts) < rows:
            texts.add("".join(rng.choice(own, rng.integers(4, 12))))
        table += [{"text": text, "label": "".join(own)} for text in sorted(texts)]
    return mt.load_task(table, name=name, description=f"letters of {name}" if described else None)


def letter_tasks(count: int = 3, **options) -> list:
    return [letter_task(f"task {i}", seed=i, **options) for i in range(count)]


def no_support_in_the_first_half(training) -> None:
    """Episodes of the first half of a step (the first of two processes) have no support row."""
    import dataclasses

    draw = training.train_episodes

    def drawn(*args, **options):
        batch = draw(*args, **options)
        (own,) = batch.batches
        first = np.arange(len(own))[:, None] < len(own) // 2
        own = dataclasses.replace(own, support=np.where(first, -1, own.support), support_y=np.where(first, -1, own.support_y))
        return dataclasses.replace(batch, batches=(own,))

    training.train_episodes = drawn


def pairs_task(name: str = "pairs"):
    """Pairs of texts that begin with the same letter, or do not."""
    import metatext as mt

    first, second = ("ab", "cd", "ee", "gh"), ("ax", "cy", "ez", "gw", "aa", "ck", "ei", "go")
    rows = [{"text": a, "text_pair": b, "label": "same" if a[0] == b[0] else "other"} for a in first for b in second]
    return mt.load_task(rows, name=name)


def letters_present(name: str = "letters", rows: int = 40, seed: int = 0):
    """A text of letters is labelled with those of ``abcd`` that it holds."""
    import metatext as mt

    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 5), replace=False)) for _ in range(rows)]
    return mt.load_task([{"text": t, "labels": [c for c in "abcd" if c in t]} for t in texts], name=name)


def share_of_a(name: str = "share", rows: int = 40, seed: int = 0, unit: float = 10.0):
    """A text is scored by its share of the letter a, times ``unit``."""
    import metatext as mt

    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("abc"), 8)) for _ in range(rows)]
    table = [{"text": f"{t}{i}", "score": unit * t.count("a") / 8} for i, t in enumerate(texts)]
    return mt.load_task(table, name=name, label_names={0: "b", unit: "a"})


def find_the_run(name: str = "runs", rows: int = 40, seed: int = 0):
    """A question names a letter, the answer is where it stands three times in a row; every fifth context has no such place."""
    import metatext as mt

    rng = np.random.default_rng(seed)
    table = []
    for i in range(rows):
        letter, noise = rng.choice(list("xyz")), "".join(rng.choice(list("abcdefgh"), 14))
        at = int(rng.integers(0, 12))
        context = noise if i % 5 == 4 else noise[:at] + 3 * letter + noise[at:]
        answers = {"text": [], "answer_start": []} if i % 5 == 4 else {"text": [3 * letter], "answer_start": [at]}
        table.append({"question": letter, "context": context, "answers": answers})
    return mt.load_task(table, name=name, description="runs")


def reversed_letters(name: str = "reversed", rows: int = 30, seed: int = 0):
    """Texts of letters, to be written from their end; every third stands there twice, with capitals the second time."""
    import metatext as mt

    rng = np.random.default_rng(seed)
    texts = list(dict.fromkeys("".join(rng.choice(list("abcdef"), rng.integers(3, 7))) for _ in range(2 * rows)))[:rows]
    table = [{"input": text, "target": text[::-1]} for text in texts]
    table += [{"input": text, "target": text[::-1].upper()} for text in texts[::3]]
    return mt.load_task(table, name=name, description="Write it from its end.")


def parameters_that_few_episodes_use(head) -> None:
    """One parameter that only episodes with support rows use, and one that none uses."""
    import torch

    head.spare = torch.nn.Parameter(torch.tensor(1.5, dtype=next(head.parameters()).dtype))
    head.idle = torch.nn.Parameter(torch.ones(3, dtype=head.spare.dtype))
    adapt = head.adapt

    def adapt_with_spare(support):
        params, has_rows = adapt(support), support.row_mask.any(1)
        if has_rows.any():
            params["scale"] = torch.where(has_rows, params["scale"] * head.spare, params["scale"])
        return params

    head.adapt = adapt_with_spare


def die(training, step: int, number: int) -> None:
    """The second process gets a signal at this step."""
    draw = training.train_episodes

    def drawn(*args, **options):
        if options["step"] == step and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), number)
        return draw(*args, **options)

    training.train_episodes = drawn


def shards_on_cpus() -> None:
    """Have Accelerate cut weights (FSDP2) between two processes on CPUs, where by itself it does so between GPUs only."""
    from accelerate import DistributedType, PartialState

    from metatext import training

    PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU
    average = training.average_gradients

    def checked(learner, accelerator):
        for p in learner.encoder.parameters():
            if p.requires_grad and len(p) % 2 == 0:
                assert 2 * p.to_local().numel() == 2 * p.grad.to_local().numel() == p.numel()
        average(learner, accelerator)

    training.average_gradients = checked


def train(
    encoder: str | dict,
    output_dir: str,
    config: dict,
    episodes: dict | None = None,
    head: dict | None = None,
    *,
    save_to: str | None = None,
    double: bool = False,
    pause: float = 0.0,
    starved: bool = False,
    unseen: bool = False,
    pairs: bool = False,
    kinds: bool = False,
    language: dict | None = None,
    die_at: int | None = None,
    die_by: int = signal.SIGKILL,
    threads: int = 1,
) -> dict:
    """One run; all that was learned and the result go to ``save_to`` (.npz), where ``{rank}`` is the process's.

    ``encoder`` is a folder, or settings of `EncoderConfig`; ``language`` are settings of `LanguageConfig`.
    """
    import torch

    import metatext as mt
    from metatext import training

    torch.set_num_threads(threads)
    settings = encoder if isinstance(encoder, dict) else {"name": encoder}
    model = mt.MetaModel.from_encoder(
        mt.EncoderConfig(**settings), mt.HeadConfig(**{"rank": 2, **(head or {})}), 0, mt.LanguageConfig(**(language or {}))
    )
    if double:
        model.double()
    draw = training.train_episodes
    try:
        if starved:
            parameters_that_few_episodes_use(model.head)
            no_support_in_the_first_half(training)
        if die_at is not None:
            die(training, die_at, die_by)
        if pause:
            inner = training.train_episodes
            training.train_episodes = lambda *args, **options: (time.sleep(pause), inner(*args, **options))[1]
        result = mt.meta_train(
            model,
            [
                *letter_tasks(),
                *([pairs_task()] if pairs else []),
                *([letters_present(), share_of_a(), find_the_run()] if kinds else []),
                *([reversed_letters()] if language else []),
            ],
            eval_tasks=[letter_task("unseen", seed=9)] if unseen else (),
            episodes=mt.EpisodeConfig(**{"n_way": (2, 4), "k_shot": (0, 4), "n_query": 3, "n_outside": 2, **(episodes or {})}),
            config=mt.TrainConfig(output_dir=output_dir, **config),
        )
    finally:
        training.train_episodes = draw
    state = {name: tensor.numpy() for name, tensor in model.tensors().items()}
    if save_to:
        history = json.dumps({"history": result.history, "best": result.best, "steps": result.steps})
        np.savez(save_to.format(rank=os.environ.get("RANK", "0")), **state, result=np.array(history))
    return state


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        shards_on_cpus()
    for arguments in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        train(**arguments)
