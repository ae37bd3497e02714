"""What is fitted to an episode by gradient steps, SetFit and fine-tuned heads: a file for every fit, so that a run that is cut off goes
on, and heads are exchanged without it.

The fits in the folder ``setfit`` beside this file were made so. A head is compared with them at once, where the corpora are the same.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import disable_progress_bars
from tqdm.auto import tqdm

import metatext as mt
from metatext.calibration import INSIDE, judge
from metatext.episodes import EpisodeBatch
from metatext.features import TaskFeatures
from metatext.fit import ENCODER_LR, LEARNING_RATE
from metatext.loading import fingerprint
from metatext.methods import Answer, Draw, Method
from metatext.rivals import TEMPLATE, TEMPLATED, setfit, templated
from metatext.settings import to_dict
from metatext.storage import read_json, write_text

from . import corpora

FEW = 4  # shots up to which all draws come before any with more, which take longer
REPEATS = 3  # of adapting, of which the median is kept
MADE = Path(__file__).parent  # holds the fits that come with metatext


@dataclass(frozen=True)
class Rival:
    """What is fitted to the examples of an episode.

    Attributes:
        name: of its column, and of the folder of its fits.
        package: whose version is written down.
        make: encoder -> (texts, (n,) classes, number of classes, their names) -> a function from texts to probabilities (n, w).
        said: (classes, names) -> what a fit depends on besides the encoder and the episode.
    """

    name: str
    package: str
    make: Callable[[mt.Encoder], Callable]
    said: Callable[[np.ndarray, Sequence[str | None]], dict[str, Any]]


SETFIT = Rival(
    "setfit",
    "setfit",
    lambda encoder: setfit(encoder),
    lambda ways, names: {"templated": [TEMPLATE, TEMPLATED]} if templated(ways, names) else {},
)


def finetuned(column: str, model: mt.MetaModel) -> Rival:
    """A head that takes gradient steps on every episode, low-rank updates of its encoder among them."""
    config = mt.FinetuneConfig("lora", learning_rate=LEARNING_RATE["lora"], encoder_lr=ENCODER_LR["lora"])
    said = {"weights": [model.encoder.frozen().key, fingerprint(model.heads)], **to_dict(config)}

    def fit(texts: Sequence, ways: np.ndarray, w: int, names: Sequence[str | None]) -> Callable:
        clf = mt.finetune(model, texts, ways.tolist(), config, label_names=dict(enumerate(names)))
        return lambda rows: torch.from_numpy(clf.predict_proba(rows))

    return Rival(f"{column}, fine-tuned", "metatext", lambda encoder: fit, lambda ways, names: said)


def order(shots: Sequence[int], n_draws: int) -> list[tuple[int, int]]:
    """(k, draw) as they are measured: few shots first, one draw of each k before the next draw. There is no fit at 0 shots."""
    few, many = [k for k in sorted(shots) if 0 < k <= FEW], [k for k in sorted(shots) if k > FEW]
    return [(k, draw) for group in (few, many) for draw in range(n_draws) for k in group]


def path(folder: str | Path, rival: Rival, task: str, k: int, draw: int) -> Path:
    """The file of a fit."""
    return Path(folder) / rival.name / f"{task}-{k}-{draw}.json"


def settings(rival: Rival, encoder: mt.Encoder, source: TaskFeatures, batch: EpisodeBatch) -> dict:
    """What a fit to the only episode of ``batch`` depends on."""
    draw, ways = Draw(None, batch, source), batch.support_y[0]
    seen = [draw.texts(batch.support[0]), ways.tolist(), draw.texts(batch.query[0]), draw.names(0)]
    return {
        "max_tokens": encoder.max_length,
        "encoder": encoder.key,
        "episode": hashlib.blake2b(json.dumps(seen).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
        **rival.said(ways, draw.names(0)),
    }


def read(file: Path, expected: dict) -> dict | None:
    """A fit that was measured before, else one that comes with metatext; None if there is neither.

    Raises:
        ConfigError: it was measured with other settings.
    """
    if not file.exists():
        made = MADE / file.parent.name / file.name
        cell = read_json(made) if made.exists() else {}
        return cell if cell.get("settings") == expected else None
    cell = read_json(file)
    other = [key for key in expected if cell.get("settings", {}).get(key) != expected[key]]
    if other:
        key = other[0]
        raise mt.ConfigError(
            f"{file} was measured with {key} {cell.get('settings', {}).get(key)!r}, now it is {expected[key]!r}; give another --output_dir, "
            f"the settings of that run, or delete the file to measure it anew"
        )
    return cell


def cells(
    rival: Rival, encoder: mt.Encoder, sources: Sequence[TaskFeatures], shots: Sequence[int], n_draws: int, folder: str | Path
) -> Iterator[tuple[Path, dict, Draw, dict | None]]:
    """Of every fit, in `order`: its file, its settings, its episode, and what was measured, None where nothing was yet.

    Raises:
        ConfigError: see `read`.
    """
    for k, number in order(shots, n_draws):
        for source in sources:
            batch = corpora.draws(source, k, [number])
            file, expected = path(folder, rival, source.tasks[0].name, k, number), settings(rival, encoder, source, batch)
            yield file, expected, Draw(None, batch, source), read(file, expected)


def measure(
    rival: Rival, encoder: mt.Encoder, tasks: Sequence[mt.Task], shots: Sequence[int], n_draws: int, folder: str | Path
) -> None:
    """Fit a rival to every episode that has no file yet, and write its answers and its seconds.

    Args:
        rival: what is fitted.
        encoder: where every fit of SetFit starts; what it reads of a text at most is what the fit reads.
        tasks: classifications.
        shots: examples per class.
        n_draws: episodes of each task and number of shots.
        folder: of the results; the files lie in one of the rival's name in it.

    Raises:
        ConfigError: the package setfit is missing; a file there was measured with other settings.
    """
    fit, head = rival.make(encoder), mt.MetaModel.from_encoder(encoder, "gp").to(encoder.device).eval()
    disable_progress_bars()  # SetFit would show one for every fit
    sources = corpora.tokenized(encoder, tasks)
    every = list(
        cells(rival, encoder, sources, shots, n_draws, folder)
    )  # all of them first: other settings show before hours of work
    todo = [cell for cell in every if cell[-1] is None]
    with tqdm(todo, desc=rival.name, unit="fit", total=len(every), initial=len(every) - len(todo)) as bar:
        for file, expected, draw, _ in bar:
            if file.exists():  # by a process beside this one, on other tasks
                continue
            bar.set_postfix_str(file.stem)
            task, k, number = file.stem.rsplit("-", 2)
            said = {"task": task, "k": int(k), "draw": int(number), "settings": expected}
            write_text(
                file,
                json.dumps({**said, **_fit(fit, head, draw), rival.package: importlib.metadata.version(rival.package)}) + "\n",
            )


def _fit(fit, head: mt.MetaModel, draw: Draw) -> dict:
    batch = draw.batch
    texts, ways, names = draw.texts(batch.support[0]), batch.support_y[0], draw.names(0)
    adapt = lambda: head.adapt(texts, ways.tolist(), label_names=dict(enumerate(names)))  # noqa: E731
    adapt()  # what happens once only is not counted
    adapting = sorted((_seconds(adapt)[1] for _ in range(REPEATS)), key=lambda pair: pair[1])[REPEATS // 2]
    predict, fitting = _seconds(lambda: fit(texts, ways, len(names), names))
    probabilities, predicting = _seconds(lambda: predict(draw.texts(batch.query[0])).double().numpy())
    targets = batch.query_y[0]
    rows = judge(probabilities, probabilities.max(1), targets, np.full(len(targets), INSIDE))
    return {
        "accuracy": float(rows.right.mean()),
        "nll": float(rows.loss.mean()),
        "brier": float(rows.squared.mean()),
        "examples": len(texts),
        "seconds": {"fit": fitting, "predict": predicting, "adapt": adapting},  # each (wall, processor)
        "threads": torch.get_num_threads(),
        "device": head.device.type,
        "targets": targets.tolist(),
        "probabilities": probabilities.round(6).tolist(),
    }


def _seconds(call):
    """What a call returns, and its seconds: on the wall, and of the processor, which others on the machine do not lengthen."""
    wall, processor = time.perf_counter(), time.process_time()
    found = call()
    return found, (time.perf_counter() - wall, time.process_time() - processor)


def kept(rival: Rival, encoder: mt.Encoder, found: Sequence[dict]) -> Method:
    """A rival as a method that answers from what was measured; it has no answer to other episodes."""
    known = {cell["settings"]["episode"]: cell["probabilities"] for cell in found}

    def answer(draw: Draw) -> Answer:
        out = torch.full((*draw.batch.query.shape, draw.batch.classes.shape[1]), torch.nan)
        for i in range(len(draw.batch)):
            episode = settings(rival, encoder, draw.source, draw.batch[i : i + 1])["episode"]
            if episode in known:
                out[i] = torch.tensor(known[episode])
        return Answer(out, out.amax(-1))

    return Method(answer)
