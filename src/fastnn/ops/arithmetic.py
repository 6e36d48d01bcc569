"""Elementwise arithmetic of two tensors under NumPy's broadcasting rule."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements


def broadcast_shape(a: Shape, b: Shape) -> Shape:
    """The shape of the result; ValueError when the shapes do not fit.

    >>> broadcast_shape((2, 3, 1, 1), (3, 4, 5))
    (2, 3, 4, 5)
    """
    rank = max(len(a), len(b))
    padded = [(1,) * (rank - len(shape)) + shape for shape in (a, b)]
    if any(m != n and 1 not in (m, n) for m, n in zip(*padded, strict=True)):
        raise ValueError(f"shapes {a} and {b} do not broadcast: extents must be equal, or one of them 1")
    return tuple(n if m == 1 else m for m, n in zip(*padded, strict=True))


def broadcast(tensor: Tensor, shape: Shape) -> Tensor:
    """The tensor repeated along the axes that it lacks, or has with extent 1."""
    if tensor.shape == shape:
        return tensor
    padded = (1,) * (len(shape) - tensor.ndim) + tensor.shape
    axes = tuple(axis for axis, (n, m) in enumerate(zip(padded, shape, strict=True)) if n != m)
    image = tensor if tensor.shape == padded else tensor.reshape(padded)
    return tensor.graph.record("spread", image, shape=shape, axes=axes, scale=1.0)  # type: ignore[no-any-return]


def unbroadcast(gradient: Tensor, shape: Shape) -> Tensor:
    """The gradient summed over the axes along which a tensor of the given shape was repeated."""
    padded = (1,) * (gradient.ndim - len(shape)) + shape
    axes = tuple(axis for axis, (n, m) in enumerate(zip(padded, gradient.shape, strict=True)) if n != m)
    if axes:
        gradient = gradient.graph.record("sum", gradient, axes=axes)
    return gradient if gradient.shape == shape else gradient.reshape(shape)
