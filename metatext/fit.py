"""Gradient steps on one task: what learns, how an epoch goes, and how the held-out examples judge it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .adapted import AdaptedModel
from .changes import take_rows, with_rows
from .checkpoints import Checkpoint, Checkpoints, moments_of, restore, scaler_state
from .config import EncoderConfig, FinetuneConfig
from .crossfit import FOLDS, Reading, TaskLoss, assign_folds, cross_fit
from .encoder import Encoder
from .features import read_inputs
from .launch import TrainingError, compiled, scale_can_fall
from .metrics import accuracy, macro_f1, row_nll
from .model import MetaModel
from .progress import Epochs
from .representation import Support
from .residual import start_residual
from .saved import ENCODER
from .saved_task import PARAMS

logger = logging.getLogger(__name__)

LEARNING_RATE = {"params": 1e-3, "lora": 1e-2, "full": 1e-2}
ENCODER_LR = {"params": 0.0, "lora": 5e-4, "full": 1e-4}
NOW, BEST = "now.", "best."  # prefixes in the checkpoints of a fit


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


class Fit:
    """Gradient steps on one task.

    Args:
        whole: has adapted to all rows.
        examples: these rows.
        train: numbers of those to learn from.
        held: numbers of those that judge; may be none.
        config: what learns, and how.
        accelerator: of the launch.
        taken: steps of a fit before this one.

    Attributes:
        epoch, taken: epochs done; steps taken, those before this fit among them.
        stale: epochs since the best one.
        history: figures on the held-out rows, before the first epoch and after each.
        best: what was learned where the held-out rows were answered best, and the support as read then, None where it is to be read again;
            None where nothing beats the start. Where none judge, what the last epoch left.
    """

    def __init__(
        self,
        whole: AdaptedModel,
        examples: Labelled,
        train: np.ndarray,
        held: np.ndarray,
        config: FinetuneConfig,
        accelerator,
        taken: int = 0,
    ):
        self.whole, self.examples, self.train, self.held = whole, examples, train, held
        self.config, self.accelerator = config, accelerator
        self.encoder: Encoder | None = None
        if config.what != "params":
            asked = EncoderConfig(tuning=config.what, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha)
            self.encoder = whole.model.encoder.learning(asked, whole.encoder.learned)
        device, self.dtype = accelerator.device, next(whole.head.parameters()).dtype
        residual = whole.residual or start_residual(len(whole.labels), whole.support.x.shape[2])
        self.module = TaskLoss(whole.head, {name: t.to(device, self.dtype) for name, t in residual.items()}, self.encoder)
        self.fold = np.full(len(examples.y), FOLDS)
        self.fold[train] = assign_folds(examples.y[train], config.seed, examples.same[train])
        self.reading = self._cross_fit(whole.support)
        self.per_step = config.per_device_train_batch_size * accelerator.num_processes
        self.steps = math.ceil(len(train) / self.per_step)
        optimizer = torch.optim.AdamW(_groups(self.module, config))
        with compiled(accelerator, self.encoder):
            self.wrapped, self.optimizer = accelerator.prepare(self.module, optimizer)
        self.wrapped.eval()  # no dropout: a frozen encoder was loaded with that of its pretraining
        self.targets = torch.from_numpy(examples.y).to(device)
        self.weight = torch.from_numpy(examples.weights).to(device, self.dtype)[self.targets]
        self.epoch, self.stale, self.taken = 0, 0, taken
        self.history: list[dict[str, float]] = []
        self.best: tuple[dict[str, Tensor], Support | None] | None = None

    def run(self, epochs: int | None = None, save: Callable[[Fit], None] | None = None) -> None:
        """Learn until the held-out rows see no better model, or for so many epochs (None: as the config says).

        Args:
            epochs: those of a checkpoint that was restored among them.
            save: called after every epoch.
        """
        judged, epochs = len(self.held) > 0, epochs or self.config.num_train_epochs
        if judged and not self.history:
            self.history.append({"epoch": 0, **self._judge()})
        progress = Epochs(self.accelerator, epochs, self.steps, self.what, self.epoch)
        with progress.bar:
            while self.epoch < epochs and not self._stops_early:
                self._epoch(self.epoch, progress)
                self.epoch, self.taken = self.epoch + 1, self.taken + self.steps
                self._read()
                progress.show(self.epoch, self._compare() if judged else {})
                if save is not None:
                    save(self)
        if not judged:
            self._keep()

    @property
    def what(self) -> str:
        """What is done, in words."""
        return "fine-tuning" if len(self.held) else "fine-tuning on all examples"

    @property
    def _stops_early(self) -> bool:
        return self.config.early_stopping_patience is not None and self.stale >= self.config.early_stopping_patience

    def _compare(self) -> dict[str, float]:
        """Judge an epoch, and keep what was learned where it is the best so far; the figures."""
        point, figure = {"epoch": self.epoch, **self._judge()}, self.config.metric_for_best_model
        least = max(better(point, figure) for point in self.history)
        self.history.append(point)
        self.stale = 0 if better(point, figure) > least else self.stale + 1
        if not self.stale:
            self._keep()
        return point

    def save(self, checkpoints: Checkpoints, **state: Any) -> None:
        """Write a checkpoint between two epochs; ``state``: what it says besides."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"{NOW}{name}": t for name, t in self._learned().items()}
        tensors |= {} if self.best is None else {f"{BEST}{name}": t for name, t in self.best[0].items()}
        own = {"step": self.taken, "epoch": self.epoch, "stale": self.stale, "history": self.history}
        own["scaler"] = scaler_state(self.accelerator)
        checkpoints.save(self.taken, tensors, moments_of(self.optimizer.optimizer), {**own, **state})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put what `save` wrote in place; all processes together. No features are in it: they are read again."""
        self.taken, self.epoch, self.stale, self.history = (checkpoint.state[k] for k in ("step", "epoch", "stale", "history"))
        now, best = (_part(checkpoint.tensors, prefix) for prefix in (NOW, BEST))
        with torch.no_grad():
            for name, tensor in _part(now, PARAMS).items():
                self.module.residual[name].copy_(tensor)
        if self.encoder is not None:
            self.encoder.load_tuned(_part(now, ENCODER))
        restore(checkpoint, self.optimizer, self.accelerator)
        self.best = ({name: t.to(self.accelerator.device) for name, t in best.items()}, None) if best else None
        if self.accelerator.is_main_process:
            logger.info("going on from %s: %s, after epoch %d", checkpoint.folder, self.what, self.epoch)
        self._read()

    def made(self, **values: Any) -> AdaptedModel:
        """The model of all rows with what was best; ``values``: its attributes."""
        (learned, support), whole = self.best, self.whole
        residual = _part(learned, PARAMS)
        if self.encoder is None:
            return whole.with_support(support or self.reading.support, residual=residual, **values)
        self.encoder.load_tuned(_part(learned, ENCODER))
        if support is None:
            support = self._read().support
        with torch.random.fork_rng():  # a head is made at random before it gets its weights
            model = MetaModel(self.encoder.eval(), whole.model.head_config, [whole.kind], whole.described["training"])
        model.to(support.x.device)
        model.heads[whole.kind].load_state_dict(whole.head.state_dict())
        model.risk = whole.risk_curve
        values |= {"residual": residual, "columns": whole.columns}
        return AdaptedModel(model, support, whole.labels, whole.label_names, whole.kind, whole.pairs, **values)

    def _epoch(self, epoch: int, progress: Epochs) -> None:
        """One pass over the rows to learn from, in an order that follows from the seed."""
        config, accelerator, examples = self.config, self.accelerator, self.examples
        trainable = [p for p in self.module.parameters() if p.requires_grad]
        order = np.random.default_rng([config.seed, epoch]).permutation(self.train)
        for step in range(self.steps):
            everyone = order[step * self.per_step : (step + 1) * self.per_step]
            own = everyone[accelerator.process_index :: accelerator.num_processes]
            factor = _schedule(epoch * self.steps + step, config.num_train_epochs * self.steps, config.warmup_ratio)
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            at = torch.from_numpy(own).to(accelerator.device)
            if self.encoder is None:
                seen, values = self.reading.support.x[0, at].to(self.dtype), self.reading.values[at]
            else:
                seen, values = [examples.rows[i] for i in own], None
            # a training that was cut off in this process may have left steps unsynchronised
            with accelerator.accumulate(self.wrapped):
                loss = self.wrapped(seen, values, self.fold[own], self.reading.params, self.targets[at], self.weight[at])
                total = max(float(examples.weights[examples.y[everyone]].sum()), 1e-12)
                accelerator.backward(loss / total * accelerator.num_processes)  # DDP takes the mean over processes
                norm = accelerator.clip_grad_norm_(trainable, config.max_grad_norm or math.inf)
                if not math.isfinite(float(norm)) and not scale_can_fall(accelerator):
                    raise TrainingError(
                        f"epoch {epoch + 1}: a gradient is not a number; lower learning_rate ({_rates(config)[0]}) or encoder_lr"
                    )
                self.optimizer.step()
                self.optimizer.zero_grad()
            progress.bar.update()

    def _cross_fit(self, support: Support) -> Reading:
        return cross_fit(self.whole.head, support, self.train, self.fold)

    def _read(self) -> Reading:
        """Read all rows anew where an encoder learns, which has changed."""
        if self.encoder is not None:
            self.reading = self._cross_fit(_support(self.whole, self.encoder, self.examples.rows, self.accelerator))
        return self.reading

    def _judge(self) -> dict[str, float]:
        """Figures on the held-out rows; the same on every process."""
        from accelerate.utils import broadcast_object_list

        held, device, examples = self.held, self.accelerator.device, self.examples
        y = examples.y[held]
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            x = self.reading.support.x[0, torch.from_numpy(held).to(device)].to(self.dtype)
            found = self.module.logits(self.reading.values[held], x).softmax(-1).cpu().double().numpy()
        loss = float(np.average(row_nll(found, y), weights=examples.weights[y]))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of the held-out examples is not a number; lower learning_rate ({_rates(self.config)[0]}) or encoder_lr"
            )
        figures = {"loss": loss, "accuracy": accuracy(found, y), "macro_f1": macro_f1(found, y)}
        return broadcast_object_list([figures])[0]  # a last bit must not let processes part

    def _keep(self) -> None:
        """Note what has learned, as it is now."""
        self.best = {name: t.clone() for name, t in self._learned().items()}, self.reading.support

    def _learned(self) -> dict[str, Tensor]:
        """What learns, by name: the residual, the encoder's weights."""
        of_encoder = {} if self.encoder is None else self.encoder.tuned_tensors()
        learned = {f"{PARAMS}{name}": p.detach() for name, p in self.module.residual.items()}
        return learned | {f"{ENCODER}{name}": t for name, t in of_encoder.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names have a prefix, by the names without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def better(point: Mapping[str, float], figure: str) -> float:
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
