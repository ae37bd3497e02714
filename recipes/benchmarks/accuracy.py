"""Accuracy of heads beside SetFit on the episodes that it was fitted to, and themselves fine-tuned, and beside fast baselines on many more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

import metatext as mt
from metatext.baselines import baseline
from metatext.commands.common import load_model
from metatext.episodes import EpisodeBatch
from metatext.evaluation import draw_for, measure
from metatext.features import encode_tasks
from metatext.heads import HEADS
from metatext.kinds import KINDS
from metatext.methods import Method, by_model
from metatext.report import Report
from metatext.storage import write_json
from metatext.store import FeatureStore, TokenStore

from . import corpora, rival, tables

BASELINES = ("logistic_regression", "nearest_centroid", "label_names")  # all on the encoder as it was pretrained
MANY_QUERY = 5  # query rows per class, of the many episodes


def load(names: Sequence[str], max_tokens: int | None) -> dict[str, mt.MetaModel]:
    """Heads by the names of their columns.

    Args:
        names: saved folders, repos on the Hub, or names of heads (untrained, on the embedded encoder).
        max_tokens: what they read of a text at most; None: as much as each encoder can.

    Raises:
        ConfigError: two columns would have one name.
        StorageError: there is no such folder.
    """
    found: dict[str, mt.MetaModel] = {}
    for name in names:
        untrained = name in HEADS and not Path(name).is_dir()
        column = f"untrained {name}" if untrained else Path(name).name
        if column in found or column in (rival.SETFIT.name, *BASELINES):
            raise mt.ConfigError(f"models: two columns would be called {column!r}; give each head's folder a name of its own")
        found[column] = load_model(name)
        found[column].eval().encoder.max_length = min(max_tokens or 10**9, found[column].encoder.max_length)
    return found


def methods(models: Mapping[str, mt.MetaModel], encoder: mt.Encoder) -> dict[str, Method]:
    """The heads, each on its own encoder, and the baselines on ``encoder``."""
    bare = mt.MetaModel.from_encoder(encoder, "gp").to(encoder.device)
    return {name: by_model(model) for name, model in models.items()} | {name: baseline(name, bare) for name in BASELINES}


def narrowed(task: mt.Task, batch: EpisodeBatch) -> tuple[mt.Task, EpisodeBatch]:
    """The rows of a task that some episodes use, and these episodes with their numbers: the others need not be encoded."""
    rows = np.unique(np.concatenate([batch.support, batch.query], 1))
    rows = rows[rows >= 0]
    support, query = (np.where(part >= 0, np.searchsorted(rows, part), -1) for part in (batch.support, batch.query))
    return task.select(rows), replace(batch, support=support, query=query)


def measured(
    columns: Mapping[str, Method], encoder: mt.Encoder, episodes: Sequence[tuple[mt.Task, EpisodeBatch]], settings: dict
) -> Report:
    """All methods on the same episodes of each task; ``encoder`` is that of the methods without one of their own."""
    through, stores = {}, {}
    for name, method in columns.items():
        own = (method.encoder or encoder).frozen()
        through[name] = key = f"texts for {name}" if method.reads_texts else own.key
        if key not in stores:
            stores[key] = TokenStore(method.encoder) if method.reads_texts else FeatureStore(own)
    scores, rows = {}, {}
    with tqdm(total=sum(len(batch) for _, batch in episodes), desc=f"{settings['k_shot']} shots", unit="episode") as bar:
        for task, batch in episodes:
            part, batch = narrowed(task, batch)
            views = {key: encode_tasks(store, [part]) for key, store in stores.items()}
            found = {name: (method, views[through[name]]) for name, method in columns.items()}
            scores[task.name], rows[task.name] = measure(batch, found, KINDS[task.kind], "accuracy", bar)
    return Report("accuracy", scores, rows, settings)


def run(
    names: Sequence[str],
    tasks: Sequence[mt.Task],
    encoder: mt.Encoder,
    shots: Sequence[int],
    n_draws: int,
    n_episodes: int,
    folder: str | Path,
) -> None:
    """Measure heads, print the tables, and write ``accuracy.json`` and the pictures.

    Args:
        names: the heads, see `load`.
        tasks: classifications.
        encoder: that of SetFit and the baselines; what it reads of a text at most is what all methods read.
        shots: examples per class; 0: label names alone.
        n_draws: episodes of each task and number of shots that SetFit may have been fitted to; those without a file are left out.
        n_episodes: of each task and number of shots in the second table; 0: without it.
        folder: where the fits of SetFit and of fine-tuned heads lie, and the results go.

    Raises:
        ConfigError: there is nothing to measure; a fit there was measured with other settings; see `load`.
    """
    models = load(names, encoder.max_length)
    columns, sources = methods(models, encoder), corpora.tokenized(encoder, tasks)
    rivals = [rival.SETFIT, *(rival.finetuned(column, model) for column, model in models.items())]
    found = {each.name: list(rival.cells(each, encoder, sources, shots, n_draws, folder)) for each in rivals}
    fits = {name: {file.stem: cell for file, *_, cell in cells if cell} for name, cells in found.items()}
    answers = {r.name: rival.kept(r, encoder, list(fits[r.name].values())) for r in rivals if fits[r.name]}
    few, many = {}, {}
    for k in shots:
        said = {"n_way": corpora.WAYS, "k_shot": k, "max_tokens": encoder.max_length}
        episodes = []
        for source in sources:
            task = source.tasks[0]
            own = [number for number in range(n_draws) if not k or f"{task.name}-{k}-{number}" in fits[rival.SETFIT.name]]
            episodes += [(task, corpora.draws(source, k, own))] if own else []
        if episodes:
            few[k] = measured({**columns, **(answers if k else {})}, encoder, episodes, {**said, "n_draws": n_draws})
        if n_episodes:
            drawn = [(s.tasks[0], draw_for(s, corpora.shape(s.pool, k, MANY_QUERY), n_episodes, 0)) for s in sources]
            many[k] = measured(columns, encoder, drawn, {**said, "n_query": MANY_QUERY, "n_episodes": n_episodes, "seed": 0})
    if not few and not many:
        raise mt.ConfigError(
            f"{folder} holds no fit of SetFit at these shots yet; run the part setfit first, or set --n_episodes above 0"
        )
    values = {"models": list(names), "speed": {name: tables.ratios(cells.values()) for name, cells in fits.items() if cells}}
    print()
    for name, cells in fits.items():
        if cells or name == rival.SETFIT.name:
            print(f"{len(cells)} of {len(found[name])} fits of {name} are measured")
    print("on the episodes of SetFit:")
    values["beside_setfit"] = tables.show(few, rival.SETFIT.name)
    for name, seconds in values["speed"].items():
        print(f"\n{tables.speed(name, seconds)}")
    if many:
        print(f"\nOn {n_episodes} episodes of each task, up to {MANY_QUERY} query rows per class:")
        values["many_episodes"] = tables.show(many, "logistic_regression")
    panels = {"the episodes of SetFit": few, f"{n_episodes} episodes of each task": many}
    tables.draw({title: found for title, found in panels.items() if found}, Path(folder))
    write_json(Path(folder) / "accuracy.json", values)
    print(f"figures  {Path(folder) / 'accuracy.json'}")
