"""How well answers are, where the right ones are known: of a classifier, or of answers that were given before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .inputs import right_texts
from .kinds import KINDS
from .metrics import METRICS
from .rows import DataError, as_known, as_list, check_questions, list_targets
from .targets import ENCODERS, encode_answers
from .tasks import Task

if TYPE_CHECKING:
    from .adapted import AdaptedModel

PROBABILITIES = ("nll", "brier", "ece")  # figures of a classification that need more than the answers


def evaluate(self: AdaptedModel, inputs: Sequence | Task, targets: Sequence | None = None) -> dict[str, float]:
    """Figures of the answers to rows whose right answers are known.

    Args:
        inputs: as of `predict`; of a span task every row brings its ``answers``, as in `MetaModel.adapt`. Or a `Task`, all of whose
            rows are asked; of one whose answers are written, rows of the same input once.
        targets: the right answer of each row, as `predict` would give it; of texts that are written, a text or a list of right ones.

    Returns:
        By name, as in `metrics.METRICS`, the main one first: those that `kinds.KINDS` names, and of a classification also nll, brier
        and ece. Shares are between 0 and 1.

    Raises:
        DataError: a target is none of `labels`, or missing; the task is of another kind; see `predict_table`.
        ConfigError: a figure of written texts needs a package that is not installed.
    """
    rows, targets = _judged(self.kind, inputs, targets)
    if not rows:
        raise DataError("evaluate: there are no rows to judge by")
    if not KINDS[self.kind].by_class:
        return answer_figures(self.kind, self.labels, self.predict(rows), targets)
    classes = known_classes(self.labels, targets)
    probabilities = self.predict_proba(rows)
    return {name: METRICS[name](probabilities, classes) for name in (*KINDS[self.kind].metrics, *PROBABILITIES)}


def answer_figures(kind: str, labels: Sequence, answers: Sequence, targets: Sequence) -> dict[str, float]:
    """The figures of `kinds.KINDS` by what `AdaptedModel.predict` answered and what would have been right.

    Raises:
        DataError: a target is none of ``labels``, or missing.
    """
    names = KINDS[kind].metrics
    if kind == "span":  # `predict` may say that there is no answer, so the figures are those of SQuAD 2.0
        names = names[2:]
        said = [answer["text"] for answer in answers]
        right: Any = [list(value["text"]) for value in targets]
    elif KINDS[kind].written:
        said, right = answers, [[value] if isinstance(value, str) else list(value) for value in targets]
    elif KINDS[kind].scored:
        said, right = np.asarray(answers), ENCODERS[kind](targets)[0]
    elif KINDS[kind].by_class:
        said, right = np.eye(len(labels))[known_classes(labels, answers)], known_classes(labels, targets)
    else:
        said, right = (ENCODERS[kind](values, dict.fromkeys(labels))[0] for values in (answers, targets))
    return {name: METRICS[name](said, right) for name in names}


def known_classes(labels: Sequence, targets: Sequence) -> np.ndarray:
    """(n,) numbers of labels among ``labels``.

    Raises:
        DataError: one is not there, or missing.
    """
    return ENCODERS["classification"](as_known(targets, labels), dict.fromkeys(labels))[0]


def _judged(kind: str, inputs: Sequence | Task, targets: Sequence | None) -> tuple[list, list]:
    """Rows and their right answers."""
    if isinstance(inputs, Task):
        if targets is not None:
            raise DataError("evaluate: a Task brings its own targets")
        if inputs.kind != kind:
            raise DataError(f"evaluate: the classifier is of kind {kind}, task {inputs.name!r} of kind {inputs.kind}")
        inputs, targets = inputs.inputs(), inputs.answers()
        if KINDS[kind].written:  # each input once, with all of its right answers
            inputs, targets = zip(*dict(zip(inputs, right_texts(inputs, targets))).items(), strict=True)
    rows = as_list(inputs, mappings=kind == "span")
    if kind == "span":
        if targets is not None:
            raise DataError("evaluate: of a span task every input brings its answers; targets must be left out")
        rows = check_questions(rows, answered=True)
        targets = [row["answers"] for row in rows]
        encode_answers(targets, [row["context"] for row in rows], "inputs")
    return rows, list_targets(targets, len(rows), "evaluate")
