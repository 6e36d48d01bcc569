"""Clipping of gradients, between the backward pass and the update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..graph import Graph, RuntimeValue, Tensor
from ..trace import structure_clock
from .group import not_negative

LIMIT = "clip.limit"
"""Name of the run-time value that gradients are clipped at."""

ORDERS = {1.0: 1, 2.0: 2, math.inf: 0}


class Clipping:
    """Gradients limited by their norm or by their value, as a `Trainer` records it into its step.

    Parameters
    ----------
    norm : the gradients of all parameters, taken as one vector, are scaled down to this norm if theirs is larger, as
        torch.nn.utils.clip_grad_norm_ does: times min(1, norm / (their norm + 1e-6)).
    value : each element is brought into [-value, value], as torch.nn.utils.clip_grad_value_ does.
    norm_type : 1, 2 or infinity.

    Exactly one of norm and value is given; a new number counts from the next step on, at no cost. Both see the
    optimizer's l1 and l2 penalties, but not its weight decay. The same bits for any number of threads.
    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    >>> Clipping(norm=1.0)
    Clipping(norm=1.0, norm_type=2.0)
    """

    def __init__(self, norm: float | None = None, value: float | None = None, norm_type: float = 2.0) -> None:
        if (norm is None) == (value is None):
            raise ValueError(f"gradients are clipped by norm or by value, got norm {norm} and value {value}")
        if isinstance(norm_type, str) or float(norm_type) not in ORDERS:
            raise ValueError(f"norm_type must be 1, 2 or infinity, got {norm_type!r}")
        self.kind = "norm" if value is None else "value"
        self.norm_type = float(norm_type)
        self.limit = norm if value is None else value  # type: ignore[assignment]
        structure_clock.tick()

    @property
    def limit(self) -> float:
        """The norm or value that gradients are clipped at; above 0."""
        return self._limit

    @limit.setter
    def limit(self, limit: float) -> None:
        name = f"clip_{self.kind}"
        if not_negative(name, limit) == 0:
            raise ValueError(f"{name} must be above 0, got {limit}")
        self._limit = float(limit)

    def record(self, graph: Graph, gradients: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor | None]:
        """Records the clipping; returns the clipped gradients and the norm (1) that they had, None if by value."""
        limit = RuntimeValue(LIMIT)
        if self.kind == "value":
            return graph.record("clip_gradient_value", *gradients, limit=limit), None
        *clipped, norm = graph.record("clip_gradient_norm", *gradients, order=ORDERS[self.norm_type], max_norm=limit)
        return clipped, norm

    def runtime(self) -> dict[str, Any]:
        """The run-time values of the next step."""
        return {LIMIT: self.limit}

    def __repr__(self) -> str:
        return (
            f"Clipping(value={self.limit})"
            if self.kind == "value"
            else (f"Clipping(norm={self.limit}, norm_type={self.norm_type})")
        )
