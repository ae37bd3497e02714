"""Examples and classes added to an adapted model or taken from it, without training and without reading a text again.

A changed model is a new one, and is what adapting anew to all of its examples gives: a support holds their features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .features import encode_inputs
from .kinds import KINDS
from .representation import Support
from .rows import DataError, as_known, list_targets, readable
from .settings import nearest
from .targets import ENCODERS, scale_of

if TYPE_CHECKING:
    from .adapted import AdaptedModel


def add_class(
    model: AdaptedModel, name: Any, inputs: Sequence[str | tuple[str, str]], *, label_name: str | None = None
) -> AdaptedModel:
    """A new model that knows one class more, its label the last of `labels`.

    Args:
        model: of a classification; stays as it is.
        name: the label, of the type of the others.
        inputs: its examples; [] where its name says enough.
        label_name: text of it that the encoder reads; None: a text names itself, a number has no name.

    Raises:
        DataError: the label is there, the inputs are not what the examples were, there is neither example nor name; the task is no
            classification; the model was fine-tuned.
    """
    _check("add_class", model, KINDS[model.kind].by_class)
    name = check_label(name, model.labels, "add_class", new=True)
    rows, text = model.check_rows(inputs), label_name or (readable(name) if isinstance(name, str) else None)
    if not rows and not text:
        raise DataError(f"add_class: class {name!r} has neither an example nor a name")
    support = with_class(model.support, model.encoder.encode([text])[0] if text else None)
    y = torch.zeros(len(rows), support.y.shape[2])
    y[:, -1] = 1
    return _with_rows(model, support, rows, y, labels=[*model.labels, name], label_names=(*model.label_names, text))


def add_examples(model: AdaptedModel, inputs: Sequence[str | tuple[str, str]], targets: Sequence | None = None) -> AdaptedModel:
    """A new model with further examples of the labels that it has, behind its own.

    Args:
        model: stays as it is.
        inputs: n texts, or pairs of texts if the examples were pairs.
        targets: n of `labels`; of a multilabel task lists of them; of a regression numbers on the task's own scale.

    Raises:
        DataError: an unknown label; inputs that are not what the examples were, or do not fit the targets; another kind of task; the model
            was fine-tuned.
    """
    _check("add_examples", model, model.kind in ENCODERS and not KINDS[model.kind].written)
    return extended(model, model.check_rows(inputs), targets, "add_examples")


def extended(model: AdaptedModel, rows: list, targets: Sequence | None, called: str) -> AdaptedModel:
    """`add_examples` of rows that are checked; ``called``: what messages begin with."""
    own, y, scale = more_targets(model, list_targets(targets, len(rows), called), called)
    return _with_rows(model, replace(model.support, y=own[None]), rows, torch.from_numpy(y), scale=scale)


def remove_class(model: AdaptedModel, name: Any) -> AdaptedModel:
    """A new model without one of its classes and without the examples of it.

    Args:
        model: of a classification; stays as it is.
        name: the label.

    Raises:
        DataError: there is no such class, or one class would be left; the task is no classification; the model was fine-tuned.
    """
    _check("remove_class", model, KINDS[model.kind].by_class)
    c = model.labels.index(check_label(name, model.labels, "remove_class", new=False))
    if len(model.labels) == 2:
        raise DataError(f"remove_class: without {name!r} one class would be left; a classifier needs at least two")
    support = without_class(model.support, c)
    return model.with_support(
        support,
        labels=[*model.labels[:c], *model.labels[c + 1 :]],
        label_names=(*model.label_names[:c], *model.label_names[c + 1 :]),
        pairs=model.pairs if support.x.shape[1] else None,
        finetuning=None,
    )


def _check(what: str, model: AdaptedModel, possible: bool) -> None:
    if not possible:
        raise DataError(f"{what}: a task of kind {model.kind} has no such change; adapt anew to all examples")
    if model.is_finetuned:
        raise DataError(
            f"{what}: this model was fine-tuned, and what it learned holds for its own classes and examples; call metatext.finetune with "
            f"all examples, texts and labels, instead"
        )
    if model.model.adapts_encoder and model.support.x.shape[1]:
        raise DataError(f"{what}: the encoder took steps on the examples, whose texts are not kept; adapt anew to all of them")


def _with_rows(model: AdaptedModel, support: Support, rows: list, y: Tensor, **values: Any) -> AdaptedModel:
    pairs = isinstance(rows[0], tuple) if rows else model.pairs
    return model.with_support(with_rows(support, encode_inputs(model.encoder, rows), y), pairs=pairs, finetuning=None, **values)


def with_rows(support: Support, x: Tensor, y: Tensor) -> Support:
    """The task with n further examples behind its own.

    Args:
        support: one task, (1, s, d).
        x: (n, d) features.
        y: (n, w) targets.
    """
    return replace(
        support,
        x=torch.cat([support.x, x[None].to(support.x)], 1),
        y=torch.cat([support.y, y[None].to(support.y)], 1),
        row_mask=pad(support.row_mask, (0, len(x)), value=True),
    )


def take_rows(support: Support, rows: np.ndarray) -> Support:
    """The task with these of its examples, in this order."""
    index = torch.from_numpy(np.asarray(rows, np.int64)).to(support.x.device)
    return replace(support, x=support.x[:, index], y=support.y[:, index], row_mask=support.row_mask[:, index])


def with_class(support: Support, name: Tensor | None) -> Support:
    """The task with one class more, its last; no example has it yet.

    Args:
        support: one task.
        name: (d,) feature of its name; None: it has none.
    """
    known = torch.zeros_like(support.label_x[:, :1]) if name is None else name[None, None].to(support.label_x)
    return replace(
        support,
        y=pad(support.y, (0, 1)),
        label_x=torch.cat([support.label_x, known], 1),
        class_mask=pad(support.class_mask, (0, 1), value=True),
        label_mask=pad(support.label_mask, (0, 1), value=name is not None),
    )


def without_class(support: Support, c: int) -> Support:
    """The task without class c and its examples."""
    kept = take_rows(support, np.flatnonzero(support.y[0, :, c].cpu().numpy() == 0))
    classes = [i for i in range(support.y.shape[2]) if i != c]
    return replace(
        kept, y=kept.y[:, :, classes], **{k: getattr(kept, k)[:, classes] for k in ("label_x", "class_mask", "label_mask")}
    )


def check_label(name: Any, labels: Sequence, called: str, new: bool) -> Any:
    """A label as plain Python has it, that is ``new`` or is not.

    Raises:
        DataError: it is no label, of another type than the others, there already, or not there.
    """
    name = name.item() if isinstance(name, np.generic) else name
    if not isinstance(name, (str, int)) or (isinstance(name, str) and not name.strip()):
        raise DataError(f"{called}: expected a label, text or number, got {name!r} ({type(name).__name__})")
    if isinstance(name, str) != isinstance(labels[0], str):
        raise DataError(f"{called}: the label {name!r} is of another type than the labels {list(labels)[:20]}")
    if new and name in labels:
        raise DataError(f"{called}: there is a class {name!r} already; give it more examples with add_examples")
    if not new and name not in labels:
        raise DataError(
            f"{called}: there is no class {name!r}{nearest(name, map(str, labels), end='.')} Labels: {list(labels)[:20]}"
        )
    return name


def more_targets(model: AdaptedModel, targets: list, called: str) -> tuple[Tensor, np.ndarray, tuple[float, float]]:
    """Targets of further examples, as a support holds them.

    Args:
        model: of a kind whose targets are labels or scores.
        targets: n of them, as a caller gives them.
        called: what messages begin with.

    Returns:
        Targets of the model's own examples (s, w) and of the further ones (n, w), and the scale: of scores whose ends are not known it is
        that of all of them.

    Raises:
        DataError: a target is unknown, missing, or of another type.
    """
    kind, labels, y = KINDS[model.kind], model.labels, model.support.y[0]
    if kind.by_class:
        where = f"{called}: targets: row"
        targets = [check_label(target, labels, f"{where} {i}", new=False) for i, target in enumerate(as_known(targets, labels))]
    if not targets:
        return y, np.zeros((0, y.shape[1]), np.float32), model.scale
    array = ENCODERS[kind.name](targets, dict(zip(labels, model.label_names)) or None, f"{called}: targets")[0]
    if kind.by_class:
        return y, np.eye(len(labels), dtype=np.float32)[array], model.scale
    if not kind.scored:
        return y, array.astype(np.float32), model.scale
    middle, unit = model.scale
    if not labels:
        own = middle + unit * y[:, 0].double().cpu().numpy()
        middle, unit = scale_of((), np.concatenate([own, array]))
        y = torch.from_numpy((own - middle) / unit)[:, None].to(y)
    return y, ((array - middle) / unit).astype(np.float32)[:, None], (middle, unit)
