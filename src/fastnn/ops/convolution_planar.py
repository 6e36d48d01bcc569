"""When vectors of an input gradient lie along a row's pixels, and what that takes: csrc/kernels/conv2d_planar.c.

All functions take the kernel's geometry (FNN_CONV2D_GEOMETRY of csrc/kernels.def).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Facts
from .rounding import LINE, ceil_div, round_up

ROWS, VECTORS = 4, 8
"""PLANES_ROWS, PLANES_VECTORS: channels, and vectors of a register tile, at most."""

PLANE_FLOATS = 1 << 17
"""Floats of planes that a thread works on: half of its second-level cache."""

UNITS = 4
"""Bands for each thread, at least, so that threads share them evenly."""

OFFSETS = 2**31
"""Of pixels in the planes are 32 bits wide."""

TILE, WAITING_SUMS = 1.1, 8
"""Time of a product in a register tile, of the peak; and sums with fewer of which a tile waits for itself."""

TURN, PUT, ROW = 0.55, 0.6, 330.0
"""What turning a float of dy, putting a float of dx to its place and beginning a row of a phase cost, in products of vectors."""

SPREAD_LONE, SPREAD_STEPS, SPREAD_STRIDED_STEPS = 1.28, 20.0, 30.0
"""The other form: a lone vector of its tiles, in vectors of a wider one; and what spreading a vector costs, in steps."""

GAIN = 1.08
"""How much less time it must take."""


def uses_planes(arguments: Mapping[str, int], facts: Facts) -> bool:
    """Whether it takes less time than spreading filter rows, and nobody asks for another form."""
    if facts.convolution not in ("auto", "direct", "winograd") or not can_use_planes(arguments, facts):
        return False
    if arguments["kernel_width"] == 1:
        return False  # nothing is spread
    return GAIN * _time(arguments, facts) < _spread_time(arguments, facts)


def _time(arguments: Mapping[str, int], facts: Facts) -> float:
    """For each pixel of dy, in products of vectors; the constants are measured."""
    a, channels = arguments, arguments["channels"]
    pixels = ceil_div(a["width"], a["stride_w"])
    vectors = ceil_div(pixels, facts.lanes)
    tile = min(vectors, facts.gemm_rows * facts.gemm_columns // facts.lanes // channels, VECTORS)
    lines = 1 + (facts.lanes - 1) / LINE  # that a vector of pixels lies in, on average: as many loads
    loads = (channels + lines * tile) / (channels * tile)
    slower = max(TILE, WAITING_SUMS / (channels * tile), loads)
    products = a["kernel_height"] * a["kernel_width"] * a["out_channels"] * channels * vectors / pixels
    putting = a["stride_h"] * a["stride_w"] * (channels * PUT + ROW / pixels)
    return slower * products + a["out_channels"] * TURN + putting


def _spread_time(arguments: Mapping[str, int], facts: Facts) -> float:
    a = arguments
    vectors: float = ceil_div(a["kernel_width"] * a["channels"], facts.lanes)
    if vectors % (facts.gemm_columns // facts.lanes) == 1:
        vectors += SPREAD_LONE - 1
    spreading = SPREAD_STRIDED_STEPS if max(a["stride_h"], a["stride_w"]) > 1 else SPREAD_STEPS
    return vectors * (a["kernel_height"] * a["out_channels"] + spreading * a["stride_h"])


def can_use_planes(arguments: Mapping[str, int], facts: Facts) -> bool:
    a = arguments
    plain = a["groups"] == 1 and a["channels"] <= ROWS and min(a["pad_top"], a["pad_left"]) >= 0
    return plain and _row_floats(a, facts) * (a["kernel_height"] * a["dilation_h"] + 1) < OFFSETS


def _row_floats(arguments: Mapping[str, int], facts: Facts) -> int:
    """Of the planes of one row of dy."""
    a, lanes = arguments, facts.lanes
    left = ceil_div(max((a["kernel_width"] - 1) * a["dilation_w"] - a["pad_left"], 0), a["stride_w"])
    right = max(a["out_width"], (a["width"] - 1 + a["pad_left"]) // a["stride_w"] + 1 + lanes)
    return a["out_channels"] * (round_up(left + right, lanes) + lanes)


def _rows(arguments: Mapping[str, int], bands: int) -> int:
    """Rows of dy that a band meets, at most."""
    a = arguments
    span = ceil_div(a["height"], bands) - 1 + (a["kernel_height"] - 1) * a["dilation_h"]
    return span // a["stride_h"] + 1


def planar_bands(arguments: Mapping[str, int], facts: Facts) -> int:
    """Bands of rows that each image is cut into: as few as there are planes in the cache, and as the team needs."""
    a = arguments
    bands = min(ceil_div(UNITS * facts.threads, max(a["batch"], 1)), a["height"])
    while bands < a["height"] and _rows(a, bands) * _row_floats(a, facts) > PLANE_FLOATS:
        bands += 1
    return bands


def planar_stride(arguments: Mapping[str, int], facts: Facts, bands: int) -> int:
    """Floats of workspace for each thread."""
    a = arguments
    sums = a["channels"] * round_up(ceil_div(a["width"], a["stride_w"]), facts.lanes)
    steps = a["kernel_height"] * a["kernel_width"] * a["out_channels"]
    return _rows(a, bands) * _row_floats(a, facts) + sums + steps * (a["channels"] + 1)
