"""What a caller gives to make the model of one task: examples, labels and texts, checked, as a head will see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .encoder import Encoder
from .features import read_inputs
from .generation import as_support
from .heads import NO_LANGUAGE
from .kinds import KINDS
from .questions import read_examples
from .representation import Support, unit
from .rows import DataError, as_list, check_inputs, check_questions, list_targets
from .settings import ConfigError, check_is, nearest
from .targets import ENCODERS, encode_answers, scale_of
from .tasks import Task


@dataclass(frozen=True)
class Examples:
    """One task as it was given.

    Attributes:
        kind: of the task.
        rows: n texts, or pairs of texts, or questions with contexts (dicts); of generation pairs of input and target.
        y: (n, w) float32 targets: one-hot, multi-hot, or standardised scores with w = 1; of spans (n, 2) characters; of generation w = 0.
        labels: as the caller gave them; of a regression the two ends of the scale, () where they are not known.
        label_names: per label the text that the encoder reads, or None.
        description: of the task, or None.
        scale: by which scores were standardised, see `scale_of`; else 0 and 1.
    """

    kind: str
    rows: list
    y: np.ndarray
    labels: tuple
    label_names: tuple[str | None, ...]
    description: str | None
    scale: tuple[float, float]

    @property
    def pairs(self) -> bool | None:
        """Whether the rows are pairs of texts; None where there are none."""
        return isinstance(self.rows[0], tuple) if self.rows and not KINDS[self.kind].written else None

    def support(self, encoder: Encoder) -> Support:
        """The task as an encoder reads it, a batch of one."""
        if self.kind == "span":
            return read_examples(encoder, self.rows, self.y, self.description)
        return self.read(partial(encoder.encode, progress=True), encoder.dim)

    def read(self, read: Callable[[list], Tensor], dim: int) -> Support:
        """The task as a batch of one `Support`. All texts that are read alone go through the encoder in one call.

        Args:
            read: n texts, or pairs of texts -> their vectors (n, d).
            dim: d.
        """
        if KINDS[self.kind].written:
            return self._read_written(read, dim)
        scored, w = KINDS[self.kind].scored, self.y.shape[1]
        names = self.label_names[-w:] or (None,)  # a scale has one name, that of its upper end
        given = [c for c, name in enumerate(names) if name]
        lower = [self.label_names[0]] if scored and self.label_names and all(self.label_names) else []
        alone = [] if self.pairs else self.rows
        text = [self.description] if self.description else []
        vectors = read([*alone, *(names[c] for c in given), *text, *lower])
        x, name_x, text_x, lower_x = vectors.split([len(alone), len(given), len(text), len(lower)])
        label_x = vectors.new_zeros(w, dim)
        label_x[given] = unit(name_x - lower_x) if lower else name_x  # a scale points from its lower end to its upper
        has_name = torch.zeros(w, dtype=torch.bool)
        has_name[given] = True
        return Support(
            x=(read_inputs(read, self.rows) if self.pairs else x)[None],
            y=torch.from_numpy(self.y)[None],
            label_x=label_x[None],
            task_x=text_x if text else vectors.new_zeros(1, dim),
            row_mask=torch.ones(1, len(self.rows), dtype=torch.bool),
            class_mask=torch.ones(1, w, dtype=torch.bool),
            label_mask=has_name[None],
            task_mask=torch.tensor([bool(text)]),
        ).to(vectors.device)

    def _read_written(self, read: Callable[[list], Tensor], dim: int) -> Support:
        text = read([self.description] if self.description else [])
        x = (read(self.rows) if self.rows else text.new_zeros(0, dim))[None]
        task_x = text if self.description else x.new_zeros(1, dim)
        yes = torch.ones(1, len(self.rows), dtype=torch.bool, device=x.device)
        return as_support(x, yes, task_x, torch.tensor([bool(self.description)], device=x.device))


def check_examples(
    inputs: Sequence[str | tuple[str, str]] | Task,
    targets: Sequence | None,
    kind: str,
    label_names: Sequence[str] | Mapping[Any, str] | None,
    description: str | None,
) -> Examples:
    """The arguments of `MetaModel.adapt` as `Examples`.

    Raises:
        DataError: see there.
    """
    check_is(description, (str, type(None)), "description", "write one sentence, or leave it out", DataError)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"adapt: unknown kind {kind!r}{nearest(kind, KINDS, end='.')} Known: {', '.join(KINDS)}")
    if isinstance(inputs, Task):
        if targets is not None or label_names is not None:
            raise DataError("adapt: a Task brings its own targets and label_names")
        if kind not in ("classification", inputs.kind):  # the former is what nobody asked for
            raise DataError(
                f"adapt: kind {kind!r}: the task {inputs.name!r} is of kind {inputs.kind}; load it with load_task(..., kind={kind!r})"
            )
        if inputs.kind == "span":
            return Examples("span", inputs.inputs(), inputs.targets, (), (), description or inputs.prompt, (0.0, 1.0))
        kind, rows, description = inputs.kind, inputs.inputs(), description or inputs.prompt
        array, labels, names = inputs.targets, inputs.labels, inputs.label_names
    else:
        if kind == "span":
            return _questions(inputs, targets, label_names, description)
        rows = check_inputs(inputs)
        targets = list_targets([] if targets is None and not rows else targets, len(rows), "adapt")
        if KINDS[kind].written:
            if not rows and not description:
                raise DataError("adapt: without examples the description must be given")
        elif not rows and label_names is None:
            raise DataError("adapt: without examples the label_names must be given")
        array, labels, names = ENCODERS[kind](targets, label_names)
    if KINDS[kind].written:
        single = next((i for i, row in enumerate(rows) if isinstance(row, tuple)), None)
        if single is not None:
            raise DataError(f"inputs: row {single} is a pair of texts; a task of kind {kind} has single texts")
        pairs = list(zip(rows, array.tolist(), strict=True))
        return Examples(kind, pairs, np.zeros((len(rows), 0), np.float32), labels, names, description, (0.0, 1.0))
    if KINDS[kind].scored:
        middle, unit = scale = scale_of(labels, array)
        return Examples(kind, rows, ((array - middle) / unit).astype(np.float32)[:, None], labels, names, description, scale)
    y = np.eye(len(labels), dtype=np.float32)[array] if KINDS[kind].by_class else array.astype(np.float32)
    if len(labels) < 2 and KINDS[kind].by_class:
        raise DataError(
            f"adapt: {len(labels)} class{'es'[: 2 * (len(labels) != 1)]} ({list(labels)}); a classifier needs at least two"
        )
    nameless = next((c for c in np.flatnonzero(~y.any(0)) if not names[c]), None)
    if nameless is not None:
        raise DataError(f"adapt: class {labels[nameless]!r} has neither an example nor a name")
    return Examples(kind, rows, y, labels, names, description, (0.0, 1.0))


def check_served(kind: str, kinds: Sequence[str], writes: bool) -> None:
    """Raises where a model of these kinds, which has a language model or not, does not serve examples of this one."""
    if kind in kinds:
        return
    if KINDS[kind].written and not writes:
        raise ConfigError(NO_LANGUAGE)
    asked = f"give kind={kinds[0]!r} (--kind {kinds[0]}) to read it so, or " if kind == "regression" else ""
    other = "model_cards/questions of the repository" if kind == "span" else "a head of that kind"
    raise DataError(
        f"adapt: kind {kind!r}, but this head was trained for {', '.join(kinds)}; {asked}take {other}, "
        f"or untrained MetaModel.from_encoder('embedded'), --model gp in the shell"
    )


def _questions(inputs: Sequence, targets: Any, label_names: Any, description: str | None) -> Examples:
    given = "targets" if targets is not None and as_list(targets, "adapt: targets") else None
    given = given or ("label_names" if label_names is not None else None)
    if given:
        raise DataError(
            f"adapt: {given}: a span task has none; each input brings its answers, {{'text': [...], 'answer_start': [...]}}"
        )
    rows = check_questions(inputs, answered=True)
    spans = encode_answers([row["answers"] for row in rows], [row["context"] for row in rows], "inputs")
    return Examples("span", rows, spans, (), (), description, (0.0, 1.0))
