"""Weights in shards (FSDP2): between two steps a process keeps a part of the encoder that learns, of its gradients and of Adam's moments.

All of the encoder, and of a language model, is one group, gathered once and reduced once in every part of a step: processes read
different numbers of batches, so groups of single layers would wait for each other for ever. The heads are small, and have scalars,
which cannot be cut: each process has all of them, and their gradients are averaged here. What is evaluated and saved is a whole model
beside the one in shards.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .launch import TrainingError

if TYPE_CHECKING:
    from .model import MetaModel


def to_shard(model: MetaModel, accelerator) -> MetaModel:
    """A copy of ``model`` that `Accelerator.prepare` may cut, with the launch set to cut no more than that; where the launch does not cut
    weights the model itself.

    Args:
        model: stays whole.
        accelerator: of the launch.

    Raises:
        TrainingError: the launch, or the head, asks for what shards do not have.
    """
    if not accelerator.is_fsdp2:
        return model
    from accelerate.utils import compare_versions

    plugin = accelerator.state.fsdp_plugin
    offloads = getattr(plugin.cpu_offload, "pin_memory", None) is not None
    for asked, what, instead in (
        (compare_versions("accelerate", "<", "1.15"), "accelerate before 1.15", "pip install --upgrade accelerate"),
        (model.adapts_encoder, "encoder_steps", "launch with DDP"),
        (accelerator.scaler is not None, "fp16", "launch with --mixed_precision bf16"),
        (offloads, "fsdp_offload_params", "set it to false"),
        (plugin.activation_checkpointing, "fsdp_activation_checkpointing", "set gradient_checkpointing of the encoder"),
    ):
        if asked:
            raise TrainingError(f"weights in shards (FSDP2) do not go with {what}; {instead}")
    base = model.encoder.base
    learner = copy.deepcopy(model, {id(base): base})  # the pretrained backbone is shared, it never changes
    plugin.auto_wrap_policy = None
    plugin.mixed_precision_policy = None  # autocast decides, as under DDP: a solve has no place in half precision
    plugin.cpu_ram_efficient_loading = False  # every process has loaded the weights
    plugin.ignored_modules = [module for module in (learner.heads, base) if module is not None]
    return learner


def average_gradients(learner: MetaModel, accelerator) -> None:
    """Give the heads, which are in no shard, the mean of the processes' gradients."""
    params = [p for p in learner.heads.parameters() if p.grad is not None]
    mean = accelerator.reduce(torch.cat([p.grad.flatten() for p in params]), "mean")
    for p, grad in zip(params, mean.split([p.numel() for p in params]), strict=True):
        p.grad.copy_(grad.view_as(p))


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with those in shards gathered; every process must ask for the same."""
    return {name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor for name, tensor in tensors.items()}


def cut_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, cut as a parameter of its shape is; every process must ask for the same."""
    if not hasattr(parameter, "full_tensor") or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
