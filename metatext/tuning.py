"""What of an encoder learns: nothing, low-rank updates, or all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .config import EncoderConfig, LanguageConfig
from .settings import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def set_dropout(architecture: PretrainedConfig, p: float) -> None:
    """Set every dropout of an architecture, whatever it calls them (``hidden_dropout_prob``, ``attention_dropout``, ``dropout_rate`` ...)."""
    for name, value in vars(architecture).items():
        if "dropout" in name and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(architecture, name, p)


def prepare(backbone: nn.Module, config: EncoderConfig) -> nn.Module:
    """The backbone with exactly those parameters trainable that ``config.tuning`` names; LoRA layers are put in place.

    The updates start at zero, and from the same random numbers every time: whatever ``tuning`` is, the features start as
    the pretrained ones.

    Raises:
        ConfigError: ``lora_targets`` names no linear layer of this architecture.
    """
    backbone.requires_grad_(config.tuning == "full")
    if config.tuning == "lora":
        backbone = add_low_rank(backbone, config)
    if config.tuning != "frozen" and config.gradient_checkpointing:
        newer = hasattr(backbone, "activation_checkpointing_enable")  # its name in newer releases of transformers
        enable = backbone.activation_checkpointing_enable if newer else backbone.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return backbone


def add_low_rank(backbone: nn.Module, config: EncoderConfig | LanguageConfig, setting: str = "lora_targets") -> nn.Module:
    """The backbone with low-rank updates, the only parameters of theirs that learn; see `prepare`. ``setting`` is the name of
    ``config.lora_targets`` in messages."""
    from peft import LoraConfig, inject_adapter_in_model

    linear = sorted({name.rsplit(".", 1)[-1] for name, part in backbone.named_modules() if isinstance(part, nn.Linear)})
    foreign = sorted({*config.lora_targets} - {*linear})
    if foreign or not linear:
        raise ConfigError(
            f"{setting}: {', '.join(foreign) or 'all linear layers'}: {config.name!r} has no such; it has {', '.join(linear) or 'none'}"
        )
    targets = list(config.lora_targets) or "all-linear"
    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return inject_adapter_in_model(lora, backbone)


def tuned(backbone: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in backbone.named_parameters() if p.requires_grad}


def moment(backbone: nn.Module) -> tuple:
    """Equal until a weight that learns changes, by an operation on it."""
    return tuple((p.device, p.dtype, p._version) for p in tuned(backbone).values())


class FrozenCopy:
    """The frozen copy of a model that learns, made anew when one of its weights has changed. A copy of the model has none yet."""

    def __init__(self) -> None:
        self._kept: tuple[tuple, nn.Module] | None = None

    def __deepcopy__(self, memo: dict) -> FrozenCopy:
        return FrozenCopy()

    def get(self, backbone: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
        """The copy, by ``make`` where ``backbone`` is no longer what it was made of."""
        now = moment(backbone)
        if self._kept is None or self._kept[0] != now:
            self._kept = None  # before the new copy is made: never two of them
            self._kept = now, make()
        return self._kept[1]


@torch.no_grad()
def put(backbone: nn.Module, tensors: Mapping[str, Tensor], error: type[Exception], said: str) -> None:
    """Copy values to the parameters that learn.

    Args:
        backbone: changed in place.
        tensors: one for each of `tuned`, by name.
        error: raised where they are not those; the first that differs is named.
        said: what the backbone is, for the message.
    """
    own = tuned(backbone)
    for name in sorted({*own, *tensors}):
        shapes = [tuple(of[name].shape) if name in of else None for of in (tensors, own)]
        if shapes[0] != shapes[1]:
            raise error(f"trained weights do not fit {said}: {name} is {shapes[0]}, expected {shapes[1]}")
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


def merge(backbone: nn.Module) -> nn.Module:
    """The backbone with its low-rank updates added to the weights and no LoRA layer left; changed in place."""
    from peft.tuners.lora import LoraLayer

    for name, layer in [(n, m) for n, m in backbone.named_modules() if isinstance(m, LoraLayer)]:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(backbone.get_submodule(parent), own, layer.get_base_layer())
    return backbone


@torch.no_grad()
def scaled(trained: Mapping[str, Tensor], base: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Trained weights with ``share`` of their distance from the pretrained ones.

    Full weights are averaged with the pretrained ones, ``base + share (trained - base)`` (Wortsman et al. 2022); of a low-rank
    update ``B A`` the factor B is multiplied by ``share``, which is the same for the weights.

    Args:
        trained: of `tuned`, by name.
        base: pretrained weights by name; those that a full tuning has trained must be among them.
        share: 1 keeps what was trained, 0 is the pretrained encoder.
    """

    def one(name: str, value: Tensor) -> Tensor:
        if "lora_" in name:
            return value * share if "lora_B" in name else value.clone()
        start = base[name].to(value.device)
        return start + share * (value - start)

    return {name: one(name, value) for name, value in trained.items()}
