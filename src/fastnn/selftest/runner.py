"""Running the checks over instruction sets and numbers of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..settings import available_isas, get_num_threads, serial_below, set_num_threads, use_isa
from ..variable import Array

UNIT = 2.0**-24
"""Half a unit in the last place of a float32 number between 1 and 2."""


@dataclass(frozen=True)
class Figure:
    """A native result beside the float64 reference, and how far apart they may lie.

    Allowed is `roundings` times 2^-24 times the largest magnitude of the expected array (or `scale`, where the sum
    that made it had larger terms): every result here is the end of about that many roundings.
    """

    name: str
    got: Array
    expected: Array
    roundings: float
    scale: float = 0.0

    @property
    def share(self) -> float:
        """The largest error over the allowed one; infinite where shapes differ or a number is not finite."""
        expected = np.asarray(self.expected, np.float64)
        if self.got.shape != expected.shape or not np.isfinite(self.got).all():
            return float("inf")
        if expected.size == 0:
            return 0.0
        error = float(np.abs(self.got - expected).max())
        allowed = self.roundings * UNIT * max(float(np.abs(expected).max()), self.scale)
        return error / allowed if error else 0.0


Check = Callable[[np.random.Generator], list[Figure]]


@dataclass(frozen=True)
class Outcome:
    """One check on one instruction set."""

    isa: str
    check: str
    threads: tuple[int, ...]
    worst: str
    share: float
    """Of the allowed error; above 1 the check failed."""
    same_bits: bool
    """Whether all numbers of threads gave the same bits."""

    @property
    def passed(self) -> bool:
        return self.share <= 1.0 and self.same_bits


def _outcome(isa: str, name: str, check: Check, threads: tuple[int, ...]) -> Outcome:
    runs = []
    for count in threads:
        set_num_threads(count)
        runs.append(check(np.random.default_rng(0)))
    worst = max(runs[0], key=lambda figure: figure.share)
    same = all(a.got.tobytes() == b.got.tobytes() for run in runs[1:] for a, b in zip(runs[0], run, strict=True))
    return Outcome(isa, name, threads, worst.name, worst.share, same)


def run_checks(checks: dict[str, Check], threads: tuple[int, ...] = (1, 2, 3)) -> Iterator[Outcome]:
    """Runs every check on every instruction set with each number of threads; restores the settings."""
    before = get_num_threads()
    try:
        for isa in available_isas():
            with use_isa(isa), serial_below(0):
                for name, check in checks.items():
                    yield _outcome(isa, name, check, threads)
    finally:
        set_num_threads(before)
