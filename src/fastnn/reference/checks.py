"""What every reference function asks of its arguments before it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def as_float(array: Any, name: str, *ranks: int) -> Array:
    """Return `array` as a floating NumPy array of one of the given ranks (no ranks: any).

    Raises TypeError for a dtype that is not real floating, ValueError for another rank.

    >>> as_float(np.ones((2, 3)), "x", 2).shape
    (2, 3)
    """
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} must have a real floating dtype, not {array.dtype}")
    if ranks and array.ndim not in ranks:
        wanted = " or ".join(f"{rank}-D" for rank in ranks)
        raise ValueError(f"{name} must be {wanted}, but its shape is {array.shape}")
    return array


def check_shape(array: Array, shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError unless `array` has exactly this shape.

    >>> check_shape(np.ones((2, 3)), (2, 3), "dy")
    """
    if array.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, but its shape is {array.shape}")


def check_probability(p: float) -> float:
    """Return p when 0 <= p <= 1; raise ValueError otherwise (NaN included).

    >>> check_probability(0.25)
    0.25
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability must be between 0 and 1, not {p}")
    return float(p)
