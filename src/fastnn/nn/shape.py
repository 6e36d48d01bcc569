"""Layers that change shapes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import functional as F
from .functional.sizes import integer
from .module import Module


class Flatten(Module):
    """The axes start_dim to end_dim as one; the default keeps the batch.

    Raises ValueError that names the layer for an axis that is not there, TypeError for one that is no integer.

    >>> import numpy as np
    >>> Flatten()(np.zeros((2, 3, 4, 5))).shape
    (2, 60)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = integer(start_dim, "start_dim")
        self.end_dim = integer(end_dim, "end_dim")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One axis as several, in logical order; one of the sizes may be -1.

    >>> import numpy as np
    >>> Unflatten(1, (3, 4, 5))(np.zeros((2, 60))).shape
    (2, 3, 4, 5)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(int(size) for size in unflattened_size)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.unflatten(x, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Identity(Module):
    """The input itself; takes and ignores any arguments.

    >>> import numpy as np
    >>> Identity()(np.array([1.0]))
    array([1.], dtype=float32)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return x
