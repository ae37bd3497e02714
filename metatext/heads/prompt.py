"""A soft prompt for a language model, written by a meta-network from a task's description and examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..config import HeadConfig
from ..representation import Support
from .protocol import Params

if TYPE_CHECKING:
    from ..language import LanguageModel


class PromptHead(nn.Module):
    """``prompt = P + sigma U tanh(V r)``: m vectors that stand before the input in place of words (Lester et al. 2021).

    P is shared by all tasks and begins as the token vectors of a sentence. The task representation r is the mean feature of the support's
    pairs of input and target, each read jointly, the feature of the description, and what says how much of either there is; a
    two-layer meta-network turns it into the task's own part of the prompt, of low rank and 0 at the start. sigma is the deviation of
    the numbers in the language model's token vectors, so that one learning rate suits any of them.

    Args:
        dim: d.
        config: nothing of it is used.
        language: gives P, sigma, m and the rank.
    """

    def __init__(self, dim: int, config: HeadConfig, language: LanguageModel):
        super().__init__()
        self.prompt = nn.Parameter(language.start())  # (m, D)
        self.scale = language.scale
        self.down = nn.Linear(2 * dim + 3, language.config.prompt_rank)
        self.up = nn.Linear(language.config.prompt_rank, self.prompt.numel(), bias=False)
        nn.init.zeros_(self.up.weight)

    def adapt(self, support: Support) -> Params:
        """``prompt`` (b, m, D); of the support x, row_mask, task_x and task_mask are read. Without examples it follows from the
        description, with neither it is the same for all tasks."""
        mask = support.row_mask.to(support.x.dtype)  # (b, s)
        count = mask.sum(1, keepdim=True)
        mean = (support.x * mask[..., None]).sum(1) / count.clamp_min(1)
        described = support.task_mask[:, None].to(mean.dtype)
        size = mean.shape[-1] ** 0.5  # features of unit length have numbers of this size
        told = [size * mean, size * support.task_x * described, (count > 0).to(mean.dtype), torch.log1p(count) / 3, described]
        own = self.up(torch.tanh(self.down(torch.cat(told, 1))))
        return {"prompt": self.prompt + self.scale * own.reshape(len(own), *self.prompt.shape)}

    def logits(self, params: Params, query: Tensor, query_mask: Tensor) -> None:
        """There are none: a language model reads the prompt."""
        raise NotImplementedError("a soft prompt has no logits of its own; MetaModel.forward gives those of its language model")
