"""meta_train: the one loop, on Accelerate.

The meta-loss of an outer step is the sum over its episodes of their mean query losses. All episodes of step t follow
from (seed, t); every process and accumulation step takes its slice of them. DDP averages gradients over processes and
`Accelerator.backward` divides by the accumulation steps, so each part's loss is multiplied by both: the step is the
same on any launch, without dropout, whose random numbers depend on how episodes fall into parts. An encoder that learns
reads every distinct text of a part once, inside what DDP and autocast wrap.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .checkpoints import Checkpoints, restore
from .config import EpisodeConfig, TrainConfig
from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .episodes import train_episodes
from .features import encode_tasks
from .heldout import check_unseen
from .kinds import KINDS
from .launch import TrainingError, compiled, make_accelerator, scale_can_fall, shares, trackers
from .losses import meta_loss
from .model import CONTENT, LOAD, MetaModel
from .objective import MetaLoss, distilled_tasks, kind_weights, parameter_groups, reads_anew, task_weights
from .pools import check_pool
from .progress import Progress
from .rows import DataError
from .run import Run
from .settings import ConfigError, check_is, to_dict
from .shards import average_gradients, to_shard
from .stopping import StopSignals
from .storage import check_folder
from .store import FeatureStore, TokenStore, local_share
from .tasks import Task, check_tasks
from .teacher import Teacher, compared, load_teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What `meta_train` leaves behind.

    Attributes:
        output_dir: holds the best model (config.json, model.safetensors), metrics.json, learning_curve.png, checkpoints/.
        steps: outer steps done, fewer than ``meta_steps`` when training stopped early.
        best: step, ``eval_loss`` and ``eval_<figure>`` (accuracy, for classifications) of the evaluation whose head was kept, be it one of an
            earlier start of the run; {} without unseen tasks.
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
    cache_dir: str | Path | None = None,
) -> TrainResult:
    """Train the heads of ``model``, one for each kind of task, and its encoder as far as `EncoderConfig.tuning` says, on episodes of many tasks; afterwards
    the model holds the best weights.

    A run that was stopped, even by kill -9, goes on from its last checkpoint when called again with the same settings,
    and ends with the same weights, bit for bit on the same machine. Ctrl-C and SIGTERM (in the main thread, unless the caller handles them)
    let the step and its evaluation end, and save a checkpoint, whichever process of a launch gets them; a second one ends at once.

    Args:
        model: an encoder with a head; changed in place. It then serves the kinds of ``tasks`` only.
        tasks: what episodes are drawn from, of any kinds; a step may hold episodes of several.
        eval_tasks: unseen tasks; the weights with the lowest loss on them are kept, ``early_stopping_patience`` counts
            their evaluations, and ``model.risk`` and ``model.threshold`` are learned on them. None given: the last weights are kept, without a
            risk.
        episodes: the shape of the training episodes.
        config: the loop.
        store: where the features of a frozen encoder (or one that has learned, at ``encoder_lr`` 0) are kept; None: in
            ``cache_dir``, the work shared among the processes of a launch. An encoder that learns keeps none.
        cache_dir: folder for the features of a teacher, and of the encoder where no ``store`` is given; None: the default folder.

    Raises:
        ConfigError: ``output_dir`` holds a run with other settings, precision, data, or order of tasks, checkpoints of another program, or a
            run that is still going on; ``store`` is of another encoder; an unknown tracker, or task in ``task_weights`` or ``distillation_tasks``; the head has no form for the kind of a task.
        DataError: no task, or one that stands among ``tasks`` and ``eval_tasks``; a target that is longer than the language model's
            ``max_target_tokens``.
        EpisodeError: a task has too few classes or rows for such episodes.
        StorageError: ``output_dir`` cannot be written, or holds something else; the model cannot be saved, see `MetaModel.check_savable`.
        TrainingError: the loss is no longer a number (the last good checkpoint stays); the launch would train processes that
            never synchronise, cuts weights into shards other than those of FSDP2, or compiles what needs second derivatives.
        Stopped: a `KeyboardInterrupt`: Ctrl-C or SIGTERM ended the run behind a checkpoint.
    """
    check_is(model, MetaModel, "model", LOAD)
    check_is(episodes, EpisodeConfig, "episodes", "write EpisodeConfig(...)")
    check_is(config, TrainConfig, "config", "write TrainConfig(...)")
    tasks, eval_tasks = check_tasks(tasks, eval_tasks)
    check_is(cache_dir, (str, Path, type(None)), "cache_dir", "name a folder, or leave it out")
    check_folder(config.output_dir, CONTENT)
    model.check_savable()
    tasks = _in_order(model, tasks, eval_tasks)
    accelerator = make_accelerator(config)
    _check_parts(accelerator, config)
    kinds = list(dict.fromkeys(task.kind for task in tasks))
    drawn = task_weights(tasks, config), distilled_tasks(tasks, config), kind_weights(kinds, config)
    teacher = load_teacher(model.encoder, config) if config.distillation > 0 and reads_anew(model, config) else None
    if accelerator.is_main_process:
        _warn(model, tasks, eval_tasks, drawn[1], episodes, config, reads_anew(model, config))
    run = Run(
        model, config, accelerator, _settings(model, teacher, tasks, eval_tasks, episodes, config, accelerator.mixed_precision)
    )
    with run.folder() as resume:
        _train(run, tasks, eval_tasks, episodes, drawn, teacher, store, cache_dir, resume)
    return TrainResult(run.output_dir, run.step, run.best, run.history)


def _train(run: Run, tasks, eval_tasks, episodes: EpisodeConfig, drawn: tuple, teacher, store, cache_dir, resume) -> None:
    """Encode the tasks and take the steps of a run. ``drawn``: weights of the tasks, those that distil, factors of the kinds."""
    model, config, accelerator = run.model, run.config, run.accelerator
    anew = reads_anew(model, config)
    weights, distilled, factors = drawn
    parts = accelerator.num_processes * accelerator.gradient_accumulation_steps
    groups, features = _encoded(run, tasks, eval_tasks, episodes, store, cache_dir)
    pools = [group.pool for group in features]
    if config.encoder_share < 1 and model.encoder.config.tuning == "full":
        run.base = model.encoder.pretrained().cpu()  # of which nothing is asked but its weights, now and then
    if teacher:
        teacher = _taught(teacher, distilled, features, episodes, accelerator, cache_dir)
    run.begin(resume)
    learner = run.learner = to_shard(model, accelerator)
    objective = MetaLoss(learner, teacher, anew)
    optimizer = torch.optim.AdamW(parameter_groups(learner, config))
    schedule = _schedule(optimizer, config)
    with compiled(accelerator, learner.encoder, learner.adapts_encoder and not learner.head_config.first_order):
        wrapped, optimizer = accelerator.prepare(objective, optimizer)
    trainable = [p for p in learner.parameters() if p.requires_grad]
    if resume:
        restore(resume, optimizer, accelerator)
    if trackers(config):
        accelerator.init_trackers("metatext", config={k: str(v) for k, v in to_dict(config).items()})

    if run.unseen and not run.best:  # the start, or a checkpoint whose best weights are gone
        run.evaluate()
    start = run.step
    progress = Progress(accelerator, config.meta_steps, start, resume and resume.state.get("seen"))
    with StopSignals(accelerator) as signals, progress.bar:
        while not run.over:
            batch = train_episodes(pools, episodes, weights, config.meta_batch_size, seed=config.seed, step=run.step)
            torch.manual_seed(_noise_seed(config.seed, run.step, accelerator.process_index))
            objective.train()
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * schedule(run.step)
            step_losses = []
            for part in shares(batch.size, accelerator):
                with accelerator.accumulate(wrapped):
                    of_kinds = batch.part(part)
                    data = [features[kind].gather(own, accelerator.device) for kind, own in of_kinds]
                    with accelerator.autocast():
                        losses, drift, unused = wrapped(data)
                    factor = losses.new_tensor(np.concatenate([np.full(len(own), factors[kind]) for kind, own in of_kinds]))
                    accelerator.backward((meta_loss(factor * losses) + config.distillation * drift.sum() + unused) * parts)
                    names = [groups[kind][number].name for kind, own in of_kinds for number in own.task]
                    step_losses.append((losses.detach(), names))
                    if accelerator.sync_gradients:
                        if learner is not model:
                            average_gradients(learner, accelerator)
                        limit = config.max_grad_norm * config.meta_batch_size or math.inf
                        norm = accelerator.clip_grad_norm_(trainable, limit)
                        _check_finite(norm, step_losses, run.step, run.checkpoints, accelerator)
                    optimizer.step()
                    optimizer.zero_grad()
                progress.add(losses, drift, sum(own.n_texts for own in data if not isinstance(own, EpisodeFeatures)))
            run.step += 1
            progress.bar.update()
            if run.is_due(config.logging_steps):
                loss, drift_seen = progress.means()
                point = {"step": run.step, "loss": loss, "lr": config.meta_lr * schedule(run.step - 1)}
                if teacher:
                    point["distillation"] = config.distillation * drift_seen  # as much as it adds to the loss of an episode
                run.log(point)
                progress.show(run.step, loss, run.best)
            with progress.pause():
                run.between_steps(optimizer, progress, signals)
    run.finish(start, progress)


def _in_order(model: MetaModel, tasks, eval_tasks) -> list[Task]:
    """The tasks to train on, those of a kind together, if ``model`` can learn from them and the others can choose its weights."""
    model.check_kinds([task.kind for task in tasks])
    kinds = [kind for kind in model.kinds if kind in {task.kind for task in tasks}]
    strange = next((task for task in eval_tasks if task.kind not in kinds), None)
    if strange is not None:
        raise DataError(
            f"eval_tasks: {strange.name!r} is of kind {strange.kind}, the tasks to train on are of kind {', '.join(kinds)}"
        )
    return sorted(tasks, key=lambda task: kinds.index(task.kind))


def _check_parts(accelerator, config: TrainConfig) -> None:
    processes, steps = accelerator.num_processes, accelerator.gradient_accumulation_steps
    if config.meta_batch_size < processes * steps:
        raise TrainingError(
            f"meta_batch_size {config.meta_batch_size} is smaller than processes x accumulation steps "
            f"({processes} x {steps}): every share needs an episode; set meta_batch_size to {processes * steps} or more"
        )


def _encoded(run: Run, tasks, eval_tasks, episodes: EpisodeConfig, store, cache_dir) -> tuple[list[list[Task]], list]:
    """The tasks of each kind and their features; those of the unseen tasks go to ``run``."""
    model, config, accelerator = run.model, run.config, run.accelerator
    kinds = list(dict.fromkeys(task.kind for task in tasks))
    for task in (*tasks, *eval_tasks):
        if KINDS[task.kind].written:
            model.language.check_targets(task)
    model.keep_kinds(kinds)
    model.risk, model.threshold = None, 0.5  # of other weights
    model.to(accelerator.device)  # before encoding, which is the heaviest work of a run
    whole = store  # evaluation reads texts as the trained model will; only training cuts them
    if reads_anew(model, config):
        store, whole = TokenStore(model.encoder, config.max_text_tokens), TokenStore(model.encoder)
    elif store is not None and store.encoder.key != model.encoder.frozen().key:
        raise ConfigError("store: its features are of another encoder; make a new FeatureStore of the model's")
    elif store is None:
        store = whole = FeatureStore(model.encoder, cache_dir, progress=accelerator.is_local_main_process, share=local_share())
    groups = [[task for task in tasks if task.kind == kind] for kind in kinds]
    features = [encode_tasks(store, group, episodes) for group in groups]
    run.unseen = [encode_tasks(whole, [task]) for task in eval_tasks]
    for group in features:  # before the first evaluation, which takes longer
        check_pool(group.pool, episodes)
    check_unseen(run.unseen)
    return groups, features


def _taught(
    encoder: Encoder, tasks: Sequence[Task], features: Sequence, episodes: EpisodeConfig, accelerator, cache_dir
) -> Teacher:
    """What ``encoder`` teaches the one that learns about ``tasks``; the texts are read on the launch's device, then its weights
    are let go."""
    encoder.to(accelerator.device)
    store = FeatureStore(encoder, cache_dir, progress=accelerator.is_local_main_process, share=local_share())
    teacher = Teacher(store, tasks, features[0].store, episodes)
    encoder.to("meta")  # its vectors are kept: no weight is needed any more, and a larger encoder has many
    return teacher


def _warn(
    model: MetaModel,
    tasks: Sequence[Task],
    eval_tasks,
    distilled: Sequence[Task],
    episodes: EpisodeConfig,
    config: TrainConfig,
    anew: bool,
) -> None:
    """Say what the settings leave out, or ask for in vain."""
    kinds = {task.kind for task in tasks}
    if any(KINDS[kind].by_class for kind in kinds) and not episodes.n_outside:
        logger.warning("n_outside is 0: no episode has queries of other classes, so `confidence` stays untrained")
    if not len(eval_tasks):
        logger.warning("no eval_tasks: the last head is kept, and `max_risk` goes by probabilities that nothing has checked")
        if config.early_stopping_patience is not None:
            logger.warning("early_stopping_patience has no effect: there are no eval_tasks whose loss could stop training")
    alone = sorted(kinds - {task.kind for task in eval_tasks})
    if len(eval_tasks) and alone:
        logger.warning("no eval_tasks of kind %s: the other kinds choose the step that is kept", ", ".join(alone))
    if episodes.other_names and not any(task.other_label_names for task in tasks):
        logger.warning("other_names has no effect: no task has other_label_names")
    if anew:
        for name in ("distillation_teacher", "distillation_tasks"):
            if getattr(config, name) and not config.distillation:
                logger.warning("%s has no effect: distillation, the weight of its loss, is 0; 10 to 100 is usual", name)
        if config.distillation and not compared(distilled):
            names = ", ".join(f"{task.name} ({task.kind})" for task in distilled)
            logger.warning(
                "distillation has no effect: spans and written answers are not compared with a teacher, and no other task has that loss: %s",
                names,
            )
        return
    why = "encoder_lr is 0" if model.encoder.is_tuned else "the encoder is frozen"
    for name in ("distillation", "distillation_teacher", "distillation_tasks", "encoder_share", "max_text_tokens"):
        if getattr(config, name) != getattr(TrainConfig(), name):
            logger.warning("%s has no effect: %s", name, why)
    if model.encoder.config.pretrained_share and not model.encoder.is_tuned:
        logger.warning("pretrained_share has no effect: the encoder is frozen")
    elif model.encoder.config.pretrained_pooling != "same" and model.encoder.base is None:
        logger.warning("pretrained_pooling has no effect: pretrained_share is 0")


def _settings(
    model: MetaModel, teacher: Encoder | None, tasks, eval_tasks, episodes: EpisodeConfig, config: TrainConfig, precision: str
) -> dict[str, Any]:
    """What decides the weights of a run: two runs with equal settings end alike. ``precision``: of the launch."""
    loop = to_dict(config)
    for name in ("output_dir", "overwrite_output_dir", "logging_steps", "save_steps", "save_total_limit", "report_to"):
        loop.pop(name)
    loop.pop("gradient_accumulation_steps")  # without dropout the trajectory does not depend on it
    described = model.describe()
    if model.encoder.is_tuned:
        described["encoder"]["dropout"] = model.encoder.config.dropout
    return {
        "head": described["head"],
        "encoder": described["encoder"],
        "language": described["language"] if any(KINDS[task.kind].written for task in tasks) else None,  # else it is let go
        "teacher": teacher.key if teacher and config.distillation_teacher else None,  # its weights, and how it reads
        "warm_start": model.notes.get("warm_start"),
        "mixed_precision": precision,
        "episodes": to_dict(episodes),
        "train": loop,
        "tasks": {task.name: len(task) for task in tasks},
        "eval_tasks": {task.name: len(task) for task in eval_tasks},
        "order": [task.name for task in tasks],  # episodes are drawn by it
        "data": {task.name: task.digest() for task in (*tasks, *eval_tasks)},
        "flags": model.notes.get("flags"),  # decide nothing: what a card says of how this was asked for
    }


def _schedule(optimizer: torch.optim.Optimizer, config: TrainConfig):
    """step -> factor of the learning rate: a value of the step, so there is no scheduler state to save or to keep in step."""
    from transformers import get_scheduler

    warmup = round(config.warmup_ratio * config.meta_steps)
    return get_scheduler(config.lr_scheduler_type, optimizer, warmup, config.meta_steps).lr_lambdas[0]


def _noise_seed(seed: int, step: int, process: int) -> int:
    """Dropout of a step follows from (seed, step, process): nothing random needs saving."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])


def _check_finite(norm, step_losses: list, step: int, checkpoints: Checkpoints, accelerator) -> None:
    """Stop before an optimizer step that would destroy the weights; every process sees the same gradient norm, and under fp16 the
    one whose loss is not a number ends the run."""
    if math.isfinite(float(norm)):
        return
    losses = torch.cat([losses for losses, _ in step_losses]).cpu().numpy()
    if np.isfinite(losses).all() and scale_can_fall(accelerator):
        return
    drawn = np.array([name for _, names in step_losses for name in names])
    bad = sorted(set(drawn[~np.isfinite(losses)].tolist()))
    where = f"the loss of an episode of {', '.join(bad)} is not a number" if bad else "a gradient is not a number"
    kept = checkpoints.latest()
    last = f"the last good checkpoint is {kept.folder}" if kept else "no checkpoint had been written"
    raise TrainingError(
        f"step {step}: {where} (gradient norm {float(norm)}); {last}. Lower the learning rates (meta_lr; encoder_lr and language_lr where these "
        f"learn), or look at the rows{' of ' + ', '.join(bad) if bad else ''}."
    )
