"""When a filter row is spread over a row of the result, and what that takes: csrc/kernels/conv2d_spread.c.

All functions take the kernel's geometry (FNN_CONV2D_GEOMETRY of csrc/kernels.def), in which the result has few `channels`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Facts
from .rounding import ceil_div, round_up

PIXELS = 128
"""SPREAD_PIXELS: pixels that are multiplied at a time."""

PRODUCT_STEPS = 8.0
"""What spreading a vector of products costs, in steps of the sum that made it."""

STRIDED_PRODUCT_STEPS, STRIDED_PIXEL_STEPS = 30.0, 150.0
"""With strides, measured: what spreading a vector of products costs, and what a pixel costs the other way, which finds its taps
one by one and writes lines that lie apart."""

LONE_VECTOR, LONE_VECTOR_TALL = 1.6, 1.1
"""Time of a register tile of one vector of columns, which waits for its loads and sums, in vectors of a wider one; less so where
tiles have many rows."""

TALL = 8
"""Rows of a tile that are many in this sense."""

OFFSETS = 2**31
"""Between rows of dy are 32 bits wide."""

GAIN = 1.15
"""How much less time the products must take to be worth another way through memory."""


def spreads(arguments: Mapping[str, int], facts: Facts) -> bool:
    """The caller's wish, or whether that many fewer empty lanes are multiplied."""
    a = arguments
    if a["kernel_height"] * a["dilation_h"] * a["out_width"] * a["out_channels"] >= OFFSETS:
        return False
    if facts.convolution in ("spread", "strip", "indirect"):
        return facts.convolution == "spread"
    channels, depth = a["channels"] // a["groups"], a["out_channels"] // a["groups"]
    if a["dilation_w"] > 1 or a["kernel_width"] == 1:
        return False
    rows = depth * a["kernel_height"] / a["stride_h"]
    if max(a["stride_h"], a["stride_w"]) > 1:
        products = _time(a["kernel_width"] * channels, facts) * (rows + STRIDED_PRODUCT_STEPS)
        others = a["kernel_width"] * _time(channels, facts) * rows + a["stride_w"] * STRIDED_PIXEL_STEPS
        return GAIN * products < others
    products = _time(a["kernel_width"] * channels, facts) * (1 + PRODUCT_STEPS / rows)
    return GAIN * products < a["kernel_width"] * _time(channels, facts)


def _time(columns: int, facts: Facts) -> float:
    """Of a step of a product with so many columns, in vectors."""
    vectors = ceil_div(columns, facts.lanes)
    if vectors % (facts.gemm_columns // facts.lanes) != 1:
        return vectors
    return vectors - 1 + (LONE_VECTOR_TALL if facts.gemm_rows >= TALL else LONE_VECTOR)


def spread_stride(arguments: Mapping[str, int], facts: Facts) -> int:
    """Floats of workspace for each thread."""
    a, lanes = arguments, facts.lanes
    channels = a["channels"] // a["groups"]
    products = min(a["out_width"], PIXELS) * round_up(a["kernel_width"] * channels, lanes)
    span = (a["out_width"] - 1) * a["stride_w"] + (a["kernel_width"] - 1) * a["dilation_w"] + 1
    pixels = max(-a["pad_left"], 0) + max(span, a["width"] + a["pad_left"])
    rows = round_up(pixels * channels, lanes) + round_up(a["width"] * a["channels"], lanes)
    return products + rows + a["kernel_height"] * (a["out_channels"] // a["groups"])


def packed_floats(arguments: Mapping[str, int], facts: Facts) -> int:
    """Floats of the packed filters."""
    a = arguments
    channels, depth = a["channels"] // a["groups"], a["out_channels"] // a["groups"]
    return a["groups"] * round_up(a["kernel_width"] * channels, facts.lanes) * a["kernel_height"] * depth
