"""Sizes and paddings of sliding windows, as PyTorch computes them.

A window axis has an input of `size`, a `kernel` of that many taps, `dilation` between taps, `stride`
between windows and padding (before, after). Its extent is dilation*(kernel - 1) + 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .checks import Array

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]
"""((top, bottom), (left, right))."""


def pair(value: int | Sequence[int], name: str = "value", minimum: int = 1) -> Pair:
    """Return an int or a sequence of two ints as (height, width), each at least `minimum`.

    >>> pair(3), pair((2, 5))
    ((3, 3), (2, 5))
    """
    values = (value, value) if not isinstance(value, Sequence) else tuple(value)
    if len(values) == 1:
        values = (values[0], values[0])
    if len(values) != 2:
        raise ValueError(f"{name} must be an int or two ints, not {value!r}")
    if min(values) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value!r}")
    return int(values[0]), int(values[1])


def single(value: int | Sequence[int], name: str = "value") -> int:
    """Return an int or a sequence of one int as an int.

    >>> single(3), single((4,))
    (3, 4)
    """
    if not isinstance(value, Sequence):
        return int(value)
    if len(value) != 1:
        raise ValueError(f"{name} must be an int or one int in a tuple, not {value!r}")
    return int(value[0])


def extent(kernel: int, dilation: int) -> int:
    """Distance covered by a window, from its first tap to its last, both included.

    >>> extent(3, 2)
    5
    """
    return dilation * (kernel - 1) + 1


def resolve_padding(padding: Any, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    """Return any accepted padding as ((top, bottom), (left, right)).

    Accepted: an int, (height, width), "valid" (none), "same" (output size = input size, stride 1 only;
    where the total is odd the extra element goes to the end, as in PyTorch), or the result's own form.

    >>> resolve_padding("same", (4, 3), (1, 1), (1, 1))
    ((1, 2), (1, 1))
    """
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(f'padding="same" needs stride 1, not {stride}')
        totals = [extent(k, d) - 1 for k, d in zip(kernel, dilation)]
        top, left = totals[0] // 2, totals[1] // 2
        return (top, totals[0] - top), (left, totals[1] - left)
    if isinstance(padding, str):
        raise ValueError(f'padding must be "same", "valid" or numbers, not {padding!r}')
    if isinstance(padding, Sequence) and any(isinstance(side, Sequence) for side in padding):
        if len(padding) != 2 or not all(isinstance(s, Sequence) and len(s) == 2 for s in padding):
            raise ValueError(f"padding must be ((top, bottom), (left, right)), not {padding!r}")
        return pair(padding[0], "padding", 0), pair(padding[1], "padding", 0)
    height, width = pair(padding, "padding", 0)
    return (height, height), (width, width)


def convolution_size(size: int, kernel: int, stride: int, padding: Pair, dilation: int) -> int:
    """Number of windows that fit into the padded axis; ValueError if not even one does.

    floor((size + before + after - extent) / stride) + 1

    >>> convolution_size(8, kernel=3, stride=2, padding=(1, 1), dilation=1)
    4
    """
    slack = size + sum(padding) - extent(kernel, dilation)
    if slack < 0:
        raise ValueError(
            f"window of {extent(kernel, dilation)} (kernel {kernel}, dilation {dilation}) is larger "
            f"than the padded input of {size + sum(padding)} (size {size}, padding {padding})"
        )
    return slack // stride + 1


def pooling_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> int:
    """Number of pooling windows on an axis padded by `padding` on both sides.

    ceil_mode rounds the division up, but a window that would start in the padding after the input is
    dropped (it would hold no element). ValueError if the padding exceeds half a window or nothing fits.

    >>> pooling_size(5, kernel=2, stride=2, padding=0), pooling_size(5, 2, 2, 0, ceil_mode=True)
    (2, 3)
    """
    window = extent(kernel, dilation)
    if 2 * padding > window:
        raise ValueError(f"pooling padding {padding} is more than half of the window's extent {window}")
    slack = size + 2 * padding - window
    count = (slack + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    if count < 1:
        raise ValueError(
            f"pooling window of {window} (kernel {kernel}, dilation {dilation}) is larger than the "
            f"padded input of {size + 2 * padding} (size {size}, padding {padding})"
        )
    return count


def taps(kernel: Pair, stride: Pair, dilation: Pair, output: Pair) -> Iterator[tuple[int, int, Any]]:
    """Yield (r, s, index) for each tap; x_padded[index] (..., P, Q) is what tap (r, s) of each window sees.

    >>> import numpy as np
    >>> image = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> [image[index].ravel().tolist() for _, _, index in taps((1, 2), (1, 1), (1, 1), (1, 2))]
    [[0.0, 1.0], [1.0, 2.0]]
    """
    for r in range(kernel[0]):
        top = r * dilation[0]
        rows = slice(top, top + (output[0] - 1) * stride[0] + 1, stride[0])
        for s in range(kernel[1]):
            left = s * dilation[1]
            columns = slice(left, left + (output[1] - 1) * stride[1] + 1, stride[1])
            yield r, s, (..., rows, columns)


def crop(padded: Array, padding: Sides, height: int, width: int) -> Array:
    """Return the (..., height, width) part of a padded array that lies inside the padding.

    >>> import numpy as np
    >>> crop(np.ones((1, 1, 5, 6)), ((1, 1), (2, 1)), 3, 3).shape
    (1, 1, 3, 3)
    """
    (top, _), (left, _) = padding
    return padded[..., top : top + height, left : left + width]
