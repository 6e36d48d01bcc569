"""Numbers that Python and the kernels must agree on, since cuts and workspaces follow from both, are equal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastnn.benchmark import machine
from fastnn.ops import (
    activation_elementwise,
    convolution,
    convolution_planar,
    convolution_spread,
    convolution_strip,
    elementwise,
    inverted_residual,
    linear,
    loss,
    loss_elementwise,
    normalization_rows,
    optimizer,
    product_gradient,
    reduction,
    rounding,
    segments,
    weight_gradient,
)
from fastnn.ops import convolution_algorithm as winograd

FOLDER = Path(__file__).parents[1] / "csrc" / "kernels"

SHARED: dict[str, dict[str, int]] = {
    "conv2d_backward_weight.c": {
        "CONV2D_PIXEL_BLOCK": weight_gradient.PIXEL_BLOCK,
        "CONV2D_ROW_BLOCK": weight_gradient.ROW_BLOCK,
        "CONV2D_CHANNEL_BLOCK": weight_gradient.CHANNEL_BLOCK,
        "CONV2D_STRIP_BLOCK": weight_gradient.STRIP_BLOCK,
    },
    "conv2d_depthwise_row.h": {"DEPTHWISE_ROWS": inverted_residual.MAX_ROWS},
    "conv2d_spread.c": {"SPREAD_PIXELS": convolution_spread.PIXELS},
    "conv2d_strip.c": {"CONV2D_PIECE": convolution_strip.PIECE, "ALONG_GAIN": convolution_strip.ALONG_GAIN},
    "conv2d_weight_taps.c": {
        "TAPS_ROW_BLOCK": weight_gradient.ROW_BLOCK,
        "TAPS_STRIP_BLOCK": weight_gradient.STRIP_BLOCK,
    },
    "cross_entropy.c": {"BLOCK": loss.CROSS_ENTROPY_BLOCK},
    "gemm.h": {
        "FNN_ACTIVATION_NONE": elementwise.ACTIVATIONS[None],
        "FNN_ACTIVATION_RELU": elementwise.ACTIVATIONS["relu"],
        "FNN_ACTIVATION_RELU6": elementwise.ACTIVATIONS["relu6"],
        "GEMM_RUNS": convolution.MOST_TAPS,
        "GEMM_DEPTH": convolution.MOST_DEPTH,
    },
    "gemm_blocked.h": {
        "GEMM_DEPTH_BLOCK": product_gradient.DEPTH_BLOCK,
        "GEMM_TILE_STEPS": product_gradient.TILE_STEPS,
        "GEMM_PANEL_STEPS": product_gradient.PANEL_STEPS,
    },
    "gemm_planes.h": {"PLANES_ROWS": convolution_planar.ROWS, "PLANES_VECTORS": convolution_planar.VECTORS},
    "linear.h": {
        "LINEAR_STREAM_ROWS_NARROW": linear.STREAM_ROWS_NARROW,
        "LINEAR_TRANSPOSED_ROWS": linear.TRANSPOSED_ROWS,
        "LINEAR_TRANSPOSED_OUTPUTS": linear.TRANSPOSED_OUTPUTS,
        "LINEAR_PACKED_WEIGHTS": linear.PACKED_WEIGHTS,
        "LINEAR_DATA_ROWS": linear.DATA_ROWS,
        "LINEAR_DATA_SUMS": linear.DATA_SUMS,
    },
    "linear_tall.c": {"TALL_BLOCK": product_gradient.TALL_BLOCK, "TALL_GAP": product_gradient.TALL_GAP},
    "nll_loss.c": {"BLOCK": loss.NLL_BLOCK},
    "optimizer.h": {"STATES": optimizer.MOST_STATES},
    "peak.c": {"PEAK_CHAINS": machine.FMA_CHAINS},
    "pointwise_loss.h": {"LOSS_BLOCK": loss_elementwise.BLOCK},
    "product_update.h": {"PRODUCT_FLOATS": optimizer.PRODUCT_FLOATS},
    "reduction.c": {"UNITS": reduction.UNITS},
    "row_blocks.h": {
        "FNN_ROW_BLOCKS": rounding.ROW_BLOCKS,
        "FNN_CHUNK_ROWS_MIN": normalization_rows.CHUNK_ROWS_MIN,
    },
    "segments.h": {"SEGMENT_BLOCK": segments.SEGMENT_BLOCK},
    "winograd.h": {
        "WINOGRAD_PACKED": winograd.Form.PACKED,
        "WINOGRAD_FILTERS": winograd.Form.FILTERS,
        "WINOGRAD_ROTATED": winograd.Form.ROTATED,
        "WINOGRAD_PANELS": winograd.Form.PANELS,
        "WINOGRAD_DEPTH": winograd.DEPTH,
        "WINOGRAD_GROUP_COLUMNS": winograd.GROUP_COLUMNS,
        "WINOGRAD_GROUP_TILES": winograd.GROUP_TILES,
        "WINOGRAD_LINE": winograd.LINE,
    },
    "winograd_backward_weight.c": {"UNIT_FLOATS": winograd.UNIT_FLOATS, "LARGE_FLOATS": winograd.LARGE_FLOATS},
}
"""For each file of kernels its constants, and what Python has for them."""


def _enumerators(text: str) -> dict[str, int]:
    """The constants of all enums of a C file but those that depend on the instruction set."""
    found: dict[str, int] = {}
    for body in re.findall(r"\benum\b[^{};]*\{([^}]*)\}", re.sub(r"/\*.*?\*/", "", text, flags=re.S)):
        value: int | None = -1
        for entry in filter(str.strip, body.split(",")):
            name, _, expression = (part.strip() for part in entry.partition("="))
            try:
                value = int(eval(expression, {}, found)) if expression else None if value is None else value + 1
            except (NameError, SyntaxError):
                value = None
            if value is not None:
                found[name] = value
    return found


def test_enumerators() -> None:
    text = "enum { A = 3, /* rows */ B }; enum c { D, E = B * 2, F = A > 2 ? 1 : 0, G, H = 1 << 4 };"
    assert _enumerators(text) == {"A": 3, "B": 4, "D": 0, "E": 8, "H": 16}


@pytest.mark.parametrize("file", SHARED)
def test_constants_are_those_of_the_kernels(file: str) -> None:
    found = _enumerators((FOLDER / file).read_text(encoding="utf-8"))
    assert {name: found.get(name) for name in SHARED[file]} == SHARED[file]


@pytest.mark.parametrize(
    ("file", "codes"),
    [
        ("activation.h", {name: kind.code for name, kind in activation_elementwise.KINDS.items()}),
        ("pointwise_loss.h", loss_elementwise.CODES),
    ],
)
def test_codes_are_those_of_the_kernels(file: str, codes: dict[str, int]) -> None:
    """The kernels count them in the order of their list; those that no operation has come last."""
    listed = re.findall(r"ONE\(([A-Z_0-9]+), ", (FOLDER / file).read_text(encoding="utf-8"))
    assert {name.upper(): code for name, code in codes.items()} == {n: i for i, n in enumerate(listed[: len(codes)])}
