"""What the held-out tasks of meta-training decide: which weights are kept, the risk of answers, the threshold of several labels.

The processes of a launch share the tasks, and all find the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .config import EpisodeConfig, TrainConfig
from .evaluation import THRESHOLDS, draw_for, episode_scores, risk_answers, threshold_figures
from .features import TaskFeatures
from .kinds import KINDS
from .launch import TrainingError
from .model import MetaModel
from .objective import kind_weights
from .pools import EpisodeError, check_pool
from .risk import RiskCurve, fit_risk

EVAL_EPISODES = EpisodeConfig(n_way=10, k_shot=(0, 16), max_support=160, n_query=5, fewer_ways=True)
EVAL_ROWS = EpisodeConfig(k_shot=(0, 32), n_query=20)  # where labels are no classes


def check_unseen(unseen: Sequence[TaskFeatures]) -> None:
    """Raises `EpisodeError` where a task is too small to choose the weights by."""
    for features in unseen:
        shape = shape_of(features)
        try:
            check_pool(features.pool, shape)
        except EpisodeError as error:
            raise EpisodeError(
                f"eval_tasks: {error} Whatever the settings of the training episodes, weights are chosen with n_query {shape.n_query}."
            ) from None


def shape_of(features: TaskFeatures) -> EpisodeConfig:
    """The episodes that weights are chosen by."""
    return EVAL_EPISODES if KINDS[features.kind].by_class else EVAL_ROWS


def watch(model: MetaModel, unseen: Sequence[TaskFeatures], config: TrainConfig, accelerator, step: int) -> dict[str, float]:
    """Mean figure and loss over the unseen tasks, which the processes share; the same numbers on every process."""

    def look(features: TaskFeatures) -> tuple[float, float]:
        batch = draw_for(features, shape_of(features), config.eval_episodes, config.seed)
        figures, losses = episode_scores(model, features, batch)
        return float(figures.mean()), float(losses.mean())

    model.eval()
    seen = _shared(unseen, look, accelerator)
    bad = [features.tasks[0].name for features, (_, loss) in zip(unseen, seen) if not math.isfinite(loss)]
    if bad:
        raise TrainingError(
            f"step {step}: the loss on the unseen task {', '.join(bad)} is not a number; lower the learning rates (meta_lr; "
            f"encoder_lr and language_lr where these learn), or look at its rows"
        )
    found: dict[str, list[float]] = {}
    for features, (figure, _) in zip(unseen, seen):
        found.setdefault(f"eval_{KINDS[features.kind].watched}", []).append(figure)
    means = {name: float(np.mean(figures)) for name, figures in found.items()}
    factors = dict(zip(model.kinds, kind_weights(model.kinds, config), strict=True))
    weights = np.array([factors[features.kind] for features in unseen])
    weights = weights if weights.any() else np.ones(len(weights))
    return {**means, "eval_loss": float(np.average([loss for _, loss in seen], weights=weights))}


def learn_risk(model: MetaModel, unseen: Sequence[TaskFeatures], config: TrainConfig, accelerator) -> RiskCurve:
    """The risk curve from the unseen tasks, which the processes share; the same on every process."""
    answers = _shared(
        unseen, lambda features: risk_answers(model, features, config.seed), accelerator, "learning the risk of answers"
    )
    columns = (np.concatenate(column) for column in zip(*answers))
    return fit_risk(*columns, tuple(features.tasks[0].name for features in unseen))


def learn_threshold(model: MetaModel, unseen: Sequence[TaskFeatures], config: TrainConfig, accelerator) -> float:
    """The probability that serves the F1 of the unseen tasks with several labels best; the same on every process."""
    figures = _shared(unseen, lambda features: threshold_figures(model, features, config.seed), accelerator)
    return round(float(THRESHOLDS[np.mean(figures, 0).argmax()]), 6)


def _shared(unseen: Sequence[TaskFeatures], look: Callable[[TaskFeatures], Any], accelerator, said: str = "") -> list:
    """What ``look`` says of each task, in their order, on every process; each looks at its share. ``said`` stands before a bar."""
    from accelerate.utils import gather_object
    from tqdm.auto import tqdm

    share = range(accelerator.process_index, len(unseen), accelerator.num_processes)
    bar = tqdm(share, desc=said, unit="task", disable=not (said and accelerator.is_main_process))
    everyone = gather_object([(number, look(unseen[number])) for number in bar])
    return [found for _, found in sorted(everyone, key=lambda pair: pair[0])]
