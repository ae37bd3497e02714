"""Medians of several runs, and of two ways in turn: a machine that drifts slows both."""

import statistics
import time
from collections.abc import Callable


def clock(call: Callable, repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    return in_turn([call], repeats)[0][0]


def in_turn(calls: list[Callable], repeats: int) -> tuple[list[float], list[list[float]]]:
    """Median seconds of each call, and all seconds; one call after the other, the first round not counted."""
    seconds: list[list[float]] = [[] for _ in calls]
    for round_ in range(repeats + 1):
        for call, own in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if round_:
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in seconds], seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median of the ratios of runs that stood side by side."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def excess(call: Callable, base: Callable, repeats: int) -> float:
    """Median seconds by which a call takes longer than another."""
    _, (less, more) = in_turn([base, call], repeats)
    return statistics.median(b - a for a, b in zip(less, more, strict=True))
