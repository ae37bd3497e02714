"""What a run says while it learns: a bar, or where no terminal shows it lines with the time left; mean losses, texts per second."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class Progress:
    """Of the outer steps that this start of a run takes.

    Args:
        accelerator: sums over the processes; the main one speaks.
        meta_steps: of the whole run.
        start: steps that were done before.
        seen: what `seen` gave where these were done; None: nothing since the last `means`.

    Attributes:
        texts: that this process has read.
        rate: texts per second of training, of all processes, when `means` was asked last.
    """

    def __init__(self, accelerator, meta_steps: int, start: int, seen: list[float] | None = None):
        from tqdm.auto import tqdm

        self.accelerator, self.meta_steps, self.start = accelerator, meta_steps, start
        hidden = None if accelerator.is_main_process else True  # None: unless a terminal shows it
        self.bar = tqdm(total=meta_steps, initial=start, desc="meta-training", unit="step", disable=hidden)
        own = seen if seen and accelerator.is_main_process else [0.0, 0.0, 0.0]
        self.sums = torch.tensor(own, device=accelerator.device)  # losses, drifts, episodes
        self.texts, self.rate, self.paused, self.began = 0, 0.0, 0.0, time.monotonic()

    def add(self, losses: Tensor, drift: Tensor, texts: int) -> None:
        """Count the (b,) losses and drifts of b episodes, and the texts that were read for them."""
        losses, drift = losses.detach().float(), drift.detach().float()
        self.sums += torch.stack([losses.sum(), drift.sum(), losses.new_tensor(len(losses))])
        self.texts += texts

    def means(self) -> tuple[float, float]:
        """Loss and drift of an episode since the last call, over all processes."""
        sums = self.accelerator.reduce(torch.cat([self.sums, self.sums.new_tensor([self.texts])]), "sum")
        loss, drift, episodes, texts = sums.tolist()
        self.rate = texts / (time.monotonic() - self.began - self.paused)
        self.sums.zero_()
        return loss / episodes, drift / episodes

    def seen(self) -> list[float]:
        """Losses, drifts and episodes since the last `means`, over all processes: what a run goes on from."""
        return self.accelerator.reduce(self.sums.clone(), "sum").tolist()

    def show(self, step: int, loss: float, best: Mapping[str, float]) -> None:
        """Say how far it is, with the mean loss, and the lowest one on unseen tasks where there are any."""
        self.bar.set_postfix(loss=f"{loss:.3f}", **({"unseen": f"{best['eval_loss']:.3f}"} if best else {}))
        if self.bar.disable and self.accelerator.is_main_process:
            left = (time.monotonic() - self.began) / (step - self.start) * (self.meta_steps - step)
            speed = f"{self.rate:.0f} texts/s, " if self.texts else ""
            logger.info("step %d of %d, loss %.3f, %s%s left", step, self.meta_steps, loss, speed, timedelta(seconds=round(left)))

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What happens in the block is not training."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.paused += time.monotonic() - began


class Epochs:
    """Of fine-tuning: a bar of steps, or where no terminal shows it a line for each epoch.

    Args:
        accelerator: its main process speaks.
        epochs, steps: how many, and how many steps each has.
        what: is done.
        start: epochs that were done before.
    """

    def __init__(self, accelerator, epochs: int, steps: int, what: str, start: int = 0):
        from tqdm.auto import tqdm

        self.speaks, self.epochs, self.what, self.start = accelerator.is_main_process, epochs, what, start
        hidden = None if self.speaks else True  # None: unless a terminal shows it
        self.bar = tqdm(total=epochs * steps, initial=start * steps, desc=what, unit="step", disable=hidden)
        self.began = time.monotonic()

    def show(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Say after an epoch what the held-out examples give, {} where there are none, and how long the others may take."""
        said = {"held-out loss": f"{figures['loss']:.3f}", "accuracy": f"{figures['accuracy']:.3f}"} if figures else {}
        self.bar.set_postfix(said)
        if self.bar.disable and self.speaks:
            seconds = (time.monotonic() - self.began) / (epoch - self.start) * (self.epochs - epoch)
            left = timedelta(seconds=round(seconds))
            words = "".join(f", {name} {value}" for name, value in said.items())
            logger.info("%s: epoch %d of at most %d%s, %s left", self.what, epoch, self.epochs, words, left)
