"""Texts to vectors: token numbers, a network's states of them, and pooling; with gradients, in bounded memory."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import string
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from .config import EncoderConfig
from .tokens import Tokens, activation_room

logger = logging.getLogger(__name__)

SECONDS = 15  # between two lines on how far a long reading is
SURROGATES = re.compile("[\ud800-\udfff]")
# What sentence-transformers calls a pooling, in its files of version 6 and before -> ours.
POOLING = {
    "cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean", "max": "max", "max_tokens": "max",
    "lasttoken": "last",
}  # fmt: skip


class TextReader(nn.Module):
    """What reads texts, or pairs of texts jointly, to unit vectors: a network and its tokenizer.

    Args:
        backbone: the network.
        base: one that reads beside it, or None.
        tokenizer: of both.
        config: how texts are read, as far as it says.
        folder_settings: what the model's own files say where ``config`` does not, see `loading.folder_settings`.
    """

    def __init__(
        self, backbone: nn.Module, base: nn.Module | None, tokenizer: Any, config: EncoderConfig, folder_settings: dict[str, Any]
    ):
        super().__init__()
        self.base = base
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.config = config
        self.dim = backbone.config.hidden_size * (1 if base is None else 2)
        self.pooling = config.pooling
        if config.pooling == "auto":
            written = folder_settings.get("pooling", "mean")
            self.pooling = POOLING.get(written, "mean")
            if written not in POOLING:
                logger.warning(
                    "%s was trained with %s pooling, which metatext does not have; the mean is taken", config.name, written
                )
        self.base_pooling = self.pooling if config.pretrained_pooling == "same" else config.pretrained_pooling
        if self.pooling == "words" or (base is not None and self.base_pooling == "words"):
            self.register_buffer("token_weight", word_weights(tokenizer), persistent=False)
        self.prompt = config.prompt if config.prompt is not None else folder_settings.get("prompt", "")
        positions = getattr(backbone.config, "max_position_embeddings", None) or 512
        if backbone.config.model_type in ("roberta", "xlm-roberta", "mpnet", "camembert"):
            positions -= 2  # their position numbers start behind the padding index
        own = folder_settings.get("max_length") or min(tokenizer.model_max_length, 512)
        self.max_length = min(config.max_length or own, positions)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def batch_tokens(self) -> int:
        """Padded tokens in one batch: as configured, else what was fastest (a CPU wants activations that fit its cache)."""
        return self.config.batch_tokens or (1024 if self.device.type == "cpu" else 32_768)

    @property
    def memory_tokens(self) -> int:
        """Padded tokens whose activations are kept: as configured, else those that fit `activation_room`."""
        if self.config.memory_tokens is not None:
            return self.config.memory_tokens
        shape = self.backbone.config
        # 17 numbers of four bytes per layer and feature (Korthikanti et al. 2022, eq. 1); attention, of sdpa, keeps none
        return int(activation_room(self.device) / (68 * shape.num_hidden_layers * shape.hidden_size))

    @property
    def reads_segments(self) -> bool:
        """Whether it tells the two texts of a pair apart by segment numbers."""
        return "token_type_ids" in self.tokenizer.model_input_names and getattr(self.backbone.config, "type_vocab_size", 0) > 1

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, *, pooled: bool = True
    ) -> Tensor:
        """(b, t) tokens, their mask and segments -> (b, d) vectors of unit length, float32 or wider; not ``pooled``: (b, t, d), one
        of each token.

        With a `base`, d is twice its width: ``[sqrt(1 - p) trained; sqrt(p) pretrained]``, so that every cosine of two vectors is
        the mean of both readings' cosines, the pretrained one's with the weight p = ``pretrained_share``.
        """
        segments = {"token_type_ids": token_type_ids} if self.reads_segments and token_type_ids is not None else {}
        vectors = self._read(self.backbone, input_ids, attention_mask, segments, self.pooling if pooled else None)
        if self.base is None:
            return vectors
        share = self.config.pretrained_share
        with torch.no_grad():
            pretrained = self._read(self.base, input_ids, attention_mask, segments, self.base_pooling if pooled else None)
        return torch.cat([math.sqrt(1 - share) * vectors, math.sqrt(share) * pretrained.to(vectors.dtype)], -1)

    def _read(
        self, backbone: nn.Module, input_ids: Tensor, attention_mask: Tensor, segments: dict[str, Tensor], pooling: str | None
    ) -> Tensor:
        states = backbone(input_ids=input_ids, attention_mask=attention_mask, **segments).last_hidden_state
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        if pooling == "words":
            weight = self.token_weight[input_ids] * attention_mask
            attention_mask = torch.where(weight.any(1, keepdim=True), weight, attention_mask)  # a text may have no word
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.normalize(pool(states, attention_mask, pooling) if pooling else states, dim=-1)

    @contextlib.contextmanager
    def _attention(self) -> Iterator[None]:
        """Plain attention in bfloat16 on a CPU, where the backward pass of torch's fused one takes ten times as long."""
        config = self.backbone.config
        usual = config._attn_implementation
        if usual == "sdpa" and self.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            config._attn_implementation = "eager"
        try:
            yield
        finally:
            config._attn_implementation = usual

    def tokenize(self, inputs: Sequence[str | tuple[str, str]], max_length: int | None = None) -> Tokens:
        """Token numbers of each input in the tokenizer's own format, special tokens included, cut at ``max_length``; None: at the
        encoder's own."""
        max_length = min(max_length or self.max_length, self.max_length)
        if not len(inputs):
            return self.as_tokens({"input_ids": []})
        # a tokenizer reads every character before it cuts: 32 characters a token is far beyond any text of words
        most = 32 * max_length
        pairs = isinstance(inputs[0], tuple)
        first = [self.prompt + self.plain((row[0] if pairs else row)[:most]) for row in inputs]
        second = [self.plain(row[1][:most]) for row in inputs] if pairs else None
        encoded = self.tokenizer(
            first,
            second,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=pairs and self.reads_segments,
            verbose=False,
        )
        return self.as_tokens(encoded)

    def as_tokens(self, encoded: Mapping[str, Any]) -> Tokens:
        """What its tokenizer returned, with segments where they were asked for."""
        return Tokens.from_lists(encoded["input_ids"], encoded.get("token_type_ids"), self.tokenizer.pad_token_id or 0)

    def cut(self, text: str, n: int) -> str:
        """The text without what comes after its first n tokens."""
        text = self.plain(text)
        if len(text.encode()) <= n:  # a token is a byte at least
            return text
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        return text if len(read) <= n else text[: read[n - 1][1]]

    @staticmethod
    def plain(text: str) -> str:
        """The text, of the same length, with lone surrogates (which no tokenizer takes) replaced."""
        return text if text.isascii() else SURROGATES.sub("\ufffd", text)

    @torch.no_grad()
    def encode(self, inputs: Sequence[str | tuple[str, str]], progress: bool = False) -> Tensor:
        """Encode without keeping anything: (n, d), float32, on the CPU, in the order of the inputs; with ``progress`` a terminal shows
        a bar after five seconds, and without one there is a line now and then."""
        places: dict[str | tuple[str, str], int] = {}
        index = [places.setdefault(row, len(places)) for row in inputs]  # a text that stands there twice is read once
        vectors = self.encode_tokens(self.tokenize(list(places)), progress)
        return vectors if len(places) == len(index) else vectors[index]

    @torch.no_grad()
    def encode_tokens(self, tokens: Tokens, progress: bool = False) -> Tensor:
        """`encode` for texts that are tokenized."""
        from tqdm.auto import tqdm

        out = torch.empty(len(tokens), self.dim)
        training, _ = self.training, self.eval()
        speaks = progress and os.environ.get("LOCAL_RANK", "0") == "0"
        bar = tqdm(total=len(tokens), desc="encoding", unit="text", leave=False, delay=5, disable=None if speaks else True)
        done, told = 0, time.monotonic()
        try:
            with torch.autocast(self.device.type, enabled=False):  # features are kept: they must not depend on the context
                for rows in tokens.batches(self.batch_tokens):
                    out[torch.from_numpy(rows)] = self(*tokens.padded(rows, self.device)).cpu().float()
                    bar.update(len(rows))
                    done += len(rows)
                    if speaks and bar.disable and time.monotonic() - told > SECONDS:
                        told = time.monotonic()
                        logger.info("encoding: %d of %d texts", done, len(tokens))
        finally:
            bar.close()
            self.train(training)
        return out

    def learn(
        self, tokens: Tokens, weights: Mapping[str, Tensor] | None = None, share: float = 1.0, pooled: bool = True
    ) -> Tensor:
        """Vectors (n, d) with gradients to the weights that learn, on the encoder's device; not ``pooled``: (m, d), one of each
        of all the texts' m tokens, in the order of ``tokens.flat``.

        Batches of `batch_tokens`; those beyond `memory_tokens` keep no activations and are computed again in the backward
        pass (Chen et al. 2016), so that memory is bounded whatever the number of texts.

        Args:
            tokens: n texts.
            weights: values to read with, by the names of `Encoder.tuned_tensors`; None: the encoder's own. Gradients flow to them.
            share: of `memory_tokens`, where one backward pass goes through several calls.
            pooled: one vector for each text.
        """
        if not len(tokens):
            return torch.zeros(0, self.dim, device=self.device)
        values = {f"backbone.{name}": value for name, value in (weights or {}).items()}

        def read(*batch: Tensor) -> Tensor:
            # here, so that a batch that is computed again finds the same weights
            with self._attention():
                # the call by value walks through all modules, milliseconds of a GPU's time for every batch
                return functional_call(self, values, batch, {"pooled": pooled}) if values else self(*batch, pooled=pooled)

        vectors, order, kept, room = [], [], 0, share * self.memory_tokens
        for rows in tokens.batches(self.batch_tokens):
            batch = tokens.padded(rows, self.device)
            kept += batch[0].numel()
            again = torch.is_grad_enabled() and kept > room
            found = checkpoint(read, *batch, use_reentrant=False) if again else read(*batch)
            vectors.append(found if pooled else found[batch[1] > 0])
            order.append(rows if pooled else tokens.places(rows))
        place = torch.from_numpy(np.argsort(np.concatenate(order))).to(self.device)
        return torch.cat(vectors)[place]


def word_weights(tokenizer: Any) -> Tensor:
    """(v,) how much each token counts in the pooling "words": nothing what the tokenizer puts around texts, a quarter what is of
    punctuation alone, other tokens one."""
    around = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    vocabulary = tokenizer.get_vocab()
    marks = {char for char in {*"".join(vocabulary)} if char in string.punctuation or unicodedata.category(char)[0] == "P"}
    weights = np.ones(max(vocabulary.values()) + 1, np.float32)  # there may be numbers of no token
    for token, number in vocabulary.items():
        bare = token.removeprefix("##").strip("▁Ġ")  # of the signs of a tokenizer for where a word begins or goes on
        weights[number] = 0.0 if number in around else 0.25 if marks.issuperset(bare) else 1.0
    return torch.from_numpy(weights)


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(b, t, d) token states -> (b, d); of a mean ``mask`` may hold weights."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":  # the last token that is not padding
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return states[torch.arange(len(states), device=states.device), last]
    weight = mask[..., None].to(states.dtype)  # (b, t, 1)
    if pooling == "max":
        return states.masked_fill(weight == 0, -torch.inf).amax(1)
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)
