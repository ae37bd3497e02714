"""What a language model says of token vectors: how likely given tokens are, and which are the most probable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layout import PADDED

VOCABULARY_ROWS = 256  # tokens whose logits over the whole vocabulary exist at a time


def target_likelihoods(model: nn.Module, embed: Callable[[Tensor], Tensor], rows: Tensor, target: Tensor) -> Tensor:
    """Log-likelihoods of the target tokens of n rows, row after row.

    Args:
        model: a causal or sequence-to-sequence language model of transformers.
        embed: token numbers (n, t) -> their vectors (n, t, D).
        rows, target: (n, t) of `Layout.tokenize`.
    """
    if model.config.is_encoder_decoder:
        source = rows.masked_fill(target, PADDED)
        source = source[:, : int((source != PADDED).sum(1).max())]
        order = target.long().argsort(dim=1, descending=True, stable=True)[:, : int(target.sum(1).max())]
        wanted, there = rows.gather(1, order), target.gather(1, order)
        first = torch.full_like(wanted[:, :1], model.config.decoder_start_token_id)
        logits = model(
            inputs_embeds=embed(source),
            attention_mask=(source != PADDED).long(),
            decoder_input_ids=torch.cat([first, wanted[:, :-1].clamp_min(0)], 1),
            use_cache=False,
        ).logits
        return _log_likelihood(logits[there], wanted[there])
    states = model.base_model(
        inputs_embeds=embed(rows), attention_mask=(rows != PADDED).long(), use_cache=False
    ).last_hidden_state
    row, column = target.nonzero(as_tuple=True)
    states, wanted = states[row, column - 1], rows[row, column]
    output = model.get_output_embeddings()

    def read(states: Tensor, wanted: Tensor) -> Tensor:
        return _log_likelihood(output(states), wanted)

    parts = zip(states.split(VOCABULARY_ROWS), wanted.split(VOCABULARY_ROWS))
    return torch.cat([checkpoint(read, *part, use_reentrant=False) for part in parts])


@torch.no_grad()
def greedy(model: nn.Module, vectors: Tensor, mask: Tensor, end: int, limit: int, past: Any = None) -> list[list[int]]:
    """Token numbers that follow n rows, until the end token or ``limit`` of them; behind its end token a row has further ones.

    Args:
        model: a causal or sequence-to-sequence language model of transformers.
        vectors: (n, t, D) token vectors, padded on the left.
        mask: (n, p + t), 0 where padded; it covers the p tokens in ``past`` too.
        end: the end token.
        limit: tokens of an answer at most, 1 at least.
        past: what a causal model has read before, or None.
    """
    decodes = model.config.is_encoder_decoder
    chosen, done = [], torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    if decodes:
        encoded = model.get_encoder()(inputs_embeds=vectors, attention_mask=mask)
        token = torch.full((len(vectors), 1), model.config.decoder_start_token_id, device=vectors.device)
    place = (mask.cumsum(1) - 1).clamp_min(0)[:, -vectors.shape[1] :]
    for _ in range(limit):
        if decodes:
            given = {"encoder_outputs": encoded, "decoder_input_ids": token, "attention_mask": mask}
        else:
            given = {"inputs_embeds": vectors, "attention_mask": mask, "position_ids": place, "logits_to_keep": 1}
        found = model(**given, past_key_values=past, use_cache=True)
        past, token = found.past_key_values, found.logits[:, -1:].argmax(-1)
        token = token.masked_fill(done[:, None], end)
        chosen.append(token)
        done = done | (token[:, 0] == end)
        if done.all():
            break
        if not decodes:
            vectors, place = model.get_input_embeddings()(token), place[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    return torch.cat(chosen, 1).tolist()


def _log_likelihood(logits: Tensor, wanted: Tensor) -> Tensor:
    """(n, v), (n,) -> (n,), float32 or wider."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.gather(-1, wanted[:, None])[:, 0] - logits.logsumexp(-1)
