"""Transposed convolution layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Tensor
from ..naming import naming
from ..ops.transposed_convolution import output_sizes
from . import functional as F
from .convolution import Ints, _Convolution
from .functional.sizes import integers


class _TransposedConvolution(_Convolution):
    """What the transposed convolutions of any number of axes share."""

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0,
        output_padding: Ints = 0, groups: int = 1, bias: bool = True, dilation: Ints = 1, padding_mode: str = "zeros",
    ) -> None:  # fmt: skip
        padding = integers(padding, self.axes, "padding", 0)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        self.output_padding = integers(output_padding, self.axes, "output_padding", 0)
        if any(more >= max(s, d) for more, s, d in zip(self.output_padding, self.stride, self.dilation, strict=True)):
            raise ValueError(
                f"output_padding {self.output_padding} must be smaller than stride {self.stride} or dilation {self.dilation}"
            )

    def __call__(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        """The layer on an array, or on a tensor inside of a model's forward.

        output_size : (P, Q), or the whole shape (N,K,P,Q): which of the sizes that a convolution with this stride
        would map to the input's size. None: the one that output_padding tells.
        """
        if output_size is None:
            return super().__call__(input)
        shape = input.shape if isinstance(input, Tensor) else np.shape(input)
        with naming(self._title):
            return self._transpose(input, self._output_padding(shape, output_size))

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return self._transpose(x, self.output_padding)

    def _transpose(self, x: Any, output_padding: Sequence[int]) -> Any:
        raise NotImplementedError

    def _output_padding(self, shape: Sequence[int], output_size: Sequence[int]) -> tuple[int, ...]:
        """What leads from an input of this shape to output_size; ValueError where nothing does."""
        wanted = tuple(int(size) for size in output_size)
        if len(wanted) == self.axes + 2:
            wanted = wanted[2:]
        if len(wanted) != self.axes:
            raise ValueError(f"output_size must have {self.axes} or {self.axes + 2} numbers, got {output_size!r}")
        if len(shape) != self.axes + 2:
            raise ValueError(f"the input must have {self.axes + 2} axes, got the shape {tuple(shape)}")
        window = (self.kernel_size, self.stride, self.padding, (0,) * self.axes, self.dilation)
        least = output_sizes(shape[2:], *window)
        most = tuple(size + stride - 1 for size, stride in zip(least, self.stride, strict=True))
        if not all(low <= size <= high for low, size, high in zip(least, wanted, most, strict=True)):
            raise ValueError(
                f"output_size {wanted} must lie between {least} and {most} for an input of shape {tuple(shape)}"
            )
        return tuple(size - low for size, low in zip(wanted, least, strict=True))

    def _more_repr(self) -> list[str]:
        return [f"output_padding={self.output_padding}"] if any(self.output_padding) else []


class ConvTranspose2d(_TransposedConvolution):
    """2-D transposed convolution of images (N,C,H,W) -> (N,K,P,Q), see `functional.conv_transpose2d`.

    Parameters
    ----------
    in_channels, out_channels : C and K. groups : must divide both.
    kernel_size, stride, padding, dilation : an integer or (height, width).
    output_padding : rows and columns more at the bottom and the right; less than stride or dilation.
    bias : whether a bias (K) is added. padding_mode : "zeros".

    Attributes: weight (C,K/groups,R,S), bias (K) or None; drawn uniformly within 1/sqrt(K/groups*R*S), as PyTorch does.

    A call takes `output_size`, which stands for an output_padding:

    >>> import numpy as np
    >>> layer = ConvTranspose2d(8, 3, 3, stride=2, padding=1)
    >>> layer
    ConvTranspose2d(8, 3, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    >>> layer(np.zeros((2, 8, 5, 5))).shape, layer(np.zeros((2, 8, 5, 5)), output_size=(10, 9)).shape
    ((2, 3, 9, 9), (2, 3, 10, 9))
    """

    axes = 2

    def _transpose(self, x: Any, output_padding: Sequence[int]) -> Any:
        window = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        return F.conv_transpose2d(x, self.weight, self.bias, *window)


class ConvTranspose1d(_TransposedConvolution):
    """1-D transposed convolution of sequences (N,C,L) -> (N,K,Q); parameters as ConvTranspose2d, for one axis.

    Attributes: weight (C,K/groups,S), bias (K) or None.

    >>> import numpy as np
    >>> ConvTranspose1d(2, 4, 4, stride=2, padding=1)(np.zeros((5, 2, 7))).shape
    (5, 4, 14)
    """

    axes = 1

    def _transpose(self, x: Any, output_padding: Sequence[int]) -> Any:
        window = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        return F.conv_transpose1d(x, self.weight, self.bias, *window)
