"""What a launch asks for: processes that synchronise, trackers, a compiler, and each process's share of a step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from .config import TrainConfig
from .encoder import Encoder
from .settings import ConfigError, MetatextError, nearest

SMALLEST_SCALE = 2.0**-14  # of fp16's losses, which start at 2^16: a gradient that is too large even so will not get better


class TrainingError(MetatextError, RuntimeError):
    """Training cannot go on: a loss that is not a number, or processes that would not synchronise."""


def best_device() -> torch.device:
    """The accelerator of this machine, else its CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def make_accelerator(config: TrainConfig | None = None):
    """The `Accelerator` of this launch, on the CPU where there is no accelerator; None: without trackers and accumulation steps.

    Raises:
        ConfigError: an unknown tracker.
        TrainingError: processes that would not synchronise, or weights in shards other than those of FSDP2 in a run of ``config``.
    """
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin

    asked = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    steps = 1 if config is None else asked or config.gradient_accumulation_steps
    # a data loader that another loop left at its end in this process would make every part of a step the last one
    options: dict[str, Any] = {"gradient_accumulation_plugin": GradientAccumulationPlugin(int(steps), sync_with_dataloader=False)}
    if config and trackers(config):
        options |= {"log_with": trackers(config), "project_dir": config.output_dir}
    # a CPU launch that does not say so runs processes that never synchronise
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), **options)
    if accelerator.distributed_type in ("FSDP", "DEEPSPEED", "MEGATRON_LM") and not (config and accelerator.is_fsdp2):
        raise TrainingError(
            f"the launch asks for {accelerator.distributed_type.value}; of what cuts weights into shards metatext has FSDP2, for meta-training "
            f"(recipes/launch/gpus_fsdp2.yaml). Launch with DDP (recipes/launch/gpus_bf16.yaml), and tuning lora or gradient_checkpointing "
            f"where memory is short."
        )
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and accelerator.num_processes == 1:
        raise TrainingError(
            f"WORLD_SIZE is {world} but Accelerate runs one process: {world} processes would train without synchronising. "
            f"On CPUs set ACCELERATE_USE_CPU=true and launch with --multi_gpu, or use recipes/launch/two_cpu_processes.yaml."
        )
    return accelerator


def on_main(accelerator, act: Callable[[], None]) -> None:
    """Let the main process act while the others wait; where that fails, all raise its error."""
    from accelerate.utils import broadcast_object_list

    error = None
    if accelerator.is_main_process:
        try:
            act()
        except (MetatextError, OSError) as raised:
            error = raised
    error = broadcast_object_list([error])[0]
    if error is not None:
        raise error


def scale_can_fall(accelerator) -> bool:
    """Whether a gradient that is not a number may be due to fp16's scale of the loss: the step is skipped then, and the scale halved."""
    return accelerator.scaler is not None and accelerator.scaler.get_scale() > SMALLEST_SCALE


@contextlib.contextmanager
def compiled(accelerator, encoder: Encoder | None, second_order: bool = False) -> Iterator[None]:
    """The launch's dynamo backend compiles the backbone alone, for any shape: around it every step has other shapes and numpy.

    Args:
        accelerator: of the launch; what it prepares in the block is not compiled.
        encoder: one that may learn; None: there is none.
        second_order: whether second derivatives go through it.

    Raises:
        TrainingError: what is to be compiled needs second derivatives.
    """
    from accelerate.utils import DynamoBackend

    plugin = accelerator.state.dynamo_plugin
    backend = plugin.backend
    if backend != DynamoBackend.NO and encoder is not None and encoder.is_tuned:
        if second_order:
            raise TrainingError(
                "a compiled encoder has no second derivative, which encoder_steps needs; launch with --dynamo_backend no, or set first_order"
            )
        encoder.backbone.compile(**{**plugin.to_kwargs(), "dynamic": True})
    plugin.backend = DynamoBackend.NO  # prepare() would compile all it is given
    try:
        yield
    finally:
        plugin.backend = backend


def trackers(config: TrainConfig) -> list[str]:
    """The names in ``report_to``; "none" means none, as in transformers."""
    from accelerate.tracking import LoggerType, get_available_trackers

    known = [item.value for item in LoggerType]
    names = [name for name in config.report_to if name != "none"]
    there = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"report_to: unknown tracker {name!r}{nearest(name, known, end='.')} Known: none, {', '.join(known)}"
            )
        if name != "all" and name not in there:
            raise ConfigError(f"report_to: the tracker {name!r} is not installed here, and the run would go untracked")
    return names


def shares(sizes: np.ndarray, accelerator) -> list[np.ndarray]:
    """The episodes, of n with these sizes in ascending order, that this process works through: one array per accumulation step.

    From the largest on, each goes to the process with the least work so far (Graham 1969), since all wait for the slowest; every
    accumulation step gets one at least. Within a process like sizes go together.
    """
    processes, steps = accelerator.num_processes, accelerator.gradient_accumulation_steps
    work, missing, own = [0.0] * processes, [steps] * processes, []
    for number in reversed(range(len(sizes))):
        free = [i for i in range(processes) if missing[i] > 0 or sum(missing) <= number]
        least = min(free, key=work.__getitem__)
        work[least] += float(sizes[number])
        missing[least] = max(0, missing[least] - 1)
        if least == accelerator.process_index:
            own.append(number)
    return np.array_split(np.array(own[::-1]), steps)
