"""What meta-training minimises, over which parameters and how often on which task."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import tuning
from .config import TrainConfig
from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .features import EpisodeTexts
from .generation import GenerationTexts
from .kinds import KINDS
from .losses import cosine_drift
from .model import MetaModel
from .settings import ConfigError, nearest
from .spans import SpanTexts
from .tasks import Task
from .teacher import Teacher


class MetaLoss(nn.Module):
    """From episodes to their losses: all that DDP, autocast and a compiler have to see.

    Args:
        model: encoder and head.
        teacher: what episodes are compared with, or None.
        anew: see `reads_anew`.
    """

    def __init__(self, model: MetaModel, teacher: Teacher | None, anew: bool):
        super().__init__()
        self.model, self.teacher, self.anew = model, teacher, anew

    def forward(
        self, data: Sequence[EpisodeFeatures | EpisodeTexts | SpanTexts | GenerationTexts]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean query loss of each of b episodes, how far each has drifted from the teacher (`cosine_drift`), zero where it is
        not compared, and a zero that hangs on what these episodes may leave unused: (b,), (b,), ().

        Args:
            data: b episodes in all, those of every kind together.
        """
        losses, drifts = zip(*map(self._of_one_kind, data))
        # A parameter without a gradient would stop DDP. Each has its own product: two scalars that get the gradient of one sum would
        # share it in memory, and the next accumulation step would add to both.
        unused = sum((0.0 * p).sum() for module in self._may_rest() for p in module.parameters() if p.requires_grad)
        return torch.cat(losses), torch.cat(drifts), unused

    def _may_rest(self) -> list[nn.Module]:
        """What some episodes leave unused: a head, the language model; where features are read only once, the encoder too."""
        parts = [self.model.heads, self.model.language] if self.anew else [self.model]
        return [part for part in parts if part is not None]

    def _of_one_kind(self, data: EpisodeFeatures | EpisodeTexts | SpanTexts | GenerationTexts) -> tuple[Tensor, Tensor]:
        episodes = self.model.read(data)
        logits = self.model(episodes)
        losses = KINDS[episodes.kind].loss(logits, episodes.query_y, episodes.query_mask, episodes.outside)
        drift = torch.zeros_like(losses)
        if self.teacher is None or not isinstance(data, EpisodeTexts):
            return losses, drift
        compared = self.teacher.teaches(data)
        if compared.any():
            taught = self.teacher.read(data[compared])
            place = torch.from_numpy(np.flatnonzero(compared)).to(losses.device)
            with torch.autocast(losses.device.type, enabled=False):  # differences of cosines have no place in half precision
                drift = drift.index_put((place,), cosine_drift(_rows(episodes.select(place)), _rows(taught)))
        return losses, drift


def reads_anew(model: MetaModel, config: TrainConfig) -> bool:
    """Whether every step reads its texts again. At a learning rate of 0 the encoder is as good as frozen, what it has learned reads every
    text once; MAML moves it all the same."""
    return model.encoder.is_tuned and (config.encoder_lr > 0 or config.encoder_share < 1 or model.adapts_encoder)


def parameter_groups(model: MetaModel, config: TrainConfig) -> list[dict[str, Any]]:
    """What learns, by learning rate and weight decay: vectors and scalars (norms, biases, temperatures) have none."""
    groups = []
    modules = [(model.heads, config.meta_lr), (model.encoder, config.encoder_lr), (model.language, config.language_lr)]
    for module, lr in modules[: 2 + (model.language is not None)]:
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
    weights *= named_factors("task_weights", "task", config.task_weights, [task.name for task in tasks])
    if not weights.sum() > 0:
        raise ConfigError("task_weights: every task has the factor 0")
    return weights


def distilled_tasks(tasks: Sequence[Task], config: TrainConfig) -> list[Task]:
    """The tasks in ``distillation_tasks``, all where it is empty.

    Raises:
        ConfigError: a name is that of no task.
    """
    names = [task.name for task in tasks]
    for name in config.distillation_tasks:
        if name not in names:
            raise ConfigError(
                f"distillation_tasks: no task is called {name!r}{nearest(name, names, end='.')} Known: {', '.join(names)}"
            )
    return [task for task in tasks if task.name in (config.distillation_tasks or names)]


def kind_weights(kinds: Sequence[str], config: TrainConfig) -> np.ndarray:
    """(g,) how much the losses of each kind count, from ``kind_weights``.

    Raises:
        ConfigError: an entry is not ``kind=factor``, or no task is of that kind; every kind has the factor 0.
    """
    weights = named_factors("kind_weights", "kind", config.kind_weights, kinds)
    if not weights.any():
        raise ConfigError(f"kind_weights: every kind has the factor 0 ({', '.join(kinds)}); give one of them a factor above 0")
    return weights


def named_factors(setting: str, what: str, entries: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """(n,) factors of names from entries ``name=factor``, 1 where there is no entry."""
    factors = np.ones(len(names))
    for entry in entries:
        name, _, factor = entry.rpartition("=")
        try:
            number = float(factor)
        except ValueError:
            number = -1.0
        if not name or not 0 <= number < math.inf:
            raise ConfigError(f"{setting}: expected name=factor with a factor of at least 0, got {entry!r}")
        if name not in names:
            raise ConfigError(f"{setting}: no {what} is called {name!r}{nearest(name, names, end='.')} Known: {', '.join(names)}")
        factors[names.index(name)] *= number
    return factors


@contextlib.contextmanager
def averaged(encoder: Encoder, base: Encoder | None, share: float) -> Iterator[None]:
    """For the time of a block the encoder has ``share`` of what it learned, see `tuning.scaled`; then its weights, bit for bit."""
    if share == 1 or not encoder.is_tuned:
        yield
        return
    trained = {name: tensor.clone() for name, tensor in encoder.tuned_tensors().items()}
    encoder.load_tuned(tuning.scaled(trained, base.backbone.state_dict() if base else {}, share))
    try:
        yield
    finally:
        encoder.load_tuned(trained)


def _rows(episodes: EpisodeFeatures) -> tuple[Tensor, Tensor]:
    """All texts of b episodes, (b, s + q + w, d), and which of them are there; what was not read is zeros."""
    support = episodes.support
    x = torch.cat([support.x, episodes.query, support.label_x], 1)
    return x, torch.cat([support.row_mask, episodes.query_mask, support.label_mask], 1) & (x != 0).any(-1)
