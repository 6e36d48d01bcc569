"""Convolution layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import functional as F
from . import init
from .functional.sizes import convolution_padding, integers, one_of, positive_integer
from .module import Module
from .parameter import Parameter

Ints = int | Sequence[int]


class _Convolution(Module):
    """What the convolutions of any number of axes share."""

    axes: int
    transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints, padding: Any, dilation: Ints,
        groups: int, bias: bool, padding_mode: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_channels = positive_integer(in_channels, "in_channels")
        self.out_channels = positive_integer(out_channels, "out_channels")
        self.groups = positive_integer(groups, "groups")
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name} must be divisible by groups, got {name}={channels}, groups={groups}")
        self.kernel_size = integers(kernel_size, self.axes, "kernel_size")
        self.stride = integers(stride, self.axes, "stride")
        self.dilation = integers(dilation, self.axes, "dilation")
        self.padding = (
            padding if isinstance(padding, str) or _is_nested(padding) else integers(padding, self.axes, "padding", 0)
        )
        self.padding_mode = one_of(padding_mode, "padding_mode", "zeros")
        ends = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = Parameter(init.empty(ends[0], ends[1] // groups, *self.kernel_size))
        self.bias = Parameter(init.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights: uniform within 1/sqrt(fan_in), as PyTorch does."""
        init.reset_linear_map(self.weight, self.bias)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        if self.padding != (0,) * self.axes:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.axes:
            parts.append(f"dilation={self.dilation}")
        parts += self._more_repr()
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)

    def _more_repr(self) -> list[str]:
        return []


def _is_nested(padding: Any) -> bool:
    return isinstance(padding, Sequence) and any(isinstance(side, Sequence) for side in padding)


class Conv2d(_Convolution):
    """2-D convolution of images (N,C,H,W) -> (N,K,P,Q), see `functional.conv2d`.

    Parameters
    ----------
    in_channels, out_channels : C and K. groups : must divide both.
    kernel_size, stride, dilation : an integer or (height, width).
    padding : zeros around the image: an integer, (height, width), ((top, bottom), (left, right)), "valid" or "same".
    bias : whether a bias (K) is added. padding_mode : "zeros".

    Attributes: weight (K,C/groups,R,S), bias (K) or None; drawn uniformly within 1/sqrt(C/groups*R*S).

    Raises ValueError (TypeError for what is no integer) that names the layer: sizes below 1, groups that do not divide, a wrong
    rank or number of channels, a kernel larger than the padded image.

    >>> import numpy as np
    >>> layer = Conv2d(3, 8, 3, stride=2, padding=1)
    >>> layer
    Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    >>> layer(np.zeros((2, 3, 9, 9))).shape
    (2, 8, 5, 5)
    """

    axes = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Any = 0,
        dilation: Ints = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        convolution_padding(padding, self.kernel_size, self.stride, self.dilation)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv1d(_Convolution):
    """1-D convolution of sequences (N,C,L) -> (N,K,Q); parameters as Conv2d, for one axis.

    Attributes: weight (K,C/groups,S), bias (K) or None.

    Errors as Conv2d.

    >>> import numpy as np
    >>> Conv1d(2, 4, 3, padding="same")(np.zeros((5, 2, 7))).shape
    (5, 4, 7)
    """

    axes = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Any = 0,
        dilation: Ints = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        if padding == "same" and self.stride != (1,):
            raise ValueError(f'padding="same" needs stride 1, got stride {self.stride}')
        if isinstance(padding, str):
            one_of(padding, "padding", "same", "valid")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
