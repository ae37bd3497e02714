"""finetune: gradient steps on one task, from what adapting to it gives, kept only where held-out examples say that they pay.

A head's parameters for the task are solved for, not learned; what learns is a residual beside them (`residual.corrected`), and where asked
the encoder, from losses of examples under a head that has not seen them (`crossfit`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .adapted import AdaptedModel
from .changes import extended, take_rows
from .config import FinetuneConfig
from .crossfit import hold_out, same_rows
from .fit import Fit, Labelled, better
from .launch import make_accelerator
from .model import MetaModel
from .objective import named_factors
from .rows import DataError, check_inputs
from .settings import ConfigError, check_is, to_dict
from .tasks import Task

logger = logging.getLogger(__name__)

KEPT = ("adapted", "fine-tuned")
FEW = 10  # examples that judge, below which there is a warning


def finetune(
    model: MetaModel | AdaptedModel,
    inputs: Sequence[str | tuple[str, str]] | Task,
    targets: Sequence | None = None,
    config: FinetuneConfig = FinetuneConfig(),
    *,
    label_names: Sequence[str] | Mapping[Any, str] | None = None,
    description: str | None = None,
    eval_task: Task | None = None,
) -> AdaptedModel:
    """A classifier of one task by gradient steps, or where they do not pay, by adapting alone.

    A share of every class's examples is held out. The model adapts to the others in one forward pass, then learns from them; after every
    epoch the held-out examples judge it, and training stops where they see no better one. What is returned has adapted to all examples,
    and holds what was learned only if the held-out ones are better answered with it than without; then, with ``refit``, it has learned
    anew from all of them, for as many epochs as were best. Its ``finetuning`` says how both did. Nothing is written.

    With ``eval_task``, the rows of that task judge instead: the model adapts to and learns from all examples at once, and from no other.

    Args:
        model: a head; or a classifier, whose head, encoder, labels and names are taken and whose examples are replaced by those given. One that was
            fine-tuned goes on learning; examples that it has learned from before make no fair judges.
        inputs: n texts or pairs of texts, 2 to some 100,000; or a `Task`, all of whose rows are taken.
        targets: n labels, see `MetaModel.adapt`.
        config: what learns, and how.
        label_names, description: see `MetaModel.adapt`; a classifier has its own.
        eval_task: labelled rows of the same labels. Those that are among the examples judge nothing.

    Returns:
        On every process of a launch the same.

    Raises:
        DataError: the task is no classification; ``eval_task`` is of other labels, or all of its rows are among the examples; see
            `MetaModel.adapt`.
        ConfigError: a class weight of an unknown label; a head that takes steps on the encoder itself.
        EncoderError: other weights of the encoder have learned before than those that ``what`` names.
        TrainingError: the loss is no longer a number; see `meta_train` for launches.
    """
    check_is(model, (MetaModel, AdaptedModel), "model", "load it with MetaModel.from_pretrained or AdaptedModel.from_pretrained")
    check_is(config, FinetuneConfig, "config", "write FinetuneConfig(...)")
    check_is(eval_task, (Task, type(None)), "eval_task", "load it with load_task")
    accelerator = make_accelerator()
    inputs = inputs if isinstance(inputs, Task) else check_inputs(inputs)  # a generator is read once
    rows, whole = _adapt(model, inputs, targets, label_names, description)
    whole = whole.to(accelerator.device)
    n = len(rows)
    examples, judged = _examples(whole, rows, eval_task, config)
    train, held = _judges(examples.y, examples.same, n, eval_task is not None, config)
    notes = {"rows": n, "held_out": len(held), "settings": to_dict(config)}
    notes |= {} if eval_task is None else {"eval_task": eval_task.name}
    if not len(held):
        logger.warning("no class has two examples: none can be held out to judge, so the adapted model is kept")
        return whole.with_support(whole.support, finetuning={"kept": KEPT[0], **notes})
    if len(held) < FEW:
        logger.warning(
            "%d examples judge what is learned: which model is kept is little more than chance; rows of your own may judge (eval_task, "
            "--eval_examples)",
            len(held),
        )
    if not examples.weights[examples.y[held]].sum() > 0:
        raise ConfigError(f"class_weights: every held-out example has the weight 0, got {' '.join(config.class_weights)}")
    fit = Fit(judged, examples, train, held, config, accelerator)
    fit.run()
    best = max(fit.history[1:], key=lambda point: better(point, config.metric_for_best_model))
    notes |= {"adapted": fit.history[0], "fine-tuned": best}
    if fit.best is None:
        return whole.with_support(whole.support, finetuning={"kept": KEPT[0], **notes})
    if config.refit and eval_task is None:
        fit = Fit(judged, examples, np.arange(n), held[:0], config, accelerator)
        fit.run(best["epoch"])
    clf = fit.made(finetuning={"kept": KEPT[1], **notes})
    return clf if eval_task is None else clf.with_support(take_rows(clf.support, np.arange(n)))


def _adapt(model, inputs, targets, label_names, description) -> tuple[list, AdaptedModel]:
    """The examples, and a model that has adapted to all of them."""
    given = model.model if isinstance(model, AdaptedModel) else model
    kinds = {inputs.kind} if isinstance(inputs, Task) else set()
    kinds |= {model.kind} if isinstance(model, AdaptedModel) else set()
    if other := kinds - {"classification"}:
        raise DataError(
            f"finetune: classifications can be fine-tuned so far, the task is of kind {other.pop()}; adapt to it instead"
        )
    if given.adapts_encoder:
        raise ConfigError(
            "finetune: this head takes steps on the encoder for every task, the held-out examples among them (encoder_steps); take another head"
        )
    if isinstance(model, MetaModel):
        whole = model.adapt(inputs, targets, label_names=label_names, description=description)
        rows = inputs.inputs() if isinstance(inputs, Task) else whole.check_rows(inputs)
    else:
        if label_names is not None or description is not None:
            raise DataError("finetune: a classifier has its own label_names and description; give a head to set others")
        if isinstance(inputs, Task):
            inputs, targets = inputs.inputs(), inputs.answers()
        rows = model.check_rows(inputs)
        whole = extended(model.with_support(take_rows(model.support, np.zeros(0))), rows, targets, "finetune")
    if not rows:
        raise DataError("finetune: there are no examples to learn from; adapt with label_names alone instead")
    return rows, whole


def _examples(whole: AdaptedModel, rows: list, eval_task: Task | None, config: FinetuneConfig) -> tuple[Labelled, AdaptedModel]:
    """The examples, then the rows of ``eval_task``; and the model with all of them in its support."""
    n, judged = len(rows), whole
    if eval_task is not None:
        if eval_task.kind != whole.kind:
            raise DataError(f"finetune: eval_task is of kind {eval_task.kind}, the examples of kind {whole.kind}")
        more = whole.check_rows(eval_task.inputs())
        rows, judged = [*rows, *more], extended(whole, more, eval_task.answers(), "finetune: eval_task")
    y = judged.support.y[0].argmax(1).cpu().numpy()
    return Labelled(rows, same_rows(rows), y, class_weights(y[:n], whole.labels, config.class_weights)), judged


def _judges(y: np.ndarray, same: np.ndarray, n: int, given: bool, config: FinetuneConfig) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to learn from, and of those that judge: of the first n some of every class, or where they are ``given``
    the others."""
    if not given:
        return hold_out(y, config.eval_share, config.seed, same)
    new = ~np.isin(same[n:], same[:n])
    if not new.all():
        known = f"eval_task: {(~new).sum()} of {len(new)} rows are among the examples"
        if not new.any():
            raise DataError(f"finetune: {known}: none is left to judge what is learned from them")
        logger.warning("%s, and judge nothing", known)
    return np.arange(n), n + np.flatnonzero(new)


def class_weights(y: np.ndarray, labels: Sequence, entries: Sequence[str]) -> np.ndarray:
    """(w,) how much an example of each class counts, from ``FinetuneConfig.class_weights``.

    Raises:
        ConfigError: an entry is neither ``balanced`` nor ``label=factor``, or names no label.
    """
    if tuple(entries) == ("balanced",):
        count = np.bincount(y, minlength=len(labels))
        return len(y) / (np.maximum(count, 1) * (count > 0).sum())
    return named_factors("class_weights", "label", entries, list(map(str, labels)))
