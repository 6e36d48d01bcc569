"""Convolution, one tap of the filter at a time.

Letters: N batch, C in-channels, K out-channels, G groups, H W in, P Q out, R S filter.
y[n,k,p,q] = bias[k] + sum over c,r,s of weight[k,c,r,s] * x_padded[n, c, p*stride + r*dilation, q*stride + s*dilation]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .checks import Array, as_float, check_shape
from .geometry import Pair, Sides, convolution_size, crop, pair, resolve_padding, single, taps

Ints = int | Sequence[int]
Gradients = tuple[Array, Array, Array]


def _pad(x: Array, padding: Sides) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *padding))


def _output_size(x_size: Pair, kernel: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Pair:
    height, width = (convolution_size(*axis) for axis in zip(x_size, kernel, stride, padding, dilation))
    return height, width


def _correlate(x: Array, weight: Array, stride: Pair, padding: Sides, dilation: Pair, groups: int) -> Array:
    """x (N,C,H,W), weight (K,C/G,R,S) -> y (N,K,P,Q)."""
    n, c = x.shape[:2]
    k, _, *kernel = weight.shape
    output = _output_size(x.shape[2:], tuple(kernel), stride, padding, dilation)
    pixels = output[0] * output[1]
    x_padded = _pad(x, padding)
    filters = weight.reshape(groups, k // groups, c // groups, *kernel)
    y = np.zeros((n, groups, k // groups, pixels), dtype=np.result_type(x, weight))
    for r, s, index in taps(tuple(kernel), stride, dilation, output):
        y += filters[..., r, s] @ x_padded[index].reshape(n, groups, c // groups, pixels)
    return y.reshape(n, k, *output)


def _input_gradient(
    dy: Array, weight: Array, x_size: Pair, stride: Pair, padding: Sides, dilation: Pair, groups: int
) -> Array:
    """dy (N,K,P,Q), weight (K,C/G,R,S) -> dx (N,C,H,W): every product of `_correlate` sent back to its x."""
    n, k, p, q = dy.shape
    _, c_group, *kernel = weight.shape
    (top, bottom), (left, right) = padding
    filters = weight.reshape(groups, k // groups, c_group, *kernel)
    dy_rows = dy.reshape(n, groups, k // groups, p * q)
    dtype = np.result_type(dy, weight)
    padded_size = (x_size[0] + top + bottom, x_size[1] + left + right)
    dx_padded = np.zeros((n, groups * c_group, *padded_size), dtype=dtype)
    for r, s, index in taps(tuple(kernel), stride, dilation, (p, q)):
        contribution = np.swapaxes(filters[..., r, s], 1, 2) @ dy_rows
        dx_padded[index] += contribution.reshape(n, groups * c_group, p, q)
    return crop(dx_padded, padding, *x_size)


def _weight_gradient(
    dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Sides, dilation: Pair, groups: int
) -> Array:
    """dy (N,K,P,Q), x (N,C,H,W) -> dweight (K,C/G,R,S)."""
    n, k, p, q = dy.shape
    c = x.shape[1]
    x_padded = _pad(x, padding)
    dy_rows = dy.reshape(n, groups, k // groups, p * q)
    dweight = np.zeros((groups, k // groups, c // groups, *kernel), dtype=np.result_type(dy, x))
    for r, s, index in taps(kernel, stride, dilation, (p, q)):
        seen = x_padded[index].reshape(n, groups, c // groups, p * q)
        dweight[..., r, s] = (dy_rows @ np.swapaxes(seen, 2, 3)).sum(axis=0)
    return dweight.reshape(k, c // groups, *kernel)


def _check_groups(groups: int, **channels: int) -> None:
    for name, count in channels.items():
        if groups < 1 or count % groups:
            raise ValueError(f"groups={groups} must be positive and divide {name}={count}")


def _check_conv2d(x: Array, weight: Array, groups: int) -> None:
    as_float(x, "x", 4)
    as_float(weight, "weight", 4)
    _check_groups(groups, in_channels=x.shape[1], out_channels=weight.shape[0])
    if x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"x {x.shape} has {x.shape[1]} channels, but weight {weight.shape} with groups={groups} "
            f"takes {weight.shape[1] * groups}"
        )


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: Ints = 1, padding: Any = 0,
    dilation: Ints = 1, groups: int = 1,
) -> Array:  # fmt: skip
    """2-D cross-correlation: x (N,C,H,W), weight (K,C/groups,R,S), bias (K) -> (N,K,P,Q).

    `padding` is an int, (height, width), "same", "valid" or ((top, bottom), (left, right)).
    Raises ValueError for channels or groups that do not fit and for a window larger than the padded image.

    >>> conv2d(np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    x, weight = np.asarray(x), np.asarray(weight)
    _check_conv2d(x, weight, groups)
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    sides = resolve_padding(padding, weight.shape[2:], stride, dilation)
    y = _correlate(x, weight, stride, sides, dilation, groups)
    if bias is not None:
        check_shape(np.asarray(bias), weight.shape[:1], "bias")
        y = y + np.reshape(bias, (-1, 1, 1))
    return y


def conv2d_backward(
    dy: Array, x: Array, weight: Array, stride: Ints = 1, padding: Any = 0, dilation: Ints = 1, groups: int = 1
) -> Gradients:
    """Gradients of `conv2d`: dy (N,K,P,Q) -> dx (N,C,H,W), dweight (K,C/groups,R,S), dbias (K).

    Raises what `conv2d` raises, and ValueError when dy has not the shape of the output.

    >>> dx, dweight, dbias = conv2d_backward(np.ones((1, 1, 2, 2)), np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))
    >>> dx[0, 0].tolist(), dbias.tolist()
    ([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]], [4.0])
    """
    dy, x, weight = as_float(dy, "dy", 4), np.asarray(x), np.asarray(weight)
    _check_conv2d(x, weight, groups)
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    sides = resolve_padding(padding, weight.shape[2:], stride, dilation)
    output = _output_size(x.shape[2:], weight.shape[2:], stride, sides, dilation)
    check_shape(dy, (x.shape[0], weight.shape[0], *output), "dy")
    dx = _input_gradient(dy, weight, x.shape[2:], stride, sides, dilation, groups)
    dweight = _weight_gradient(dy, x, weight.shape[2:], stride, sides, dilation, groups)
    return dx, dweight, dy.sum(axis=(0, 2, 3))


def _as_height_one(x: Array, name: str) -> Array:
    """(N,C,L) -> (N,C,1,L)."""
    return as_float(x, name, 3)[:, :, None, :]


def _padding_1d(padding: Any) -> Any:
    """int, (p,), "same", "valid" or (left, right) -> what conv2d takes for a height of one."""
    if isinstance(padding, str):
        return padding
    if isinstance(padding, Sequence) and len(padding) == 2:
        return (0, 0), tuple(padding)
    return 0, single(padding, "padding")


def _geometry_1d(stride: Ints, padding: Any, dilation: Ints) -> tuple[Pair, Any, Pair]:
    return (1, single(stride, "stride")), _padding_1d(padding), (1, single(dilation, "dilation"))


def conv1d(
    x: Array, weight: Array, bias: Array | None = None, stride: Ints = 1, padding: Any = 0,
    dilation: Ints = 1, groups: int = 1,
) -> Array:  # fmt: skip
    """1-D cross-correlation: x (N,C,L), weight (K,C/groups,S), bias (K) -> (N,K,Q).

    `padding` is an int, "same", "valid" or (left, right). Errors as `conv2d`.

    >>> conv1d(np.array([[[1.0, 2.0, 4.0]]]), np.array([[[-1.0, 1.0]]]), padding="same").tolist()
    [[[1.0, 2.0, -4.0]]]
    """
    geometry = _geometry_1d(stride, padding, dilation)
    y = conv2d(_as_height_one(x, "x"), _as_height_one(weight, "weight"), bias, *geometry, groups)
    return y[:, :, 0, :]


def conv1d_backward(
    dy: Array, x: Array, weight: Array, stride: Ints = 1, padding: Any = 0, dilation: Ints = 1, groups: int = 1
) -> Gradients:
    """Gradients of `conv1d`: dy (N,K,Q) -> dx (N,C,L), dweight (K,C/groups,S), dbias (K). Errors as `conv1d`.

    >>> conv1d_backward(np.ones((1, 1, 2)), np.ones((1, 1, 3)), np.ones((1, 1, 2)))[0].tolist()
    [[[1.0, 2.0, 1.0]]]
    """
    dy, x, weight = _as_height_one(dy, "dy"), _as_height_one(x, "x"), _as_height_one(weight, "weight")
    dx, dweight, dbias = conv2d_backward(dy, x, weight, *_geometry_1d(stride, padding, dilation), groups)
    return dx[:, :, 0, :], dweight[:, :, 0, :], dbias
