"""Axes and shapes as users name them: from the front or the back, one extent left open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Shape = tuple[int, ...]


def axis_index(axis: int, ndim: int) -> int:
    """The axis counted from the front; ValueError where there is none. A scalar has axis 0, or -1.

    >>> axis_index(-1, 4), axis_index(-1, 0)
    (3, 0)
    """
    if not -max(ndim, 1) <= axis < max(ndim, 1):
        raise ValueError(f"axis {axis} is out of range for a tensor of {ndim} axes")
    return axis % max(ndim, 1)


def axis_indices(axes: int | Iterable[int] | None, ndim: int) -> tuple[int, ...]:
    """Likewise of several, each once and in order; None: all of them."""
    if axes is None:
        return tuple(range(ndim))
    return tuple(sorted({axis_index(a, ndim) for a in ([axes] if isinstance(axes, int) else axes)}))


def resolve_shape(shape: Shape, target: Sequence[int]) -> Shape:
    """The shape that `target` asks for, with -1 worked out; ValueError where the elements do not fit.

    >>> resolve_shape((2, 3, 4), (6, -1))
    (6, 4)
    """
    target = [int(t) for t in target]
    total = math.prod(shape)
    known = math.prod(t for t in target if t != -1)
    if target.count(-1) > 1 or any(t < -1 for t in target):
        raise ValueError(f"reshape: {tuple(target)} is not a shape")
    if -1 in target and known and total % known == 0:
        target = [total // known if t == -1 else t for t in target]
    elif -1 in target or known != total:
        raise ValueError(f"reshape: a tensor of shape {shape} does not fit {tuple(target)}")
    return tuple(target)
