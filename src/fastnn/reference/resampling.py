"""Padding and interpolation: operations that act on each axis by itself.

Both are linear: an output element of an axis is a source element, or a weighted sum of two neighbours. The backward
pass adds each gradient to the elements it came from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .checks import Array, as_float, check_shape

_MODES_OF_RANK = {"nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "linear": (3,), "bilinear": (4,)}


def _pads_by_axis(x: Array, pad: Sequence[int]) -> list[tuple[int, int, int]]:
    """PyTorch's flat list, last axis first -> [(axis, before, after)]."""
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad must hold (before, after) for at most the {x.ndim} axes of x {x.shape}, not {pad!r}")
    sides = [(x.ndim - 1 - i // 2, pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    for axis, before, after in sides:
        if x.shape[axis] + before + after < 0:
            raise ValueError(f"pad {pad!r} removes more of axis {axis} than x {x.shape} has")
    return sides


def _source_index(size: int, before: int, after: int, mode: str) -> Array:
    """For each output element of an axis, which input element it shows (-1: none, for the constant mode)."""
    position = np.arange(-before, size + after)
    if mode == "constant":
        return np.where((position >= 0) & (position < size), position, -1)
    if mode == "replicate":
        if size < 1:
            raise ValueError("replicate padding needs at least one element to repeat")
        return np.clip(position, 0, size - 1)
    if mode == "reflect":
        if max(before, after) >= size:
            raise ValueError(f"reflect padding ({before}, {after}) must be smaller than the axis of {size}")
        position = np.abs(position)
        return (size - 1) - np.abs((size - 1) - position)
    if mode == "circular":
        if max(before, after) > size:
            raise ValueError(f"circular padding ({before}, {after}) goes more than once around the axis of {size}")
        return position % size
    raise ValueError(f'pad mode must be "constant", "reflect", "replicate" or "circular", not {mode!r}')


def pad(x: Array, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    """Pad (or, with negative numbers, crop) axes of x from the last one on: pad = (left, right, top, bottom, ...).

    "constant" fills with `value`, "reflect" mirrors without repeating the edge, "replicate" repeats the edge, "circular"
    goes on at the other end.
    Raises ValueError for an odd number of pads, an unknown mode, and reflection by the whole axis or more.

    >>> pad(np.array([1.0, 2.0, 3.0]), (1, 2), "reflect").tolist()
    [2.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """
    x = as_float(x, "x")
    for axis, before, after in _pads_by_axis(x, pad):
        source = _source_index(x.shape[axis], before, after, mode)
        outside = (source < 0).reshape(-1, *([1] * (x.ndim - 1 - axis)))
        if x.shape[axis] == 0:  # nothing to pick from: the constant mode fills everything
            x = np.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), dtype=x.dtype)
        x = np.where(outside, np.asarray(value, x.dtype), np.take(x, np.maximum(source, 0), axis=axis))
    return x


def pad_backward(dy: Array, x: Array, pad: Sequence[int], mode: str = "constant") -> Array:
    """dx, the shape of x: each dy goes to the element it shows, none for the constant fill. Errors as `pad`.

    >>> pad_backward(np.ones(6), np.zeros(3), (1, 2), "reflect").tolist()
    [2.0, 3.0, 1.0]
    """
    x, dy = np.asarray(x), as_float(dy, "dy")
    sides = _pads_by_axis(x, pad)
    grown = {axis: before + after for axis, before, after in sides}
    check_shape(dy, tuple(size + grown.get(axis, 0) for axis, size in enumerate(x.shape)), "dy")
    for axis, before, after in reversed(sides):
        source = _source_index(x.shape[axis], before, after, mode)
        received = np.moveaxis(dy, axis, 0)
        dx = np.zeros((x.shape[axis], *received.shape[1:]), dtype=dy.dtype)
        np.add.at(dx, source[source >= 0], received[source >= 0])
        dy = np.moveaxis(dx, 0, axis)
    return dy


def _output_sizes(
    x: Array, size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None, mode: str
) -> tuple[list[int], list[float | None]]:
    """Sizes of the spatial axes after interpolation, and their scale factors (None where a size was given)."""
    as_float(x, "x", *_MODES_OF_RANK[mode])
    spatial = x.shape[2:]
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate needs either size or scale_factor")
    if size is not None:
        sizes = list(size) if isinstance(size, Sequence) else [size] * len(spatial)
        scales: list[float | None] = [None] * len(spatial)
    else:
        scales = list(scale_factor) if isinstance(scale_factor, Sequence) else [scale_factor] * len(spatial)
        sizes = [int(np.floor(given * scale)) for given, scale in zip(spatial, scales)]
    if len(sizes) != len(spatial) or min(sizes) < 1 or min(spatial) < 1:
        raise ValueError(f"cannot interpolate {spatial} to {sizes}: one positive size for each axis is needed")
    return sizes, scales


def _neighbours(
    size: int, output: int, scale: float | None, mode: str, align_corners: bool
) -> tuple[Array, Array, Array]:
    """For each output element of an axis: its two source elements and the weight of the second (float64)."""
    position = np.arange(output)
    if output == size or (mode == "nearest" and output == 2 * size):
        scale = None
    if mode.startswith("nearest"):
        twice = 2 * position + (mode == "nearest-exact")  # twice the place, so that it is a whole number
        source = twice * size // (2 * output) if scale is None else np.floor(twice / (2 * scale)).astype(np.int64)
        source = np.minimum(source, size - 1)
        return source, source, np.zeros(output)
    if align_corners:
        place = position * ((size - 1) / (output - 1)) if output > 1 else np.zeros(output)
    else:
        step = size / output if scale is None else 1.0 / scale
        place = np.maximum((position + 0.5) * step - 0.5, 0.0)
    lower = np.minimum(np.floor(place).astype(np.int64), size - 1)
    return lower, np.minimum(lower + 1, size - 1), np.minimum(place - lower, 1.0)


def _all_neighbours(
    x: Array,
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    mode: str,
    align_corners: bool | None,
) -> list[tuple[Array, Array, Array]]:
    """`_neighbours` of each spatial axis of x, the weights in the dtype of x."""
    if mode not in _MODES_OF_RANK:
        raise ValueError(f"mode must be one of {', '.join(_MODES_OF_RANK)}, not {mode!r}")
    if mode.startswith("nearest") and align_corners is not None:
        raise ValueError("align_corners is for the linear modes only")
    sizes, scales = _output_sizes(x, size, scale_factor, mode)
    neighbours = []
    for given, output, scale in zip(x.shape[2:], sizes, scales):
        lower, upper, fraction = _neighbours(given, output, scale, mode, bool(align_corners))
        neighbours.append((lower, upper, fraction.astype(x.dtype)))
    return neighbours


def interpolate(
    x: Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Array:
    """Resize the spatial axes of x (N,C,...): "nearest", "nearest-exact", "linear" (3-D x) or "bilinear" (4-D x).

    Output element i looks at source i * in/out (nearest) or (i + 0.5) * in/out (nearest-exact), rounded down, in exact
    arithmetic; at (i + 0.5) * in/out - 0.5 (linear), or i * (in-1)/(out-1) with align_corners. Where scale_factor is
    given, 1/scale_factor takes the place of in/out, except on an axis that keeps its size or (nearest) is doubled, as in
    PyTorch.
    Raises ValueError unless exactly one of size and scale_factor is given, and for an unknown mode.

    >>> interpolate(np.array([[[0.0, 4.0]]]), 4, mode="linear").tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    """
    x = as_float(x, "x")
    for axis, (lower, upper, fraction) in enumerate(
        _all_neighbours(x, size, scale_factor, mode, align_corners), start=2
    ):
        along = np.moveaxis(x, axis, -1)
        y = along[..., lower]
        if not mode.startswith("nearest"):
            y = y * (1 - fraction) + along[..., upper] * fraction
        x = np.moveaxis(y, -1, axis)
    return x


def interpolate_backward(
    dy: Array,
    x: Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Array:
    """dx, the shape of x: each dy goes to its source elements with their weights. Errors as `interpolate`.

    >>> interpolate_backward(np.ones((1, 1, 4)), np.zeros((1, 1, 2)), 4).tolist()
    [[[2.0, 2.0]]]
    """
    x, dy = as_float(x, "x"), as_float(dy, "dy")
    neighbours = _all_neighbours(x, size, scale_factor, mode, align_corners)
    check_shape(dy, (*x.shape[:2], *(lower.size for lower, _, _ in neighbours)), "dy")
    for axis, (lower, upper, fraction) in enumerate(neighbours, start=2):
        received = np.moveaxis(dy, axis, 0)
        weight = fraction.reshape(-1, *([1] * (x.ndim - 1)))
        dx = np.zeros((x.shape[axis], *received.shape[1:]), dtype=dy.dtype)
        np.add.at(dx, lower, received * (1 - weight))
        np.add.at(dx, upper, received * weight)
        dy = np.moveaxis(dx, 0, axis)
    return dy
