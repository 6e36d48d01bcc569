"""Pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...graph import Tensor
from .eager import eager
from .sizes import as_image, as_sequence, check_rank, integers, positive_integer, real

Ints = int | Sequence[int]
Size = int | None | Sequence[int | None]


def _window(kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints, axes: int) -> dict[str, Any]:
    """A window as the ops take it; one of one axis gets a second, of height one, before it."""
    kernel = integers(kernel_size, axes, "kernel_size")
    window = {
        "kernel": kernel,
        "stride": kernel if stride is None or stride == () else integers(stride, axes, "stride"),
        "padding": integers(padding, axes, "padding", 0),
        "dilation": integers(dilation, axes, "dilation"),
    }
    missing = {"kernel": (1,), "stride": (1,), "padding": (0,), "dilation": (1,)}
    return window if axes == 2 else {name: missing[name] + value for name, value in window.items()}


def _max_pool(input: Tensor, window: dict[str, Any], ceil_mode: bool, return_indices: bool) -> Any:
    y, index = input.graph.record("max_pool2d", input, ceil_mode=bool(ceil_mode), **window)
    if not return_indices:
        return y
    return y, input.graph.record("max_pool2d_positions", index, image=input.shape, **window)


@eager("input")
def max_pool2d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of each window: input (N,C,H,W) -> (N,C,P,Q), and with return_indices its h*W + w (int64).

    kernel_size, stride (None: kernel_size), padding, dilation : an integer or (height, width). Padding never wins.
    ceil_mode : a last window that does not fit whole counts, unless it starts in the padding.
    The first of equal elements wins; NaN propagates. Raises ValueError for padding over half a window and for a
    window larger than the padded image.

    >>> import numpy as np
    >>> max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """
    check_rank(input, (4,), "(N,C,H,W)")
    return _max_pool(input, _window(kernel_size, stride, padding, dilation, 2), ceil_mode, return_indices)


@eager("input")
def max_pool1d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """max_pool2d along the last axis: input (N,C,L) -> (N,C,Q).

    >>> import numpy as np
    >>> max_pool1d(np.array([[[1.0, 3.0, 2.0]]]), 2, stride=1).tolist()
    [[[3.0, 3.0]]]
    """
    check_rank(input, (3,), "(N,C,L)")
    window = _window(kernel_size, stride, padding, dilation, 1)
    result = _max_pool(as_image(input), window, ceil_mode, return_indices)
    return tuple(as_sequence(t) for t in result) if return_indices else as_sequence(result)


def _avg_pool(
    input: Tensor, window: dict[str, Any], ceil_mode: bool, count_include_pad: bool, divisor: int | None
) -> Tensor:
    if divisor is not None:
        divisor = positive_integer(divisor, "divisor_override")
    del window["dilation"]
    return input.graph.record(
        "avg_pool2d", input, **window,
        ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad), divisor=divisor or 0,
    )  # fmt: skip


@eager("input")
def avg_pool2d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    """The mean of each window: input (N,C,H,W) -> (N,C,P,Q). Padding counts as zeros.

    kernel_size, stride (None: kernel_size), padding : an integer or (height, width).
    The divisor is the window's size within the padded image, within the image if not count_include_pad, or
    divisor_override. Errors as max_pool2d.

    >>> import numpy as np
    >>> avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2).tolist()
    [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    check_rank(input, (4,), "(N,C,H,W)")
    window = _window(kernel_size, stride, padding, 1, 2)
    return _avg_pool(input, window, ceil_mode, count_include_pad, divisor_override)


@eager("input")
def avg_pool1d(
    input: Any, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """avg_pool2d along the last axis: input (N,C,L) -> (N,C,Q).

    >>> import numpy as np
    >>> avg_pool1d(np.array([[[1.0, 3.0, 2.0]]]), 2, stride=1).tolist()
    [[[2.0, 2.5]]]
    """
    check_rank(input, (3,), "(N,C,L)")
    window = _window(kernel_size, stride, padding, 1, 1)
    return as_sequence(_avg_pool(as_image(input), window, ceil_mode, count_include_pad, None))


def _output_size(output_size: Size, extents: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * len(extents)
    if len(sizes) != len(extents):
        raise ValueError(f"output_size must be a number or {len(extents)} of them, got {output_size!r}")
    return tuple(
        extent if size is None else positive_integer(size, "output_size")
        for size, extent in zip(sizes, extents, strict=True)
    )


@eager("input")
def adaptive_avg_pool2d(input: Any, output_size: Size) -> Any:
    """The means of P x Q windows that cover the image: input (N,C,H,W) -> (N,C,P,Q).

    output_size : P = Q, or (P, Q); None keeps the image's own extent. Window p covers the rows floor(p*H/P) to
    ceil((p+1)*H/P), end excluded. Raises ValueError for a size below 1.

    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.array([[[[1.0, 2.0, 6.0]]]]), (1, 2)).tolist()
    [[[[1.5, 4.0]]]]
    """
    check_rank(input, (4,), "(N,C,H,W)")
    return input.graph.record("adaptive_avg_pool2d", input, output=_output_size(output_size, input.shape[2:]))


@eager("input")
def adaptive_avg_pool1d(input: Any, output_size: Size) -> Any:
    """adaptive_avg_pool2d along the last axis: input (N,C,L) -> (N,C,Q).

    >>> import numpy as np
    >>> adaptive_avg_pool1d(np.array([[[1.0, 2.0, 6.0]]]), 2).tolist()
    [[[1.5, 4.0]]]
    """
    check_rank(input, (3,), "(N,C,L)")
    (length,) = _output_size(output_size, input.shape[2:])
    return as_sequence(input.graph.record("adaptive_avg_pool2d", as_image(input), output=(1, length)))


def _adaptive_max_pool(input: Tensor, output: tuple[int, ...], return_indices: bool) -> Any:
    extents = input.shape[2:]
    if min(*extents, *output) >= 1 and not any(size % count for size, count in zip(extents, output, strict=True)):
        kernel = tuple(size // count for size, count in zip(extents, output, strict=True))
        window = {"kernel": kernel, "stride": kernel, "padding": (0, 0), "dilation": (1, 1)}
        return _max_pool(input, window, False, return_indices)
    y, positions = input.graph.record("adaptive_max_pool2d", input, output=output)
    return (y, positions) if return_indices else y


@eager("input")
def adaptive_max_pool2d(input: Any, output_size: Size, return_indices: bool = False) -> Any:
    """The maxima of P x Q windows that cover the image: input (N,C,H,W) -> (N,C,P,Q), and with return_indices the
    h*W + w of each (int64).

    output_size and windows as adaptive_avg_pool2d. The first of equal elements wins; NaN propagates.

    >>> import numpy as np
    >>> adaptive_max_pool2d(np.array([[[[1.0, 2.0, 6.0]]]]), (1, 2)).tolist()
    [[[[2.0, 6.0]]]]
    """
    check_rank(input, (4,), "(N,C,H,W)")
    return _adaptive_max_pool(input, _output_size(output_size, input.shape[2:]), return_indices)


@eager("input")
def adaptive_max_pool1d(input: Any, output_size: Size, return_indices: bool = False) -> Any:
    """adaptive_max_pool2d along the last axis: input (N,C,L) -> (N,C,Q).

    >>> import numpy as np
    >>> adaptive_max_pool1d(np.array([[[1.0, 2.0, 6.0]]]), 2).tolist()
    [[[2.0, 6.0]]]
    """
    check_rank(input, (3,), "(N,C,L)")
    (length,) = _output_size(output_size, input.shape[2:])
    result = _adaptive_max_pool(as_image(input), (1, length), return_indices)
    return tuple(as_sequence(t) for t in result) if return_indices else as_sequence(result)


def norm_exponent(norm_type: Any) -> float:
    """p of an Lp norm: a finite number other than 0."""
    exponent = real(norm_type, "norm_type")
    if exponent == 0.0:
        raise ValueError("norm_type must not be 0")
    return exponent


def _lp_pool(input: Tensor, exponent: float, window: dict[str, Any], ceil_mode: bool) -> Tensor:
    """(mean x^p * size)^(1/p); a window that hangs over the end is thus scaled up to a whole one, as in PyTorch."""
    graph, size = input.graph, window["kernel"][0] * window["kernel"][1]
    powers = input if exponent == 1.0 else graph.record("power", input, exponent=exponent)
    means = _avg_pool(powers, window, ceil_mode, True, None if ceil_mode else 1)
    sums = means * float(size) if ceil_mode else means
    return sums if exponent == 1.0 else graph.record("power", sums, exponent=1.0 / exponent)


@eager("input")
def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Any:
    """(the sum of x^p over each window)^(1/p), p = norm_type: input (N,C,H,W) -> (N,C,P,Q).

    kernel_size, stride (None: kernel_size), ceil_mode as in avg_pool2d. As in PyTorch the powers keep their sign (no
    absolute value): a negative sum gives NaN; the gradient is 0 where the sum is 0. Errors as avg_pool2d, and ValueError for
    p = 0 or an infinite one.

    >>> import numpy as np
    >>> lp_pool2d(np.array([[[[3.0, 4.0]]]]), 2, (1, 2)).tolist()
    [[[[5.0]]]]
    """
    check_rank(input, (4,), "(N,C,H,W)")
    return _lp_pool(input, norm_exponent(norm_type), _window(kernel_size, stride, 0, 1, 2), ceil_mode)


@eager("input")
def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Any:
    """lp_pool2d along the last axis: input (N,C,L) -> (N,C,Q).

    >>> import numpy as np
    >>> lp_pool1d(np.array([[[3.0, 4.0, 0.0]]]), 2, 2, stride=1).tolist()
    [[[5.0, 4.0]]]
    """
    check_rank(input, (3,), "(N,C,L)")
    window = _window(kernel_size, stride, 0, 1, 1)
    return as_sequence(_lp_pool(as_image(input), norm_exponent(norm_type), window, ceil_mode))
