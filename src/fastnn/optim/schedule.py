"""Learning rates that follow the steps of a training: callables step -> lr, the first step being 0.

Any callable will do as an optimizer's `lr`; these are the usual ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .group import not_negative


def _steps(name: str, value: int, least: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


@dataclass(frozen=True)
class StepDecay:
    """lr * gamma^(step // every).

    >>> [StepDecay(1.0, every=2, gamma=0.5)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    lr: float
    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        not_negative("lr", self.lr)
        not_negative("gamma", self.gamma)
        _steps("every", self.every, 1)

    def __call__(self, step: int) -> float:
        return self.lr * self.gamma ** (step // self.every)


@dataclass(frozen=True)
class MultiStepDecay:
    """lr * gamma^(number of milestones reached).

    >>> [MultiStepDecay(1.0, (1, 3), gamma=0.5)(step) for step in range(4)]
    [1.0, 0.5, 0.5, 0.25]
    """

    lr: float
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        not_negative("lr", self.lr)
        not_negative("gamma", self.gamma)
        for milestone in self.milestones:
            _steps("a milestone", milestone)

    def __call__(self, step: int) -> float:
        return self.lr * self.gamma ** sum(step >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class ExponentialDecay:
    """lr * gamma^step.

    >>> [ExponentialDecay(1.0, 0.5)(step) for step in range(3)]
    [1.0, 0.5, 0.25]
    """

    lr: float
    gamma: float

    def __post_init__(self) -> None:
        not_negative("lr", self.lr)
        not_negative("gamma", self.gamma)

    def __call__(self, step: int) -> float:
        return float(self.lr * self.gamma**step)


@dataclass(frozen=True)
class CosineDecay:
    """Up in a line to lr over `warmup` steps, then down along half a cosine to `final` at step `total`, and there on.

    (Loshchilov and Hutter, "SGDR", 2017, without restarts.)

    >>> [round(CosineDecay(1.0, total=6, warmup=2)(step), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    lr: float
    total: int
    warmup: int = 0
    final: float = field(default=0.0)

    def __post_init__(self) -> None:
        not_negative("lr", self.lr)
        not_negative("final", self.final)
        _steps("warmup", self.warmup)
        _steps("total", self.total, self.warmup + 1)

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = min((step - self.warmup) / (self.total - self.warmup), 1.0)
        return self.final + (self.lr - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class OneCycle:
    """From lr / start up to lr over the first `rise` of `total` steps, then down to lr / start / end, along cosines.

    (Smith and Topin, "Super-convergence", 2019; the values of torch.optim.lr_scheduler.OneCycleLR.)

    >>> [round(OneCycle(1.0, total=5, rise=0.4, start=10.0)(step), 4) for step in range(5)]
    [0.1, 1.0, 0.75, 0.25, 0.0]
    """

    lr: float
    total: int
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    def __post_init__(self) -> None:
        not_negative("lr", self.lr)
        _steps("total", self.total, 2)
        if not (0 <= self.rise <= 1 and self.start > 0 and self.end > 0):
            raise ValueError("OneCycle: rise lies in [0, 1], start and end are above 0")

    def __call__(self, step: int) -> float:
        peak, last = self.rise * self.total - 1, self.total - 1
        initial = self.lr / self.start
        if step < peak:
            return _cosine(initial, self.lr, step / peak)
        done = min((step - peak) / (last - peak), 1.0) if last > peak else float(step > last)
        return _cosine(self.lr, initial / self.end, done)


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
