"""``metatext train``."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..command_settings import Settings, TestData, TrainData
from ..config import EncoderConfig, EpisodeConfig, HeadConfig, LanguageConfig, TrainConfig
from ..corpora import load_tasks
from ..encoder import Encoder
from ..evaluation import evaluate_tasks
from ..features import encode_tasks
from ..kinds import KINDS
from ..launch import best_device
from ..model import MetaModel
from ..objective import reads_anew
from ..pools import EpisodeError, check_pool
from ..rows import DataError
from ..run_folder import CURVE, METRICS, held
from ..settings import ConfigError
from ..snippets import flags
from ..storage import check_folder, read_json, write_json
from ..store import FeatureStore, TokenStore, local_share
from ..tasks import Task, check_tasks
from ..training import meta_train
from ..warm_start import entry_of, mixture, warm_start
from .common import column_name, load_model, log, of_shots, print_report, public_name, sources, texts_of, with_other_names

logger = logging.getLogger(__name__)


def main(settings: Settings) -> None:
    """Load tasks, meta-train, and measure the head on test tasks that chose nothing."""
    from accelerate import PartialState

    log()
    check_folder(settings[TrainConfig].output_dir, "head")
    data, config, shape = settings[TrainData], settings[TrainConfig], settings[EpisodeConfig]
    if data.other_label_names and not shape.other_names:
        raise ConfigError("other_label_names: no episode would show them; set other_names, the share that does, 0.4 for one")
    is_main = PartialState(cpu=best_device().type == "cpu").is_main_process
    model = MetaModel.from_encoder(settings[EncoderConfig], settings[HeadConfig], config.seed, settings[LanguageConfig])
    model.to(PartialState().device)
    if data.warm_start:
        warm_start(model, data.warm_start)
    store = None
    if not reads_anew(model, config):
        store = FeatureStore(model.encoder, data.cache_dir, progress=is_main, share=local_share())
    tasks, unseen, test = read_tasks(data, model.kinds)
    check_tasks(tasks, unseen, test)
    tasks = with_other_names(tasks, data.other_label_names) if data.other_label_names else tasks
    model.notes = {**model.notes, "flags": flags_for_card(settings, [task.name for task in tasks])}
    # whatever could stop the last table is found now: hours of training would end in it
    check_tests(test, {task.kind for task in tasks}, data, model.encoder)
    others = load_heads(data.test_heads) if test and is_main else {}
    if is_main:
        print(
            f"{len(tasks)} tasks to train on ({sum(map(len, tasks))} rows), {len(unseen)} to choose the head, {len(test)} to measure it"
        )
        for use, group in (("train on", tasks), ("choose by", unseen), ("measure on", test)):
            if group:
                print(f"{use}: {', '.join(task.name for task in group)}")
    result = meta_train(model, tasks, eval_tasks=unseen, episodes=shape, config=config, store=store, cache_dir=data.cache_dir)
    if not is_main:
        return
    metrics = result.output_dir / METRICS
    with held(result.output_dir):  # a run that overwrites this one waits for its last figures
        store = FeatureStore(model.encoder, data.cache_dir)  # the other processes are gone
        reference, figures = TestData().reference, {}
        for kind in dict.fromkeys(task.kind for task in test):
            group = [task for task in test if task.kind == kind]
            heads = {name: head for name, head in others.items() if kind in head.kinds}
            by_class = KINDS[kind].by_class
            for drawn in test_shapes(kind, data):
                report = evaluate_tasks(model, group, drawn, data.test_episodes, config.seed, heads=heads, store=store)
                said = f"Unseen tasks{'' if by_class else f' ({kind})'}, {of_shots(drawn.k_shot, by_class)}, no gradient step"
                print_report(report, said, reference)
                figures[str(drawn.k_shot) if by_class else f"{kind} {drawn.k_shot}"] = report.to_dict(reference)
        if test:
            write_json(metrics, {**read_json(metrics), "test": figures})
            show(model, max(test, key=lambda task: len(task.labels)), config.seed)
    print(f"\nhead            {result.output_dir}\nlearning curve  {result.output_dir / CURVE}\nmetrics         {metrics}")
    print(f"next            metatext adapt your.csv --model {result.output_dir}")


def read_tasks(data: TrainData, kinds: Sequence[str]) -> tuple[list[Task], list[Task], list[Task]]:
    """The tasks to train on, to choose by and to measure on; of a whole folder those of the ``kinds`` that the model serves."""
    options = {"skip_bad_rows": data.skip_bad_rows, "encoding": data.encoding}
    read = partial(sources, tasks_dir=data.tasks_dir, **options)
    test = read(data.test_tasks)
    if data.tasks:
        loaded = read(data.tasks)
    else:
        whole = load_tasks(data.tasks_dir or "starter/train", **options)
        loaded = [task for task in whole if task.kind in kinds and task.name not in {task.name for task in test}]
        if others := [f"{task.name} ({task.kind})" for task in whole if task.kind not in kinds]:
            logger.warning("left out, for the head has no form for their kind: %s", ", ".join(others))
    # held out by the name of the task, or by that of its file
    names = {task.name for task in loaded}
    held = {name: {name} & names or {Path(name).stem} & names for name in data.eval_tasks}
    inner = [task for task in loaded if {task.name} in held.values()]
    outer = read([name for name, found in held.items() if not found])
    limit = (lambda task: task.sample(data.max_rows_per_task)) if data.max_rows_per_task else (lambda task: task)
    return tuple([limit(task) for task in group] for group in ([t for t in loaded if t not in inner], inner + outer, test))


def flags_for_card(settings: Settings, names: list[str]) -> dict[str, Any]:
    """The flags of a run that its model and its loop do not tell. They are published: no folder of this machine stands in them.

    Args:
        settings: of the command.
        names: of the tasks to train on, which say what was taken of a whole folder.
    """
    data = settings[TrainData]
    found = flags(settings[EncoderConfig]) | flags(settings[LanguageConfig])
    for flag in ("encoder", "encoder_revision", "language_model", "language_revision"):
        found.pop(flag, None)
    given = flags(data)
    found |= {flag: given[flag] for flag in ("max_rows_per_task", "skip_bad_rows", "encoding") if flag in given}
    tasks = [public_name(name, data.tasks_dir) for name in data.tasks] or (names if data.tasks_dir else ["starter/train"])
    found |= {"tasks_dir": "folder/of/corpora"} if data.tasks_dir else {}
    found |= {"other_label_names": public_name(data.other_label_names, None)} if data.other_label_names else {}
    found |= {"tasks": tasks, "eval_tasks": [public_name(name, data.tasks_dir) for name in data.eval_tasks]}
    return found | {"warm_start": [entry_of(public_name(name, None), parts) for name, parts in mixture(data.warm_start)]}


def test_shapes(kind: str, data: TrainData) -> list[EpisodeConfig]:
    """The episodes of each table on the test tasks of a kind."""
    by_class = KINDS[kind].by_class
    shape = EpisodeConfig(n_way=10, fewer_ways=True, n_query=5 if by_class else 20, k_shot=1)
    return [replace(shape, k_shot=k) for k in (data.test_shots if by_class else data.test_rows)]


def check_tests(tasks: Sequence[Task], kinds: Collection[str], data: TrainData, encoder: Encoder) -> None:
    """Raises `DataError` where a task is of none of these kinds, `EpisodeError` where it has too few rows."""
    for task in tasks:
        if task.kind not in kinds:
            raise DataError(f"test_tasks: {task.name!r} is of kind {task.kind}, which no task to train on is")
        pool = encode_tasks(TokenStore(encoder), [task]).pool
        for shape in test_shapes(task.kind, data):
            try:
                check_pool(pool, shape)
            except EpisodeError as error:
                raise EpisodeError(
                    f"test_tasks: {error} The tables take n_query {shape.n_query} besides test_shots (test_rows), which may be lowered."
                ) from None


def load_heads(names: Sequence[str]) -> dict[str, MetaModel]:
    """Heads by the names of their columns."""
    heads: dict[str, MetaModel] = {}
    for name in names:
        if column_name(name) in heads:
            raise ConfigError(
                f"test_heads: two columns would be called {column_name(name)!r}; give each head's folder a name of its own"
            )
        heads[column_name(name)] = load_model(name)
    return heads


def show(model: MetaModel, task: Task, seed: int, shots: int = 3, shown: int = 5) -> None:
    """Adapt to a few rows of a task and print a few predictions."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(task))
    if by_class := KINDS[task.kind].by_class:
        support = np.concatenate([order[task.targets[order] == c][:shots] for c in range(len(task.labels))])
    else:
        firsts = [np.flatnonzero(column)[:1] for column in task.targets.T] if task.targets.dtype == bool else []
        support = np.unique(np.concatenate([order[: shots * max(1, len(task.labels))], *firsts]))  # a row of every label
    rest = order[~np.isin(order, support)][:shown]
    classifier = model.adapt(task.select(support))
    asked = task.select(rest)
    print(f"\n{task.name}, adapted with {of_shots(shots, by_class) if by_class else of_shots(len(support), by_class)}:")
    table = classifier.predict_table(asked.inputs())
    for i, (row, right) in enumerate(zip(asked.inputs(), right_answers(asked), strict=True)):
        text = " | ".join(
            texts_of({name: value for name, value in row.items() if name in task.text_roles} if isinstance(row, dict) else row)
        )
        answer = next(iter(table.values()))[i]
        said = f"{answer:.2f}" if KINDS[task.kind].scored else answer
        mark = "right" if answer == right else f"it is: {right}" if not by_class else f"wrong, it is: {right}"
        sure = f"{100 * table['probability'][i]:.0f} %; " if by_class else ""
        print(f"  {text[:90]!r}\n    -> {said} ({sure}{mark})")


def right_answers(task: Task) -> list:
    """What `show` says an answer should be."""
    return task.answers() or [row["answers"]["text"][:1] or [""] for row in task.inputs()]
