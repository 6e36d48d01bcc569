"""Group normalisation kernels against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_runner import UNIT, assert_within, run_kernel, same_results

from fastnn import reference

KERNELS = {"group_norm_forward", "group_norm_backward"}

SameBits = Callable[..., Any]
EPS = 1e-5
THREADS = 8
"""As many as the tests use have workspace."""

SHAPES = [(0, 3, 4, 2), (1, 1, 1, 1), (2, 1, 6, 3), (3, 70, 5, 5), (5, 257, 48, 6), (2, 1031, 20, 20), (33, 9, 130, 13)]
"""(images, positions, channels, groups)"""


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("mean", [0, 1e4])
@pytest.mark.parametrize(("batch", "positions", "channels", "groups"), SHAPES)
def test_group_norm(
    isa: str, same_bits: SameBits, rng: np.random.Generator, batch: int, positions: int, channels: int, groups: int,
    mean: float, affine: bool,
) -> None:  # fmt: skip
    x = (mean + rng.standard_normal((batch, positions, channels))).astype(np.float32)
    dy = rng.standard_normal(x.shape, np.float32)
    weight = rng.uniform(-2, 2, channels).astype(np.float32) if affine else None
    bias = rng.standard_normal(channels, np.float32) if affine else None
    stride = -(-132 * channels // 16) * 16
    extents = {"batch": batch, "positions": positions, "channels": channels, "groups": groups}
    extents["workspace_stride"] = stride
    outputs = {"y": (x.shape, "f4"), "statistics": ((3, batch * groups), "f4"),
               "workspace": ((THREADS * stride,), "f4")}  # fmt: skip
    forward = same_results(
        same_bits,
        lambda: run_kernel("group_norm_forward", outputs, x=x, weight=weight, bias=bias, eps=EPS, **extents),
        "workspace",
    )

    def logical(array: Any) -> Any:
        return None if array is None else array.astype(np.float64).transpose(0, 2, 1)

    wide_weight = None if weight is None else weight.astype(np.float64)
    wide_bias = None if bias is None else bias.astype(np.float64)
    expected = reference.group_norm(logical(x), groups, wide_weight, wide_bias, EPS)
    x_hat = np.abs(reference.group_norm(logical(x), groups, eps=EPS))
    scale = 1.0 if weight is None else np.abs(weight)[:, None]
    shift = 0.0 if bias is None else np.abs(bias)[:, None]
    hat_error = (4 * x_hat + 256 + 80) * UNIT
    assert_within(logical(forward["y"]), expected, hat_error * scale + 4 * UNIT * shift)

    gradients = {"dx": (x.shape, "f4"), "dweight": ((channels,), "f4"), "dbias": ((channels,), "f4"),
                 "workspace": ((THREADS * stride + 2 * batch * channels,), "f4")}  # fmt: skip
    backward = same_results(
        same_bits,
        lambda: run_kernel(
            "group_norm_backward", gradients, dy=dy, x=x, statistics=forward["statistics"], weight=weight,
            threads=THREADS, **extents,
        ),
        "workspace",
    )  # fmt: skip
    dx, dweight, dbias = reference.group_norm_backward(logical(dy), logical(x), groups, wide_weight, EPS)
    size, additions = np.abs(logical(dy)), 256 + 80
    assert_within(backward["dbias"], dbias, additions * UNIT * size.sum(axis=(0, 2)))
    assert_within(
        backward["dweight"],
        dweight,
        (size * (x_hat * additions * UNIT + hat_error + additions * UNIT)).sum(axis=(0, 2)),
    )
    values = logical(x).reshape(batch, groups, channels // groups * positions)
    inverse = 1 / np.sqrt(values.var(axis=2) + EPS) if values.size else np.ones((batch, groups))
    inverse = np.repeat(inverse, channels // groups, axis=1)[:, :, None]
    g, largest = size * scale, (size * scale).max(initial=0.0)
    bound = inverse * UNIT * (8 * g + (2 * additions + 16) * largest * (1 + x_hat) * (1 + x_hat.max(initial=0.0)))
    assert_within(logical(backward["dx"]), dx, bound)
