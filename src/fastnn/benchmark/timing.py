"""Timing several callables in turn, so that a machine that speeds up or slows down does so for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import quantiles

Call = Callable[[], object]

PAUSE = 0.02
"""Seconds between two callables: the threads of OpenMP pools spin for some ten milliseconds after a call."""


@dataclass(frozen=True)
class Timing:
    """Seconds a call: median and quartiles of the rounds."""

    lower: float
    median: float
    upper: float


def _timed(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def alternate(calls: Mapping[str, Call], seconds: float = 0.3, rounds: int = 9) -> dict[str, Timing]:
    """Times every callable once a round, in turn; each gets about `seconds` in all.

    Before each turn the machine comes to rest, and one call that is not counted wakes the callable's own threads.

    >>> sorted(alternate({"a": lambda: None, "b": lambda: None}, seconds=0.01))
    ['a', 'b']
    """
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, int(seconds / rounds / max(_timed(call, 1), 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            call()
            samples[name].append(_timed(call, repeats[name]))
    return {name: Timing(*quantiles(sample, n=4)) for name, sample in samples.items()}
