"""A run that is asked to stop, by Ctrl-C or SIGTERM, first ends the step that it is in."""

from __future__ import annotations

import os
import signal
import threading
import time

import torch

ORDINARY = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
SAME = 1.0  # seconds within which processes of a launch may get one request twice: from the scheduler, and from the launcher


class Stopped(KeyboardInterrupt):
    """Training was asked to stop; the message says where, and which checkpoint was saved.

    Attributes:
        signal: what asked for it, SIGINT (Ctrl-C) or SIGTERM.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.signal = number


class StopSignals:
    """Within the block a SIGINT or SIGTERM is noted, and a second one does what it did before.

    Only in the main thread, where Python handles signals; whoever has a handler of their own, or ignores a signal, keeps that.
    """

    def __init__(self, accelerator):
        self.accelerator, self.seen, self.at = accelerator, 0, 0.0  # which signal, and when
        self.every, self.left, self.last = 1, 1, time.monotonic()  # steps between two exchanges, to the next, time of the last
        self.handled: list[signal.Signals] = []

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self.handled = [number for number, usual in ORDINARY.items() if signal.getsignal(number) == usual]
        for number in self.handled:
            signal.signal(number, self._note)
        return self

    def __exit__(self, kind, *_) -> None:
        self._let_go()
        if kind is None and self.seen:  # it came too late to be asked for
            signal.raise_signal(self.seen)

    def asked(self, last: bool = False) -> int:
        """The signal that any process of the launch has got, or 0; called by all of them after every step, and all learn the same.

        One process looks at once. Several exchange what they have got about once a second, and after the ``last`` step: every step would
        cost small ones a tenth.
        """
        if self.accelerator.num_processes == 1:
            return self.seen
        self.left -= 1
        if self.left > 0 and not last:
            return 0
        mine = torch.tensor([[self.seen, time.monotonic() - self.last]], device=self.accelerator.device)
        seen, seconds = self.accelerator.gather(mine).max(0).values.tolist()  # of them all, so that they ask again at one step
        self.every = max(1, min(2 * self.every, int(self.every / max(seconds, 1e-3))))
        self.left, self.last = self.every, time.monotonic()
        return int(seen)

    def _let_go(self) -> None:
        for number in self.handled:
            signal.signal(number, ORDINARY[number])

    def _note(self, number: int, _frame) -> None:
        again = self.seen and (self.accelerator.num_processes == 1 or time.monotonic() - self.at > SAME)
        if again:
            self._let_go()
            signal.raise_signal(number)
        elif not self.seen:
            self.seen, self.at = number, time.monotonic()
            if self.accelerator.is_main_process:  # not by print or logging, which may be what was interrupted
                os.write(2, b"\nstopping at the end of this step; a second time stops at once\n")
