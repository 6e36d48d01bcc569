"""Arrays that outlive a call: parameters, running statistics, optimizer state, constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._core import Clock

Array = npt.NDArray[Any]


def memory_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a logical shape in the order they have in memory: 4-D tensors are channels-last.

    >>> memory_order((8, 3, 32, 32))
    (0, 2, 3, 1)
    >>> memory_order((8, 10))
    (0, 1)
    """
    return (0, 2, 3, 1) if len(shape) == 4 else tuple(range(len(shape)))


def memory_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A logical shape as it lies in memory.

    >>> memory_shape((8, 3, 32, 30))
    (8, 32, 30, 3)
    """
    return tuple(shape[axis] for axis in memory_order(shape))


def logical_view(storage: Array) -> Array:
    """An array in memory order, seen with its logical axes."""
    return storage.transpose(0, 3, 1, 2) if storage.ndim == 4 else storage


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Array:
    """An uninitialised C-contiguous array that starts on a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _read_only(array: Array) -> Array:
    """A view that nobody can make writeable: it does not know that its memory may be written."""
    return np.asarray(array.data.toreadonly())


def check_values(values: Array, dtype: np.dtype[Any]) -> None:
    """Values that a variable of the dtype can hold: TypeError for what are no real numbers, ValueError for a NaN or a number
    of more than 64 bits where integers are kept. Fractions are cut off, as PyTorch does.

    >>> check_values(np.array([1.0, 2.5]), np.dtype(np.int64))
    >>> check_values(np.array([np.nan]), np.dtype(np.int64))
    Traceback (most recent call last):
    ...
    ValueError: cannot assign values that are no integers of 64 bits to a variable of dtype int64
    """
    if values.dtype.kind not in "fiub":
        raise TypeError(f"cannot assign values of dtype {values.dtype} to a variable of dtype {dtype}")
    if dtype.kind == "i" and values.dtype.kind in "fu":
        numbers = values.astype(np.float64)
        if not ((numbers >= -(2.0**63)) & (numbers < 2.0**63)).all():
            raise ValueError(f"cannot assign values that are no integers of 64 bits to a variable of dtype {dtype}")


weights_clock = Clock()
"""Ticks whenever the values of any variable change."""


class Variable:
    """A float32 (or int64) array with a place in memory that never moves, and the time of its last change.

    Seen from outside it is read-only: values change through `assign`, `load_state_dict` or a training step,
    so that no compiled plan ever works with stale weights.
    """

    __slots__ = ("storage", "changed", "_view")

    def __init__(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> None:
        values = np.asarray(values)
        self.storage = aligned_empty(memory_shape(values.shape), dtype)
        self._view = logical_view(_read_only(self.storage))
        self.changed = 0
        self.assign(values)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has memory of its own, and its view looks at it."""
        return Variable, (np.array(self._view), self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._view.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.storage.dtype

    @property
    def view(self) -> Array:
        """The values, read-only, in the logical shape."""
        return self._view

    def assign(self, values: npt.ArrayLike) -> None:
        """Overwrites the values; the shape must be the same."""
        values = np.asarray(values)
        if values.shape != self.shape:
            raise ValueError(f"cannot assign an array of shape {values.shape} to a variable of shape {self.shape}")
        check_values(values, self.dtype)
        logical_view(self.storage)[...] = values
        self.touch()

    def touch(self) -> None:
        """Notes that the values changed."""
        weights_clock.stamp((self,))
