"""meta_train: the one loop, on Accelerate.

The meta-loss of an outer step is the sum over its episodes of their mean query losses. All episodes of step t follow
from (seed, t); every process and accumulation step takes its slice of them. DDP averages gradients over processes and
`Accelerator.backward` divides by the accumulation steps, so each part's loss is multiplied by both: the step is the
same on any launch. An encoder that learns reads every distinct text of a part once, inside what DDP and autocast wrap.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import tuning
from .checkpoints import Checkpoints, check_same_run
from .config import ConfigError, EpisodeConfig, MetatextError, TrainConfig, nearest, to_dict
from .encoder import Encoder
from .episodes import train_episodes
from .evaluation import draw_for, episode_scores, risk_answers
from .features import EpisodeFeatures, EpisodeTexts, TaskFeatures, encode_tasks
from .kinds import KINDS
from .losses import cosine_drift, meta_loss
from .model import MetaModel
from .plots import plot_learning_curve
from .risk import RiskCurve, fit_risk
from .storage import read_folder, write_json
from .store import FeatureStore, TokenStore, local_share
from .tasks import Task, check_tasks

logger = logging.getLogger(__name__)

EVAL_EPISODES = EpisodeConfig(n_way=10, k_shot=(0, 16), max_support=160, n_query=5, fewer_ways=True)


class TrainingError(MetatextError, RuntimeError):
    """Training cannot go on: a loss that is not a number, or processes that would not synchronise."""


@dataclass(frozen=True)
class TrainResult:
    """What `meta_train` leaves behind.

    Attributes:
        output_dir: holds the best model (config.json, model.safetensors), metrics.json, learning_curve.png, checkpoints/.
        steps: outer steps done, fewer than ``meta_steps`` when training stopped early.
        best: step, ``eval_loss`` and ``eval_accuracy`` of the evaluation whose head was kept; {} without unseen tasks.
        history: points of the training curve, oldest first.
    """

    output_dir: Path
    steps: int
    best: dict[str, float]
    history: list[dict[str, float]]


def meta_train(
    model: MetaModel,
    tasks: Sequence[Task],
    *,
    eval_tasks: Sequence[Task] = (),
    episodes: EpisodeConfig = EpisodeConfig(),
    config: TrainConfig = TrainConfig(),
    store: FeatureStore | None = None,
) -> TrainResult:
    """Train the head of ``model``, and its encoder as far as `EncoderConfig.tuning` says, on episodes of many tasks; afterwards
    the model holds the best weights.

    A run that was stopped, even by kill -9, goes on from its last checkpoint when called again with the same settings,
    and ends with the same weights, bit for bit on the same machine.

    Args:
        model: an encoder with a head; changed in place.
        tasks: what episodes are drawn from.
        eval_tasks: unseen tasks; the weights with the lowest loss on them are kept, ``early_stopping_patience`` counts
            their evaluations, and ``model.risk`` is learned on them. None given: the last weights are kept, without a risk.
        episodes: the shape of the training episodes.
        config: the loop.
        store: where the features of a frozen encoder are kept; None: the default folder, its work shared among the processes of a
            launch. An encoder that learns keeps none.

    Raises:
        ConfigError: ``output_dir`` holds a run with other settings; an unknown tracker, or task in ``task_weights``.
        DataError: no task, or one that stands among ``tasks`` and ``eval_tasks``.
        EpisodeError: a task has too few classes or rows for such episodes.
        TrainingError: the loss is no longer a number (the last good checkpoint stays), or the launch would train
            processes that never synchronise.
    """
    from tqdm.auto import tqdm

    check_tasks(tasks, eval_tasks)
    accelerator = _accelerator(config)
    if accelerator.is_main_process and not episodes.n_outside:
        logger.warning("n_outside is 0: no episode has queries of other classes, so `confidence` stays untrained")
    if accelerator.is_main_process and not len(eval_tasks):
        logger.warning("no eval_tasks: the last head is kept, and `max_risk` goes by probabilities that nothing has checked")
    shares = accelerator.num_processes * accelerator.gradient_accumulation_steps
    if config.meta_batch_size < shares:
        raise TrainingError(
            f"meta_batch_size {config.meta_batch_size} is smaller than processes x accumulation steps "
            f"({accelerator.num_processes} x {accelerator.gradient_accumulation_steps}): every share needs an episode"
        )
    output_dir = Path(config.output_dir)
    checkpoints = Checkpoints(output_dir / "checkpoints", config.save_total_limit)
    settings = _settings(model, tasks, eval_tasks, episodes, config)
    if config.overwrite_output_dir:
        if accelerator.is_main_process:
            checkpoints.clear()
        accelerator.wait_for_everyone()
    resume = checkpoints.latest()
    if resume:
        check_same_run(resume.state["settings"], settings, output_dir)

    model.risk = None  # of other weights
    model.to(accelerator.device)  # before encoding, which is the heaviest work of a run
    if model.encoder.is_tuned:
        store = TokenStore(model.encoder, config.max_text_tokens)
    elif store is None:
        store = FeatureStore(model.encoder, progress=accelerator.is_local_main_process, share=local_share())
    features = encode_tasks(store, tasks, vary_names=episodes.needs_varied_names)
    unseen = [encode_tasks(store, [task]) for task in eval_tasks]
    weights = task_weights(tasks, config)

    base = model.encoder.pretrained() if config.distillation or config.encoder_share < 1 else None
    objective = MetaLoss(model, base if config.distillation else None, _distilled(tasks, config))
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameter_groups(model, config))
    schedule = _schedule(optimizer, config)
    history: list[dict[str, float]] = []
    best: dict[str, float] = {}
    start, stale = 0, 0
    if resume:
        model.load_tensors(resume.tensors)
        resume.restore(optimizer)
        start, best, history, stale = (resume.state[k] for k in ("step", "best", "history", "stale"))
        if accelerator.is_main_process:
            logger.info("going on from %s", resume.folder)
    with _compiled(accelerator, model.encoder):
        wrapped, optimizer = accelerator.prepare(objective, optimizer)
    if resume and accelerator.scaler is not None and resume.state["scaler"]:
        accelerator.scaler.load_state_dict(resume.state["scaler"])
    device = accelerator.device
    if _trackers(config):
        accelerator.init_trackers("metatext", config={k: str(v) for k, v in to_dict(config).items()})

    def evaluate(step: int) -> None:
        nonlocal best, stale
        with averaged(model.encoder, base, config.encoder_share):
            point = {"step": step, **_evaluate(model, unseen, config, accelerator, step)}
            history.append(point)
            accelerator.log({k: v for k, v in point.items() if k != "step"}, step=step)
            if accelerator.is_main_process:
                logger.info("step %d: unseen tasks %.1f %%, loss %.3f", step, 100 * point["eval_accuracy"], point["eval_loss"])
            if not best or point["eval_loss"] < best["eval_loss"]:
                best, stale = point, 0
                if accelerator.is_main_process:
                    _keep(model, output_dir, settings, best)
            else:
                stale += 1

    def save(step: int) -> None:
        if accelerator.is_main_process:
            scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
            state = {"step": step, "best": best, "history": history, "stale": stale, "settings": settings, "scaler": scaler}
            checkpoints.save(step, model.tensors(), optimizer.optimizer, state)

    if unseen and not history:
        evaluate(0)
    running, counted = torch.zeros((), device=device), 0
    texts, rate, waited = 0, 0.0, 0.0  # texts read, texts per second of training, and seconds that were not training
    hidden = (
        None if accelerator.is_main_process else True
    )  # None: where nobody looks, lines with the time left are logged instead
    bar = tqdm(total=config.meta_steps, initial=start, desc="meta-training", unit="step", disable=hidden)
    step, began = start, time.monotonic()
    while step < config.meta_steps and not _stop_early(stale, config):
        batch = train_episodes(features.pool, episodes, weights, config.meta_batch_size, seed=config.seed, step=step)
        torch.manual_seed(_noise_seed(config.seed, step, accelerator.process_index))
        objective.train()
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule(step)
        step_losses = []
        for part in _shares(config.meta_batch_size, accelerator):
            with accelerator.accumulate(wrapped):
                data = features.gather(batch[part].trimmed(), device)
                texts += len(data.ids) if isinstance(data, EpisodeTexts) else 0
                losses, drift = wrapped(data)
                # a parameter of the head that these episodes leave unused would stop DDP
                unused = 0.0 * sum(p.sum() for p in model.head.parameters() if p.requires_grad)
                accelerator.backward((meta_loss(losses) + config.distillation * drift.sum() + unused) * shares)
                step_losses.append((losses.detach(), batch.task[part]))
                if accelerator.sync_gradients:
                    limit = config.max_grad_norm * config.meta_batch_size or math.inf
                    norm = accelerator.clip_grad_norm_(trainable, limit)
                    _check_finite(norm, step_losses, tasks, step, checkpoints, accelerator)
                optimizer.step()
                optimizer.zero_grad()
            running += losses.detach().float().sum()
            counted += len(losses)
        step += 1
        bar.update()
        if step % config.logging_steps == 0 or step == config.meta_steps:
            sums = torch.stack([running, *running.new_tensor([counted, texts])])
            total, episodes_seen, texts_seen = accelerator.reduce(sums, "sum").tolist()
            mean, rate = total / episodes_seen, texts_seen / (time.monotonic() - began - waited)
            history.append({"step": step, "loss": mean, "lr": config.meta_lr * schedule(step - 1)})
            accelerator.log({"loss": mean, "lr": history[-1]["lr"]}, step=step)
            bar.set_postfix(loss=f"{mean:.3f}", **({"unseen": f"{best['eval_accuracy']:.3f}"} if best else {}))
            if bar.disable and accelerator.is_main_process:
                left = (time.monotonic() - began) / (step - start) * (config.meta_steps - step)
                speed = f"{rate:.0f} texts/s, " if texts else ""
                left = timedelta(seconds=round(left))
                logger.info("step %d of %d, loss %.3f, %s%s left", step, config.meta_steps, mean, speed, left)
            running, counted = torch.zeros((), device=device), 0
        paused = time.monotonic()
        if unseen and (step % config.eval_steps == 0 or step == config.meta_steps):
            evaluate(step)
        if step % config.save_steps == 0 or step == config.meta_steps or _stop_early(stale, config):
            save(step)
        waited += time.monotonic() - paused
    bar.close()
    if accelerator.is_main_process:
        if not unseen:
            with averaged(model.encoder, base, config.encoder_share):
                _keep(model, output_dir, settings, {"step": step})
        figures = {"settings": settings, "steps": step, "best": best, "history": history}
        if texts:
            figures |= {"processes": accelerator.num_processes, "texts_per_second": round(rate, 1)}
        write_json(output_dir / "metrics.json", figures)
        plot_learning_curve(history, output_dir / "learning_curve.png")
    accelerator.wait_for_everyone()
    _load_best(model, output_dir)
    model.eval()
    if unseen:
        model.risk = _learn_risk(model, unseen, config, accelerator)
        if accelerator.is_main_process:
            model.save_pretrained(output_dir)
    if accelerator.is_main_process:
        for tracker in accelerator.trackers:  # not end_training(): it would part processes that have more to do together
            tracker.finish()
    return TrainResult(output_dir, step, best, history)


class MetaLoss(nn.Module):
    """From episodes to their losses: all that DDP, autocast and a compiler have to see.

    Args:
        model: encoder and head.
        teacher: the pretrained encoder, or None.
        distilled: (t,) bool, the tasks whose episodes are compared with the teacher.
    """

    def __init__(self, model: MetaModel, teacher: Encoder | None, distilled: np.ndarray):
        super().__init__()
        self.model, self.teacher, self.distilled = model, teacher, distilled

    def forward(self, data: EpisodeFeatures | EpisodeTexts) -> tuple[Tensor, Tensor]:
        """Mean query loss of each of b episodes, and how far each has drifted from the teacher (`cosine_drift`), zero where it is
        not compared: (b,), (b,)."""
        episodes = self.model.read(data) if isinstance(data, EpisodeTexts) else data
        logits = self.model(episodes)
        losses = KINDS["classification"].loss(logits, episodes.query_y, episodes.query_mask, episodes.outside)
        drift = torch.zeros_like(losses)
        if self.teacher is not None and isinstance(data, EpisodeTexts) and (compared := self.distilled[data.batch.task]).any():
            with torch.no_grad():
                taught = data[compared].read(self.teacher)
            place = torch.from_numpy(np.flatnonzero(compared)).to(losses.device)
            with torch.autocast(losses.device.type, enabled=False):  # differences of cosines have no place in half precision
                drift = drift.index_put((place,), cosine_drift(_rows(episodes.select(place)), _rows(taught)))
        return losses, drift

    def train(self, mode: bool = True) -> MetaLoss:
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self


def parameter_groups(model: MetaModel, config: TrainConfig) -> list[dict[str, Any]]:
    """What learns, by learning rate and weight decay: vectors and scalars (norms, biases, temperatures) have none."""
    groups = []
    for module, lr in ((model.head, config.meta_lr), (model.encoder, config.encoder_lr)):
        learning = [p for p in module.parameters() if p.requires_grad]
        for decay, params in (
            (0.0, [p for p in learning if p.ndim < 2]),
            (config.weight_decay, [p for p in learning if p.ndim > 1]),
        ):
            if params:
                groups.append({"params": params, "weight_decay": decay, "lr": lr, "peak_lr": lr})
    return groups


def task_weights(tasks: Sequence[Task], config: TrainConfig) -> np.ndarray:
    """(t,) how often each task is drawn: ``rows ** task_size_exponent``, times its factor in ``task_weights``.

    Raises:
        ConfigError: an entry is not ``name=factor``, or names no task.
    """
    weights = np.array([len(task) for task in tasks], float) ** config.task_size_exponent
    names = [task.name for task in tasks]
    for entry in config.task_weights:
        name, _, factor = entry.rpartition("=")
        try:
            number = float(factor)
        except ValueError:
            number = -1.0
        if not name or not 0 <= number < math.inf:
            raise ConfigError(f"task_weights: expected name=factor with a factor of at least 0, got {entry!r}")
        if name not in names:
            raise ConfigError(
                f"task_weights: no task is called {name!r}{nearest(name, names, end='.')} Known: {', '.join(names)}"
            )
        weights[names.index(name)] *= number
    if not weights.sum() > 0:
        raise ConfigError("task_weights: every task has the factor 0")
    return weights


def _distilled(tasks: Sequence[Task], config: TrainConfig) -> np.ndarray:
    """(t,) bool: the tasks in ``distillation_tasks``, all where it is empty."""
    names = [task.name for task in tasks]
    for name in config.distillation_tasks:
        if name not in names:
            raise ConfigError(
                f"distillation_tasks: no task is called {name!r}{nearest(name, names, end='.')} Known: {', '.join(names)}"
            )
    return np.array([not config.distillation_tasks or name in config.distillation_tasks for name in names])


@contextlib.contextmanager
def averaged(encoder: Encoder, base: Encoder | None, share: float) -> Iterator[None]:
    """For the time of a block the encoder has ``share`` of what it learned, see `tuning.scaled`; then its weights, bit for bit."""
    if share == 1 or not encoder.is_tuned:
        yield
        return
    trained = {name: tensor.clone() for name, tensor in encoder.tuned_tensors().items()}
    encoder.load_tuned(tuning.scaled(trained, base.backbone.state_dict(), share))
    try:
        yield
    finally:
        encoder.load_tuned(trained)


def _rows(episodes: EpisodeFeatures) -> tuple[Tensor, Tensor]:
    """All texts of b episodes, (b, s + q + w, d), and which of them are there."""
    support = episodes.support
    x = torch.cat([support.x, episodes.query, support.label_x], 1)
    return x, torch.cat([support.row_mask, episodes.query_mask, support.label_mask], 1)


def _accelerator(config: TrainConfig):
    from accelerate import Accelerator

    options: dict[str, Any] = {"gradient_accumulation_steps": config.gradient_accumulation_steps}
    if _trackers(config):
        options |= {"log_with": _trackers(config), "project_dir": config.output_dir}
    # a CPU launch that does not say so runs processes that never synchronise
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), **options)
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and accelerator.num_processes == 1:
        raise TrainingError(
            f"WORLD_SIZE is {world} but Accelerate runs one process: {world} processes would train without synchronising. "
            f"On CPUs set ACCELERATE_USE_CPU=true and launch with --multi_gpu, or use recipes/launch/two_cpu_processes.yaml."
        )
    return accelerator


@contextlib.contextmanager
def _compiled(accelerator, encoder: Encoder) -> Iterator[None]:
    """The launch's dynamo backend compiles the backbone alone, for any shape: around it every step has other shapes and numpy."""
    from accelerate.utils import DynamoBackend

    plugin = accelerator.state.dynamo_plugin
    backend = plugin.backend
    if backend != DynamoBackend.NO and encoder.is_tuned:
        encoder.backbone.compile(**{**plugin.to_kwargs(), "dynamic": True})
    plugin.backend = DynamoBackend.NO  # prepare() would compile all it is given
    try:
        yield
    finally:
        plugin.backend = backend


def _trackers(config: TrainConfig) -> list[str]:
    """The names in ``report_to``; "none" means none, as in transformers."""
    from accelerate.tracking import LoggerType

    known = [item.value for item in LoggerType]
    names = [name for name in config.report_to if name != "none"]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"report_to: unknown tracker {name!r}{nearest(name, known, end='.')} Known: none, {', '.join(known)}"
            )
    return names


def _settings(model: MetaModel, tasks, eval_tasks, episodes: EpisodeConfig, config: TrainConfig) -> dict[str, Any]:
    """What decides the weights of a run: two runs with equal settings end alike."""
    loop = to_dict(config)
    for name in ("output_dir", "overwrite_output_dir", "logging_steps", "save_steps", "save_total_limit", "report_to"):
        loop.pop(name)
    loop.pop("gradient_accumulation_steps")  # the trajectory does not depend on it
    described = model.describe()
    return {
        "head": described["head"],
        "encoder": described["encoder"],
        "warm_start": model.notes.get("warm_start"),
        "episodes": to_dict(episodes),
        "train": loop,
        "tasks": {task.name: len(task) for task in tasks},
        "eval_tasks": {task.name: len(task) for task in eval_tasks},
    }


def _schedule(optimizer: torch.optim.Optimizer, config: TrainConfig):
    """step -> factor of the learning rate: a value of the step, so there is no scheduler state to save or to keep in step."""
    from transformers import get_scheduler

    warmup = round(config.warmup_ratio * config.meta_steps)
    return get_scheduler(config.lr_scheduler_type, optimizer, warmup, config.meta_steps).lr_lambdas[0]


def _shares(n: int, accelerator) -> list[np.ndarray]:
    """The episodes, of n in the order of their size, that this process works through: one array per accumulation step.

    Processes take turns, forwards and backwards, so that none has the large ones; within a process like sizes go together.
    """
    processes = accelerator.num_processes
    turn = np.arange(n) % (2 * processes)
    own = np.flatnonzero(np.minimum(turn, 2 * processes - 1 - turn) == accelerator.process_index)
    return np.array_split(own, accelerator.gradient_accumulation_steps)


def _noise_seed(seed: int, step: int, process: int) -> int:
    """Dropout of a step follows from (seed, step, process): nothing random needs saving."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])


def _stop_early(stale: int, config: TrainConfig) -> bool:
    return config.early_stopping_patience is not None and stale >= config.early_stopping_patience


def _check_finite(norm, step_losses: list, tasks: Sequence[Task], step: int, checkpoints: Checkpoints, accelerator) -> None:
    """Stop before an optimizer step that would destroy the weights; every process sees the same gradient norm."""
    if accelerator.scaler is not None or math.isfinite(float(norm)):  # the fp16 scaler skips such steps by itself
        return
    losses = torch.cat([losses for losses, _ in step_losses]).cpu().numpy()
    drawn = np.concatenate([task for _, task in step_losses])
    bad = sorted({tasks[i].name for i in drawn[~np.isfinite(losses)]})
    where = f"the loss of an episode of {', '.join(bad)} is not a number" if bad else "a gradient is not a number"
    kept = checkpoints.latest()
    last = f"the last good checkpoint is {kept.folder}" if kept else "no checkpoint had been written"
    raise TrainingError(
        f"step {step}: {where} (gradient norm {float(norm)}); {last}. Lower meta_lr, or look at that task's rows."
    )


def _evaluate(model: MetaModel, unseen: Sequence[TaskFeatures], config: TrainConfig, accelerator, step: int) -> dict[str, float]:
    """Mean figure and loss over the unseen tasks, which the processes share; the same numbers on every process."""
    from accelerate.utils import gather_object

    model.eval()
    mine = []
    for number in range(accelerator.process_index, len(unseen), accelerator.num_processes):
        features = unseen[number]
        batch = draw_for(features, EVAL_EPISODES, config.eval_episodes, config.seed)
        figures, losses = episode_scores(model, features, batch)
        mine.append((number, float(figures.mean()), float(losses.mean())))
    everyone = sorted(gather_object(mine))
    bad = [unseen[number].tasks[0].name for number, _, loss in everyone if not math.isfinite(loss)]
    if bad:
        raise TrainingError(
            f"step {step}: the loss on the unseen task {', '.join(bad)} is not a number; lower meta_lr, or look at its rows"
        )
    return {
        "eval_accuracy": float(np.mean([a for _, a, _ in everyone])),
        "eval_loss": float(np.mean([x for _, _, x in everyone])),
    }


def _learn_risk(model: MetaModel, unseen: Sequence[TaskFeatures], config: TrainConfig, accelerator) -> RiskCurve:
    """The risk curve from the unseen tasks, which the processes share; the same on every process."""
    from accelerate.utils import gather_object
    from tqdm.auto import tqdm

    share = range(accelerator.process_index, len(unseen), accelerator.num_processes)
    bar = tqdm(share, desc="learning the risk of answers", unit="task", disable=not accelerator.is_main_process)
    mine = [(number, risk_answers(model, unseen[number], config.seed)) for number in bar]
    everyone = sorted(gather_object(mine), key=lambda pair: pair[0])
    columns = (np.concatenate(column) for column in zip(*(answers for _, answers in everyone)))
    return fit_risk(*columns, tuple(features.tasks[0].name for features in unseen))


def _keep(model: MetaModel, output_dir: Path, settings: dict[str, Any], best: dict[str, float]) -> None:
    model.notes = {"settings": {k: v for k, v in settings.items() if k not in ("encoder", "head")}, "kept": best}
    model.save_pretrained(output_dir)


def _load_best(model: MetaModel, output_dir: Path) -> None:
    config, tensors = read_folder(output_dir, "head")
    model.load_tensors(tensors)
    model.notes = config["training"]
    model.risk = RiskCurve.from_dict(config["risk"]) if config.get("risk") else None
