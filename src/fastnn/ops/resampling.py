"""Operations on each axis by itself: padding, cropping, interpolation. Each output element of an axis is a weighted sum of
source elements of that axis; the backward pass is the same operation with the weights transposed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements
from .slicing import around

Taps = tuple[tuple[tuple[int, float], ...], ...]
"""For each output element of an axis: the source elements it is a sum of, and their weights."""


LONGEST_AXIS = 1 << 24
"""Elements of an axis that is resampled, at most: its table of taps is made element by element."""


def check_axis(size: int) -> None:
    """ValueError: an axis would be longer than the longest."""
    if size > LONGEST_AXIS:
        raise ValueError(f"padding and interpolation reach to {LONGEST_AXIS} elements an axis, not to {size}")


def identity(size: int) -> Taps:
    """The taps of an axis that stays as it is."""
    return tuple(((i, 1.0),) for i in range(size))


def transposed(taps: Taps, size: int) -> Taps:
    """The taps of the way back, to an axis of `size` elements.

    >>> transposed((((0, 1.0),), ((0, 0.5), (1, 0.5)), ()), 2)
    (((0, 1.0), (1, 0.5)), ((1, 0.5),))
    """
    back: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    for output, sources in enumerate(taps):
        for source, weight in sources:
            back[source].append((output, weight))
    return tuple(map(tuple, back))


def table(taps: Taps) -> list[int | float]:
    """The taps as the kernel takes them.

    >>> table((((0, 1.0),), (), ((0, 0.5), (1, 0.5))))
    [0, 1, 1, 3, 0, 1.0, 0, 0.5, 1, 0.5]
    """
    begins: list[int | float] = [0]
    for sources in taps:
        begins.append(begins[-1] + len(sources))
    return begins + [number for sources in taps for tap in sources for number in tap]


@register
class Resample(Op):
    """Axes of x resampled, one anywhere or both of an image (N,C,H,W); attributes axes, taps of each, and the value of
    elements that have no source."""

    name = "resample"

    def infer(self, x: Tensor, axes: tuple[int, ...], taps: tuple[Taps, ...], value: float) -> Spec:  # type: ignore[override]
        if x.dtype != "float32":
            raise TypeError(f"only float32 tensors are padded and interpolated, got {x.dtype}")
        sizes = dict(zip(axes, map(len, taps), strict=True))
        return Spec(tuple(sizes.get(axis, extent) for axis, extent in enumerate(x.shape)))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        shape = node.inputs[0].shape
        taps = tuple(transposed(taps, shape[axis]) for axis, taps in zip(node.axes, node.taps, strict=True))
        return [dy.graph.record("resample", dy, axes=node.axes, taps=taps, value=0.0)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        geometry, rows, columns = _image(x.shape, y.shape, node.axes, node.taps)
        steps.step(
            "resample",
            (elements(x) + elements(y)) / FLOATS_PER_NANOSECOND,
            x=steps.pointer(x),
            y=steps.pointer(y),
            workspace=steps.workspace(4 * steps.facts.threads * geometry["width"] * geometry["channels"]),
            rows=table(rows),
            columns=table(columns),
            value=float(node.value),
            **geometry,
        )


def _image(x: Shape, y: Shape, axes: tuple[int, ...], taps: tuple[Taps, ...]) -> tuple[dict[str, int], Taps, Taps]:
    """The tensors as images (batch, height, width, channels) in memory, and the taps of their rows and columns."""
    names: Any = ("batch", "height", "width", "channels", "out_height", "out_width")
    if axes == (2, 3) and len(x) == 4:
        geometry = dict(zip(names, (x[0], x[2], x[3], x[1], y[2], y[3]), strict=True))
        return geometry, taps[0], taps[1]
    ((axis,), (only,)) = axes, taps
    before, behind = around(x, axis)
    if behind == 1:
        return dict(zip(names, (before, 1, x[axis], 1, 1, y[axis]), strict=True)), identity(1), only
    return dict(zip(names, (before, x[axis], 1, behind, y[axis], 1), strict=True)), only, identity(1)


@register
class PixelShuffle(Op):
    """Blocks of factor * factor channels to as many pixels, or with `inverse` back; attributes factor, inverse."""

    name = "pixel_shuffle"

    def infer(self, x: Tensor, factor: int, inverse: bool) -> Spec:  # type: ignore[override]
        batch, channels, height, width = x.shape
        if inverse:
            return Spec((batch, channels * factor * factor, height // factor, width // factor))
        return Spec((batch, channels // (factor * factor), height * factor, width * factor))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("pixel_shuffle", dy, factor=node.factor, inverse=not node.inverse)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        wide, deep = (x, y) if node.inverse else (y, x)
        batch, _, height, width = deep.shape
        steps.step(
            "pixel_shuffle",
            2 * elements(x) / FLOATS_PER_NANOSECOND,
            x=steps.pointer(x),
            y=steps.pointer(y),
            batch=batch,
            height=height,
            width=width,
            channels=wide.shape[1],
            factor=node.factor,
            inverse=int(node.inverse),
        )
