"""finetune: gradient steps on one task, from what adapting to it gives, kept only where held-out examples say that they pay.

A head's parameters for the task are solved for, not learned; what learns is a residual beside them (`residual.corrected`), and where asked
the encoder, from losses of examples under a head that has not seen them (`crossfit`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .adapted import AdaptedModel
from .changes import extended, take_rows, with_rows
from .config import EncoderConfig, FinetuneConfig
from .crossfit import FOLDS, TaskLoss, assign_folds, cross_fit, hold_out, same_rows
from .encoder import Encoder
from .features import read_inputs
from .launch import TrainingError, compiled, make_accelerator, scale_can_fall
from .metrics import accuracy, macro_f1, row_nll
from .model import MetaModel
from .objective import named_factors
from .progress import Epochs
from .representation import Support
from .residual import start_residual
from .rows import DataError, check_inputs
from .settings import ConfigError, check_is, to_dict
from .tasks import Task

logger = logging.getLogger(__name__)

LEARNING_RATE = {"params": 1e-3, "lora": 1e-2, "full": 1e-2}
ENCODER_LR = {"params": 0.0, "lora": 5e-4, "full": 1e-4}
KEPT = ("adapted", "fine-tuned")


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
    if not examples.weights[examples.y[held]].sum() > 0:
        raise ConfigError(f"class_weights: every held-out example has the weight 0, got {' '.join(config.class_weights)}")
    make, history = _train(judged, examples, train, held, config, accelerator)
    figure = config.metric_for_best_model
    best = max(history[1:], key=lambda point: _better(point, figure))
    notes |= {"adapted": history[0], "fine-tuned": best}
    if make is None:
        return whole.with_support(whole.support, finetuning={"kept": KEPT[0], **notes})
    if config.refit and eval_task is None:
        make, _ = _train(judged, examples, np.arange(n), held[:0], config, accelerator, best["epoch"])
    clf = make(finetuning={"kept": KEPT[1], **notes})
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


@dataclass(frozen=True)
class Labelled:
    """The examples.

    Attributes:
        rows: n texts or pairs.
        same: (n,) numbers that are equal where they are.
        y: (n,) their classes.
        weights: (w,) how much an example of each class counts.
    """

    rows: list
    same: np.ndarray
    y: np.ndarray
    weights: np.ndarray


def _train(
    whole: AdaptedModel,
    examples: Labelled,
    train: np.ndarray,
    held: np.ndarray,
    config: FinetuneConfig,
    accelerator,
    epochs: int | None = None,
) -> tuple[Callable[..., AdaptedModel] | None, list[dict[str, float]]]:
    """How to make the best model, None where nothing beats the start, and the figures on the held-out rows: before, and after every epoch.
    Where none are held out, how to make the model after ``epochs`` epochs, and no figures."""
    from accelerate.utils import broadcast_object_list

    rows, y, weights, device = examples.rows, examples.y, examples.weights, accelerator.device
    encoder = None
    if config.what != "params":
        asked = EncoderConfig(tuning=config.what, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha)
        encoder = whole.model.encoder.learning(asked, whole.encoder.learned)
    dtype = next(whole.head.parameters()).dtype
    residual = whole.residual or start_residual(len(whole.labels), whole.support.x.shape[2])
    module = TaskLoss(whole.head, {name: t.to(device, dtype) for name, t in residual.items()}, encoder)
    fold = np.full(len(y), FOLDS)
    fold[train] = assign_folds(y[train], config.seed, examples.same[train])
    reading = cross_fit(whole.head, whole.support, train, fold)
    per_step = config.per_device_train_batch_size * accelerator.num_processes
    steps = math.ceil(len(train) / per_step)
    optimizer = torch.optim.AdamW(_groups(module, config))
    with compiled(accelerator, encoder):
        wrapped, optimizer = accelerator.prepare(module, optimizer)
    wrapped.eval()  # no dropout: a frozen encoder was loaded with that of its pretraining
    trainable = [p for p in module.parameters() if p.requires_grad]
    targets = torch.from_numpy(y).to(device)
    weight = torch.from_numpy(weights).to(device, dtype)[targets]

    def judge() -> dict[str, float]:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            x = reading.support.x[0, torch.from_numpy(held).to(device)].to(dtype)
            found = module.logits(reading.values[held], x).softmax(-1).cpu().double().numpy()
        loss = float(np.average(row_nll(found, y[held]), weights=weights[y[held]]))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of the held-out examples is not a number; lower learning_rate ({_rates(config)[0]}) or encoder_lr"
            )
        figures = {"loss": loss, "accuracy": accuracy(found, y[held]), "macro_f1": macro_f1(found, y[held])}
        return broadcast_object_list([figures])[0]  # a last bit must not let processes part

    history, best, stale = [{"epoch": 0, **judge()}] if len(held) else [], None, 0
    figure = config.metric_for_best_model
    epochs, desc = epochs or config.num_train_epochs, "fine-tuning" if len(held) else "fine-tuning on all examples"
    progress = Epochs(accelerator, epochs, steps, desc)
    for epoch in range(epochs):
        order = np.random.default_rng([config.seed, epoch]).permutation(train)
        for step in range(steps):
            everyone = order[step * per_step : (step + 1) * per_step]
            own = everyone[accelerator.process_index :: accelerator.num_processes]
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * _schedule(
                    epoch * steps + step, config.num_train_epochs * steps, config.warmup_ratio
                )
            at = torch.from_numpy(own).to(device)
            seen = reading.support.x[0, at].to(dtype) if encoder is None else [rows[i] for i in own]
            values = reading.values[at] if encoder is None else None
            # a training that was cut off in this process may have left steps unsynchronised
            with accelerator.accumulate(wrapped):
                loss = wrapped(seen, values, fold[own], reading.params, targets[at], weight[at])
                total = max(float(weights[y[everyone]].sum()), 1e-12)
                accelerator.backward(loss / total * accelerator.num_processes)  # DDP takes the mean over processes
                norm = accelerator.clip_grad_norm_(trainable, config.max_grad_norm or math.inf)
                if not math.isfinite(float(norm)) and not scale_can_fall(accelerator):
                    raise TrainingError(
                        f"epoch {epoch + 1}: a gradient is not a number; lower learning_rate ({_rates(config)[0]}) or encoder_lr"
                    )
                optimizer.step()
                optimizer.zero_grad()
            progress.bar.update()
        if encoder is not None:
            reading = cross_fit(whole.head, _support(whole, encoder, rows, accelerator), train, fold)
        if not len(held):
            progress.show(epoch + 1, {})
            continue
        point = {"epoch": epoch + 1, **judge()}
        least = max(_better(point, figure) for point in history)
        history.append(point)
        progress.show(epoch + 1, point)
        if _better(point, figure) > least:
            best, stale = (_state(module), reading.support), 0
        else:
            stale += 1
        if config.early_stopping_patience is not None and stale >= config.early_stopping_patience:
            break
    progress.bar.close()
    if not len(held):
        best = _state(module), reading.support
    return None if best is None else lambda **more: _made(whole, encoder, *best, **more), history


def _better(point: Mapping[str, float], figure: str) -> float:
    """The figure of a point, larger where it is better."""
    return -point[figure] if figure == "loss" else point[figure]


def _schedule(step: int, steps: int, warmup_ratio: float) -> float:
    """Factor of the learning rates: a linear rise, then a linear fall to 0 after the last step."""
    rise = round(warmup_ratio * steps)
    return (step + 1) / (rise + 1) if step < rise else (steps - step) / max(1, steps - rise)


def _rates(config: FinetuneConfig) -> tuple[float, float]:
    """Peak learning rates of the task parameters and of the encoder."""
    lr = LEARNING_RATE[config.what] if config.learning_rate is None else config.learning_rate
    return lr, ENCODER_LR[config.what] if config.encoder_lr is None else config.encoder_lr


def _groups(module: TaskLoss, config: FinetuneConfig) -> list[dict[str, Any]]:
    """What learns, by learning rate and weight decay; the decay draws towards the start, so whole weights of an encoder have none."""
    lr, encoder_lr = _rates(config)
    of_encoder = [] if module.encoder is None else [p for p in module.encoder.parameters() if p.requires_grad]
    parts = [
        ([module.residual["residual_weights"]], lr, config.weight_decay),
        ([module.residual["residual_bias"], module.residual["residual_scale"]], lr, 0.0),
        (of_encoder, encoder_lr, config.weight_decay if config.what == "lora" else 0.0),
    ]
    return [{"params": p, "lr": lr, "peak_lr": lr, "weight_decay": decay} for p, lr, decay in parts if p]


def _support(whole: AdaptedModel, encoder: Encoder, rows: list, accelerator) -> Support:
    """The task with examples and label names as this encoder reads them; the description, whose text is not kept, as it was."""
    old = take_rows(whole.support, np.zeros(0))
    named = [c for c, text in enumerate(whole.label_names) if text]
    label_x = old.label_x.clone()
    if named:
        label_x[0, named] = encoder.encode([whole.label_names[c] for c in named]).to(label_x)
    return with_rows(replace(old, label_x=label_x), _read(encoder, rows, accelerator), whole.support.y[0])


def _read(encoder: Encoder, rows: list, accelerator) -> Tensor:
    """(n, d) features of rows; each process reads its share, and all have the same."""
    n, processes = len(rows), accelerator.num_processes
    own = read_inputs(partial(encoder.encode, progress=True), rows[accelerator.process_index :: processes])
    if processes == 1:
        return own
    share = math.ceil(n / processes)
    own = pad(own.to(accelerator.device), (0, 0, 0, share - len(own)))
    everyone = accelerator.gather(own).view(processes, share, -1)
    return everyone.transpose(0, 1).reshape(processes * share, -1)[:n]


def _state(module: TaskLoss) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What has learned, as it is now: the residual, the encoder's weights."""
    learned = {} if module.encoder is None else module.encoder.tuned_tensors()
    return tuple({name: t.detach().clone() for name, t in part.items()} for part in (dict(module.residual), learned))


def _made(whole: AdaptedModel, encoder: Encoder | None, state: tuple, support: Support, finetuning: dict) -> AdaptedModel:
    """The model of all examples with what was learned."""
    residual, learned = state
    if encoder is None:
        return whole.with_support(support, residual=residual, finetuning=finetuning)
    encoder.load_tuned(learned)
    with torch.random.fork_rng():  # a head is made at random before it gets its weights
        model = MetaModel(encoder.eval(), whole.model.head_config, [whole.kind], whole.described["training"])
    model.to(support.x.device)
    model.heads[whole.kind].load_state_dict(whole.head.state_dict())
    model.risk = whole.risk_curve
    return AdaptedModel(
        model, support, whole.labels, whole.label_names, whole.kind, whole.pairs, residual=residual, finetuning=finetuning
    )
