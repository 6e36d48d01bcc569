"""Transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .eager import eager
from .sizes import as_image, as_sequence, check_channels, check_rank, integers, positive_integer

Ints = int | Sequence[int]


@eager("input", "weight", "bias")
def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Ints = 0, output_padding: Ints = 0,
    groups: int = 1, dilation: Ints = 1,
) -> Any:  # fmt: skip
    """2-D transposed convolution: input (N,C,H,W), weight (C,K/groups,R,S) -> (N,K,P,Q).

    Each element of the input adds weight times itself to the output, `stride` apart; `padding` is cut off all sides:
    P = (H-1)*stride - 2*padding + dilation*(R-1) + output_padding + 1. It is conv2d's gradient of the input.

    Parameters
    ----------
    bias : (K), or None.
    stride, padding, dilation : an integer or (height, width).
    output_padding : rows and columns more at the bottom and the right; less than stride or dilation.
    groups : channels and outputs are cut into this many groups that do not mix.

    Raises ValueError when shapes do not fit or no output is left.

    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 3)), stride=2).ravel()
    array([1., 1., 2., 1., 1.], dtype=float32)
    """
    check_rank(input, (4,), "(N,C,H,W)")
    if weight.ndim != 4:
        raise ValueError(f"weight must have the shape (C,K/groups,R,S), got {weight.shape}")
    groups = positive_integer(groups, "groups")
    if weight.shape[0] % groups:
        raise ValueError(f"groups must divide the channels: {weight.shape[0]} inputs are not divisible by {groups}")
    if bias is not None and bias.shape != (weight.shape[1] * groups,):
        raise ValueError(f"bias must have shape {(weight.shape[1] * groups,)}, got {bias.shape}")
    check_channels(input.shape, weight.shape[0])
    operands = [weight] if bias is None else [weight, bias]
    return input.graph.record(
        "conv_transpose2d",
        input,
        *operands,
        stride=integers(stride, 2, "stride"),
        padding=integers(padding, 2, "padding", 0),
        output_padding=integers(output_padding, 2, "output_padding", 0),
        dilation=integers(dilation, 2, "dilation"),
        groups=groups,
    )


@eager("input", "weight", "bias")
def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Ints = 0, output_padding: Ints = 0,
    groups: int = 1, dilation: Ints = 1,
) -> Any:  # fmt: skip
    """1-D transposed convolution: input (N,C,L), weight (C,K/groups,S) -> (N,K,Q); arguments as conv_transpose2d.

    >>> import numpy as np
    >>> conv_transpose1d(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 1.0]]]))
    array([[[1., 3., 2.]]], dtype=float32)
    """
    check_rank(input, (3,), "(N,C,L)")
    if weight.ndim != 3:
        raise ValueError(f"weight must have the shape (C,K/groups,S), got {weight.shape}")
    check_channels(input.shape, weight.shape[0])
    (stride,), (dilation,) = integers(stride, 1, "stride"), integers(dilation, 1, "dilation")
    (padding,), (more,) = integers(padding, 1, "padding", 0), integers(output_padding, 1, "output_padding", 0)
    image = conv_transpose2d(
        as_image(input), as_image(weight), bias, (1, stride), (0, padding), (0, more), groups, (1, dilation)
    )
    return as_sequence(image)
