"""A task: a named data set of one kind."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import INPUTS, ROLES, TEXTS
from .label_names import other_sets
from .rows import DataError, as_list, readable
from .settings import check_is, nearest

if TYPE_CHECKING:
    from datasets import Dataset


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
        other_label_names: further sets of label names, such as "1 star" to "5 stars", see `with_other_label_names`.
    """

    name: str
    kind: str
    rows: Dataset
    targets: np.ndarray
    labels: tuple
    label_names: tuple[str | None, ...]
    description: str | None = None
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    other_label_names: tuple[tuple[str | None, ...], ...] = ()

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
        said = [self.kind, self.labels, self.label_names, self.prompt, *self.other_label_names]
        seen = hashlib.blake2b(repr(said).encode(), digest_size=8)
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

    def with_other_label_names(self, others: Mapping[Any, Sequence[str]]) -> Task:
        """The same task with further sets of label names, which episodes show in the share ``other_names``: a head learns from them what
        people may call a class, or is measured with them.

        Args:
            others: {label: names}, of every label as many: the first ones are a set, the second ones the next. A label that is missing
                keeps its own name in all of them; {}: none any more.

        Raises:
            DataError: it is no such dict, there is no such label, not all have as many names, or two classes bear the same name in a set.
        """
        sets = other_sets(f"task {self.name!r}", self.labels, self.label_names, others)
        return dataclasses.replace(self, other_label_names=sets)

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
            other_label_names=tuple(tuple(names[i] for i in old) for names in self.other_label_names),
        )


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
