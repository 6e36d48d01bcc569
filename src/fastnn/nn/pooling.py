"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import functional as F
from .functional.pooling import norm_exponent
from .functional.sizes import integers, positive_integer
from .module import Module

Ints = int | Sequence[int]


def _plain(value: Any) -> Any:
    """A sequence as a tuple, for repr and comparison."""
    return tuple(value) if isinstance(value, Sequence) else value


class _MaxPool(Module):
    axes: int

    def __init__(
        self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_window(self.axes, kernel_size, stride, padding, dilation)
        self.kernel_size = _plain(kernel_size)
        self.stride = self.kernel_size if stride is None else _plain(stride)
        self.padding = _plain(padding)
        self.dilation = _plain(dilation)
        self.return_indices = bool(return_indices)
        self.ceil_mode = bool(ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        function = F.max_pool2d if self.axes == 2 else F.max_pool1d
        return function(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


def _check_window(axes: int, kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints = 1) -> None:
    kernel = integers(kernel_size, axes, "kernel_size")
    if stride is not None:
        integers(stride, axes, "stride")
    dilations = integers(dilation, axes, "dilation")
    for k, p, d in zip(kernel, integers(padding, axes, "padding", 0), dilations, strict=True):
        if 2 * p > d * (k - 1) + 1:
            raise ValueError(
                f"padding {padding} is more than half of the window (kernel_size {kernel_size}, dilation {dilation}); "
                f"use at most {(d * (k - 1) + 1) // 2}"
            )


class MaxPool2d(_MaxPool):
    """The largest element of each window of images (N,C,H,W) -> (N,C,P,Q), see `functional.max_pool2d`.

    kernel_size, stride (None: kernel_size), padding, dilation : an integer or (height, width).
    return_indices : whether to return (y, h*W + w of each maximum) instead of y.
    ceil_mode : whether a last window that does not fit whole counts.

    Raises ValueError that names the layer for sizes below 1, padding over half a window and a window larger than the padded
    image.

    >>> import numpy as np
    >>> MaxPool2d(3, stride=2, padding=1)(np.zeros((1, 2, 7, 7))).shape
    (1, 2, 4, 4)
    """

    axes = 2


class MaxPool1d(_MaxPool):
    """The largest element of each window of sequences (N,C,L) -> (N,C,Q); parameters as MaxPool2d.

    >>> import numpy as np
    >>> MaxPool1d(2)(np.array([[[1.0, 3.0, 2.0, 0.0]]]))
    array([[[3., 2.]]], dtype=float32)
    """

    axes = 1


class AvgPool2d(Module):
    """The mean of each window of images (N,C,H,W) -> (N,C,P,Q), see `functional.avg_pool2d`.

    kernel_size, stride (None: kernel_size), padding : an integer or (height, width).
    ceil_mode : whether a last window that does not fit whole counts.
    count_include_pad : whether padding counts in the divisor; divisor_override : the divisor, if given.

    Errors as MaxPool2d.

    >>> import numpy as np
    >>> AvgPool2d(2)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]], dtype=float32)
    """

    def __init__(
        self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_window(2, kernel_size, stride, padding)
        self.kernel_size = _plain(kernel_size)
        self.stride = self.kernel_size if stride is None else _plain(stride)
        self.padding = _plain(padding)
        self.ceil_mode = bool(ceil_mode)
        self.count_include_pad = bool(count_include_pad)
        self.divisor_override = (
            None if divisor_override is None else positive_integer(divisor_override, "divisor_override")
        )

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.avg_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(Module):
    """The mean of each window of sequences (N,C,L) -> (N,C,Q); parameters as AvgPool2d.

    >>> import numpy as np
    >>> AvgPool1d(2)(np.array([[[1.0, 3.0, 2.0, 0.0]]]))
    array([[[2., 1.]]], dtype=float32)
    """

    def __init__(
        self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_window(1, kernel_size, stride, padding)
        self.kernel_size = integers(kernel_size, 1, "kernel_size")
        self.stride = self.kernel_size if stride is None else integers(stride, 1, "stride")
        self.padding = integers(padding, 1, "padding", 0)
        self.ceil_mode = bool(ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    extra_repr = AvgPool2d.extra_repr


class _AdaptivePool(Module):
    def __init__(self, output_size: Any) -> None:
        super().__init__()
        for size in output_size if isinstance(output_size, Sequence) else (output_size,):
            if size is not None:
                positive_integer(size, "output_size")
        self.output_size = _plain(output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool2d(_AdaptivePool):
    """The means of P x Q windows that cover the image: (N,C,H,W) -> (N,C,P,Q).

    output_size : P = Q, or (P, Q); None keeps the image's own extent.

    Raises ValueError that names the layer for a wrong rank and for a size below 1.

    >>> import numpy as np
    >>> AdaptiveAvgPool2d(1)(np.ones((2, 3, 5, 5))).shape
    (2, 3, 1, 1)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveAvgPool1d(_AdaptivePool):
    """The means of Q windows that cover a sequence: (N,C,L) -> (N,C,Q); output_size : Q.

    >>> import numpy as np
    >>> AdaptiveAvgPool1d(2)(np.array([[[1.0, 2.0, 6.0]]]))
    array([[[1.5, 4. ]]], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.adaptive_avg_pool1d(x, self.output_size)


class _AdaptiveMaxPool(_AdaptivePool):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = bool(return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The maxima of P x Q windows that cover the image: (N,C,H,W) -> (N,C,P,Q), see `functional.adaptive_max_pool2d`.

    output_size : P = Q, or (P, Q); None keeps the image's own extent.
    return_indices : whether to return (y, h*W + w of each maximum) instead of y.

    >>> import numpy as np
    >>> AdaptiveMaxPool2d((None, 2))(np.ones((2, 3, 5, 5))).shape
    (2, 3, 5, 2)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.adaptive_max_pool2d(x, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maxima of Q windows that cover a sequence: (N,C,L) -> (N,C,Q); parameters as AdaptiveMaxPool2d.

    >>> import numpy as np
    >>> AdaptiveMaxPool1d(2)(np.array([[[1.0, 2.0, 6.0]]]))
    array([[[2., 6.]]], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.adaptive_max_pool1d(x, self.output_size, self.return_indices)


class _LPPool(Module):
    axes: int

    def __init__(
        self, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        _check_window(self.axes, kernel_size, stride, 0)
        self.norm_type = norm_exponent(norm_type)
        self.kernel_size = _plain(kernel_size)
        self.stride = None if stride is None else _plain(stride)
        self.ceil_mode = bool(ceil_mode)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        function = F.lp_pool2d if self.axes == 2 else F.lp_pool1d
        return function(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool2d(_LPPool):
    """(the sum of x^p over each window)^(1/p) of images (N,C,H,W) -> (N,C,P,Q), see `functional.lp_pool2d`.

    norm_type : p, any number but 0. kernel_size, stride (None: kernel_size) : an integer or (height, width).
    ceil_mode : whether a last window that does not fit whole counts, scaled up to a whole one.

    >>> import numpy as np
    >>> LPPool2d(2, (1, 2))(np.array([[[[3.0, 4.0]]]]))
    array([[[[5.]]]], dtype=float32)
    """

    axes = 2


class LPPool1d(_LPPool):
    """(the sum of x^p over each window)^(1/p) of sequences (N,C,L) -> (N,C,Q); parameters as LPPool2d.

    >>> import numpy as np
    >>> LPPool1d(1, 2)(np.array([[[3.0, 4.0]]]))
    array([[[7.]]], dtype=float32)
    """

    axes = 1
