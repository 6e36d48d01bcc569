"""The fully connected layer."""

from __future__ import annotations

from typing import Any

from . import functional as F
from . import init
from .functional.sizes import positive_integer
from .module import Module
from .parameter import Parameter


class Linear(Module):
    """y = x @ weight.T + bias: (..., in_features) -> (..., out_features).

    Attributes: weight (out_features, in_features), bias (out_features) or None; drawn uniformly within
    1/sqrt(in_features), as in PyTorch.

    Raises ValueError that names the layer when the last axis has not in_features.

    >>> import numpy as np
    >>> layer = Linear(4, 3)
    >>> layer
    Linear(in_features=4, out_features=3, bias=True)
    >>> layer(np.zeros((2, 4))).shape
    (2, 3)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = positive_integer(in_features, "in_features")
        self.out_features = positive_integer(out_features, "out_features")
        self.weight = Parameter(init.empty(out_features, in_features))
        self.bias = Parameter(init.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights: uniform within 1/sqrt(in_features), as PyTorch does."""
        init.reset_linear_map(self.weight, self.bias)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
