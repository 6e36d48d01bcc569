"""Activations with a kink: ReLU and its relatives, and the "hard" (piecewise linear) ones.

Every function maps x of any shape to y of that shape; `<name>_backward(dy, x, ...)` returns dx = dy * f'(x).
At a kink the derivative is the one PyTorch takes: that of the left branch.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, as_float


def relu(x: Array) -> Array:
    """max(x, 0); NaN stays NaN. x of any shape, float dtype (else TypeError).

    >>> relu(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return np.maximum(as_float(x, "x"), 0)


def relu_backward(dy: Array, x: Array) -> Array:
    """dx = dy where x > 0, else 0.

    >>> relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 5.0]
    """
    return np.where(as_float(x, "x") > 0, dy, np.zeros_like(dy))
