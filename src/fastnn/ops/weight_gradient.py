"""How the weight gradient of a convolution or a linear layer is cut: csrc/kernels/conv2d_backward_weight.c.

All of it follows from the shape and the ISA, since the order of the sums depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..plan import Facts
from .rounding import ceil_div, round_up

PIXEL_BLOCK = 192
"""CONV2D_PIXEL_BLOCK: output pixels that are summed at a time."""

ROW_BLOCK = 256
"""CONV2D_ROW_BLOCK: output channels in a unit of work."""

CHANNEL_BLOCK = 128
"""CONV2D_CHANNEL_BLOCK: input channels in a strip."""

STRIP_BLOCK = 96 * 1024
"""CONV2D_STRIP_BLOCK: floats of strips at a time."""

UNITS = 32
"""Units of work that a weight gradient is cut into at least, so that small teams share them evenly."""


@dataclass(frozen=True)
class WeightGradient:
    """The cut of one weight gradient; `arguments`: the kernel's geometry (FNN_CONV2D_GEOMETRY of csrc/kernels.def)."""

    arguments: Mapping[str, int]
    facts: Facts

    @property
    def group_sizes(self) -> tuple[int, int]:
        """Input and output channels of a group."""
        groups = self.arguments["groups"]
        return self.arguments["channels"] // groups, self.arguments["out_channels"] // groups

    @property
    def by_tap(self) -> bool:
        """Whether columns lie side by side for one tap only, else for a filter row."""
        channels, _ = self.group_sizes
        return self.arguments["dilation_w"] > 1 or channels > CHANNEL_BLOCK or channels % self.facts.gemm_columns == 0

    @property
    def runs(self) -> tuple[int, int]:
        """(Runs of columns that lie side by side in a strip, columns in each)."""
        channels, _ = self.group_sizes
        rows, taps = self.arguments["kernel_height"], self.arguments["kernel_width"]
        return (rows * taps, channels) if self.by_tap else (rows, taps * channels)

    @property
    def transposed(self) -> bool:
        """Whether vectors along the output channels waste fewer lanes than vectors along a run."""
        lanes, (channels, outputs), (_, columns) = self.facts.lanes, self.group_sizes, self.runs
        return channels <= CHANNEL_BLOCK and round_up(outputs, lanes) * columns < round_up(columns, lanes) * outputs

    @property
    def chunks(self) -> int:
        """Parts that the sum over pixels is cut into."""
        a, (runs, columns) = self.arguments, self.runs
        width = self.facts.gemm_rows if self.transposed else self.facts.gemm_columns
        units = a["groups"] * runs * ceil_div(columns, width) * ceil_div(self.group_sizes[1], ROW_BLOCK)
        pixels = a["batch"] * a["out_height"] * a["out_width"]
        return max(1, min(ceil_div(UNITS, units), ceil_div(pixels, 4 * PIXEL_BLOCK)))

    @property
    def stride(self) -> int:
        """Floats of workspace for each thread: a block of strips, and a copy of a block of dy."""
        a, lanes, (channels, outputs) = self.arguments, self.facts.lanes, self.group_sizes
        outputs = min(outputs, ROW_BLOCK)
        packed = ceil_div(outputs, self.facts.gemm_rows) * round_up(self.facts.gemm_rows, lanes)
        channels = min(channels, CHANNEL_BLOCK)
        pixel = round_up(channels, lanes) + lanes if self.by_tap else channels
        longest = ceil_div(a["out_width"], max(ceil_div(a["out_width"], PIXEL_BLOCK), 1))
        span = (longest - 1) * a["stride_w"] + (a["kernel_width"] - 1) * a["dilation_w"] + 1
        strip = a["kernel_height"] * (round_up(span * pixel, lanes) + lanes)
        rows = max(min(PIXEL_BLOCK // longest, STRIP_BLOCK // strip), 1)
        return rows * strip + PIXEL_BLOCK * max(round_up(outputs, lanes) + lanes, packed)

    @property
    def workspace(self) -> int:
        """Bytes: the parts of the sum, then what each thread needs."""
        channels, _ = self.group_sizes
        weights = self.arguments["kernel_height"] * self.arguments["kernel_width"] * channels + 1
        parts = self.chunks * weights * self.arguments["out_channels"] if self.chunks > 1 or self.transposed else 0
        return 4 * (parts + self.facts.threads * self.stride)
