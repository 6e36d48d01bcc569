"""Normalisations of each sample by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...graph import Tensor
from .eager import eager
from .sizes import check_rank, positive_integer, real


def _product(extents: Sequence[int]) -> int:
    product = 1
    for extent in extents:
        product *= extent
    return product


def _rows(input: Tensor, rows: int, eps: float, **given: Tensor) -> Tensor:
    """The input as a matrix whose rows are normalised, in the input's shape again."""
    matrix = input.reshape(rows, _product(input.shape) // rows if rows else _product(input.shape[1:]))
    y, _ = input.graph.record("layer_norm", matrix, *given.values(), given=tuple(given), eps=real(eps, "eps", 0.0))
    return y.reshape(*input.shape)


@eager("input", "weight", "bias")
def layer_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axes, whose shape is normalized_shape.

    weight, bias : of shape normalized_shape, or None. Raises ValueError when the input does not end in that shape.
    Source: Ba, Kiros and Hinton, "Layer normalization", 2016.

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]]), 2).round(3)
    array([[-1.,  1.]], dtype=float32)
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(int(n) for n in normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ValueError(f"the input must end in normalized_shape {shape}, got an input of shape {input.shape}")
    given = {"weight": weight, "bias": bias}
    for name, tensor in given.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {tensor.shape}")
    size = _product(shape)
    columns = {name: tensor.reshape(size) for name, tensor in given.items() if tensor is not None}
    return _rows(input, _product(input.shape[: -len(shape)]), eps, **columns)


def _affine(normalized: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Times weight plus bias, one for each channel of (N,C,...)."""
    channels, behind = normalized.shape[1], [1] * (normalized.ndim - 2)
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.shape != (channels,):
            raise ValueError(
                f"{name} must have the shape ({channels},) for an input of shape {normalized.shape}, got {tensor.shape}"
            )
    if weight is not None:
        normalized = normalized * weight.reshape(channels, *behind)
    return normalized if bias is None else normalized + bias.reshape(channels, *behind)


@eager("input", "weight", "bias")
def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalisation of (N,C,...) over each of num_groups groups of channels of each sample; weight, bias (C) or None.

    Raises ValueError when num_groups does not divide C. Source: Wu and He, "Group normalization", ECCV 2018.

    >>> import numpy as np
    >>> group_norm(np.array([[1.0, 3.0, 5.0, 5.0]]), 2).round(3)
    array([[-1.,  1.,  0.,  0.]], dtype=float32)
    """
    if input.ndim < 2:
        raise ValueError(f"the input must have the shape (N,C,...), got {input.shape}")
    if input.shape[1] % positive_integer(num_groups, "num_groups"):
        raise ValueError(f"num_groups must divide the channels: {input.shape[1]} are not divisible by {num_groups}")
    return _affine(_rows(input, input.shape[0] * num_groups, eps), weight, bias)


@eager("input", "weight", "bias")
def instance_norm(
    input: Any, running_mean: None = None, running_var: None = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Normalisation of (N,C,L) or (N,C,H,W) over the positions of each channel of each sample; weight, bias (C).

    Always with the sample's own statistics: running ones are refused (ValueError), as is one value per channel.
    Source: Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016.

    >>> import numpy as np
    >>> instance_norm(np.array([[[1.0, 3.0], [5.0, 5.0]]])).round(3)
    array([[[-1.,  1.],
            [ 0.,  0.]]], dtype=float32)
    """
    check_rank(input, (3, 4), "(N,C,L) or (N,C,H,W)")
    if running_mean is not None or running_var is not None or not use_input_stats:
        raise ValueError("instance normalisation works with the sample's own statistics only, not with running ones")
    if _product(input.shape[2:]) == 1:
        raise ValueError(f"more than one value per channel is needed, got an input of shape {input.shape}")
    return _affine(_rows(input, input.shape[0] * input.shape[1], eps), weight, bias)
