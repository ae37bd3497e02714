"""finetune: gradient steps on one task, from what adapting to it gives, kept only where held-out examples say that they pay.

A head's parameters for the task are solved for, not learned; what learns is a residual beside them (`residual.corrected`), and where asked
the encoder, from losses of examples under a head that has not seen them (`crossfit`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .adapted import CONTENT, AdaptedModel
from .changes import extended, take_rows
from .checkpoints import Checkpoint, Checkpoints, alone
from .config import FinetuneConfig
from .crossfit import hold_out, same_rows
from .fit import Fit, Labelled, better
from .launch import make_accelerator, on_main
from .model import MetaModel
from .objective import named_factors
from .rows import DataError, check_inputs
from .settings import ConfigError, check_is, to_dict
from .storage import check_folder, digest
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
    output_dir: str | Path | None = None,
    overwrite_output_dir: bool = False,
) -> AdaptedModel:
    """A classifier of one task by gradient steps, or where they do not pay, by adapting alone.

    A share of every class's examples is held out. The model adapts to the others in one forward pass, then learns from them; after every
    epoch the held-out examples judge it, and training stops where they see no better one. What is returned has adapted to all examples,
    and holds what was learned only if the held-out ones are better answered with it than without; then, with ``refit``, it has learned
    anew from all of them, for as many epochs as were best. Its ``finetuning`` says how both did.

    With ``eval_task``, the rows of that task judge instead: the model adapts to and learns from all examples at once, and from no other.

    With ``output_dir`` a checkpoint is written after every epoch. A call that was stopped, even by kill -9, goes on from there when it is made
    again with the same model, examples and settings, and ends with the same weights, bit for bit on the same machine. At its end the classifier
    is saved in the folder, and the checkpoint, which is no longer needed, deleted.

    Args:
        model: a head; or a classifier, whose head, encoder, labels and names are taken and whose examples are replaced by those given. One that was
            fine-tuned goes on learning; examples that it has learned from before make no fair judges.
        inputs: n texts or pairs of texts, 2 to some 100,000; or a `Task`, all of whose rows are taken.
        targets: n labels, see `MetaModel.adapt`.
        config: what learns, and how.
        label_names, description: see `MetaModel.adapt`; a classifier has its own.
        eval_task: labelled rows of the same labels. Those that are among the examples judge nothing.
        output_dir: folder for the classifier, as `AdaptedModel.save_pretrained` writes it, and until then ``checkpoints``; None: nothing is
            written.
        overwrite_output_dir: start anew although it holds a checkpoint.

    Returns:
        On every process of a launch the same.

    Raises:
        DataError: the task is no classification; ``eval_task`` is of other labels, or all of its rows are among the examples; see
            `MetaModel.adapt`.
        ConfigError: a class weight of an unknown label; a head that takes steps on the encoder itself; ``output_dir`` holds a checkpoint of
            other examples, settings or another model, one in another precision, those of another program, or a run that is still going on.
        EncoderError: other weights of the encoder have learned before than those that ``what`` names.
        StorageError: ``output_dir`` cannot be written, or holds something else.
        TrainingError: the loss is no longer a number; see `meta_train` for launches.
    """
    check_is(model, (MetaModel, AdaptedModel), "model", "load it with MetaModel.from_pretrained or AdaptedModel.from_pretrained")
    check_is(config, FinetuneConfig, "config", "write FinetuneConfig(...)")
    check_is(eval_task, (Task, type(None)), "eval_task", "load it with load_task")
    check_is(output_dir, (str, Path, type(None)), "output_dir", "name a folder, or leave it out")
    if output_dir is not None:
        check_folder(output_dir, CONTENT)
    accelerator = make_accelerator()
    inputs = inputs if isinstance(inputs, Task) else check_inputs(inputs)  # a generator is read once
    rows, whole = _adapt(model, inputs, targets, label_names, description)
    whole = whole.to(accelerator.device)
    n = len(rows)
    examples, judged = _examples(whole, rows, eval_task, config)
    train, held = _judges(examples.y, examples.same, n, eval_task is not None, config)
    if not len(held):
        logger.warning("no class has two examples: none can be held out to judge, so the adapted model is kept")
    elif len(held) < FEW:
        logger.warning(
            "%d examples judge what is learned: which model is kept is little more than chance; rows of your own may judge (eval_task, "
            "--eval_examples)",
            len(held),
        )
    if len(held) and not examples.weights[examples.y[held]].sum() > 0:
        raise ConfigError(f"class_weights: every held-out example has the weight 0, got {' '.join(config.class_weights)}")
    notes = {"rows": n, "held_out": len(held), "settings": to_dict(config)}
    notes |= {} if eval_task is None else {"eval_task": eval_task.name}
    learn = partial(_learn, whole, judged, examples, (train, held), config, accelerator, notes)
    if output_dir is None:
        return learn()
    checkpoints = Checkpoints(Path(output_dir) / "checkpoints", 1)
    told = None if isinstance(model, AdaptedModel) else description or getattr(inputs, "prompt", None)
    settings = _settings(model, whole, examples, told, config, accelerator)
    with alone(checkpoints, settings, overwrite_output_dir, accelerator) as resume:
        if overwrite_output_dir:
            on_main(accelerator, checkpoints.clear)
        clf = learn(partial(Fit.save, checkpoints=checkpoints, settings=settings), resume)

        def save() -> None:
            clf.save_pretrained(output_dir)
            checkpoints.clear()

        on_main(accelerator, save)
    return clf


def _learn(
    whole: AdaptedModel,
    judged: AdaptedModel,
    examples: Labelled,
    rows: tuple[np.ndarray, np.ndarray],
    config: FinetuneConfig,
    accelerator,
    notes: Mapping[str, Any],
    save: Callable | None = None,
    resume: Checkpoint | None = None,
) -> AdaptedModel:
    """The adapted model, or a fine-tuned one.

    Args:
        whole: has adapted to the examples alone.
        judged: to all rows.
        examples: these rows.
        rows: numbers of those to learn from, and of those that judge.
        config, accelerator: see `Fit`.
        notes: of ``AdaptedModel.finetuning``, what is known before.
        save: `Fit.save`, of which the checkpoints are known; None: none are written.
        resume: one of them to go on from.
    """
    (train, held), n = rows, whole.support.x.shape[1]
    adapted = partial(whole.with_support, whole.support)

    def fitted(train: np.ndarray, held: np.ndarray, epochs: int | None = None, taken: int = 0, **state: Any) -> Fit:
        fit = Fit(judged, examples, train, held, config, accelerator, taken)
        if resume and ("notes" in resume.state) == ("notes" in state):  # it is of this fit
            fit.restore(resume)
        fit.run(epochs, save and partial(save, **state))
        return fit

    fit = None
    if resume and "notes" in resume.state:  # it is learning anew from all examples
        notes = resume.state["notes"]
    elif not len(held):
        return adapted(finetuning={"kept": KEPT[0], **notes})
    else:
        fit = fitted(train, held)
        best = max(fit.history[1:], key=lambda point: better(point, config.metric_for_best_model))
        notes = {**notes, "adapted": fit.history[0], "fine-tuned": best}
        if fit.best is None:
            return adapted(finetuning={"kept": KEPT[0], **notes})
    if config.refit and judged is whole:
        again = {"epochs": notes["fine-tuned"]["epoch"], "taken": fit.taken if fit else 0, "notes": notes}
        fit = None  # two encoders that learn, with gradients and Adam's moments, may not fit into memory at once
        accelerator.free_memory()  # it holds what it has prepared
        fit = fitted(np.arange(n), held[:0], **again)
    clf = fit.made(finetuning={"kept": KEPT[1], **notes})
    return clf if judged is whole else clf.with_support(take_rows(clf.support, np.arange(n)))


def _settings(
    model: MetaModel | AdaptedModel,
    whole: AdaptedModel,
    examples: Labelled,
    description: str | None,
    config: FinetuneConfig,
    accelerator,
) -> dict:
    """What decides what is learned: two calls with equal settings end alike. No text stands in it.

    Args:
        model: as it was given.
        whole: has adapted to the examples.
        examples: these, and behind them the rows that judge, where a caller gave some.
        description: of the task, where the model is a head.
    """
    loop, n = to_dict(config), whole.support.x.shape[1]
    loop["train_batch_size"] = loop.pop("per_device_train_batch_size") * accelerator.num_processes  # of any launch
    weights = whole.head.state_dict() | whole.encoder.learned | whole.residual
    weights |= {"description": model.support.task_x} if isinstance(model, AdaptedModel) else {}
    rows, y, of = examples.rows, examples.y, _text_digest
    return {
        **{name: whole.described[name] for name in ("head", "encoder")},
        "weights": digest(weights),
        "finetune": loop,
        "mixed_precision": accelerator.mixed_precision,
        "task": {"labels": of([whole.labels, whole.label_names]), "description": of(description)},
        "examples": {"rows": n, "texts": of(rows[:n]), "labels": of(y[:n].tolist())},
        "eval_task": {"rows": len(rows) - n, "texts": of(rows[n:]), "labels": of(y[n:].tolist())},
    }


def _text_digest(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


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
        columns = inputs.input_columns if isinstance(inputs, Task) else model.columns
        if isinstance(inputs, Task):
            inputs, targets = inputs.inputs(), inputs.answers()
        rows = model.check_rows(inputs)
        empty = model.with_support(take_rows(model.support, np.zeros(0)), columns=columns)
        whole = extended(empty, rows, targets, "finetune")
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
