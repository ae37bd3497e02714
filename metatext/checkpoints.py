"""Checkpoints of a run, of meta-training or fine-tuning: whole folders that appear by one rename, and go on bit for bit."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .launch import on_main
from .run_folder import held
from .settings import ConfigError
from .shards import cut_like
from .storage import StorageError, fsync_folder, read_json, read_tensors, write_json, write_tensors

logger = logging.getLogger(__name__)

LATER = ("mixed_precision",)  # settings that earlier checkpoints do not say: theirs may have been any


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: where it lies, its trainer state, and the tensors of model and optimizer."""

    folder: Path
    state: dict[str, Any]
    tensors: Mapping[str, torch.Tensor]
    moments: Mapping[str, torch.Tensor]


class Checkpoints:
    """The folder of a run's checkpoints.

    Args:
        folder: made when the first is saved.
        limit: how many to keep; older ones are deleted after a newer one is safe on disk.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder = folder
        self.limit = limit

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor], state: dict[str, Any]
    ) -> None:
        """Write ``checkpoint-<step>`` of what was learned and of `moments_of` its optimizer, then drop the oldest beyond the limit."""
        final = self.folder / f"checkpoint-{step}"
        self._drop(step)  # one of this step that was passed over as damaged
        self._drop_drafts()
        draft = self.folder / f".draft-{step}-{os.getpid()}"
        try:
            write_tensors(draft / "model.safetensors", tensors)
            write_tensors(draft / "optimizer.safetensors", moments)
            write_json(draft / "trainer_state.json", state)
            os.rename(draft, final)
            fsync_folder(self.folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        passed_over = [number for number in self._steps() if number > step]  # damaged, or the run would have gone on from there
        for old in passed_over + [number for number in self._steps() if number <= step][: -self.limit]:
            self._drop(old)

    def check(self) -> None:
        """Find out before any is deleted whether all are ours.

        Raises:
            ConfigError: one is not, or cannot be told from those of other programs.
        """
        for step in self._steps():
            if not _is_ours(folder := self.folder / f"checkpoint-{step}"):
                raise ConfigError(
                    f"{folder} holds no trainer_state.json that metatext wrote, and a run deletes old checkpoints; move it away, or "
                    f"give another output_dir"
                )

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; a damaged one is passed over with a warning."""
        for step in reversed(self._steps()):
            folder = self.folder / f"checkpoint-{step}"
            try:
                state = read_json(folder / "trainer_state.json")
                tensors = read_tensors(folder / "model.safetensors")
                return Checkpoint(folder, state, tensors, read_tensors(folder / "optimizer.safetensors"))
            except StorageError as error:
                logger.warning("passing over a damaged checkpoint: %s", error)
        return None

    def clear(self) -> None:
        """Delete all of them, and the folder if nothing else is in it."""
        for step in self._steps():
            self._drop(step)
        self._drop_drafts()
        with contextlib.suppress(OSError):  # not empty, or not there
            self.folder.rmdir()

    def _drop(self, step: int) -> None:
        """Delete the checkpoint of a step, if there is one of ours; a kill while that goes on leaves a draft, which is known as ours."""
        if _is_ours(folder := self.folder / f"checkpoint-{step}"):
            doomed = self.folder / f".draft-{step}-{os.getpid()}-dropped"
            with contextlib.suppress(OSError):
                os.rename(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _drop_drafts(self) -> None:
        """Delete what a run that was killed left half written, or half deleted."""
        for left in self.folder.glob(".draft-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _steps(self) -> list[int]:
        names = (path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*"))
        return sorted(int(name) for name in names if name.isdigit())


def _is_ours(folder: Path) -> bool:
    """Whether `Checkpoints.save` wrote a folder; other programs call theirs by the same names, and write other states."""
    try:
        return "step" in read_json(folder / "trainer_state.json")
    except (StorageError, NotADirectoryError):
        return False


@contextlib.contextmanager
def alone(checkpoints: Checkpoints, settings: Mapping[str, Any], overwrite: bool, accelerator) -> Iterator[Checkpoint | None]:
    """Have the folder of a run, in which its checkpoints have theirs, alone while the block runs; gives the checkpoint to go on from.

    Args:
        checkpoints: of the run.
        settings: what decides its weights, see `check_same_run`.
        overwrite: go on from none.
        accelerator: of the launch, whose main process holds the folder for all.

    Raises:
        ConfigError: another run holds the folder, or there are checkpoints of another program, or of a run with other settings.
    """
    output_dir = checkpoints.folder.parent
    with contextlib.ExitStack() as stack:

        def take() -> None:
            stack.enter_context(held(output_dir))
            checkpoints.check()

        on_main(accelerator, take)
        resume = None if overwrite else checkpoints.latest()
        if resume:
            check_same_run(resume.state["settings"], settings, output_dir)
        yield resume


def scaler_state(accelerator) -> dict[str, Any] | None:
    """The state of fp16's scaler of the loss; None where there is none."""
    return None if accelerator.scaler is None else accelerator.scaler.state_dict()


def restore(checkpoint: Checkpoint, optimizer, accelerator) -> None:
    """Put the state that a checkpoint holds of the optimizer, and in ``scaler`` of fp16's scaler, in place; all processes together."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    moments = sorted(checkpoint.moments.items())  # each by the number of its parameter and a dot
    put_moments(optimizer.optimizer, {name: cut_like(t, params[int(name.partition(".")[0])]) for name, t in moments})
    if accelerator.scaler is not None and checkpoint.state["scaler"]:
        accelerator.scaler.load_state_dict(checkpoint.state["scaler"])


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's state, by "<number of the parameter>.<key>"; learning rates are none, they follow from the step."""
    return {f"{i}.{key}": value for i, values in optimizer.state_dict()["state"].items() for key, value in values.items()}


def put_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, torch.Tensor]) -> None:
    """Put what `moments_of` gave back in place."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in moments.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any], output_dir: Path) -> None:
    """Refuse to go on with other settings. ``flags`` decide nothing, and what a checkpoint does not say of `LATER` is no other setting.

    Args:
        before: the settings that the checkpoint says.
        now: those of this start.
        output_dir: of the run, for the message.

    Raises:
        ConfigError: names the settings that differ, the first eight with both values.
    """

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {prefix: value}
        return {k: v for key, part in value.items() for k, v in flat(part, f"{prefix}.{key}" if prefix else key).items()}

    before = {**{key: now[key] for key in LATER if key in now}, **before}
    old, new = (flat({key: value for key, value in settings.items() if key != "flags"}) for settings in (before, now))
    changed = [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if changed:
        more = f"; {len(changed) - 8} more" if len(changed) > 8 else ""
        raise ConfigError(
            f"{output_dir} holds a run with other settings ({'; '.join(changed[:8])}{more}). "
            f"Give another output_dir, or set overwrite_output_dir to start anew."
        )
