"""When a direct convolution reads strips, and what that takes: csrc/kernels/conv2d_strip.c.

All functions take the kernel's geometry (FNN_CONV2D_GEOMETRY of csrc/kernels.def).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Facts

PIECE = 112
"""CONV2D_PIECE: output pixels of one strip."""

FEW_CHANNELS = 32
"""With fewer channels than this, finding a patch tap by tap costs more than copying its rows."""

MIN_WIDTH_FEW, MIN_WIDTH = 7, 28
"""Tiles do not go beyond an output row: narrower images leave too much of a tile empty, with few channels and with more."""


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def uses_strips(arguments: Mapping[str, int], facts: Facts) -> bool:
    """The caller's wish, or measurement; no bit of a result depends on it."""
    if facts.convolution in ("strip", "indirect"):
        return facts.convolution == "strip"
    if arguments["kernel_height"] == arguments["kernel_width"] == arguments["groups"] == 1:
        return False  # a pixel is a patch: nothing to copy
    few = arguments["channels"] // arguments["groups"] < FEW_CHANNELS
    return arguments["out_width"] >= (MIN_WIDTH_FEW if few else MIN_WIDTH)


def strip_stride(arguments: Mapping[str, int], facts: Facts) -> int:
    """Floats of workspace for each thread."""
    a = arguments
    longest = _ceil_div(a["out_width"], _ceil_div(a["out_width"], PIECE))
    span = (longest - 1) * a["stride_w"] + (a["kernel_width"] - 1) * a["dilation_w"] + 1
    floats = _ceil_div(span * (a["channels"] // a["groups"]), facts.lanes) * facts.lanes + facts.lanes
    return a["kernel_height"] * floats


def rotated(arguments: Mapping[str, int]) -> dict[str, int]:
    """The convolution of stride 1 over dy that makes dx: filters turned by half a turn, channels changing places."""
    a = arguments
    return {
        **a,
        "height": a["out_height"], "width": a["out_width"], "channels": a["out_channels"],
        "out_height": a["height"], "out_width": a["width"], "out_channels": a["channels"],
        "pad_top": (a["kernel_height"] - 1) * a["dilation_h"] - a["pad_top"],
        "pad_left": (a["kernel_width"] - 1) * a["dilation_w"] - a["pad_left"],
    }  # fmt: skip
