"""The rows of ``--predict``: read before anything is made, answered and where they are labelled judged at the end."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..adapted import AdaptedModel
from ..columns import FLAGS, ROLES, Columns, read_from
from ..command_settings import AdaptData, Asked, FinetuneData, Labelled, PredictData
from ..folders import reader
from ..inputs import Inputs, load_inputs
from ..kinds import KINDS
from ..metrics import UNITS
from ..rows import as_known
from ..scoring import answer_figures
from ..settings import ConfigError
from ..snippets import flags, shell_command
from ..storage import StorageError, check_file, check_folder, write_text
from ..task_loading import load_task
from ..tasks import Task

logger = logging.getLogger(__name__)

SHOWN = 50  # classes whose own figures are printed at most


def columns_of(data: Asked, kind: str | None) -> Columns:
    """The columns that the settings name, by their role in tasks of a kind."""
    named = {"text": data.text_column, "text_pair": data.text_pair_column, "label": data.label_column}
    own = {flag: role for flag, *others in FLAGS for role in others if role in ROLES.get(kind, ())}
    return {own.get(flag, flag): column for flag, column in named.items() if column}


def load_examples(
    data: Labelled, source: str, split: str | None, kind: str | None, default_columns: Columns | None = None
) -> Task:
    """Labelled rows as a task: of a file, a folder of splits, or a data set on the Hub, "id:config"; ``kind`` None: found. Scores that
    are found are not named yet: a head that knows none reads them as classes. ``default_columns``: see `load_task`."""
    is_path = Path(source).exists() or reader(Path(source)) is not None  # one that is not there may have a colon, as of a disk
    name, _, part = (source, "", "") if is_path else source.partition(":")
    options = {"columns": columns_of(data, kind), "default_columns": default_columns}
    options |= {"skip_bad_rows": data.skip_bad_rows, "encoding": data.encoding}
    load = partial(load_task, name, part or None, split=split, kind=kind, description=data.description, **options)
    task = load()
    if data.label_names and not (kind is None and task.kind == "regression"):
        task = load(label_names=label_names(data.label_names, task))
    logger.info("%s: %s", task.name, read_from(task.columns))
    return task


def label_names(entries: Sequence[str], task: Task) -> dict[Any, str]:
    """label -> text from entries ``label=text``: labels as the task has them, and others that no example has.

    Raises:
        ConfigError: an entry is not ``label=text``, names a label twice, or one that cannot be of this task.
    """
    if KINDS[task.kind].column not in ("label", "score"):
        raise ConfigError(f"label_names: tasks of kind {task.kind} have no labels; leave it out")
    scored, known = KINDS[task.kind].scored, {str(label): label for label in task.labels}
    names: dict[Any, Any] = {} if scored else dict(zip(task.labels, task.label_names, strict=True))
    given = set()
    for entry in entries:
        text, mark, name = entry.partition("=")
        text = text if text in known else text.strip()
        if not (text and mark and name.strip()) or text in given:
            wrong = "each label once" if text in given else "label=text"
            raise ConfigError(f"label_names: expected {wrong}, got {entry!r}")
        given.add(text)
        if isinstance(task.labels[0], bool) and text not in known:
            raise ConfigError(f"label_names: the labels of {task.name} are {' and '.join(known)} alone, got {entry!r}")
        try:
            label = known[text] if text in known and not scored else type(task.labels[0])(text)
        except ValueError:
            raise ConfigError(
                f"label_names: the labels of {task.name} are numbers; expected number=text, got {entry!r}"
            ) from None
        if not scored and text not in known:
            logger.warning("no example has the label %r; it is known by its name alone", text)
        names[label] = name.strip()
    return names


def as_classes(data: AdaptData | FinetuneData, task: Task) -> Task:
    """Examples whose numbers were read as scores, with the numbers as classes."""
    logger.warning("the numbers in %r are read as classes, for this head knows no scores", task.columns.get("label"))
    return load_examples(data, data.examples, data.split, "classification", task.input_columns)


def check_output(data: AdaptData | FinetuneData) -> Path:
    """Where predictions go; raises `StorageError` where they, or the classifier, cannot be written."""
    predictions = Path(data.predictions or Path(data.output_dir) / "predictions.csv")
    check_folder(data.output_dir, "adapted")
    check_predictions(predictions, data.predict, data.examples, getattr(data, "eval_examples", None))
    return predictions


def check_predictions(path: str | Path, *inputs: str | None) -> None:
    """Raises `StorageError` where a csv of predictions cannot be written, or would stand in the place of an input."""
    if Path(path).suffix.lower() not in ("", ".csv"):
        raise StorageError(f"{path}: predictions are written as csv; give a file called .csv")
    check_file(path, inputs)


def read_asked(data: Asked, kind: str, pairs: bool, default_columns: Columns) -> Inputs | None:
    """The file ``predict``, None where there is none; its rows are of this kind, pairs of texts or single ones, as the examples are, and stand in
    the columns of these where the settings name no others."""
    if data.predict is None:
        return None
    return load_inputs(data.predict, columns_of(data, kind), pairs, kind, data.skip_bad_rows, data.encoding, default_columns)


@contextlib.contextmanager
def saved(data: AdaptData | FinetuneData, predictions: Path) -> Iterator[None]:
    """Within the block Ctrl-C says that the classifier is there, and what still answers the file ``predict``: the same command would make
    another one first."""
    try:
        yield
    except KeyboardInterrupt:
        asked = {item.name: getattr(data, item.name) for item in dataclasses.fields(Asked)}
        told = flags(PredictData(**asked, model=str(data.output_dir), predictions=str(predictions)))
        rest = f"; to answer the rows: {shell_command('predict', told)}" if data.predict else ""
        raise KeyboardInterrupt(f"interrupted; the classifier is saved in {data.output_dir}{rest}") from None


def write_predictions(classifier: AdaptedModel, asked: Inputs, max_risk: float | None, path: str | Path) -> None:
    """The file's own columns and the answers beside them as a csv; how many are right, where its rows are labelled."""
    answers = classifier.predict_table(asked.rows, max_risk, progress=True)
    own = asked.table.column_names
    names = [_free(name, own) for name in answers]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*own, *names])
    for row, *said in zip(asked.table.with_format(None), *answers.values(), strict=True):
        writer.writerow([*map(_cell, row.values()), *map(_answer, said)])
    write_text(path, out.getvalue())
    silent = sum(label is None for label in answers.get("label", ()))
    left = f"; {silent} without a label (max_risk {max_risk:g})" if silent else ""
    print(f"{len(asked.rows)} predictions -> {path}{left}")
    if asked.targets is not None:
        judge(classifier, answers, asked.targets)


def judge(classifier: AdaptedModel, answers: dict[str, Any], targets: Sequence) -> None:
    """Print the figures of the rows that were answered and whose right answer is known; rows whose label no example has are counted apart."""
    kind, labels = KINDS[classifier.kind], set(classifier.labels)
    said = answers[kind.column] if kind.column else [dict(zip(answers, row)) for row in zip(*answers.values())]
    targets = as_known(targets, classifier.labels) if kind.by_class else targets
    known = [i for i, target in enumerate(targets) if target is not None]
    judged, foreign = known, Counter()
    if kind.column == "label":
        sets = {i: {targets[i]} if kind.by_class else set(targets[i]) for i in known}
        foreign = Counter(str(label) for own in sets.values() for label in own - labels)
        judged = [i for i in known if sets[i] <= labels]
    given = [i for i in judged if said[i] is not None]  # max_risk leaves some without
    if foreign:
        listed = ", ".join(f"{label} ({n})" for label, n in foreign.most_common(8))
        right = sum(said[i] == targets[i] for i in given)
        also = f"; {100 * right / len(known):.1f} % of all {len(known)} labelled rows are answered rightly" * kind.by_class
        logger.warning(
            "%d rows have labels that no example has, and are not in the figures: %s%s", len(known) - len(judged), listed, also
        )
    if not given:
        return
    figures = answer_figures(classifier.kind, classifier.labels, [said[i] for i in given], [targets[i] for i in given])
    if len(given) < 2:
        figures = {name: value for name, value in figures.items() if name not in ("mcc", "spearman", "pearson")}
    shown = ", ".join(
        f"{name} {value:.4g}" if name in UNITS else f"{name} {100 * value:.1f} %" for name, value in figures.items()
    )
    print(f"{shown} (on {len(given)} of the {len(known)} rows that are labelled)")
    if kind.by_class and len(labels) <= SHOWN:
        from sklearn.metrics import classification_report

        right, found = ([str(values[i]) for i in given] for values in (targets, said))
        there = [label for label in map(str, classifier.labels) if label in {*right, *found}]
        print(classification_report(right, found, labels=there, zero_division=0))


def _free(name: str, taken: Sequence[str]) -> str:
    """A name for a column that the file does not have."""
    while name in taken:
        name = f"predicted_{name}"
    return name


def _cell(value: Any) -> Any:
    """A value of the file as it is; lists and dicts as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else value


def _answer(answer: Any) -> Any:
    """A number with six digits, a list with semicolons between what stands in it, a label as it is."""
    if isinstance(answer, list):
        return "; ".join(str(_answer(one)) for one in answer)
    return f"{answer:.6g}" if isinstance(answer, (float, np.floating)) else answer
