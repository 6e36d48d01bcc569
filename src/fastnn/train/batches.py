"""Data sets as arrays, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..trace import as_array
from ..variable import Array


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """A number of samples or epochs."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def checked_samples(name: str, value: Any) -> Array:
    """An array of real numbers with a batch axis."""
    try:
        array = as_array(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    if array.ndim == 0:
        raise ValueError(f"{name} must have a batch axis, got a single number")
    return array


class Batches:
    """Samples x (N, ...) and targets y (N, ...) in batches of `batch_size`, the last one smaller or left out.

    >>> data = Batches(np.arange(10.0), np.arange(10), 4)
    >>> [len(x) for x, y in data]
    [4, 4, 2]
    >>> len(Batches(np.arange(10.0), np.arange(10), 4, drop_last=True))
    2
    """

    def __init__(self, x: Any, y: Any, batch_size: int, drop_last: bool = False, name: str = "") -> None:
        self.x, self.y = checked_samples(f"{name}x", x), checked_samples(f"{name}y", y)
        self.batch_size = checked_count("batch_size", batch_size)
        if len(self.x) != len(self.y):
            raise ValueError(
                f"{name}x and {name}y must have as many samples: {name}x has shape {self.x.shape}, "
                f"{name}y has shape {self.y.shape}"
            )
        if len(self.x) == 0:
            raise ValueError(f"{name}x is empty: shape {self.x.shape}")
        whole, rest = divmod(len(self.x), self.batch_size)
        self._count = whole + (rest > 0 and not drop_last)
        if self._count == 0:
            raise ValueError(f"drop_last leaves nothing of {len(self.x)} samples in batches of {self.batch_size}")
        self.samples = min(self._count * self.batch_size, len(self.x))

    def __len__(self) -> int:
        return self._count

    def sizes(self) -> set[int]:
        """The sizes of batches that occur."""
        last = self.samples - (self._count - 1) * self.batch_size
        return {last} if self._count == 1 else {self.batch_size, last}

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for start in range(0, self.samples, self.batch_size):
            stop = min(start + self.batch_size, self.samples)
            yield self.x[start:stop], self.y[start:stop]

    def shuffled(self, order: Array) -> Iterator[tuple[Array, Array]]:
        """The batches of the samples in another order (N indices)."""
        for start in range(0, self.samples, self.batch_size):
            chosen = order[start : min(start + self.batch_size, self.samples)]
            yield take(self.x, chosen), take(self.y, chosen)


def take(array: Array, chosen: Array) -> Array:
    """array[chosen]; images that lie N,H,W,C in memory stay so (NumPy promises no order for `array[chosen]` itself).

    >>> images = np.zeros((5, 8, 9, 3), np.float32).transpose(0, 3, 1, 2)
    >>> take(images, np.array([4, 1])).transpose(0, 2, 3, 1).flags.c_contiguous
    True
    """
    if array.ndim == 4 and not array.flags.c_contiguous:
        return array.transpose(0, 2, 3, 1)[chosen].transpose(0, 3, 1, 2)
    return array[chosen]
