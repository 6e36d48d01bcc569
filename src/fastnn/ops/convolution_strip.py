"""When a direct convolution reads strips, and what that takes: csrc/kernels/conv2d_strip.c.

All functions take the kernel's geometry (FNN_CONV2D_GEOMETRY of csrc/kernels.def).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Facts
from .rounding import ceil_div, round_up

PIECE = 112
"""CONV2D_PIECE: output pixels of one row of a strip."""

STRIP_FLOATS = 4096
"""A strip serves several output rows, up to this size: half of a first-level cache."""

PIECES = 8
"""For each thread: fewer are cut so that they come out even."""

ALONG_GAIN = 7
"""Vectors lie along the pixels where that saves one product in so many."""

OFFSETS = 2**31
"""Of a strip are 32 bits wide."""

FEW_CHANNELS = 32
"""With fewer channels than this, finding a patch tap by tap costs more than copying its rows."""

PIXEL_ROW_WEIGHTS = 64 * 1024
"""MOST_WEIGHTS of csrc/kernels/conv2d_pixel_row.h."""

MIN_WIDTH_FEW, MIN_WIDTH = 7, 28
"""Tiles do not go beyond an output row: narrower images leave too much of a tile empty, with few channels and with more."""


def uses_strips(arguments: Mapping[str, int], facts: Facts) -> bool:
    """The caller's wish, or measurement; no bit of a result depends on it."""
    if max(strip_floats(arguments, facts, 1, planar) for planar in (False, True)) >= OFFSETS:
        return False
    if facts.convolution in ("strip", "indirect"):
        return facts.convolution == "strip"
    one = arguments["kernel_height"] == arguments["kernel_width"] == 1
    if one and (arguments["groups"] == 1 or has_pixel_rows(arguments, facts)):
        return False  # a pixel is a patch: nothing to copy
    few = arguments["channels"] // arguments["groups"] < FEW_CHANNELS
    return arguments["out_width"] >= (MIN_WIDTH_FEW if few else MIN_WIDTH)


def lies_along(arguments: Mapping[str, int], facts: Facts, planar: bool) -> bool:
    """Whether vectors lie along the pixels of a strip, if there is no residual (lies_along of the kernel)."""
    a = arguments
    side_by_side = (planar or a["channels"] == a["groups"]) and a["stride_w"] == 1
    columns, longest = a["out_channels"] // a["groups"], ceil_div(a["out_width"], ceil_div(a["out_width"], PIECE))
    along, across = columns * round_up(longest, facts.lanes), longest * facts.lanes
    return side_by_side and columns <= facts.lanes and ALONG_GAIN * along <= (ALONG_GAIN - 1) * across


def has_pixel_rows(arguments: Mapping[str, int], facts: Facts) -> bool:
    """Whether filters of one pixel take rows of the image as they stand: csrc/kernels/conv2d_pixel_row.h."""
    a = arguments
    rows, columns = (a["out_height"] - 1) * a["stride_h"], (a["out_width"] - 1) * a["stride_w"]
    one = a["kernel_height"] == a["kernel_width"] == 1 and a["pad_top"] == a["pad_left"] == 0
    fits = (
        a["out_width"] >= 2 * facts.gemm_rows and a["channels"] // a["groups"] * a["out_channels"] <= PIXEL_ROW_WEIGHTS
    )
    return one and fits and rows < a["height"] and columns < a["width"]


def _row_floats(arguments: Mapping[str, int], facts: Facts, planar: bool) -> int:
    """Of one row of a strip, all channels of a group; a plane's rows end with a vector each."""
    a = arguments
    longest = ceil_div(a["out_width"], ceil_div(a["out_width"], PIECE))
    span = (longest - 1) * a["stride_w"] + (a["kernel_width"] - 1) * a["dilation_w"] + 1
    channels, planes = (1, a["channels"] // a["groups"]) if planar else (a["channels"] // a["groups"], 1)
    return planes * (ceil_div(span * channels, facts.lanes) + 1) * facts.lanes


def strip_floats(arguments: Mapping[str, int], facts: Facts, rows: int, planar: bool) -> int:
    """Floats of workspace for each thread: the strip of so many output rows, and the offsets of its steps."""
    a = arguments
    strip_rows = (rows - 1) * a["stride_h"] + a["kernel_height"]
    steps = a["kernel_height"] * a["kernel_width"] * (a["channels"] // a["groups"])
    return strip_rows * _row_floats(a, facts, planar) + steps


def strip_rows(arguments: Mapping[str, int], facts: Facts, planar: bool, shared: bool) -> int:
    """Output rows that are made from one strip: neighbours read the same rows of the image, which are copied once.
    `shared`: a team works on them."""
    a = arguments
    if a["dilation_h"] > 1:
        return 1
    room = STRIP_FLOATS // _row_floats(a, facts, planar) - a["kernel_height"]
    blocks = ceil_div(a["out_height"], max(1, room // a["stride_h"] + 1))
    if shared and blocks * a["batch"] * ceil_div(a["out_width"], PIECE) < PIECES * facts.threads:
        blocks = min(a["out_height"], round_up(blocks, facts.threads))
    return ceil_div(a["out_height"], blocks)


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
