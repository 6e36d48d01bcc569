"""How the weight gradient of a convolution is cut: csrc/kernels/conv2d_backward_weight.c, conv2d_weight_taps.c, linear_tall.c.

All of it follows from the shape and the ISA, since the order of the sums depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..plan import Facts
from .product_gradient import TallProduct
from .rounding import ceil_div, round_up

PIXEL_BLOCK = 192
"""CONV2D_PIXEL_BLOCK: output pixels that are summed at a time."""

TAPS_PIXELS, TAPS_COLUMNS = 256, 16
"""TAPS_PIXELS: the same where vectors lie along the output channels and panels are no wider than that; else as above."""

ROW_BLOCK = 256
"""CONV2D_ROW_BLOCK, TAPS_ROW_BLOCK: output channels in a unit of work."""

CHANNEL_BLOCK = 128
"""CONV2D_CHANNEL_BLOCK: input channels in a strip."""

STRIP_BLOCK = 96 * 1024
"""CONV2D_STRIP_BLOCK, TAPS_STRIP_BLOCK: floats of strips at a time."""

UNITS = 32
"""Units of work that a weight gradient is cut into at least, so that small teams share them evenly."""

CHUNK_BLOCKS = 4
"""Blocks of pixels that a part of the sum has at least."""

TAPS_CHUNK_PIXELS = 768
"""Pixels that a part has at least where vectors lie along the output channels."""


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
    def product(self) -> TallProduct | None:
        """What the gradient of 1x1 filters is a product of: pixels (conv2d_is_strided_product of csrc/kernels/conv2d.h)."""
        a = self.arguments
        inside = all((a[f"out_{side}"] - 1) * a[f"stride_{side[0]}"] < a[side] for side in ("height", "width"))
        one = a["kernel_height"] == a["kernel_width"] == a["groups"] == 1 and a["pad_top"] == a["pad_left"] == 0
        if self.transposed or not (inside and one):
            return None
        return TallProduct(
            a["batch"] * a["out_height"] * a["out_width"], a["channels"], a["out_channels"], self.facts, False
        )

    @property
    def pixel_block(self) -> int:
        """PIXEL_BLOCK, or TAPS_PIXELS."""
        return TAPS_PIXELS if self.transposed and self.facts.gemm_columns <= TAPS_COLUMNS else PIXEL_BLOCK

    @property
    def chunks(self) -> int:
        """Parts that the sum over pixels is cut into.

        Where vectors lie along the output channels a power of two, since threads take whole ones.
        """
        if self.product:
            return self.product.chunks
        a, (runs, columns) = self.arguments, self.runs
        pixels = a["batch"] * a["out_height"] * a["out_width"]
        units = a["groups"] * ceil_div(self.group_sizes[1], ROW_BLOCK)
        if self.transposed:
            most = max(1, min(ceil_div(UNITS, units), pixels // TAPS_CHUNK_PIXELS))
            return 1 << (most.bit_length() - 1)
        units *= runs * ceil_div(columns, self.facts.gemm_columns)
        return max(1, min(ceil_div(UNITS, units), ceil_div(pixels, CHUNK_BLOCKS * PIXEL_BLOCK)))

    @property
    def stride(self) -> int:
        """Floats of workspace for each thread: a block of strips, a copy of a block of dy, and where the taps are."""
        if self.product:
            return self.product.stride
        a, lanes, (channels, outputs) = self.arguments, self.facts.lanes, self.group_sizes
        outputs = min(outputs, ROW_BLOCK)
        channels = min(channels, CHANNEL_BLOCK)
        block = self.pixel_block
        pixel = round_up(channels, lanes) + lanes if self.by_tap and not self.transposed else channels
        longest = ceil_div(a["out_width"], max(ceil_div(a["out_width"], block), 1))
        span = (longest - 1) * a["stride_w"] + (a["kernel_width"] - 1) * a["dilation_w"] + 1
        strip = a["kernel_height"] * (round_up(span * pixel, lanes) + lanes)
        strips = max(min(block // longest, STRIP_BLOCK // strip), 1) * strip
        if self.transposed:
            return strips + block * min(round_up(outputs, lanes), self.facts.gemm_columns) + self.taps
        return strips + block * ceil_div(outputs, self.facts.gemm_rows) * round_up(self.facts.gemm_rows, lanes)

    @property
    def taps(self) -> int:
        """Columns of a group: taps and channels."""
        return self.arguments["kernel_height"] * self.arguments["kernel_width"] * self.group_sizes[0]

    @property
    def workspace(self) -> int:
        """Bytes: the parts of the sum, then what each thread needs."""
        if self.product:
            return self.product.workspace
        outputs = self.arguments["out_channels"]
        if self.transposed:
            outputs = self.arguments["groups"] * round_up(self.group_sizes[1], self.facts.lanes)
        parts = self.chunks * (self.taps + 1) * outputs if self.chunks > 1 or self.transposed else 0
        return 4 * (parts + self.facts.threads * self.stride)
