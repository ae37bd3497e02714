"""A way to answer episodes, a model's or a baseline's: what it is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .encoder import Encoder
from .episode_features import EpisodeFeatures
from .episodes import EpisodeBatch
from .features import EpisodeTexts, TaskFeatures
from .generation import GenerationFeatures, GenerationTexts
from .kinds import KINDS
from .model import MetaModel
from .tasks import by_task


@dataclass(frozen=True)
class Draw:
    """Episodes of one task as a method sees them.

    Attributes:
        features: tensors of the support and of the query rows; their texts for a method that reads those.
        batch: the numbers of these rows.
        source: what the numbers count, for methods that read the texts.
    """

    features: EpisodeFeatures | EpisodeTexts | GenerationTexts
    batch: EpisodeBatch
    source: TaskFeatures | GenerationFeatures

    def texts(self, rows: np.ndarray) -> list[str] | list[tuple[str, str]]:
        """The texts, or pairs of texts, of (n,) row numbers."""
        found: list = [None] * len(rows)
        for here, task, own in by_task(self.source.tasks, rows):
            for i, text in zip(here, task.select(own).inputs(), strict=True):
                found[i] = text
        return found

    def names(self, i: int) -> list[str | None]:
        """The names that the classes of episode ``i`` bear in it, None where it may not be seen or there is none."""
        shown, style = self.batch.classes[i] >= 0, int(self.batch.style[i])
        numbers = np.where(self.batch.named[i], self.batch.name[i], -1)[shown]
        return [self.source.name_text(number, style) if number >= 0 else None for number in numbers.tolist()]


@dataclass(frozen=True)
class Answer:
    """A method's answer to b episodes of q query rows.

    Attributes:
        probabilities: (b, q, w), or the answers of another kind, as `Kind.answer` gives them; NaN where the method has no answer to an
            episode. Of texts that are written (b, q) object, None where there is no answer.
        confidence: (b, q) score, 0 to 1, that the row belongs to any of the classes. A head has learned it; a baseline gives the
            score that it decides by: its largest probability, or (1 + its largest cosine) / 2.
    """

    probabilities: Tensor | np.ndarray
    confidence: Tensor


@dataclass(frozen=True)
class Method:
    """A way to answer episodes.

    Attributes:
        answer: what it says of the query rows.
        encoder: what it reads the texts with; None: the encoder of the comparison.
        reads_texts: whether its episodes come as texts, because every task adapts that encoder.
    """

    answer: Callable[[Draw], Answer]
    encoder: Encoder | None = None
    reads_texts: bool = False

    def __call__(self, draw: Draw) -> Answer:
        return self.answer(draw)


def by_model(model: MetaModel) -> Method:
    """A model's own probabilities and confidence, on features of its own encoder."""

    def answer(draw: Draw) -> Answer:
        if KINDS[draw.source.kind].written:
            return written_answer(model.write(draw.features))
        logits = model(draw.features)
        none = logits.none.cpu().double()  # float32 would tie all sure rows at 1, and not every accelerator has float64
        return Answer(model.answers(draw.source.kind, logits.values).cpu(), (-none).sigmoid())

    return Method(answer, model.encoder, model.adapts_encoder)


def written_answer(answers: np.ndarray) -> Answer:
    """The texts (b, q) object of a method that writes."""
    return Answer(answers, torch.zeros(answers.shape))


def no_answer(draw: Draw) -> Answer:
    """No answer to any episode."""
    if KINDS[draw.source.kind].written:
        return written_answer(np.full(draw.batch.query.shape, None, object))
    if draw.source.kind == "span":
        shape = (*draw.features.query.shape[:3], 3)  # windows of tokens
    else:
        shape = (*draw.batch.query.shape, draw.batch.classes.shape[1])
    return Answer(torch.full(shape, torch.nan), torch.zeros(shape[:2]))
