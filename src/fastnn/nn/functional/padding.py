"""Padding and cropping."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ...graph import Tensor
from ...ops.resampling import Taps, check_axis, identity
from .eager import eager
from .sizes import one_of, real

MODES = ("constant", "reflect", "replicate", "circular")


@lru_cache(maxsize=256)
def _taps(size: int, before: int, after: int, mode: str) -> Taps:
    """The source of each element of an axis of `size` elements that gets `before` and `after` more."""
    positions = range(-before, size + after)
    if mode == "constant":
        return tuple(((i, 1.0),) if 0 <= i < size else () for i in positions)
    if mode == "reflect":
        return tuple(((size - 1 - abs(size - 1 - abs(i)), 1.0),) for i in positions)
    if mode == "replicate":
        return tuple(((min(max(i, 0), size - 1), 1.0),) for i in positions)
    return tuple(((i % size, 1.0),) for i in positions)


def _check(shape: tuple[int, ...], axis: int, before: int, after: int, mode: str) -> None:
    size = shape[axis]
    if size + before + after < (mode != "constant"):
        raise ValueError(f"pad ({before}, {after}) leaves {size + before + after} elements of axis {axis} of {shape}")
    if mode == "reflect" and max(before, after) >= size:
        raise ValueError(
            f"reflection by ({before}, {after}) needs more than the {size} elements of axis {axis} of {shape}"
        )
    if mode == "circular" and max(before, after) > size:
        raise ValueError(f"circular pad ({before}, {after}) goes more than once around axis {axis} of {shape}")
    if mode == "replicate" and size < 1:
        raise ValueError(f"there is no edge to repeat on axis {axis} of {shape}")
    if before or after:
        check_axis(size + before + after)


def checked_pads(pad: Any) -> tuple[int, ...]:
    """The pads as integers, two for each axis."""
    pads = tuple(pad) if isinstance(pad, Sequence) and not isinstance(pad, str) else None
    if pads is None or not all(isinstance(n, int) and not isinstance(n, bool) for n in pads):
        raise TypeError(f"pad must be a sequence of integers, got {pad!r}")
    if len(pads) % 2:
        raise ValueError(f"pad must hold two integers for each axis, the last axis first; got {len(pads)}: {pad!r}")
    return pads


@eager("input")
def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Adds elements at either end of axes, or with negative numbers takes them away.

    input : any shape, at least as many axes as pairs in pad.
    pad : (left, right, top, bottom, ...): two integers for each axis, the last axis first.
    mode : "constant" fills with `value` (0), "reflect" mirrors without repeating the edge, "replicate" repeats the edge,
        "circular" goes on at the other end.

    Raises ValueError for an odd number of pads, more pads than axes, a pad that leaves less than nothing (or, but for
    "constant", nothing), a reflection by the whole axis or more, and a value for a mode that has no use for it.

    >>> import numpy as np
    >>> pad(np.array([[1.0, 2.0, 3.0]]), (1, 2)).tolist()
    [[0.0, 1.0, 2.0, 3.0, 0.0, 0.0]]
    >>> pad(np.array([[1.0, 2.0, 3.0]]), (2, -1), "reflect").tolist()
    [[3.0, 2.0, 1.0, 2.0]]
    """
    pads = checked_pads(pad)
    one_of(mode, "mode", *MODES)
    if mode != "constant" and value not in (None, 0):
        raise ValueError(f'value is for mode "constant" only, got value {value!r} with mode {mode!r}')
    if len(pads) > 2 * input.ndim:
        raise ValueError(f"pad {pads} is for {len(pads) // 2} axes, the input has {input.ndim}: {input.shape}")
    axes = {input.ndim - 1 - i // 2: (pads[i], pads[i + 1]) for i in range(0, len(pads), 2)}
    for axis, (before, after) in axes.items():
        _check(input.shape, axis, before, after, mode)
    return _padded(input, axes, mode, 0.0 if value is None else real(value, "value", finite=False))


def _padded(x: Tensor, axes: dict[int, tuple[int, int]], mode: str, value: float) -> Tensor:
    """Both spatial axes of an image at once, any other one by one."""
    taps = {axis: _taps(x.shape[axis], *sides, mode) for axis, sides in axes.items() if sides != (0, 0)}
    if x.ndim == 4 and (2 in taps or 3 in taps):
        both = tuple(taps.pop(axis, identity(x.shape[axis])) for axis in (2, 3))
        x = x.graph.record("resample", x, axes=(2, 3), taps=both, value=value)
    for axis in sorted(taps):
        x = x.graph.record("resample", x, axes=(axis,), taps=(taps[axis],), value=value)
    return x
