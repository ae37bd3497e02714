"""A run of `meta_train` between two of its steps: how far it is, which weights were best, and what it keeps of them in its folder."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checkpoints import Checkpoint, Checkpoints, alone, moments_of, scaler_state
from .config import TrainConfig
from .encoder import Encoder
from .heldout import learn_risk, learn_threshold, watch
from .kinds import KINDS
from .launch import on_main
from .metrics import UNITS
from .model import CONTENT, MetaModel
from .objective import averaged
from .plots import plot_learning_curve
from .progress import Progress
from .risk import RiskCurve
from .run_folder import CURVE, METRICS, clear_folder, read_metrics, versions
from .shards import whole
from .stopping import Stopped, StopSignals
from .storage import StorageError, digest, read_folder, weights_digest, write_json

logger = logging.getLogger(__name__)


class Run:
    """What a run knows between two steps, and what it keeps of it in its folder."""

    def __init__(self, model: MetaModel, config: TrainConfig, accelerator, settings: dict[str, Any]):
        self.model, self.config, self.accelerator, self.settings = model, config, accelerator, settings
        self.learner = model  # what the steps change: the model itself, or a copy in shards
        self.output_dir = Path(config.output_dir)
        self.checkpoints = Checkpoints(self.output_dir / "checkpoints", config.save_total_limit)
        self.step, self.stale = 0, 0  # steps done; evaluations since the best one
        self.best: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.unseen: list = []
        self.base: Encoder | None = None  # the pretrained encoder, where it is needed beside the one that learns
        self.start = ""  # digest of the weights that the run began with

    def folder(self) -> contextlib.AbstractContextManager[Checkpoint | None]:
        """Have the folder alone while the block runs, see `checkpoints.alone`."""
        return alone(self.checkpoints, self.settings, self.config.overwrite_output_dir, self.accelerator)

    def begin(self, resume: Checkpoint | None) -> None:
        """Take up the weights and figures of a checkpoint, or take away what an earlier run left."""
        self.start = given = digest(self.model.tensors())
        if resume:
            self.start = resume.state.get("start", given)
            own, kept = {self.start, digest(resume.tensors)}, False
            with contextlib.suppress(StorageError):  # none is kept yet, or it was deleted
                own.add(digest(read_folder(self.output_dir, CONTENT)[1]))  # what a model that was trained here holds
                kept = True
            if given not in own and self.accelerator.is_main_process:
                logger.warning(
                    "%s began with other weights than those of the model given, which are left aside; to train that one give another "
                    "output_dir, or set overwrite_output_dir to start anew",
                    self.output_dir,
                )
            self.model.load_tensors(resume.tensors)
            self.step, self.best, self.history, self.stale = (resume.state[k] for k in ("step", "best", "history", "stale"))
            if self.accelerator.is_main_process:
                logger.info("going on from %s", resume.folder)
            if self.best and not kept:
                if self.accelerator.is_main_process:
                    logger.warning(
                        "%s no longer holds the best weights so far, those of step %d; those of the checkpoint take their place",
                        self.output_dir,
                        self.best["step"],
                    )
                self.best, self.stale = {}, 0
        elif self.config.overwrite_output_dir:

            def clear() -> None:
                clear_folder(self.output_dir)
                self.checkpoints.clear()

            on_main(self.accelerator, clear)

    @property
    def over(self) -> bool:
        return self.step >= self.config.meta_steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        return self.config.early_stopping_patience is not None and self.stale >= self.config.early_stopping_patience

    def is_due(self, steps: int) -> bool:
        """Whether what happens every so many steps, and at the last one, happens now."""
        return self.step % steps == 0 or self.step == self.config.meta_steps

    def collect(self) -> None:
        """Bring what the learner has learned to the model; all processes together."""
        if self.learner is not self.model:
            self.model.load_tensors(whole(self.learner.tensors()))

    def log(self, point: dict[str, float]) -> None:
        self.history.append(point)
        self.accelerator.log({k: v for k, v in point.items() if k != "step"}, step=self.step)

    def evaluate(self) -> None:
        """Measure on the unseen tasks, and keep the model where it is the best so far."""
        self.collect()
        with averaged(self.model.encoder, self.base, self.config.encoder_share):
            point = {"step": self.step, **watch(self.model, self.unseen, self.config, self.accelerator, self.step)}
            self.log(point)
            if self.accelerator.is_main_process:
                figures = {k.removeprefix("eval_"): v for k, v in point.items() if k not in ("step", "eval_loss")}
                seen = ", ".join(f"{k} {v:.3f}" if k in UNITS else f"{k} {100 * v:.1f} %" for k, v in figures.items())
                logger.info("step %d: unseen tasks %s, loss %.3f", self.step, seen, point["eval_loss"])
            if not self.best or point["eval_loss"] < self.best["eval_loss"]:
                self.best, self.stale = point, 0
                self.keep(point)
            else:
                self.stale += 1

    def keep(self, kept: dict[str, float]) -> None:
        """Write the model as it is to the folder of the run."""
        if self.accelerator.is_main_process:
            told = {k: v for k, v in self.settings.items() if k not in ("encoder", "head", "language")}
            given, self.model.notes = self.model.notes, {"settings": told, "kept": kept}
            try:
                self.model.save_pretrained(self.output_dir)
            finally:  # until the run ends the model has its own: a call that goes on is known by them
                self.model.notes = given

    def save(self, optimizer, progress: Progress) -> None:
        """Write a checkpoint."""
        seen = progress.seen()
        tensors, moments = whole(self.learner.tensors()), whole(moments_of(optimizer.optimizer))
        if self.accelerator.is_main_process:
            state = {"step": self.step, "best": self.best, "history": self.history, "stale": self.stale}
            state |= {"settings": self.settings, "start": self.start, "scaler": scaler_state(self.accelerator), "seen": seen}
            self.checkpoints.save(self.step, tensors, moments, state)

    def between_steps(self, optimizer, progress: Progress, signals: StopSignals) -> None:
        """Evaluate and save where that is due.

        Raises:
            Stopped: a signal asked for it.
        """
        if self.unseen and self.is_due(self.config.eval_steps):
            self.evaluate()
        asked = signals.asked(self.over)
        if asked or self.stopped_early or self.is_due(self.config.save_steps):
            self.save(optimizer, progress)
        if asked:
            self.accelerator.wait_for_everyone()  # where one process ends, the launcher ends the others
            name, kept = signal.Signals(asked).name, self.checkpoints.folder / f"checkpoint-{self.step}"
            done = f"step {self.step} of {self.config.meta_steps}: stopped by {name}"
            same = "the same command" + ", without overwrite_output_dir," * self.config.overwrite_output_dir
            raise Stopped(f"{done}; {kept} is kept, and {same} goes on from there", asked)

    def finish(self, start: int, progress: Progress) -> None:
        """Write figures and curve, and leave the model with the weights that were kept, and what the unseen tasks say of them."""
        model, history, output_dir = self.model, self.history, self.output_dir
        if not self.unseen:
            self.collect()
            with averaged(model.encoder, self.base, self.config.encoder_share):
                self.keep({"step": self.step})
        self.accelerator.wait_for_everyone()
        _load_best(model, output_dir)
        kept = model.notes.get("kept", self.best)
        if self.best and kept != self.best:  # a start that was killed kept them behind its last checkpoint
            self.best = kept
            if self.accelerator.is_main_process:
                logger.warning(
                    "the weights kept are those of step %d of an earlier start that was killed; this one, which went on from a checkpoint before "
                    "that step, found none that it would keep",
                    kept["step"],
                )
        if self.accelerator.is_main_process:
            figures = {
                "settings": self.settings,
                "versions": versions(),
                "steps": self.step,
                "best": self.best,
                "history": history,
            }
            figures["weights"] = weights_digest(output_dir)  # whose figures they are
            if progress.texts:
                figures |= {"processes": self.accelerator.num_processes, "texts_per_second": round(progress.rate, 1)}
            if self.step > start or read_metrics(output_dir) is None:  # a finished run that is started again has no new figures
                write_json(output_dir / METRICS, figures)
            plot_learning_curve(history, output_dir / CURVE)
            if self.stopped_early and start < self.step < self.config.meta_steps:
                low = self.best["eval_loss"], self.best["step"]
                logger.info(
                    "step %d: stopped early, no lower loss in %d evaluations than %.3f at step %d", self.step, self.stale, *low
                )
            if self.best and not self.best["step"] and self.step > start:
                logger.warning("no step was better on the unseen tasks than the start, whose weights are kept")
        self.accelerator.wait_for_everyone()
        _learn_limits(model, self.unseen, output_dir, self.config, self.accelerator)
        if self.accelerator.is_main_process:
            for tracker in self.accelerator.trackers:  # not end_training(): it would part processes that have more to do together
                tracker.finish()


def _learn_limits(model: MetaModel, unseen: Sequence, output_dir: Path, config: TrainConfig, accelerator) -> None:
    """Learn on the unseen tasks how often answers are wrong, and which probability makes a label an answer; save both with the model."""
    model.eval()
    classified = [task for task in unseen if KINDS[task.kind].by_class]
    several = [task for task in unseen if task.kind == "multilabel"]
    if classified:
        model.risk = learn_risk(model, classified, config, accelerator)
    if several:
        model.threshold = learn_threshold(model, several, config, accelerator)
    if (classified or several) and accelerator.is_main_process:
        model.save_pretrained(output_dir)


def _load_best(model: MetaModel, output_dir: Path) -> None:
    config, tensors = read_folder(output_dir, CONTENT)
    model.load_tensors(tensors)
    model.notes = config["training"]
    model.risk = RiskCurve.from_dict(config["risk"]) if config.get("risk") else None
    model.threshold = config["threshold"]
