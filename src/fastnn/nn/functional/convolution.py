"""Convolution and linear layers' arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...graph import Tensor
from .eager import eager
from .sizes import as_image, as_sequence, check_channels, check_rank, convolution_padding, integers, positive_integer

Ints = int | Sequence[int]


@eager("input", "weight", "bias")
def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """y = input @ weight.T + bias: input (..., C), weight (K, C), bias (K) -> (..., K).

    Raises ValueError when the shapes do not fit.

    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([0.5, 0.0]))
    array([[11.5,  2. ]], dtype=float32)
    """
    if weight.ndim != 2:
        raise ValueError(f"weight must have the shape (out_features, in_features), got {weight.shape}")
    if input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        hint = _flatten_hint(input, weight.shape[1])
        raise ValueError(
            f"expected {weight.shape[1]} features on the last axis, got an input of shape {input.shape}{hint}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape {weight.shape[:1]}, got {bias.shape}")
    operands = [weight] if bias is None else [weight, bias]
    if input.ndim == 2:
        return input.graph.record("linear", input, *operands)
    rows = input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
    y = input.graph.record("linear", rows, *operands)
    return y.reshape(*input.shape[:-1], weight.shape[0])


def _flatten_hint(input: Tensor, features: int) -> str:
    if input.ndim > 2 and math.prod(input.shape[1:]) == features:
        return "; pass x.flatten(1)"
    if input.ndim == 2 and input.shape[0] == features:
        return "; pass x.T, samples first"
    wanted = (*input.shape[:-1], features)
    return f"; pass an input of shape {wanted}, or make the layer for the features that there are"


@eager("input", "weight", "bias")
def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Any = 0, dilation: Ints = 1, groups: int = 1
) -> Any:
    """2-D convolution (cross-correlation, as everywhere): input (N,C,H,W), weight (K,C/groups,R,S) -> (N,K,P,Q).

    Parameters
    ----------
    bias : (K), or None.
    stride, dilation : an integer or (height, width).
    padding : zeros around the image: an integer, (height, width), ((top, bottom), (left, right)), "valid" (none) or
        "same" (stride 1 only: P = H, Q = W; an odd total puts the extra element at the end).
    groups : channels and outputs are cut into this many groups that do not mix.

    Raises ValueError when shapes do not fit or the kernel is larger than the padded image.

    >>> import numpy as np
    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))).ravel()
    array([4., 4., 4., 4.], dtype=float32)
    """
    check_rank(input, (4,), "(N,C,H,W)", weight.shape[1] if weight.ndim == 4 and groups == 1 else None)
    if weight.ndim != 4:
        raise ValueError(f"weight must have the shape (K,C/groups,R,S), got {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape {weight.shape[:1]}, got {bias.shape}")
    groups = positive_integer(groups, "groups")
    if weight.shape[0] % groups:
        raise ValueError(f"groups must divide the channels: {weight.shape[0]} outputs are not divisible by {groups}")
    check_channels(input.shape, weight.shape[1] * groups)
    stride, dilation = integers(stride, 2, "stride"), integers(dilation, 2, "dilation")
    sides = convolution_padding(padding, weight.shape[2:], stride, dilation)
    operands = [weight] if bias is None else [weight, bias]
    return input.graph.record(
        "conv2d", input, *operands, stride=stride, padding=sides, dilation=dilation, groups=groups
    )


@eager("input", "weight", "bias")
def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Any = 0, dilation: Ints = 1, groups: int = 1
) -> Any:
    """1-D convolution: input (N,C,L), weight (K,C/groups,S) -> (N,K,Q); arguments as conv2d, one number each.

    padding may also be (left, right) in a tuple of its own: ((left, right),).

    >>> import numpy as np
    >>> conv1d(np.array([[[1.0, 2.0, 4.0]]]), np.array([[[1.0, 1.0]]]))
    array([[[3., 6.]]], dtype=float32)
    """
    check_rank(input, (3,), "(N,C,L)", weight.shape[1] if weight.ndim == 3 and groups == 1 else None)
    if weight.ndim != 3:
        raise ValueError(f"weight must have the shape (K,C/groups,S), got {weight.shape}")
    check_channels(input.shape, weight.shape[1] * positive_integer(groups, "groups"))
    (stride,), (dilation,) = integers(stride, 1, "stride"), integers(dilation, 1, "dilation")
    image = as_image(input)
    kernel = as_image(weight)
    return as_sequence(conv2d(image, kernel, bias, (1, stride), _sequence_padding(padding), (1, dilation), groups))


def _sequence_padding(padding: Any) -> Any:
    """conv1d's padding as conv2d's for an image of height one."""
    if isinstance(padding, str):
        return padding
    if isinstance(padding, Sequence) and len(padding) == 1 and isinstance(padding[0], Sequence):
        return (0, 0), tuple(padding[0])
    (both,) = integers(padding, 1, "padding", 0)
    return 0, both
