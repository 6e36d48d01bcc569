"""What tests of kernels that make a convolution's input gradient share: its sizes, and the gradient in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

SIZES = ("batch", "height", "width", "channels", "out_height", "out_width", "out_channels", "kernel_height", "kernel_width",
         "stride_h", "stride_w", "dilation_h", "dilation_w", "pad_top", "pad_left", "groups")  # fmt: skip


def named_sizes(sizes: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(SIZES, sizes, strict=True))


def expected(dy: Any, weight: Any, a: dict[str, int]) -> Any:
    """dx (N,H,W,C) in float64, tap by tap."""
    dx = np.zeros((a["batch"], a["height"], a["width"], a["channels"]))
    inputs, outputs = a["channels"] // a["groups"], a["out_channels"] // a["groups"]
    for p, q, r, s in np.ndindex(a["out_height"], a["out_width"], a["kernel_height"], a["kernel_width"]):
        h = p * a["stride_h"] + r * a["dilation_h"] - a["pad_top"]
        w = q * a["stride_w"] + s * a["dilation_w"] - a["pad_left"]
        if 0 <= h < a["height"] and 0 <= w < a["width"]:
            for g in range(a["groups"]):
                k = slice(g * outputs, (g + 1) * outputs)
                dx[:, h, w, g * inputs : (g + 1) * inputs] += dy[:, p, q, k].astype(float) @ weight[k, r, s]
    return dx
