"""The sizes of a convolution, and what of them does not fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import _core
from ..graph import Shape
from ..plan import Facts

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


@dataclass(frozen=True)
class Geometry:
    """All sizes of one convolution."""

    x: Shape
    weight: Shape
    stride: Pair
    padding: Sides
    dilation: Pair
    groups: int
    positions: Pair | None = None
    """(P, Q), if fewer than fit: the outputs that a transposed convolution was given."""

    @property
    def output(self) -> Pair:
        """(P, Q); not positive where the kernel does not fit."""
        if self.positions is not None:
            return self.positions
        top, bottom, left, right = self.padding
        (_, _, height, width), (_, _, rows, columns) = self.x, self.weight
        return (
            _core.window_positions(height, rows, self.stride[0], self.dilation[0], top, bottom),
            _core.window_positions(width, columns, self.stride[1], self.dilation[1], left, right),
        )

    @property
    def y(self) -> Shape:
        return (self.x[0], self.weight[0], *self.output)

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.x[1] == self.weight[0]

    @property
    def is_pointwise(self) -> bool:
        """Whether each output pixel is a product of the weights and the input pixel at its place."""
        plain = self.weight[2:] == self.stride == (1, 1) and self.padding == (0,) * 4 and self.groups == 1
        return plain and self.output == self.x[2:]

    @property
    def arguments(self) -> dict[str, int]:
        """FNN_CONV2D_GEOMETRY of csrc/kernels.def."""
        (batch, channels, height, width), (out_channels, _, rows, columns) = self.x, self.weight
        out_height, out_width = self.output
        return {
            "batch": batch, "height": height, "width": width, "channels": channels,
            "out_height": out_height, "out_width": out_width, "out_channels": out_channels,
            "kernel_height": rows, "kernel_width": columns, "stride_h": self.stride[0], "stride_w": self.stride[1],
            "dilation_h": self.dilation[0], "dilation_w": self.dilation[1],
            "pad_top": self.padding[0], "pad_left": self.padding[2], "groups": self.groups,
        }  # fmt: skip

    def _some(self, *names: str) -> dict[str, int]:
        arguments = self.arguments
        return {name: arguments[name] for name in names}

    @property
    def weight_arguments(self) -> dict[str, int]:
        """FNN_CONV2D_WEIGHT."""
        return self._some("out_channels", "channels", "kernel_height", "kernel_width", "groups")

    @property
    def winograd_arguments(self) -> dict[str, int]:
        """FNN_WINOGRAD_GEOMETRY."""
        sizes = ("batch", "height", "width", "channels", "out_height", "out_width", "out_channels")
        return self._some(*sizes, "pad_top", "pad_left")

    @property
    def flops(self) -> float:
        """Of the direct algorithm: what the result is worth, whatever algorithm makes it."""
        n, k, p, q = self.y
        return 2.0 * n * k * p * q * self.weight[1] * self.weight[2] * self.weight[3]

    def work(self, facts: Facts) -> float:
        """About the nanoseconds that one thread takes: half of the vectors' multiply-adds in two a nanosecond."""
        n, k, p, q = self.y
        _, channels, rows, columns = self.weight
        return n * k * p * q * channels * rows * columns / (2.0 * facts.lanes) + 500.0


def geometry_of(x: Shape, weight: Shape, attributes: dict[str, Any]) -> Geometry:
    stride, padding, dilation, groups = (attributes[name] for name in ("stride", "padding", "dilation", "groups"))
    return Geometry(x, weight, stride, padding, dilation, groups, attributes.get("positions"))


def check_shapes(x: Shape, weight: Shape, bias: Shape | None, g: Geometry) -> None:
    if len(x) != 4 or len(weight) != 4:
        raise ValueError(f"conv2d: input (N, C, H, W) and weight (K, C/groups, R, S) have 4 axes, not {x} and {weight}")
    if min(g.stride) < 1 or min(g.dilation) < 1 or min(g.padding) < 0:
        raise ValueError(
            f"conv2d: stride {g.stride} and dilation {g.dilation} must be at least 1, padding {g.padding} at least 0"
        )
    if g.groups < 1 or weight[0] % g.groups:
        raise ValueError(f"conv2d: groups={g.groups} must be positive and divide the {weight[0]} output channels")
    if weight[0] < 1 or min(weight[1:]) < 1:
        raise ValueError(f"conv2d: weight {weight} has no elements")
    channels = weight[1] * g.groups
    if x[1] != channels:
        hint = " It looks like N,H,W,C; pass x.transpose(0, 3, 1, 2)." if x[3] == channels else ""
        raise ValueError(
            f"conv2d: input {x} has {x[1]} channels, weight {weight} with groups={g.groups} takes {channels}.{hint}"
        )
    if bias is not None and bias != (weight[0],):
        raise ValueError(f"conv2d: bias has shape {bias}, the weight {weight} needs ({weight[0]},)")
    if min(g.output) < 1:
        top, bottom, left, right = g.padding
        rows, columns = (g.dilation[i] * (weight[2 + i] - 1) + 1 for i in (0, 1))
        raise ValueError(
            f"conv2d: kernel {weight[2:]} with dilation {g.dilation} spans {rows} x {columns} pixels, more than the padded "
            f"image {x[2] + top + bottom} x {x[3] + left + right}; use a smaller kernel or more padding"
        )
