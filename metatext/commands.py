"""What the commands do: load, call the library, print, write."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from .adapted import AdaptedModel
from .baselines import USUAL, baseline
from .cli import AdaptData, FinetuneData, PushData, Settings, TestData, TrainData
from .config import EncoderConfig, EpisodeConfig, HeadConfig, LanguageConfig, TrainConfig
from .corpora import load_tasks
from .evaluation import compare, evaluate_tasks
from .features import encode_tasks
from .heads import HEADS
from .hub import push_folder
from .kinds import KINDS
from .launch import best_device
from .methods import Method, by_model
from .metrics import stratified_interval
from .model import MetaModel
from .plots import plot_risk_coverage, plot_shots
from .pools import check_pool
from .readings import READINGS
from .report import MEAN, Report, summary
from .rows import DataError
from .settings import ConfigError
from .storage import read_json, write_json, write_text
from .store import FeatureStore, local_share
from .tasks import Task, check_tasks, load_task
from .training import meta_train
from .warm_start import warm_start

logger = logging.getLogger(__name__)

NAMES: dict[str, Callable[[Task], Task]] = {
    "real": lambda task: task,
    "numbered": lambda task: task.with_label_names([f"class {i + 1}" for i in range(len(task.labels))]),
}
"""What the option ``names`` does to the names that the encoder reads; labels and episodes stay the same."""


def train(settings: Settings) -> None:
    """Load tasks, meta-train, and measure the head on test tasks that chose nothing."""
    from accelerate import PartialState

    _log()
    data, config, shape = settings[TrainData], settings[TrainConfig], settings[EpisodeConfig]
    main = PartialState(cpu=best_device().type == "cpu").is_main_process
    model = MetaModel.from_encoder(settings[EncoderConfig], settings[HeadConfig], config.seed, settings[LanguageConfig])
    model.to(PartialState().device)
    if data.warm_start:
        warm_start(model, data.warm_start)
    store = None
    if not (model.encoder.is_tuned and config.encoder_lr > 0):
        store = FeatureStore(model.encoder, data.cache_dir, progress=main, share=local_share())
    read = partial(_sources, tasks_dir=data.tasks_dir, skip_bad_rows=data.skip_bad_rows)
    loaded = read(data.tasks)
    inner = [task for task in loaded if task.name in data.eval_tasks]
    outer = read([name for name in data.eval_tasks if name not in {task.name for task in loaded}])
    test = read(data.test_tasks)
    limit = (lambda task: task.sample(data.max_rows_per_task)) if data.max_rows_per_task else (lambda task: task)
    tasks = [limit(task) for task in loaded if task.name not in data.eval_tasks]
    unseen = [limit(task) for task in inner + outer]
    check_tasks(tasks, unseen, test)
    foreign = next((task for task in test if task.kind not in {task.kind for task in tasks}), None)
    if foreign is not None:  # hours of training would end in this
        raise DataError(f"test_tasks: {foreign.name!r} is of kind {foreign.kind}, which no task to train on is")
    others = {}  # loaded before hours of training would end in a head that is not there
    for name in data.test_heads if test and main else ():
        if _column(name) in others:
            raise ConfigError(
                f"test_heads: two columns would be called {_column(name)!r}; give each head's folder a name of its own"
            )
        others[_column(name)] = load_model(name)
    if main:
        print(
            f"{len(tasks)} tasks to train on ({sum(map(len, tasks))} rows), {len(unseen)} to choose the head, {len(test)} to measure it"
        )
    result = meta_train(model, tasks, eval_tasks=unseen, episodes=shape, config=config, store=store)
    if not main:
        return
    store = FeatureStore(model.encoder, data.cache_dir)  # the other processes are gone
    reference, figures = TestData().reference, {}
    for kind in dict.fromkeys(task.kind for task in test):
        group = [task for task in test if task.kind == kind]
        by_class = KINDS[kind].by_class
        test_shape = EpisodeConfig(n_way=10, fewer_ways=True, n_query=5 if by_class else 20, k_shot=1)
        for k in data.test_shots if by_class else data.test_rows:
            heads = {name: head for name, head in others.items() if kind in head.kinds}
            shape = replace(test_shape, k_shot=k)
            report = evaluate_tasks(model, group, shape, data.test_episodes, config.seed, heads=heads, store=store)
            _print(report, f"Unseen tasks{'' if by_class else f' ({kind})'}, {_shots(k, by_class)}, no gradient step", reference)
            figures[str(k) if by_class else f"{kind} {k}"] = report.to_dict(reference)
    metrics = result.output_dir / "metrics.json"
    written = json.loads(metrics.read_text(encoding="utf-8"))
    write_json(metrics, {**written, "test": figures})
    if test:
        _show(model, max(test, key=lambda task: len(task.labels)), config.seed)
    print(
        f"\nhead            {result.output_dir}\nlearning curve  {result.output_dir / 'learning_curve.png'}\nmetrics         {metrics}"
    )


def test(settings: Settings) -> None:
    """Measure heads and baselines on unseen tasks: a table per kind of names and number of shots, as they come."""
    _log()
    data = settings[TestData]
    if set(data.names) == {"numbered"} and set(data.shots) == {0}:
        raise ConfigError("names: numbered names say nothing at 0 shots; add shots, or real to names")
    tasks = _sources(data.tasks, data.tasks_dir)
    check_tasks(tasks)
    by_class = KINDS[tasks[0].kind].by_class
    if not by_class and "numbered" in data.names:
        raise ConfigError(f"names: numbered names are for classifications, the tasks are of kind {tasks[0].kind}")
    if data.baselines == TestData().baselines and not by_class:
        data = replace(data, baselines=USUAL[tasks[0].kind])
    model, methods = _methods(data, tasks[0].kind)
    n_episodes = data.n_episodes
    if data.class_splits:
        tasks = [part for task in tasks for part in _by_class_splits(task, Path(data.class_splits))]
        n_episodes = max(2, n_episodes // len(tasks))
    outside = _sources([data.outside], data.tasks_dir)[0] if data.outside else None
    store = FeatureStore(model.encoder, data.cache_dir)
    shape = EpisodeConfig(n_way=data.n_way, n_query=data.n_query, n_outside=data.n_outside, fewer_ways=data.fewer_ways)
    for task in tasks:  # a task that is too small for the most shots shows before anything is measured
        pool = encode_tasks(store, [task]).pool
        for k in data.shots:
            check_pool(pool, replace(shape, k_shot=k))
    reports: dict[tuple[str, int], Report] = {}
    for names in data.names:
        named = [NAMES[names](task) for task in tasks]
        for k in data.shots:
            if names == "numbered" and k == 0:
                continue  # there is nothing to decide by
            drawn = replace(shape, k_shot=k)
            report = compare(
                methods,
                named,
                drawn,
                n_episodes,
                data.seed,
                metric=data.metric,
                store=store,
                outside=outside,
                outside_rows=data.outside_rows,
            )
            reports[names, k] = report
            _print(report, f"{_shots(k, by_class)}, {names} names", data.reference)
    if len(reports) > 1:
        columns = {f"{names} {k}": report for (names, k), report in reports.items()}
        print(f"\nMeans over the tasks in {report.unit}, by names and shots:\n{summary(columns)}")
    by_names = {n: {k: r for (names, k), r in reports.items() if names == n} for n in dict.fromkeys(n for n, _ in reports)}
    output = Path(data.output or "runs/meta_test.json")
    if data.output or data.plot:
        figures = {names: {str(k): r.to_dict(data.reference) for k, r in found.items()} for names, found in by_names.items()}
        write_json(output, {"model": data.model, "heads": list(data.heads), "names": figures})
        print(f"\nfigures  {output}")
    if data.plot:
        for names, found in by_names.items():
            _draw(found, str(output.with_suffix("")), names)


def adapt(settings: Settings) -> None:
    """Labelled examples + a head -> a saved classifier, and predictions for a second file."""
    _log()
    data = settings[AdaptData]
    if data.examples is None:
        raise DataError("--examples is missing: a csv or jsonl file with a text and a label per row")
    columns = {"text": data.text_column, "text_pair": data.text_pair_column, "label": data.label_column}
    columns = {role: column for role, column in columns.items() if column}
    given = {"kind": data.kind, "columns": columns, "description": data.description, "skip_bad_rows": data.skip_bad_rows}
    task = load_task(data.examples, split=None, **given)
    asked = read_asked(task, data)
    classifier = load_model(data.model).adapt(task)
    classifier.save_pretrained(data.output_dir)
    shape = f" of {len(task.labels)} classes" if KINDS[task.kind].column == "label" else ""
    shape = " of scores from {:g} to {:g}".format(*task.labels) if KINDS[task.kind].scored else shape
    shape = " of texts to write" if KINDS[task.kind].written else shape
    print(f"{len(task)} examples{shape} -> {data.output_dir}")
    if asked is not None:
        write_predictions(classifier, task, asked, data)


def read_asked(task: Task, data: AdaptData | FinetuneData) -> list | None:
    """The rows of the file ``predict``, None where there is none; ``task``: the examples, whose columns and kind those rows have."""
    from .tasks import load_inputs

    columns = {"text": data.text_column, "text_pair": data.text_pair_column}
    columns = {role: column for role, column in columns.items() if column}
    if data.predict is None:
        return None
    return load_inputs(data.predict, columns, pairs=task.is_pair, kind=task.kind, skip_bad_rows=data.skip_bad_rows)


def write_predictions(classifier: AdaptedModel, task: Task, rows: list, data: AdaptData | FinetuneData) -> None:
    """Answers to rows of `read_asked` as a csv."""
    table = classifier.predict_table(rows, data.max_risk, progress=True)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*task.text_roles, *table])
    for row, *answers in zip(rows, *table.values(), strict=True):
        writer.writerow([*_texts(row), *map(_cell, answers)])
    path = Path(data.predictions or Path(data.output_dir) / "predictions.csv")
    write_text(path, out.getvalue())
    print(f"{len(rows)} predictions -> {path}")


def push(settings: Settings) -> None:
    """A saved head or classifier -> a repo on the Hub."""
    _log()
    data = settings[PushData]
    if data.repo_id is None:
        raise ConfigError("repo_id is missing: metatext push FOLDER OWNER/NAME")
    commit = push_folder(
        data.model,
        data.repo_id,
        private=data.private or None,
        revision=data.revision,
        create_pr=data.create_pr,
        commit_message=data.commit_message,
        metrics=data.metrics,
        datasets=data.datasets,
        license=data.license,
    )
    print(f"{data.model} -> {commit.pr_url or commit.commit_url}")


def _texts(row: str | tuple[str, str] | dict[str, str]) -> tuple[str, ...]:
    """The texts of a row of any kind."""
    return (row,) if isinstance(row, str) else tuple(row.values()) if isinstance(row, dict) else row


def _cell(answer) -> str:
    """A number with four places, a list of labels with semicolons between them, a label as it is."""
    if isinstance(answer, list):
        return "; ".join(map(str, answer))
    return f"{answer:.4f}" if isinstance(answer, (float, np.floating)) else answer


def _print(report: Report, title: str, reference: Sequence[str]) -> None:
    print(f"\n{title}:\n{report}")
    to = report.reference(reference)
    if to is not None and len(report.methods) > 1:
        print(f"\n{report.differences(to)}")
    if report.judged:
        print(f"\n{report.calibration()}\nover all query rows together")


def _draw(reports: dict[int, Report], stem: str, names: str) -> None:
    """Accuracy against shots, and errors against the share of rows answered, as two pictures beside the figures."""
    first = next(iter(reports.values()))

    def line(method: str, tasks: Sequence[str]) -> list[tuple[float, float, float]]:
        """Its band is over episodes, in the mean too: how much the tasks differ would hide how much the methods do."""
        points = [(k, *stratified_interval([r.scores[task][method] for task in tasks])) for k, r in reports.items()]
        return [point for point in points if not np.isnan(point[1])]

    def curve(report: Report, method: str) -> list[tuple[float, float, float]]:
        answered = not np.isnan(report.mean(method)[0])
        return [(x, y, 0.0) for x, y in zip(*report.risk_coverage(method))] if answered else []

    panels = {**{task: [task] for task in first.scores}, **({MEAN: list(first.scores)} if len(first.scores) > 1 else {})}
    shots = {title: {method: line(method, tasks) for method in first.methods} for title, tasks in panels.items()}
    plot_shots(shots, pictures := f"{stem}_{first.metric}_{names}.png", first.metric, first.unit)
    if first.judged:
        risks = {_shots(k): {method: curve(report, method) for method in first.methods} for k, report in reports.items()}
        plot_risk_coverage(risks, risk := f"{stem}_risk_{names}.png")
        pictures += f", {risk}"
    print(f"pictures {pictures}")


def _shots(k: int, by_class: bool = True) -> str:
    return f"{k} example{'s' * (k != 1)}{' per class' * by_class}"


def _methods(data: TestData, kind: str) -> tuple[MetaModel, dict[str, Method]]:
    """The main head, and the columns: it, further heads, baselines; all must serve tasks of this kind."""
    saved = not _untrained(data.model)
    model = load_model(data.model)
    heads = [model]
    for name in data.heads:
        head = load_model(name)
        # one copy of an encoder that several read with
        head.encoder = next(
            (h.encoder for h in heads if not h.encoder.is_tuned and h.encoder.key == head.encoder.key), head.encoder
        )
        heads.append(head)
    columns = ["trained" if saved else _column(data.model), *map(_column, data.heads)]
    baselines = [name for name in data.baselines if saved or name != "untrained"]  # an untrained head has its column
    twice = next((name for name in columns if [*columns, *baselines].count(name) > 1), None)
    if twice:
        raise ConfigError(f"heads: two columns would be called {twice!r}; give each head's folder a name of its own")
    for name, head in zip((data.model, *data.heads), heads, strict=True):
        if kind not in head.kinds:
            raise ConfigError(f"heads: {name} serves {', '.join(head.kinds)}, the tasks are of kind {kind}")
    methods = {name: by_model(head.eval()) for name, head in zip(columns, heads, strict=True)}
    return model, methods | {name: baseline(name, model) for name in baselines}


def load_model(name: str) -> MetaModel:
    """A saved head, or one that is named: untrained, on the embedded encoder."""
    made = MetaModel.from_encoder("embedded", name) if _untrained(name) else MetaModel.from_pretrained(name)
    return made.to(best_device())


def _untrained(name: str) -> bool:
    return name in HEADS and not Path(name).is_dir()


def _column(name: str) -> str:
    return f"untrained_{name}" if _untrained(name) else Path(name).name


def _sources(names, tasks_dir: str | None, skip_bad_rows: bool = False) -> list[Task]:
    """Tasks by name; plain names are looked up in ``tasks_dir`` first."""
    if not names:
        return []
    found = []
    for name in names:
        reading = f"{name.partition('=')[0]}=" if name.partition("=")[0] in READINGS else ""
        name = name.removeprefix(reading)
        inside = Path(tasks_dir) / name.partition("@")[0] if tasks_dir else None
        there = inside is not None and inside.exists()
        found.append(reading + (str(Path(tasks_dir) / name) if there else name))
        if tasks_dir is None and "/" not in name and "." not in name and name != "starter" and not Path(name).exists():
            logger.warning("%s is taken for a Hub data set; name the folder of your corpora with --tasks_dir if it is one", name)
    return load_tasks(found, skip_bad_rows=skip_bad_rows)


def _by_class_splits(task: Task, path: Path) -> list[Task]:
    splits = read_json(path)
    if not all(isinstance(split, dict) and "test" in split for split in splits.values()):
        raise DataError(f"{path}: expected {{split: {{'test': [class, ...]}}}}")
    return [task.with_classes(split["test"], name=f"{task.name}, split {name}") for name, split in splits.items()]


def _show(model: MetaModel, task: Task, seed: int, shots: int = 3, shown: int = 5) -> None:
    """Adapt to a few rows of a task and print a few predictions."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(task))
    if by_class := KINDS[task.kind].by_class:
        support = np.concatenate([order[task.targets[order] == c][:shots] for c in range(len(task.labels))])
    else:
        firsts = [np.flatnonzero(column)[:1] for column in task.targets.T] if task.targets.dtype == bool else []
        support = np.unique(np.concatenate([order[: shots * max(1, len(task.labels))], *firsts]))  # a row of every label
    rest = [i for i in order if i not in set(support)][:shown]
    classifier = model.adapt(task.select(support))
    asked = task.select(rest)
    print(f"\n{task.name}, adapted with {_shots(shots, by_class) if by_class else _shots(len(support), by_class)}:")
    table = classifier.predict_table(asked.inputs())
    for i, (row, right) in enumerate(zip(asked.inputs(), _right(asked), strict=True)):
        text = " | ".join(
            _texts({name: value for name, value in row.items() if name in task.text_roles} if isinstance(row, dict) else row)
        )
        answer = next(iter(table.values()))[i]
        said = f"{answer:.2f}" if KINDS[task.kind].scored else answer
        mark = "right" if answer == right else f"it is: {right}" if not by_class else f"wrong, it is: {right}"
        sure = f"{100 * table['probability'][i]:.0f} %; " if "probability" in table else ""
        print(f"  {text[:90]!r}\n    -> {said} ({sure}{mark})")


def _right(task: Task) -> list:
    """What `_show` says an answer should be."""
    return task.answers() or [row["answers"]["text"][:1] or [""] for row in task.inputs()]


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "httpx2", "filelock", "datasets", "fsspec", "accelerate"):
        logging.getLogger(name).setLevel(logging.WARNING)
