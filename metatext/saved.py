"""What a saved folder says, checked before anything is made of it: encoder, head, language model, the task of a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import EncoderConfig, HeadConfig, LanguageConfig
from .encoder import Encoder
from .kinds import KINDS
from .language import LanguageError, LanguageModel
from .loading import EMBEDDED_ID, SMOLLM2, Access, EncoderError
from .representation import Support
from .residual import residual_shapes
from .risk import RiskCurve
from .settings import ConfigError, check_is, from_dict
from .storage import StorageError

# a name that is a folder is written down as it was given, relative to another one perhaps
MOVED = "If it is a folder that lies elsewhere:"
RENAME = "put it there, or write in config.json, {}, name, where it is now"


@dataclass(frozen=True)
class Saved:
    """The description of a model in config.json, as values.

    Attributes:
        encoder: how it is loaded.
        fingerprint, dim: of the encoder.
        settings: pooling, max_length and prompt, as they were resolved.
        head, kinds, notes, risk, threshold: of the model.
    """

    encoder: EncoderConfig
    fingerprint: str
    dim: int
    settings: Mapping[str, Any]
    head: HeadConfig
    kinds: tuple[str, ...]
    notes: Mapping[str, Any] | None
    risk: RiskCurve | None
    threshold: float

    @property
    def writes(self) -> bool:
        """Whether a language model belongs to it."""
        return any(kind in KINDS and KINDS[kind].written for kind in self.kinds)


def read_saved(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Saved:
    """The description of a model.

    Raises:
        StorageError: a part is missing or wrong, or a weight is not finite.
    """
    try:
        said = dict(config["encoder"])
        expected, dim = said.pop("fingerprint"), said.pop("dim")
        encoder = from_dict(EncoderConfig, {k: v for k, v in said.items() if v not in (None, "")}, where)
        head = from_dict(HeadConfig, config["head"], where)
        kinds, notes = tuple(config["kinds"]), config.get("training")
        risk = RiskCurve.from_dict(config["risk"]) if config.get("risk") else None
        threshold = float(config.get("threshold", 0.5))
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: expected a probability, got {threshold}")
    except ConfigError as error:
        raise StorageError(f"{where}/config.json is of a metatext with other settings, or damaged: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{where}/config.json is incomplete or damaged: {type(error).__name__}: {error}") from None
    if not (isinstance(expected, str) and isinstance(dim, int) and isinstance(config["kinds"], list)):
        raise StorageError(f"{where}/config.json is damaged: fingerprint, dim or kinds are not what they should be")
    broken = next((name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()), None)
    if broken:
        raise StorageError(f"{where}/model.safetensors: {broken} holds numbers that are not finite")
    return Saved(encoder, expected, dim, said, head, kinds, notes, risk, threshold)


def saved_encoder(saved: Saved, where: str, given: Encoder | None, access: Access) -> Encoder:
    """The encoder of a model, or the one that is given if it is the same.

    Raises:
        EncoderError: it cannot be had, or has other weights, or reads otherwise.
        StorageError: its features have another length.
    """
    check_is(given, (Encoder, type(None)), "encoder", "load it with Encoder.load", EncoderError)
    if given is None:
        encoder = _named_encoder(saved, where, access)
    elif given.is_tuned or saved.encoder.tuning != "frozen":
        raise EncoderError(
            f"{where}: an encoder can be given only where nothing of it was trained; saved is tuning {saved.encoder.tuning}, "
            f"given is tuning {given.config.tuning}. Leave `encoder` out."
        )
    elif given.fingerprint != saved.fingerprint:
        raise EncoderError(
            f"{where}: the head was trained on encoder weights {saved.fingerprint[:12]}, the encoder given has {given.fingerprint[:12]}"
        )
    else:
        encoder = given
    for key in ("pooling", "max_length", "prompt"):
        if saved.settings.get(key) is not None and getattr(encoder, key) != saved.settings[key]:
            raise EncoderError(
                f"{where}: the head was trained with the encoder's {key} {saved.settings[key]!r}, the encoder given has {getattr(encoder, key)!r}"
            )
    if encoder.dim != saved.dim:
        raise StorageError(f"{where}: the head was made for features of length {saved.dim}, the encoder gives {encoder.dim}")
    return encoder


def _named_encoder(saved: Saved, where: str, access: Access) -> Encoder:
    """The encoder by its name; the error says what to do where that may be a folder that was moved."""
    name = saved.encoder.name
    try:
        return Encoder.load(saved.encoder, expected_fingerprint=saved.fingerprint, access=access)
    except EncoderError as error:
        if name == EMBEDDED_ID or Path(name).is_dir():
            raise
        way = "from_pretrained(..., encoder=metatext.Encoder.load('<where it is now>'))"
        way = way if saved.encoder.tuning == "frozen" else RENAME.format("encoder")
        raise EncoderError(f"{where}: {error} {MOVED} {way}") from error


def saved_language(saved: Any, where: str, given: LanguageModel | None, access: Access) -> LanguageModel:
    """The language model that config.json describes, or the one that is given if it is the same."""
    try:
        saved = dict(saved)
        expected = saved.pop("fingerprint")
        config = from_dict(LanguageConfig, saved, where)
    except (KeyError, TypeError, ValueError) as error:  # a ConfigError is a ValueError
        raise StorageError(f"{where}/config.json is incomplete or damaged: language: {type(error).__name__}: {error}") from None
    if given is None:
        try:
            return LanguageModel.load(config, expected_fingerprint=expected, access=access)
        except LanguageError as error:
            if config.name == SMOLLM2 or Path(str(config.name)).is_dir():
                raise
            raise LanguageError(f"{where}: {error} {MOVED} {RENAME.format('language')}") from error
    if given.is_tuned or config.tuning != "frozen" or given.fingerprint != expected:
        raise LanguageError(
            f"{where}: a language model can be given only where nothing of it was trained; saved is {expected[:12]} with tuning {config.tuning}, "
            f"given is {given.fingerprint[:12]} with tuning {given.config.tuning}. Leave `language` out."
        )
    if given.config.prompt_length != config.prompt_length or given.config.prompt_rank != config.prompt_rank:
        raise LanguageError(
            f"{where}: the head was made for prompt_length {config.prompt_length} and prompt_rank {config.prompt_rank}, the language model "
            f"given has {given.config.prompt_length} and {given.config.prompt_rank}"
        )
    return given


def check_fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], message: str) -> None:
    """Raises `StorageError` with this message where names or shapes differ; the first that does is named."""
    shapes, expected = ({name: tuple(t.shape) for name, t in part.items()} for part in (tensors, wanted))
    wrong = min((name for name in {*shapes, *expected} if shapes.get(name) != expected.get(name)), default=None)
    if wrong is not None:
        raise StorageError(f"{message}: {wrong} is {shapes.get(wrong)}, expected {expected.get(wrong)}")


@dataclass(frozen=True)
class SavedTask:
    """What a classifier's folder holds besides its model; as the arguments of `AdaptedModel`."""

    support: Support
    labels: Sequence
    label_names: Sequence[str | None]
    kind: str
    pairs: bool | None
    scale: tuple[float, float]
    finetuning: Mapping[str, Any] | None


def read_task(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    residual: Mapping[str, Tensor],
    kinds: Sequence[str],
    dim: int,
    where: str,
) -> SavedTask:
    """The task of a classifier.

    Args:
        config: of config.json.
        tensors: of model.safetensors.
        residual: those of them that gradient steps added.
        kinds: of the model.
        dim: length of the encoder's features.
        where: for messages.

    Raises:
        StorageError: a part is missing or wrong, or parts do not fit each other.
    """
    try:
        support = Support(**{item.name: tensors[f"support.{item.name}"] for item in dataclasses.fields(Support)})
        task = config["task"]
        labels, names, kind, pairs = (task[key] for key in ("labels", "label_names", "kind", "pairs"))
        scale = tuple(map(float, task.get("scale", (0.0, 1.0))))
    except KeyError as error:
        raise StorageError(f"{where} is incomplete: {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise StorageError(f"{where}/config.json is damaged: {error}") from None
    if kind not in kinds or len(scale) != 2:
        raise StorageError(f"{where}/config.json is damaged: its task is of kind {kind!r}, its head for {', '.join(kinds)}")
    dims = 4 if kind == "span" else 3
    if support.y.ndim != dims:
        raise StorageError(f"{where}/model.safetensors: support.y has {support.y.ndim} dimensions, expected {dims}")
    w, labelled = support.y.shape[-1], KINDS[kind].column == "label"
    if not len(labels) == len(names) or len(labels) not in ((w,) if labelled else (0, 2)):
        raise StorageError(
            f"{where}/config.json does not fit its weights: {len(labels)} labels and {len(names)} label_names for {w} classes"
        )
    rows = tuple(support.y.shape[:-1])  # of spans (1, s, t)
    c = 0 if kind == "span" else w
    shapes = {"x": (*rows, dim), "y": (*rows, w), "label_x": (1, c, dim), "task_x": (1, dim)}
    shapes |= {"row_mask": rows, "class_mask": (1, c), "label_mask": (1, c), "task_mask": (1,)}
    for name, shape in shapes.items():
        tensor = getattr(support, name)
        if tuple(tensor.shape) != shape or (tensor.dtype == torch.bool) != name.endswith("mask"):
            raise StorageError(
                f"{where}/model.safetensors: support.{name} is {tuple(tensor.shape)} {tensor.dtype}, expected {shape}"
            )
    expected = residual_shapes(w, dim) if residual else {}
    found = {name: tuple(tensor.shape) for name, tensor in residual.items()}
    if found != expected or not all(tensor.isfinite().all() for tensor in residual.values()):
        raise StorageError(f"{where}/model.safetensors: fine-tuned parameters are {found}, expected finite {expected}")
    return SavedTask(support, labels, names, kind, pairs, scale, task.get("finetuning"))
