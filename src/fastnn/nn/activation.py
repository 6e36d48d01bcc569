"""Activation layers."""

from __future__ import annotations

from typing import Any

from . import functional as F
from .module import Module


class ReLU(Module):
    """max(x, 0), elementwise; any shape.

    `inplace` is accepted for compatibility: plans decide by themselves what is computed in place.

    >>> import numpy as np
    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.], dtype=float32)
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.relu(x)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Softmax(Module):
    """exp(x) / sum of exp(x) along `dim` (None: PyTorch's rule, see `functional.softmax`); any shape.

    >>> import numpy as np
    >>> Softmax(dim=1)(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """x - log(sum of exp(x)) along `dim` (None: PyTorch's rule, see `functional.softmax`); any shape.

    >>> import numpy as np
    >>> LogSoftmax(dim=1)(np.array([[1000.0, 0.0]]))
    array([[    0., -1000.]], dtype=float32)
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.log_softmax(x, self.dim)

    extra_repr = Softmax.extra_repr
