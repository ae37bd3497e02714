"""Numbers -> a model card: what stands in config.json and in a metrics file, as README.md of a repo on the Hub.

A card holds no figure that the metrics do not hold, and says so where there are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .kinds import KINDS
from .metrics import UNITS
from .snippets import snippet, train_command
from .storage import StorageError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

TAGS = ("meta-learning", "few-shot")
# The Hub knows no tag for scores of texts; it counts them among the classifications.
PIPELINES = {"span": "question-answering", "generation": "text-generation"}
LIMITS = {
    "head": "It is meant for tasks like those that it was trained and measured on: a few labelled examples, or label names alone. "
    "Measure it on held-out rows of your own task before answers decide anything about people. Labels should have names that say what they "
    "mean; texts longer than {max_length} tokens are cut; languages that the encoder does not know stay unknown to the head.",
    "adapted": "It answers for this one task and its labels. Measure it on held-out rows before answers decide anything about people. "
    "Texts longer than {max_length} tokens are cut. The repo holds features of the examples, never their texts, but features "
    "tell something of the texts: do not publish a classifier whose examples are secret.",
}


def make_card(
    config: Mapping[str, Any],
    repo_id: str,
    *,
    revision: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    examples: int | None = None,
    datasets: Sequence[str] = (),
    license: str = "apache-2.0",
    curve: bool = False,
) -> ModelCard:
    """The card of a saved head or adapted classifier.

    Args:
        config: its config.json.
        repo_id: "owner/name", which the snippet loads.
        revision: the branch that the snippet loads; None: the main one.
        metrics: see `reports_of`; None: nothing was measured.
        examples: rows that a classifier was adapted to.
        datasets: Hub ids of what it was trained on.
        license: the Hub's name of its licence.
        curve: learning_curve.png lies beside the card.

    Raises:
        StorageError: the config lacks what a card tells of, or the metrics are no figures.
    """
    from huggingface_hub import ModelCard, ModelCardData

    name = repo_id.split("/")[-1]
    try:
        encoder, kinds, language = config["encoder"], list(config["kinds"]), config.get("language")
        reports, seen = reports_of(metrics or {}), _seen(config)
        data = ModelCardData(
            library_name="metatext",
            license=license,
            base_model=[encoder["name"], language["name"]] if language else encoder["name"],
            datasets=list(datasets) or None,
            pipeline_tag=_pipeline(kinds[0]),
            tags=[*TAGS, *kinds],
            model_name=name,
            eval_results=eval_results(reports, seen) or None,
        )
        parts = [
            f"# {name}",
            _intro(config),
            f"## Use\n\n```python\n{snippet(config, repo_id, revision)}\n```",
            _task(config, examples) if config["content"] == "adapted" else "",
            _measured(reports, seen),
            _training(config),
            "![loss on the training and the held-out tasks](learning_curve.png)" if curve else "",
            f"## Intended use and limits\n\n{LIMITS[config['content']].format(max_length=encoder['max_length'])}",
        ]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise StorageError(f"config.json says too little for a card: {type(error).__name__}: {error}") from None
    if data.eval_results is None:
        data.pop("model_name")  # names a model-index, of which there is none
    body = "\n\n".join(part for part in parts if part)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def reports_of(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The values of `Report.to_dict` in what metatext writes: those values, metrics.json of a training run, figures of `metatext test`.

    Each has ``names``, "real" or "numbered", in its ``settings``. [] for a run that measured nothing.

    Raises:
        StorageError: there are no such values in it.
    """
    found: list[dict[str, Any]] = []
    try:
        if "tasks" in metrics and "mean" in metrics:
            found = [{**metrics}]
        elif "names" in metrics:
            for names, reports in metrics["names"].items():
                found += [{**report, "settings": {**report["settings"], "names": names}} for report in reports.values()]
        elif "test" in metrics or "history" in metrics:
            found = [{**report} for report in metrics.get("test", {}).values()]
        elif metrics:
            raise StorageError(f"the metrics hold no figures, but {', '.join(map(repr, metrics))}; {EXPECTED}")
        for report in found:
            figures = [*report["tasks"].values(), report["mean"]]
            if not figures[-1] or not all(isinstance(entry, Mapping) for methods in figures for entry in methods.values()):
                raise TypeError("no method")
            report["kind"] = next(kind.name for kind in KINDS.values() if report["metric"] in kind.metrics)
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"the metrics are damaged ({type(error).__name__}: {error}); {EXPECTED}") from None
    return found


EXPECTED = "expected Report.to_dict(), metrics.json of a training run, or the file of `metatext test --output`"


def eval_results(reports: Sequence[Mapping[str, Any]], seen: Mapping[str, str] = {}) -> list[EvalResult]:
    """The model-index: a result per report and task of the method that was measured first, its interval and baselines beside it.

    Args:
        reports: see `reports_of`.
        seen: tasks that training saw; they are no results.
    """
    from huggingface_hub import EvalResult

    found = []
    for report in reports:
        metric, (own, *others) = report["metric"], report["mean"]
        for task, methods in report["tasks"].items():
            if metric not in methods[own] or task in seen:  # it had no answer, or knew the task
                continue
            said = SHOWN if KINDS[report["kind"]].by_class else [key for key in SHOWN if key not in WAYS]
            arguments = {key: report["settings"][key] for key in said if report["settings"].get(key) is not None}
            arguments["interval_95"] = methods[own]["interval_95"]
            arguments["baselines"] = {other: methods[other][metric] for other in others if metric in methods[other]}
            found.append(
                EvalResult(
                    task_type=_pipeline(report["kind"]),
                    task_name=f"few-shot {report['kind']}",
                    dataset_type=re.sub(r"[^\w./-]+", "_", task),
                    dataset_name=task,
                    metric_type=metric,
                    metric_name=f"{metric}, {_shape(report)}",
                    metric_value=methods[own][metric],
                    metric_args=arguments,
                )
            )
    return found


WAYS = ("n_way", "fewer_ways")  # where labels are no classes, they say nothing
SHOWN = (*WAYS, "k_shot", "n_query", "n_episodes", "seed", "names")  # of how the episodes were drawn


def _pipeline(kind: str) -> str:
    return PIPELINES.get(kind, "text-classification")


def _intro(config: Mapping[str, Any]) -> str:
    encoder, head = config["encoder"], config["head"]["name"]
    tuning = encoder.get("tuning", "frozen")
    reads = f"`{encoder['name']}`" + (f" at revision `{encoder['revision']}`" if encoder["revision"] else "")
    how = "frozen" if tuning == "frozen" else f"trained with it ({tuning}; what was trained lies in this repo)"
    how += f". Texts are written by `{config['language']['name']}`" if config.get("language") else ""
    if config["content"] == "adapted":
        return (
            f"A model for one task ({config['task']['kind']}), made by the metatext head `{head}` from a few examples in one forward "
            f"pass{_fine_tuned(config['task'])}. Its encoder is {reads}, {how}."
        )
    return (
        f"A meta-trained head of metatext, `{head}`: it turns a few examples and label names of a new task into a model for this very "
        f"task, in one forward pass (kinds of task: {', '.join(config['kinds'])}). Its encoder is {reads}, {how}."
    )


def _fine_tuned(task: Mapping[str, Any]) -> str:
    """What gradient steps on the task itself have brought, where there were any."""
    notes = task.get("finetuning")
    if not notes or notes["kept"] != "fine-tuned":
        return ""
    before, after = (f"{100 * notes[name]['accuracy']:.1f}" for name in ("adapted", "fine-tuned"))
    apart = notes.get("eval_task")
    of = f"rows of {apart}" if apart else "of them, held out"
    judged = f"accuracy on {notes['held_out']} {of}, which also chose the step: {before} % before, {after} % after"
    anew = notes["settings"].get("refit") and not apart
    refit = ", of a model that learned from the others; then it learned anew from all" if anew else ""
    return (
        f", and then fine-tuned by gradient steps on its {notes['rows']} examples ({notes['settings']['what']}; {judged}{refit})"
    )


def _task(config: Mapping[str, Any], examples: int | None) -> str:
    task = config["task"]
    scored = KINDS[task["kind"]].scored
    what = "questions and contexts" if task["kind"] == "span" else "pairs of texts" if task["pairs"] else "texts"
    lines = [f"- kind: {task['kind']}, of {what}"]
    lines += [] if examples is None else [f"- examples: {examples}"]
    for role, columns in task.get("columns", {}).items():
        joined = [columns] if isinstance(columns, str) else columns
        lines.append(f"- {role} of a table: {', '.join(f'column {_code(column)}' for column in joined)}")
    for label, name in zip(task["labels"], task["label_names"], strict=True):
        known = f", read as {_code(name)}" if name is not None and name != label else ""
        lines.append(f"- {'end of the scale' if scored else 'label'} {_code(label)}{known}")
    return "## Task\n\n" + "\n".join(lines)


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of `meta_train` in the notes, which may hold anything else instead."""
    notes = config.get("training")
    settings = notes.get("settings") if isinstance(notes, Mapping) else None
    known = isinstance(settings, Mapping) and all(
        isinstance(settings.get(key), Mapping) for key in ("train", "episodes", "tasks", "eval_tasks")
    )
    return settings if known else None


def _seen(config: Mapping[str, Any]) -> dict[str, str]:
    """What training did with a task, as far as the notes know."""
    settings = _settings(config) or {"tasks": (), "eval_tasks": ()}
    return {task: use for use, key in (("trained on", "tasks"), ("chosen on", "eval_tasks")) for task in settings[key]}


def _measured(reports: Sequence[Mapping[str, Any]], seen: Mapping[str, str]) -> str:
    """A table per report: a line per task and one for their mean, the model's own column first."""
    if not reports:
        return "## Measured\n\nNothing: no figures came with these weights."
    parts = ["## Measured\n\nEvery method on the same episodes; `metrics.json` holds these figures and more."]
    for report in reports:
        metric, methods = report["metric"], list(report["mean"])
        factor, places, unit = (1, 3, "") if metric in UNITS else (100, 1, " in %")
        rows = [["task", "this model", *(method.replace("_", " ") for method in methods[1:])], ["---"] * (len(methods) + 1)]
        entries = {**report["tasks"], **({"mean over tasks": report["mean"]} if len(report["tasks"]) > 1 else {})}
        for name, found in entries.items():
            pairs = [(found[m].get(metric), found[m].get("interval_95")) for m in methods]
            shown = ["-" if v is None else f"{factor * v:.{places}f} ± {factor * half:.{places}f}" for v, half in pairs]
            rows.append([_cell(name) + (f" ({seen[name]})" if name in seen else ""), *shown])
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        title = f"{metric}{unit}, {_shape(report)}; mean ± 95 % interval (a task: over episodes; the mean: over tasks)"
        parts.append(f"{title}:\n\n{table}")
    return "\n\n".join(parts)


def _shape(report: Mapping[str, Any]) -> str:
    """How the episodes were drawn, in words."""
    settings = report["settings"]
    by_class = KINDS[report["kind"]].by_class
    ways = [f"up to {settings['n_way']}-way" if settings.get("fewer_ways") else f"{settings['n_way']}-way"] if by_class else []
    shots = f"{settings['k_shot']} example{'s' * (settings['k_shot'] != 1)}{' per class' * by_class}"
    names = ["numbered label names"] if settings.get("names") == "numbered" else []
    return ", ".join([*ways, shots, *names, f"{settings['n_episodes']} episodes, seed {settings['seed']}"])


def _training(config: Mapping[str, Any]) -> str:
    """Settings and tasks, as far as the notes know them."""
    settings = _settings(config)
    if settings is None:
        notes = config.get("training")
        known = (
            f"```json\n{json.dumps(notes, indent=2, ensure_ascii=False)}\n```"
            if notes
            else "None: these are the starting values."
        )
        return f"## Training\n\n{known}"
    command = train_command(config, settings)
    known = f"With seed {settings['train']['seed']}; settings that are not named have the defaults of metatext."
    known += " The names of tasks are those of folders in one folder of corpora." * ("folder/of/corpora" in command)
    known += " What stands in `path/to` is a file or folder of whoever trained it." * ("path/to/" in command)
    parts = [f"## Training\n\n{known}", f"```bash\n{command}\n```"]
    if settings.get("warm_start"):
        names = str(settings["warm_start"].get("name"))
        parts.append(f"It began with the {'mean of the ' if ', ' in names else ''}weights of {_code(names)}.")
    for title, key in (("Trained on", "tasks"), ("Chosen on, and its risk learned on", "eval_tasks")):
        if settings[key]:
            parts.append(f"{title} (rows): " + ", ".join(f"{_cell(name)} ({rows})" for name, rows in settings[key].items()) + ".")
    return "\n\n".join(parts)


def _code(value: Any) -> str:
    """A text of somebody else's as Markdown code, whatever stands in it."""
    text = " ".join(str(value).split())
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _cell(text: str) -> str:
    """A name in a table or a sentence: nothing in it ends a cell, begins a link or a tag."""
    return re.sub(r"([\\|`*\[\]<>])", r"\\\1", " ".join(str(text).split()))
