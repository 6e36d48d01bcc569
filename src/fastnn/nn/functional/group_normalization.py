"""Normalisations of each sample by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...graph import Tensor
from .eager import eager
from .normalization import batch_norm
from .sizes import check_rank, positive_integer, real


def _rows(input: Tensor, rows: int, columns: int, eps: float, **given: Tensor) -> tuple[Tensor, Tensor]:
    """The input as a matrix whose rows are normalised, in the input's shape again, and the rows' statistics."""
    matrix = input.reshape(rows, columns)
    y, statistics = input.graph.record(
        "layer_norm", matrix, *given.values(), given=tuple(given), eps=real(eps, "eps", 0.0)
    )
    return y.reshape(*input.shape), statistics


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
    size = math.prod(shape)
    columns = {name: tensor.reshape(size) for name, tensor in given.items() if tensor is not None}
    return _rows(input, math.prod(input.shape[: -len(shape)]), size, eps, **columns)[0]


def _grouped(
    input: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Groups of channels of (N,C,...) normalised, and their statistics; of images in one pass over memory."""
    if input.ndim != 4 or 0 in input.shape[1:]:
        y, statistics = _rows(input, input.shape[0] * groups, math.prod(input.shape[1:]) // groups, eps)
        return _affine(y, weight, bias), statistics
    given = {name: t for name, t in (("weight", weight), ("bias", bias)) if t is not None}
    y, statistics = input.graph.record(
        "group_norm", input, *given.values(), given=tuple(given), groups=groups, eps=real(eps, "eps", 0.0)
    )
    return y, statistics


def _affine(normalized: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Times weight plus bias, one for each channel of (N,C,...)."""
    channels, behind = normalized.shape[1], [1] * (normalized.ndim - 2)
    if weight is not None:
        normalized = normalized * weight.reshape(channels, *behind)
    return normalized if bias is None else normalized + bias.reshape(channels, *behind)


def _check_affine(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    channels = input.shape[1]
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.shape != (channels,):
            raise ValueError(
                f"{name} must have the shape ({channels},) for an input of shape {input.shape}, got {tensor.shape}"
            )


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
    _check_affine(input, weight, bias)
    return _grouped(input, num_groups, weight, bias, eps)[0]


@eager("input", "running_mean", "running_var", "weight", "bias")
def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Normalisation of (N,C,L) or (N,C,H,W) over the positions of each channel of each sample.

    Parameters
    ----------
    running_mean, running_var, weight, bias : (C) or None.
    use_input_stats : normalise with each sample's own statistics, otherwise with the running ones.
    momentum : the weight of the batch in the running statistics, which take the means over the batch of the samples' means
        and unbiased variances, if they are buffers of a module; an array passed in is never written to.

    Raises ValueError for shapes that do not fit, for one value per channel, and for missing running statistics when
    they are asked for. Source: Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016.

    >>> import numpy as np
    >>> instance_norm(np.array([[[1.0, 3.0], [5.0, 5.0]]])).round(3)
    array([[[-1.,  1.],
            [ 0.,  0.]]], dtype=float32)
    """
    check_rank(input, (3, 4), "(N,C,L) or (N,C,H,W)")
    channels = input.shape[1]
    for name, tensor in (("running_mean", running_mean), ("running_var", running_var)):
        if tensor is not None and tensor.shape != (channels,):
            raise ValueError(
                f"{name} must have the shape ({channels},) for an input of shape {input.shape}, got {tensor.shape}"
            )
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError("without use_input_stats instance normalisation needs running_mean and running_var")
        return batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var come together, or not at all")
    positions = math.prod(input.shape[2:])
    if positions == 1:
        raise ValueError(f"more than one value per channel is needed, got an input of shape {input.shape}")
    _check_affine(input, weight, bias)
    normalized, statistics = _grouped(input, channels, weight, bias, eps)
    tracked = running_mean is not None and running_mean.variable is not None and running_var.variable is not None
    if tracked and positions:
        input.graph.record(
            "instance_norm_track", statistics, running_mean, running_var, batch=input.shape[0], positions=positions,
            eps=real(eps, "eps", 0.0), momentum=real(momentum, "momentum", 0.0),
        )  # fmt: skip
    return normalized
