"""Transposed convolution as it is defined: every element of the input adds its multiple of the filter to the output.

Letters: N batch, C in-channels, K out-channels, G groups, H W in, P Q out, R S filter. With y_full the output before `padding`
is cut off, for all n, c, h, w, r, s and the k of c's group:

y_full[n, k, h*stride + r*dilation, w*stride + s*dilation] += weight[c,k,r,s] * x[n,c,h,w]

Nothing here is shared with the reference of the convolution, of which this is the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .checks import Array, as_float, check_shape
from .geometry import Pair, pair, single

Ints = int | Sequence[int]
Gradients = tuple[Array, Array, Array]


class _Canvas:
    """The sizes of one transposed convolution, and where on the full output each element of the input paints."""

    def __init__(
        self, x: Array, weight: Array, stride: Ints, padding: Ints, output_padding: Ints, groups: int, dilation: Ints
    ) -> None:
        as_float(x, "x", 4)
        as_float(weight, "weight", 4)
        if groups < 1 or x.shape[1] % groups:
            raise ValueError(f"groups={groups} must be positive and divide in_channels={x.shape[1]}")
        if x.shape[1] != weight.shape[0]:
            raise ValueError(
                f"x {x.shape} has {x.shape[1]} channels, but weight {weight.shape} takes {weight.shape[0]}"
            )
        self.stride, self.dilation = pair(stride, "stride"), pair(dilation, "dilation")
        self.padding, extra = pair(padding, "padding", 0), pair(output_padding, "output_padding", 0)
        if any(e >= max(s, d) for e, s, d in zip(extra, self.stride, self.dilation)):
            raise ValueError(
                f"output_padding {extra} must be smaller than stride {self.stride} or dilation {self.dilation}"
            )
        self.groups, self.batch, self.input = groups, x.shape[0], (x.shape[2], x.shape[3])
        self.in_group, self.out_group, *_ = x.shape[1] // groups, *weight.shape[1:]
        self.reach = tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, weight.shape[2:]))
        painted = [(n - 1) * s + reach for n, s, reach in zip(self.input, self.stride, self.reach)]
        self.full = tuple(n + e for n, e in zip(painted, extra))
        self.output: Pair = (self.full[0] - 2 * self.padding[0], self.full[1] - 2 * self.padding[1])
        if min(self.output) < 1:
            height, width = self.output
            raise ValueError(f"output of conv_transpose2d would be {height} x {width}: padding {padding} is too large")

    def patches(self) -> Iterator[tuple[int, int, Any]]:
        """(h, w, index): the elements of a full output that x[..., h, w] contributes to, (..., R, S)."""
        for h in range(self.input[0]):
            top = h * self.stride[0]
            rows = slice(top, top + self.reach[0], self.dilation[0])
            for w in range(self.input[1]):
                left = w * self.stride[1]
                yield h, w, (..., rows, slice(left, left + self.reach[1], self.dilation[1]))

    def empty(self, dtype: Any) -> Array:
        return np.zeros((self.batch, self.groups, self.out_group, *self.full), dtype)

    def spread(self, dy: Array) -> Array:
        """dy (N,K,P,Q) on a full output (N,G,K/G,...), with zeros where padding was cut off."""
        full = self.empty(dy.dtype)
        (top, left), (height, width) = self.padding, self.output
        full[..., top : top + height, left : left + width] = dy.reshape(full.shape[:3] + self.output)
        return full

    def cut(self, full: Array) -> Array:
        """The output (N,K,P,Q) without the padding."""
        (top, left), (height, width) = self.padding, self.output
        inner = full[..., top : top + height, left : left + width]
        return inner.reshape(self.batch, self.groups * self.out_group, height, width)

    def grouped(self, weight: Array) -> Array:
        """(C,K/G,R,S) -> (G,C/G,K/G,R,S)."""
        return weight.reshape(self.groups, self.in_group, *weight.shape[1:])


def conv_transpose2d(
    x: Array, weight: Array, bias: Array | None = None, stride: Ints = 1, padding: Ints = 0,
    output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1,
) -> Array:  # fmt: skip
    """Transposed convolution: x (N,C,H,W), weight (C,K/groups,R,S), bias (K) -> (N,K,P,Q).

    The input gradient of a `conv2d` whose dy is x: P = (H-1)*stride - 2*padding + dilation*(R-1) + output_padding + 1.
    Raises ValueError for channels or groups that do not fit, too large an output_padding, an empty output.

    >>> conv_transpose2d(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 3)), stride=2).tolist()
    [[[[1.0, 1.0, 2.0, 1.0, 1.0]]]]
    """
    x, weight = np.asarray(x), np.asarray(weight)
    canvas = _Canvas(x, weight, stride, padding, output_padding, groups, dilation)
    filters, pixels = canvas.grouped(weight), x.reshape(x.shape[0], groups, canvas.in_group, *x.shape[2:])
    full = canvas.empty(np.result_type(x, weight))
    for h, w, index in canvas.patches():
        full[index] += np.einsum("ngc,gckrs->ngkrs", pixels[..., h, w], filters)
    y = canvas.cut(full)
    if bias is not None:
        check_shape(np.asarray(bias), (weight.shape[1] * groups,), "bias")
        y = y + np.reshape(bias, (-1, 1, 1))
    return y


def conv_transpose2d_backward(
    dy: Array, x: Array, weight: Array, stride: Ints = 1, padding: Ints = 0, output_padding: Ints = 0,
    groups: int = 1, dilation: Ints = 1,
) -> Gradients:  # fmt: skip
    """Gradients of `conv_transpose2d`: dy (N,K,P,Q) -> dx (N,C,H,W), dweight (C,K/groups,R,S), dbias (K).

    Errors as the forward function, and ValueError when dy has not the shape of the output.

    >>> dx, _, _ = conv_transpose2d_backward(np.ones((1, 1, 1, 5)), np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 3)), 2)
    >>> dx.tolist()
    [[[[3.0, 3.0]]]]
    """
    dy, x, weight = as_float(dy, "dy", 4), np.asarray(x), np.asarray(weight)
    canvas = _Canvas(x, weight, stride, padding, output_padding, groups, dilation)
    check_shape(dy, (x.shape[0], weight.shape[1] * groups, *canvas.output), "dy")
    filters, pixels = canvas.grouped(weight), x.reshape(x.shape[0], groups, canvas.in_group, *x.shape[2:])
    full = canvas.spread(dy)
    dx = np.zeros(pixels.shape, np.result_type(dy, weight))
    dfilters = np.zeros(filters.shape, np.result_type(dy, x))
    for h, w, index in canvas.patches():
        dx[..., h, w] = np.einsum("ngkrs,gckrs->ngc", full[index], filters)
        dfilters += np.einsum("ngc,ngkrs->gckrs", pixels[..., h, w], full[index])
    return dx.reshape(x.shape), dfilters.reshape(weight.shape), dy.sum(axis=(0, 2, 3))


def _row(value: Ints, name: str, other: int) -> Pair:
    """A number of a sequence's only axis as that of an image of height one."""
    return other, single(value, name)


def conv_transpose1d(
    x: Array, weight: Array, bias: Array | None = None, stride: Ints = 1, padding: Ints = 0,
    output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1,
) -> Array:  # fmt: skip
    """Transposed convolution of sequences: x (N,C,L), weight (C,K/groups,S), bias (K) -> (N,K,Q).

    Errors as `conv_transpose2d`.

    >>> conv_transpose1d(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 1.0]]])).tolist()
    [[[1.0, 3.0, 2.0]]]
    """
    x, weight = as_float(x, "x", 3)[:, :, None], as_float(weight, "weight", 3)[:, :, None]
    window = _row(stride, "stride", 1), _row(padding, "padding", 0), _row(output_padding, "output_padding", 0)
    return conv_transpose2d(x, weight, bias, *window, groups, _row(dilation, "dilation", 1))[:, :, 0]


def conv_transpose1d_backward(
    dy: Array, x: Array, weight: Array, stride: Ints = 1, padding: Ints = 0, output_padding: Ints = 0,
    groups: int = 1, dilation: Ints = 1,
) -> Gradients:  # fmt: skip
    """Gradients of `conv_transpose1d`: dy (N,K,Q) -> dx (N,C,L), dweight (C,K/groups,S), dbias (K).

    Errors as `conv_transpose2d`.

    >>> conv_transpose1d_backward(np.ones((1, 1, 3)), np.ones((1, 1, 2)), np.ones((1, 1, 2)))[0].tolist()
    [[[2.0, 2.0]]]
    """
    dy, x, weight = (as_float(a, name, 3)[:, :, None] for a, name in ((dy, "dy"), (x, "x"), (weight, "weight")))
    window = _row(stride, "stride", 1), _row(padding, "padding", 0), _row(output_padding, "output_padding", 0)
    dx, dweight, dbias = conv_transpose2d_backward(dy, x, weight, *window, groups, _row(dilation, "dilation", 1))
    return dx[:, :, 0], dweight[:, :, 0], dbias
