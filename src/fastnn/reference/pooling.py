"""Max, average and Lp pooling over sliding windows, one tap of the window at a time.

Letters: N batch, C channels, H W in, P Q out. 1-D pooling is 2-D pooling of an image of height one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .checks import Array, as_float, check_shape
from .geometry import Pair, extent, pair, pooling_size, single, taps

Ints = int | Sequence[int]
Windows = tuple[Pair, Pair, Pair, Pair, Pair]


def _windows(
    x: Array, kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Windows:
    """Checked (kernel, stride, padding, dilation, output); stride None means the kernel size."""
    as_float(x, "x", 4)
    kernel = pair(kernel_size, "kernel_size")
    strides = kernel if stride is None else pair(stride, "stride")
    pads, dilations = pair(padding, "padding", 0), pair(dilation, "dilation")
    height, width = (pooling_size(*axis, ceil_mode) for axis in zip(x.shape[2:], kernel, strides, pads, dilations))
    return kernel, strides, pads, dilations, (height, width)


def _pad_for(x: Array, windows: Windows, value: float) -> Array:
    """Pad x so that every tap of every window exists (ceil_mode may need more than `padding` at the end)."""
    kernel, stride, padding, dilation, output = windows
    sides = []
    for size, k, st, pad, d, count in zip(x.shape[2:], kernel, stride, padding, dilation, output):
        needed = (count - 1) * st + extent(k, d)
        sides.append((pad, max(needed - pad - size, 0)))
    return np.pad(x, ((0, 0), (0, 0), *sides), constant_values=value)


def _maximum(x: Array, windows: Windows) -> tuple[Array, Array]:
    """Maximum (N,C,P,Q) of each window and where it stands, as h*W + w (int64).

    The first of equal maxima wins. A NaN beats every number and an earlier NaN. A window of -inf alone
    reports its first element inside the image; one that holds no element at all reports -1.
    """
    kernel, stride, padding, dilation, output = windows
    height, width = x.shape[2:]
    x_padded = _pad_for(x, windows, -np.inf)
    best = np.full((*x.shape[:2], *output), -np.inf, dtype=x.dtype)
    where = np.full(best.shape, -1, dtype=np.int64)
    for r, s, index in taps(kernel, stride, dilation, output):
        h = np.arange(output[0])[:, None] * stride[0] + r * dilation[0] - padding[0]
        w = np.arange(output[1])[None, :] * stride[1] + s * dilation[1] - padding[1]
        inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
        seen = x_padded[index]
        better = inside & ((seen > best) | np.isnan(seen) | (where < 0))
        best = np.where(better, seen, best)
        where = np.where(better, h * width + w, where)
    return best, where


def scatter_to_indices(dy: Array, indices: Array, shape: tuple[int, ...]) -> Array:
    """Add each dy (N,C,P,Q) to the plane position (h*W + w) that `indices` names; -1 names none. -> `shape` (N,C,H,W)

    >>> scatter_to_indices(np.full((1, 1, 1, 2), 3.0), np.array([[[[1, 1]]]]), (1, 1, 1, 3)).tolist()
    [[[[0.0, 6.0, 0.0]]]]
    """
    n, c, height, width = shape
    dx = np.zeros((n * c, height * width), dtype=dy.dtype)
    planes = np.broadcast_to(np.arange(n * c)[:, None], (n * c, dy[0, 0].size if n * c else 0))
    targets = indices.reshape(planes.shape)
    valid = targets >= 0
    np.add.at(dx, (planes[valid], targets[valid]), dy.reshape(planes.shape)[valid])
    return dx.reshape(shape)


def max_pool2d(
    x: Array, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Array | tuple[Array, Array]:  # fmt: skip
    """Largest element of each window: x (N,C,H,W) -> (N,C,P,Q), and with return_indices its h*W + w (int64).

    Padding counts as -inf. The first of equal maxima wins; NaN propagates, the last of several NaN giving the index.
    A dilated window whose taps all miss the image yields -inf, index -1 and no gradient.
    Raises ValueError for padding over half a window or a window larger than the padded image.

    >>> max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """
    x = np.asarray(x)
    best, where = _maximum(x, _windows(x, kernel_size, stride, padding, dilation, ceil_mode))
    return (best, where) if return_indices else best


def max_pool2d_backward(
    dy: Array, x: Array, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """dx (N,C,H,W): each dy (N,C,P,Q) goes to the element that was its window's maximum. Errors as `max_pool2d`.

    >>> max_pool2d_backward(np.ones((1, 1, 1, 1)), np.arange(4.0).reshape(1, 1, 2, 2), 2).tolist()
    [[[[0.0, 0.0], [0.0, 1.0]]]]
    """
    x, dy = np.asarray(x), as_float(dy, "dy", 4)
    _, where = _maximum(x, _windows(x, kernel_size, stride, padding, dilation, ceil_mode))
    check_shape(dy, where.shape, "dy")
    return scatter_to_indices(dy, where, x.shape)


def _divisors(x: Array, windows: Windows, count_include_pad: bool, divisor_override: int | None) -> Array:
    """(P,Q): what each window's sum is divided by.

    Counted per axis: a window that hangs over the padded end is clipped there; without count_include_pad it is
    clipped to the image.
    """
    kernel, stride, padding, _, output = windows
    if divisor_override is not None:
        if divisor_override == 0:
            raise ValueError("divisor_override must not be zero")
        return np.full(output, divisor_override, dtype=x.dtype)
    counts = []
    for size, k, st, pad, count in zip(x.shape[2:], kernel, stride, padding, output):
        start = np.arange(count) * st - pad
        end = np.minimum(start + k, size + pad)
        if not count_include_pad:
            start, end = np.maximum(start, 0), np.minimum(end, size)
        counts.append(end - start)
    return (counts[0][:, None] * counts[1][None, :]).astype(x.dtype)


def avg_pool2d(
    x: Array, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    """Average of each window: x (N,C,H,W) -> (N,C,P,Q). Padding counts as zeros.

    The divisor is the window's size within the padded image, within the image if not count_include_pad, or
    divisor_override. Errors as `max_pool2d`, and for a zero divisor_override.

    >>> avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2).tolist()
    [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    x = np.asarray(x)
    windows = _windows(x, kernel_size, stride, padding, 1, ceil_mode)
    kernel, strides, _, dilation, output = windows
    x_padded = _pad_for(x, windows, 0.0)
    total = np.zeros((*x.shape[:2], *output), dtype=x.dtype)
    for _, _, index in taps(kernel, strides, dilation, output):
        total += x_padded[index]
    return total / _divisors(x, windows, count_include_pad, divisor_override)


def avg_pool2d_backward(
    dy: Array, x: Array, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    """dx (N,C,H,W): each dy (N,C,P,Q) over its divisor goes to every element of its window. Errors as `avg_pool2d`.

    Of x only the shape and dtype matter.

    >>> avg_pool2d_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 2, 2)), 2).tolist()
    [[[[0.25, 0.25], [0.25, 0.25]]]]
    """
    x, dy = np.asarray(x), as_float(dy, "dy", 4)
    windows = _windows(x, kernel_size, stride, padding, 1, ceil_mode)
    kernel, strides, (top, left), dilation, output = windows
    check_shape(dy, (*x.shape[:2], *output), "dy")
    share = dy / _divisors(x, windows, count_include_pad, divisor_override)
    dx_padded = np.zeros_like(_pad_for(x, windows, 0.0), dtype=share.dtype)
    for _, _, index in taps(kernel, strides, dilation, output):
        dx_padded[index] += share
    return dx_padded[..., top : top + x.shape[2], left : left + x.shape[3]]


def _as_height_one(x: Array, name: str) -> Array:
    """(N,C,L) -> (N,C,1,L)."""
    return as_float(x, name, 3)[:, :, None, :]


def _windows_1d(kernel_size: Ints, stride: Ints | None, padding: Ints) -> tuple[Pair, Pair, Pair]:
    kernel = single(kernel_size, "kernel_size")
    step = kernel if stride is None else single(stride, "stride")
    return (1, kernel), (1, step), (0, single(padding, "padding"))


def max_pool1d(
    x: Array, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Array | tuple[Array, Array]:  # fmt: skip
    """`max_pool2d` along the last axis: x (N,C,L) -> (N,C,Q), and with return_indices the positions (int64).

    >>> max_pool1d(np.array([[[1.0, 3.0, 2.0]]]), 2, stride=1).tolist()
    [[[3.0, 3.0]]]
    """
    windows = _windows_1d(kernel_size, stride, padding)
    dilations = (1, single(dilation, "dilation"))
    best, where = max_pool2d(_as_height_one(x, "x"), *windows, dilations, ceil_mode, True)
    return (best[:, :, 0], where[:, :, 0]) if return_indices else best[:, :, 0]


def max_pool1d_backward(
    dy: Array, x: Array, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """dx (N,C,L) of `max_pool1d` for dy (N,C,Q).

    >>> max_pool1d_backward(np.ones((1, 1, 2)), np.array([[[1.0, 3.0, 2.0]]]), 2, stride=1).tolist()
    [[[0.0, 2.0, 0.0]]]
    """
    windows = _windows_1d(kernel_size, stride, padding)
    dilations = (1, single(dilation, "dilation"))
    dy, x = _as_height_one(dy, "dy"), _as_height_one(x, "x")
    return max_pool2d_backward(dy, x, *windows, dilations, ceil_mode)[:, :, 0]


def avg_pool1d(
    x: Array, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:  # fmt: skip
    """`avg_pool2d` along the last axis: x (N,C,L) -> (N,C,Q).

    >>> avg_pool1d(np.array([[[1.0, 3.0, 2.0]]]), 2, stride=1).tolist()
    [[[2.0, 2.5]]]
    """
    windows = _windows_1d(kernel_size, stride, padding)
    return avg_pool2d(_as_height_one(x, "x"), *windows, ceil_mode, count_include_pad)[:, :, 0]


def avg_pool1d_backward(
    dy: Array, x: Array, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:  # fmt: skip
    """dx (N,C,L) of `avg_pool1d` for dy (N,C,Q).

    >>> avg_pool1d_backward(np.ones((1, 1, 2)), np.zeros((1, 1, 3)), 2, stride=1).tolist()
    [[[0.5, 1.0, 0.5]]]
    """
    windows = _windows_1d(kernel_size, stride, padding)
    dy, x = _as_height_one(dy, "dy"), _as_height_one(x, "x")
    return avg_pool2d_backward(dy, x, *windows, ceil_mode, count_include_pad)[:, :, 0]


def lp_pool2d(
    x: Array, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Array:
    """(sum over the window of x^p)^(1/p), p = norm_type: x (N,C,H,W) -> (N,C,P,Q). Errors as `avg_pool2d`.

    As in PyTorch the powers are signed (no absolute value), and a window that ceil_mode lets hang over the end
    is scaled up to a whole one.

    >>> lp_pool2d(np.array([[[[3.0, 4.0]]]]), 2, (1, 2)).tolist()
    [[[[5.0]]]]
    """
    height, width = pair(kernel_size, "kernel_size")
    with np.errstate(invalid="ignore"):  # an odd power's negative sum has no real root: NaN
        mean = avg_pool2d(np.power(x, norm_type), kernel_size, stride, 0, ceil_mode)
        return np.power(mean * (height * width), 1.0 / norm_type)


def lp_pool2d_backward(
    dy: Array, x: Array, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Array:
    """dx = x^(p-1) * (dy * y^(1-p) sent back to each element of the window), 0 where y is 0.

    >>> lp_pool2d_backward(np.ones((1, 1, 1, 1)), np.array([[[[3.0, 4.0]]]]), 2, (1, 2)).round(12).tolist()
    [[[[0.6, 0.8]]]]
    """
    y = lp_pool2d(x, norm_type, kernel_size, stride, ceil_mode)
    height, width = pair(kernel_size, "kernel_size")
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(y == 0, 0, dy * np.power(y, 1 - norm_type) * (height * width))
        spread = avg_pool2d_backward(slope, x, kernel_size, stride, 0, ceil_mode)
        return spread * np.power(x, norm_type - 1)
