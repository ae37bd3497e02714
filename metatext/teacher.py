"""What a distillation compares the encoder that learns with: the vectors of another one, which reads every text once, beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .config import EncoderConfig, EpisodeConfig, TrainConfig
from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .features import EpisodeTexts, encode_tasks
from .kinds import KINDS
from .store import FeatureStore, TokenStore
from .tasks import Task


class Teacher:
    """An encoder's vectors of the texts of some tasks.

    Args:
        store: of the encoder; what it does not hold is encoded.
        tasks: those whose episodes are compared with it, as far as they are `compared`: spans and written answers are not.
        learner: numbers the texts of these tasks and of others.
        episodes: as of `encode_tasks`.
    """

    def __init__(self, store: FeatureStore, tasks: Sequence[Task], learner: TokenStore, episodes: EpisodeConfig):
        self.store = store
        self.names = frozenset(task.name for task in tasks)
        read = compared(tasks)
        for kind in dict.fromkeys(task.kind for task in read):
            encode_tasks(store, [task for task in read if task.kind == kind], episodes)
        self._place = store.find(learner.keys)  # (n,) of each of the learner's texts, -1: not read

    def teaches(self, texts: EpisodeTexts) -> np.ndarray:
        """(b,) bool, which episodes are of its tasks."""
        return np.array([task.name in self.names for task in texts.source.tasks])[texts.batch.task]

    def read(self, texts: EpisodeTexts) -> EpisodeFeatures:
        """The tensors of b episodes as this encoder sees them; zeros for a text that it has not read: a label name that an episode borrows
        from a task that is not compared. What is kept as float32 is reckoned with as widely as the learner does."""
        dtype = torch.promote_types(next(texts.source.store.encoder.parameters()).dtype, torch.float32)

        def take(ids: np.ndarray) -> torch.Tensor:
            places = np.where(ids >= 0, self._place[ids], -1)
            return torch.from_numpy(self.store.gather(places)).to(texts.device, dtype)

        return texts.source.assemble(texts.batch, take, texts.device)


def compared(tasks: Sequence[Task]) -> list[Task]:
    """Those whose episodes can be compared with a teacher."""
    return [task for task in tasks if task.kind != "span" and not KINDS[task.kind].written]


def load_teacher(encoder: Encoder, config: TrainConfig) -> Encoder:
    """The encoder that ``distillation_teacher`` names, or the pretrained one, frozen; it reads no more of a text than ``encoder`` does while it
    learns.

    Raises:
        EncoderError: nothing of that name can be loaded.
    """
    length = min(config.max_text_tokens or encoder.max_length, encoder.max_length)
    if config.distillation_teacher is None:
        return encoder.pretrained(max_length=length)
    teacher = EncoderConfig(config.distillation_teacher, max_length=length)
    return Encoder.load(teacher, access=encoder.access)
