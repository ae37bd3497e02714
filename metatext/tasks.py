"""A task: a named data set of one kind, loaded through `datasets` from wherever it lies."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .catalogue import ALIASES, KNOWN, Known
from .columns import INPUTS, KIND_NAMES, ROLES, TEXTS, Columns, check_texts, drop_unlabelled, find_columns, is_text, with_defaults
from .rows import DataError, as_list, readable
from .settings import check_is, nearest
from .sources import read_source
from .targets import Targets, place_answers, read_targets
from .text_parts import join_columns, parts_of, say_second_text
from .usable import usable_rows

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

LISTED = re.compile(r"\[.*\]|[^;]+;[^;]+")  # a label that looks like a list of them
COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")  # a number as it is written in much of Europe


@dataclass(frozen=True, eq=False)
class Task:
    """A named data set of one kind.

    Attributes:
        name: shown in tables and, where there is no description, read by the encoder.
        kind: a key of `kinds.KINDS`.
        rows: a `datasets.Dataset` with the columns ``text`` and, for pairs, ``text_pair``; for spans those of SQuAD: ``question``,
            ``context`` and ``answers``; for generation ``input`` and ``target``, where rows of the same input are further right answers.
        targets: of a classification (n,) int64, the class of each row as an index into ``labels``; multilabel (n, w) bool, which
            labels a row has; regression (n,) float64, on the task's own scale; span (n, 2) int64, where the first answer begins and
            ends in its context, in characters, -1 where there is none; generation (n,) object, the texts to write.
        labels: what `predict` answers with, as the source gave them; of a regression the two ends of the scale, of spans and texts
            that are written none.
        label_names: per label the text that the encoder reads, or None where there is no meaningful name.
        description: one sentence on what the labels mean, or None.
        columns: of the source, by what was read from them, several where their texts were joined; {} where there is no such source.
    """

    name: str
    kind: str
    rows: Dataset
    targets: np.ndarray
    labels: tuple
    label_names: tuple[str | None, ...]
    description: str | None = None
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        shape = f", {len(self.labels)} classes" if self.labels else ""
        if self.labels and self.targets.dtype == np.float64:  # the ends of a scale
            shape = ", {:g} to {:g}".format(*self.labels)
        return f"Task({self.name!r}, {self.kind}, {len(self)} rows{shape})"

    @property
    def is_pair(self) -> bool:
        """Whether a row is two texts."""
        return "text_pair" in self.rows.column_names

    @property
    def text_roles(self) -> tuple[str, ...]:
        """The columns of what is asked."""
        return tuple(name for name in self.rows.column_names if name in INPUTS.get(self.kind, TEXTS))

    @property
    def input_columns(self) -> dict[str, str | tuple[str, ...]]:
        """Those of `columns` that hold what is asked."""
        return {role: columns for role, columns in self.columns.items() if role in self.text_roles}

    @property
    def prompt(self) -> str:
        """What the encoder reads as the task's own text: its description, else its name."""
        return self.description or readable(self.name)

    def inputs(self, start: int = 0, stop: int | None = None) -> list:
        """Rows ``start`` to ``stop`` as texts, as pairs of texts, or where they are neither, as dicts of their columns."""
        part = self.rows.with_format("arrow")[start : len(self) if stop is None else stop]
        if self.kind == "generation":
            return part.column("input").to_pylist()
        if self.kind in ROLES:
            return part.to_pylist()
        texts = part.column("text").to_pylist()
        return list(zip(texts, part.column("text_pair").to_pylist())) if self.is_pair else texts

    def digest(self) -> str:
        """Of all that a model may read in it: rows, targets, label names, the task's own text; in hex."""
        seen = hashlib.blake2b(repr([self.kind, self.labels, self.label_names, self.prompt]).encode(), digest_size=8)
        for start in range(0, len(self), 10_000):
            seen.update(repr(self.inputs(start, min(start + 10_000, len(self)))).encode("utf-8", "surrogatepass"))
        seen.update(repr(self.targets.tolist()).encode("utf-8", "surrogatepass"))
        return seen.hexdigest()

    def answers(self) -> list | None:
        """The targets as a caller would give them: labels, lists of labels, scores, or texts; None where the inputs hold them."""
        if self.kind == "span":
            return None
        if self.targets.dtype == object:
            return self.targets.tolist()
        if self.targets.dtype == bool:
            return [[self.labels[c] for c in np.flatnonzero(row)] for row in self.targets]
        if self.targets.dtype == np.float64:
            return self.targets.tolist()
        return [self.labels[c] for c in self.targets]

    def select(self, rows: Sequence[int]) -> Task:
        """The same task with these rows only, by their numbers or a mask; all classes stay."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, np.int64)
        return dataclasses.replace(self, rows=self.rows.select(rows), targets=self.targets[rows])

    def sample(self, n: int, seed: int = 0) -> Task:
        """At most ``n`` rows, of each class in proportion (one at least, however many classes there are), in their order; fixed by
        ``seed``."""
        if len(self) <= n:
            return self
        rng = np.random.default_rng(seed)
        if self.kind != "classification":
            return self.select(np.sort(rng.choice(len(self), n, replace=False)))
        groups = [rng.permutation(np.flatnonzero(self.targets == c)) for c in range(len(self.labels))]
        sizes = np.array([min(len(g), max(1, n * len(g) // len(self))) for g in groups])
        while sizes.sum() > n and sizes.max() > 1:
            sizes[sizes.argmax()] -= 1
        return self.select(np.sort(np.concatenate([g[:size] for g, size in zip(groups, sizes)])))

    def with_label_names(self, names: Sequence[str | None]) -> Task:
        """The same task with other names for the encoder to read, one per class (None: no name); rows and labels stay.

        Raises:
            DataError: not as many names as classes.
        """
        if isinstance(names, str) or len(names) != len(self.labels):
            got = repr(names) if isinstance(names, str) else len(names)
            raise DataError(f"task {self.name!r}: expected {len(self.labels)} label names, one per class, got {got}")
        return dataclasses.replace(self, label_names=tuple(names))

    def with_classes(self, labels: Sequence, name: str | None = None) -> Task:
        """The task of these classes only, in this order.

        Raises:
            DataError: one of them is not a label of this task, or the task is no classification.
        """
        if self.kind != "classification":
            raise DataError(f"task {self.name!r}: a task of kind {self.kind} has no classes to choose from")
        index = {label: i for i, label in enumerate(self.labels)}
        for label in labels:
            if label not in index:
                raise DataError(f"task {self.name!r} has no class {label!r}{nearest(label, map(str, index))}")
        if len(set(labels)) != len(labels) or not len(labels):
            twice = next((label for label in labels if list(labels).count(label) > 1), None)
            raise DataError(f"task {self.name!r}: " + (f"class {twice!r} is named twice" if len(labels) else "no class is named"))
        old = np.array([index[label] for label in labels])
        new = np.full(len(self.labels), -1)
        new[old] = np.arange(len(old))
        kept = self.select(np.flatnonzero(new[self.targets] >= 0))
        return dataclasses.replace(
            kept,
            name=name or self.name,
            targets=new[kept.targets],
            labels=tuple(labels),
            label_names=tuple(self.label_names[i] for i in old),
        )


def load_task(
    source: Any,
    config: str | None = None,
    split: str | None = "train",
    revision: str | None = None,
    kind: str | None = None,
    columns: Columns | None = None,
    label_names: Sequence[str] | Mapping[Any, str] | None = None,
    name: str | None = None,
    description: str | None = None,
    skip_bad_rows: bool = False,
    streaming: bool = False,
    max_rows: int | None = None,
    encoding: str = "utf-8",
    default_columns: Columns | None = None,
) -> Task:
    """Load one task.

    Args:
        source: a Hub id; a path of a csv, tsv, json, jsonl or parquet file, or of a folder with one such file per
            split; a `datasets.Dataset` or `DatasetDict`; an `IterableDataset`, of which ``max_rows`` are taken; a pandas DataFrame, a
            list of dicts, or a dict of columns.
        config: configuration of a Hub data set.
        split: which split; "full" counts as "train". None: all rows of all splits. Ignored for a single table.
        revision: branch, tag or commit on the Hub.
        kind: the kind of task; None: found from the columns: numbers with a fraction, or a column ``score``, ``rating`` or ``stars``
            where there is no label, are scores (regression), lists of labels are multilabel. Where "multilabel" is given, a text is
            labels with semicolons between them, as a csv may have them.
        columns: where what stands, e.g. ``{"text": "body", "label": "queue"}``; also ``text_pair`` and ``label_name``. A text, question or
            input of several columns, ``{"text": ["subject", "body"]}``, is read with a line break between them, without those that are blank; of a csv as
            its cells stand, numbers too.
        label_names: readable text per class: a list in the order of the classes, or a dict {label: text}. Labels
            without a row are allowed in a dict. Of a regression: {lowest score: text, highest score: text}.
        name: the task's name; None: from the source.
        description: one sentence on what the labels mean.
        skip_bad_rows: leave out the rows that cannot be used, with a warning that counts them and shows the first, instead of an error.
        streaming: of a Hub id or path, read the files that hold the first ``max_rows`` rows instead of all, and keep no copy on disk: for
            data sets that are larger than it. Rows may be sorted by class; for rows from all over a data set give a stream of it that
            is shuffled, ``load_dataset(..., streaming=True).shuffle(seed=0, buffer_size=10_000)``.
        max_rows: take the first so many rows, of any source; None: all.
        encoding: of a csv or tsv, such as "cp1252" or "latin-1", where it has no byte order mark that says it.
        default_columns: what is taken for ``columns`` that are not named, where the source has all of these: ``clf.columns``, for further examples of
            a classifier.

    Raises:
        DataError: a column is missing, a text is empty, a label is missing or unknown, a split does not exist, a stream without
            ``max_rows`` ...
    """
    if kind is not None and kind not in KIND_NAMES:
        raise DataError(f"unknown kind {kind!r}{nearest(kind, KIND_NAMES, end='.')} Known: {', '.join(KIND_NAMES)}")
    check_is(columns, (Mapping, type(None)), "columns", "write {'text': 'body', 'label': 'queue'}", DataError)
    check_is(default_columns, (Mapping, type(None)), "default_columns", "give those of a classifier, clf.columns", DataError)
    check_is(description, (str, type(None)), "description", "write one sentence, or leave it out", DataError)
    parts = parts_of({**(default_columns or {}), **(columns or {})})
    rows, found_name = read_source(source, config, split, revision, streaming, max_rows, encoding, parts)
    name = name or found_name
    known = _known(source if isinstance(source, str) else "", config, name)
    hints = known.columns if set(known.columns.values()) <= set(rows.column_names) else {}
    named = with_defaults(rows.column_names, columns or {}, default_columns or {}, name)
    rows, given, joined = join_columns(rows, {**hints, **named}, name)
    columns = find_columns(rows, given, name, kind, skip_bad_rows)
    kind = columns.pop("kind")
    of_source = {role: joined.get(role, column) for role, column in columns.items()}
    owners: dict[str, str] = {}
    for role, column in of_source.items():
        for one in (column,) if isinstance(column, str) else column:
            if (other := owners.setdefault(one, role)) != role:
                raise DataError(
                    f"task {name!r}: column {one!r} is named for the {other} and for the {role}; name one column for each"
                )
    if "text" in columns and "text" not in given and "text_pair" not in columns:
        say_second_text(rows, columns, name)
    rows = drop_unlabelled(rows, columns, known)
    rows = place_answers(rows, columns, name) if kind == "span" else rows

    def read(part: Dataset) -> Targets:
        check_texts(part, columns, name)
        return read_targets(kind, part, columns, name, label_names, known.label_names)

    rows = rows.select(usable(rows, read, name)) if skip_bad_rows else rows
    try:
        targets, labels, names = read(rows)
    except DataError as error:
        raise _hint_of_lists(error, kind, rows, columns) from None
    _warn_of_labels(name, kind, labels, in_a_cell="label" in columns and is_text(rows, columns["label"]))
    if kind == "classification" and max_rows is not None and len(np.unique(targets)) == 1:
        logger.warning(
            "%s: the first %d rows are all of the class %r; where a data set is sorted by class, load a stream of it that is shuffled",
            name,
            len(rows),
            labels[targets[0]],
        )
    kept = [role for role in (*TEXTS, "answers") if role in columns]
    rows = rows.select_columns([columns[role] for role in kept])
    rows = rows.rename_columns({columns[role]: role for role in kept if columns[role] != role})
    return Task(name, kind, rows, targets, labels, names, description or known.description, of_source)


def _hint_of_lists(error: DataError, kind: str, rows: Dataset, columns: Mapping[str, str]) -> DataError:
    """The error of a row without a label, with what to do about it where labels look like lists."""
    if kind != "classification" or "has no label" not in str(error) or not is_text(rows, columns["label"]):
        return error
    if not any(value and LISTED.fullmatch(value) for value in rows.with_format(None)[columns["label"]][:]):
        return error
    hint = "for several labels with semicolons between them, or none, give kind='multilabel' (--kind multilabel in the shell)"
    return DataError(f"{error}; {hint}", row=error.row)


def _warn_of_labels(name: str, kind: str, labels: Sequence, in_a_cell: bool) -> None:
    """Say where labels, or the ends of a scale, are read otherwise than they may be meant; ``in_a_cell``: all labels of a row are one text."""
    if kind == "regression" and labels[0] == labels[1]:
        logger.warning(
            "%s: every score is %g, and so will be every answer; name the ends of the scale, label_names={lowest: text, highest: text}",
            name,
            labels[0],
        )
    if kind not in ("classification", "multilabel"):
        return
    alike: dict[str, Any] = {}
    for label in labels:
        other = alike.setdefault(" ".join(str(label).split()).casefold(), label)
        if other is not label:
            logger.warning("%s: the labels %r and %r differ by blanks or capital letters alone, and are two", name, other, label)
            break
    texts = [label for label in labels if isinstance(label, str)]
    if kind == "multilabel":
        if in_a_cell and (apart := next((label for label in texts if set(label) & set(",|")), None)):
            logger.warning("%s: %r is read as one label; put semicolons between labels, a;b", name, apart)
        return
    if listed := next(filter(LISTED.fullmatch, texts), None):
        logger.warning(
            "%s: %r is read as one label; for several give lists (jsonl, parquet), or kind='multilabel' and semicolons between them",
            name,
            listed,
        )
    if len(texts) == len(labels) and all(map(COMMA.fullmatch, texts)):
        logger.warning("%s: labels such as %r are read as classes; write scores with a point", name, labels[0])


def by_task(tasks: Sequence[Task], rows: np.ndarray) -> Iterator[tuple[np.ndarray, Task, np.ndarray]]:
    """Row numbers that count through several tasks, task by task.

    Args:
        tasks: in the order in which their rows are counted.
        rows: (n,) numbers.

    Yields:
        (m,) places among ``rows``, the task that these are of, and (m,) their numbers in it.
    """
    starts = np.cumsum([0, *map(len, tasks)])
    place = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(place):
        here = np.flatnonzero(place == number)
        yield here, tasks[number], rows[here] - starts[number]


def check_tasks(tasks: Sequence[Task], *unseen: Sequence[Task] | None) -> list[list[Task]]:
    """Tasks to train on (or to measure with), and groups that must be unseen by them, each as a list; None: none.

    Raises:
        DataError: no list of tasks, an empty first one, two tasks of one name, or one that stands in two groups.
    """
    seen: dict[str, int] = {}
    groups: list[list[Task]] = []
    for number, given in enumerate((tasks, *unseen)):
        where, load = "eval_tasks" if number else "tasks", "load it with load_task, or many with load_tasks"
        if isinstance(given, Task):
            raise DataError(f"{where}: expected a list of tasks, got one Task; write [task]")
        group = [given] if isinstance(given, str) else as_list(() if given is None else given, where, "tasks", load)
        groups.append(group)
        if number == 0 and not group:
            raise DataError("tasks: none given")
        for i, task in enumerate(group):
            check_is(task, Task, f"{where}: entry {i}", load, DataError)
            if task.name in seen and seen[task.name] != number:
                raise DataError(
                    f"task {task.name!r} stands among the tasks to train on and among those to choose or measure with"
                )
            if task.name in seen:
                raise DataError(f"tasks: two bear the same name, {task.name!r}; give each its own name")
            seen[task.name] = number
    return groups


def usable(rows: Dataset, check: Callable[[Dataset], object], name: str) -> Sequence[int]:
    """The numbers of the rows that pass `usable_rows`; how many do not is logged."""
    good, error = usable_rows(rows, check)
    if error is None:
        return range(len(rows))
    logger.warning("%s: left out %d of %d rows; the first: %s", name, len(rows) - len(good), len(rows), error)
    return good


def _known(source: str, config: str | None, name: str) -> Known:
    source = ALIASES.get(source, source)
    for key in (f"{source}:{config}", source, name):
        if key in KNOWN:
            return KNOWN[key]
    return Known()
