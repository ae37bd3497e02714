"""``metatext test``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..baselines import BASELINES, USUAL, baseline
from ..command_settings import Settings, TestData
from ..config import EpisodeConfig
from ..evaluation import compare
from ..features import encode_tasks
from ..heads import is_untrained
from ..kinds import KINDS
from ..methods import Method, by_model
from ..metrics import stratified_interval
from ..model import MetaModel
from ..plots import plot_risk_coverage, plot_shots
from ..pools import check_pool
from ..report import MEAN, Report, summary
from ..rows import DataError
from ..settings import ConfigError, nearest
from ..snippets import flags
from ..storage import check_file, read_json, write_json
from ..store import FeatureStore
from ..tasks import Task, check_tasks
from .common import column_name, load_model, log, of_shots, print_report, public_name, sources, with_other_names

NAMES: dict[str, Callable[[Task], Task]] = {
    "real": lambda task: task.with_other_label_names({}),
    "numbered": lambda task: task.with_other_label_names({}).with_label_names(
        [f"class {i + 1}" for i in range(len(task.labels))]
    ),
    "other": lambda task: task,  # the episodes show them
}
"""What the option ``names`` does to the names that the encoder reads; labels and episodes stay the same. Other names are no part of a table
that does not show them: its digests are those of the table that is made without."""


def main(settings: Settings) -> None:
    """Measure heads and baselines on unseen tasks: a table per kind of names and number of shots, as they come."""
    log()
    data = settings[TestData]
    if set(data.names) == {"numbered"} and set(data.shots) == {0}:
        raise ConfigError("names: numbered names say nothing at 0 shots; add shots, or real to names")
    if ("other" in data.names) != bool(data.other_label_names):
        raise ConfigError(
            "names: other names stand in a file; name it with other_label_names"
            if "other" in data.names
            else "other_label_names: no table would show them; add other to names"
        )
    if data.output or data.plot:
        check_file(data.output or "runs/meta_test.json", [data.class_splits])
    tasks = sources(data.tasks, data.tasks_dir, data.skip_bad_rows, data.encoding)
    tasks = [task.sample(data.max_rows_per_task) for task in tasks] if data.max_rows_per_task else tasks
    check_tasks(tasks)
    tasks = with_other_names(tasks, data.other_label_names) if data.other_label_names else tasks
    by_class = KINDS[tasks[0].kind].by_class
    if not by_class and "numbered" in data.names:
        raise ConfigError(f"names: numbered names are for classifications, the tasks are of kind {tasks[0].kind}")
    if data.baselines == TestData().baselines and not by_class:
        data = replace(data, baselines=USUAL[tasks[0].kind])
    model, methods = _methods(data, tasks[0].kind)
    wrong = next((name for name in data.reference if name not in methods and name not in BASELINES), None)
    if wrong is not None:  # else the differences would be missing, or to another method, when all is measured
        raise ConfigError(
            f"reference: no column is called {wrong!r}{nearest(wrong, methods, end='.')} Columns: {', '.join(methods)}"
        )
    n_episodes = data.n_episodes
    if data.class_splits:
        tasks = [part for task in tasks for part in _by_class_splits(task, Path(data.class_splits))]
        n_episodes = max(2, n_episodes // len(tasks))
    outside = sources([data.outside], data.tasks_dir, encoding=data.encoding)[0] if data.outside else None
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
            drawn = replace(shape, k_shot=k, other_names=float(names == "other"))
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
            print_report(report, f"{of_shots(k, by_class)}, {names} names", data.reference)
    if len(reports) > 1:
        columns = {f"{names} {k}": report for (names, k), report in reports.items()}
        print(f"\nMeans over the tasks in {report.unit}, by names and shots:\n{summary(columns)}")
    by_names = {n: {k: r for (names, k), r in reports.items() if names == n} for n in dict.fromkeys(n for n, _ in reports)}
    output = Path(data.output or "runs/meta_test.json")
    if data.output or data.plot:
        figures = {n: {str(k): r.to_dict(data.reference, scores=True) for k, r in found.items()} for n, found in by_names.items()}
        asked = {"model": data.model, "heads": list(data.heads), "flags": flags_told(data)}
        write_json(output, {**asked, "names": figures})
        print(f"\nfigures  {output}")
    if data.plot:
        for names, found in by_names.items():
            _draw(found, str(output.with_suffix("")), names)


def flags_told(data: TestData) -> dict[str, Any]:
    """The flags of a comparison that are not the default, but for its heads and its output. They may be published: no folder of this
    machine stands in them."""
    found = {flag: value for flag, value in flags(data).items() if flag not in ("model", "heads", "output", "plot", "cache_dir")}
    found |= {flag: "folder/of/corpora" for flag in ("tasks_dir",) if flag in found}
    found |= {
        flag: public_name(found[flag], data.tasks_dir)
        for flag in ("outside", "class_splits", "other_label_names")
        if flag in found
    }
    return found | {"tasks": [public_name(name, data.tasks_dir) for name in data.tasks]}


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
        risks = {of_shots(k): {method: curve(report, method) for method in first.methods} for k, report in reports.items()}
        plot_risk_coverage(risks, risk := f"{stem}_risk_{names}.png")
        pictures += f", {risk}"
    print(f"pictures {pictures}")


def _methods(data: TestData, kind: str) -> tuple[MetaModel, dict[str, Method]]:
    """The main head, and the columns: it, further heads, baselines; all must serve tasks of this kind."""
    saved = not is_untrained(data.model)
    model = load_model(data.model)
    heads = [model]
    for name in data.heads:
        head = load_model(name)
        # one copy of an encoder that several read with; the key of one that learned is that of its pretrained weights
        alike = (h.encoder for h in heads if not h.encoder.is_tuned and h.encoder.key == head.encoder.key)
        head.encoder = head.encoder if head.encoder.is_tuned else next(alike, head.encoder)
        heads.append(head)
    columns = ["trained" if saved else column_name(data.model), *map(column_name, data.heads)]
    baselines = [name for name in data.baselines if saved or name != "untrained"]  # an untrained head has its column
    twice = next((name for name in columns if [*columns, *baselines].count(name) > 1), None)
    if twice:
        raise ConfigError(f"heads: two columns would be called {twice!r}; give each head's folder a name of its own")
    for name, head in zip((data.model, *data.heads), heads, strict=True):
        if kind not in head.kinds:
            raise ConfigError(f"heads: {name} serves {', '.join(head.kinds)}, the tasks are of kind {kind}")
    methods = {name: by_model(head.eval()) for name, head in zip(columns, heads, strict=True)}
    return model, methods | {name: baseline(name, model) for name in baselines}


def _by_class_splits(task: Task, path: Path) -> list[Task]:
    splits = read_json(path)
    if not all(isinstance(split, dict) and "test" in split for split in splits.values()):
        raise DataError(f"{path}: expected {{split: {{'test': [class, ...]}}}}")
    return [task.with_classes(split["test"], name=f"{task.name}, split {name}") for name, split in splits.items()]
