"""What config.json and model.safetensors hold of a `MetaModel`: how it is described, and what is read again, checked before a model is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .config import EncoderConfig, HeadConfig, LanguageConfig
from .encoder import Encoder
from .heads import check_head
from .kinds import KINDS
from .language import LanguageError, LanguageModel
from .loading import EMBEDDED_ID, SMOLLM2, Access, EncoderError
from .risk import RiskCurve
from .settings import ConfigError, check_is, from_dict, to_dict
from .storage import StorageError

if TYPE_CHECKING:
    from .model import MetaModel

TUNING = ("tuning", "lora_rank", "lora_alpha", "lora_targets", "pretrained_share", "pretrained_pooling")
ENCODER, LANGUAGE = "encoder.", "language."  # prefixes of their weights in model.safetensors

# a name that is a folder is written down as it was given, relative to another one perhaps
MOVED = "If it is a folder that lies elsewhere:"
RENAME = "put it there, or write in config.json, {}, name, where it is now"


def describe_model(self: MetaModel) -> dict[str, Any]:
    """What config.json says of a model: how to find the encoder and make the head."""
    encoder = self.encoder
    name, revision = encoder.reference
    settings = {"pooling": encoder.pooling, "max_length": encoder.max_length, "prompt": encoder.prompt}
    if encoder.is_tuned:
        settings |= {key: value for key, value in to_dict(encoder.config).items() if key in TUNING}
    return {
        "kinds": list(self.kinds),
        "encoder": {"name": name, "revision": revision, "fingerprint": encoder.fingerprint, "dim": encoder.dim, **settings},
        "head": to_dict(self.head_config),
        "language": self.language.describe() if self.language is not None else None,
        "risk": self.risk.to_dict() if self.risk else None,
        "threshold": self.threshold,
        "training": self.notes,
    }


def learned_tensors(self: MetaModel) -> dict[str, Tensor]:
    """All that was learned, by name: the heads, each with its kind as prefix, and with the prefixes ``encoder.`` and ``language.`` what
    learns of the encoder and of the language model."""
    learned = {f"{ENCODER}{name}": tensor for name, tensor in self.encoder.tuned_tensors().items()}
    if self.language is not None:
        learned |= {f"{LANGUAGE}{name}": tensor for name, tensor in self.language.tuned_tensors().items()}
    return {**self.heads.state_dict(), **learned}


def load_learned(self: MetaModel, tensors: Mapping[str, Tensor]) -> None:
    """Put what `MetaModel.tensors` gave back in place."""

    def of(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    self.heads.load_state_dict({name: t for name, t in tensors.items() if not name.startswith((ENCODER, LANGUAGE))})
    self.encoder.load_tuned(of(ENCODER))
    if self.language is not None:
        self.language.load_tuned(of(LANGUAGE))


def restore_model(
    cls: type[MetaModel],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    where: str,
    encoder: Encoder | None = None,
    language: LanguageModel | None = None,
    access: Access = Access(),
) -> MetaModel:
    """The model that `MetaModel.describe` and the head's tensors describe; ``where`` is for messages, ``access`` for the encoder.

    Raises:
        StorageError: a part of the description is missing or wrong, or tensors do not fit the head.
        EncoderError, LanguageError: see `MetaModel.from_pretrained`.
    """
    saved = read_saved(config, tensors, where)
    encoder = saved_encoder(saved, where, encoder, access)
    language = saved_language(config.get("language"), where, language, access) if saved.writes else None
    try:
        model = cls(encoder, saved.head, saved.kinds, saved.notes, language)
    except ConfigError as error:
        raise StorageError(f"{where}/config.json: {error}") from None
    check_fit(tensors, model.tensors(), f"{where}/model.safetensors does not fit the head {saved.head.name!r} and its encoder")
    model.load_tensors(tensors)
    model.risk, model.threshold = saved.risk, saved.threshold
    return model


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
        check_head(head)
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
