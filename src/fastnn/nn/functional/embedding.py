"""Rows of a table by their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .eager import eager
from .limits import limit_integers


def padding_row(padding_idx: Any, rows: int) -> int:
    """padding_idx as a number of a row, -1 for none; negative ones count from the end."""
    if padding_idx is None:
        return -1
    if not isinstance(padding_idx, (int, np.integer)) or isinstance(padding_idx, bool):
        raise TypeError(f"padding_idx must be an integer or None, got {padding_idx!r}")
    if not -rows <= padding_idx < rows:
        raise ValueError(f"padding_idx must lie in {-rows} to {rows - 1}, got {padding_idx}")
    return int(padding_idx) % rows


def check_options(max_norm: Any, scale_grad_by_freq: Any, sparse: Any) -> None:
    """PyTorch's arguments that are not there."""
    if max_norm is not None:
        raise ValueError("max_norm is not supported: looking up does not change the weight")
    if scale_grad_by_freq or sparse:
        raise ValueError("scale_grad_by_freq and sparse are not supported: gradients are dense and unscaled")


@eager("input", "weight", integers=("input",))
def look_up(input: Any, weight: Any, padding_idx: int | None, name: str) -> Any:
    """`embedding`; errors that a later run raises begin with `name`."""
    if input.dtype != "int64":
        raise TypeError(f"indices must be integers, got {input.dtype}; pass x.astype(np.int64)")
    if weight.ndim != 2:
        raise ValueError(f"weight must have the shape (rows, columns), got {weight.shape}")
    rows, columns = weight.shape
    limit_integers(input, rows, f"{name}: an index names none of the {rows} rows")
    padding_index = padding_row(padding_idx, rows)
    if input.ndim <= 2:
        return input.graph.record("embedding", input, weight, padding_index=padding_index)
    y = input.graph.record("embedding", input.reshape(-1), weight, padding_index=padding_index)
    return y.reshape(*input.shape, columns)


def embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any:  # fmt: skip
    """Rows of a table: input (...) integers, weight (V,D) -> (..., D).

    padding_idx : a row that gets no gradient (negative: from the end).
    max_norm, scale_grad_by_freq, sparse : not supported (ValueError); norm_type goes with max_norm.

    Raises ValueError for an index outside of 0 to V - 1, before anything is computed; TypeError for float indices. As an
    argument of a traced function, indices must reach it as integers: integer arrays do in a model that has an
    `nn.Embedding`, and outside of models.

    >>> import numpy as np
    >>> embedding(np.array([1, 0]), np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    check_options(max_norm, scale_grad_by_freq, sparse)
    return look_up(input, weight, padding_idx, "embedding")
