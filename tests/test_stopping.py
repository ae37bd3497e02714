"""A signal is noted, and all processes of a launch learn of it at one step."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from metatext.stopping import StopSignals


@pytest.mark.parametrize("last", [False, True])
def test_a_signal_between_two_exchanges(last):
    """The last step is one in any case: whoever left it alone would keep the others waiting in what follows."""
    launch = SimpleNamespace(num_processes=2, device="cpu", is_main_process=False, gather=lambda mine: mine)
    with pytest.raises(KeyboardInterrupt), StopSignals(launch) as signals:
        assert signals.asked() == 0 and signals.left > 1
        signal.raise_signal(signal.SIGINT)
        assert signals.asked(last) == (signal.SIGINT if last else 0)
