"""When a convolution in small groups is made of depthwise ones, and how: csrc/kernels/conv2d_expand.c.

Each group has `depth` channels of what is read and `repeats` channels of the result: C/G and K/G forward, K/G and C/G in the
gradient of the input.
"""

from __future__ import annotations

from typing import Any

from ..graph import Tensor
from ..plan import Facts, Lowering, Reference
from .convolution_geometry import Geometry
from .convolution_strip import has_pixel_rows
from .elementwise import FLOATS_PER_NANOSECOND
from .rounding import ceil_div

IN_PLACE_TAPS = 64
"""Taps up to which the depthwise kernels may add to what they write."""

BLOCK_FLOATS, BLOCKS = 1 << 18, 32
"""Repeated channels that are made at a time, a part of two second-level caches; and parts that a batch is cut into, at most."""

TAP, RESULT, GROUP, GROUP_TWICE = 1.05, 3.75, 5.0, 0.75
"""Measured, in cycles: a tap of a vector of results, writing the vector, and repeating a channel for a group, or twice."""

DIRECT_STEP, DIRECT_TILE = 0.88, 11.0
"""The other way: a step of a group's sum for a vector of its results, and finding and writing them."""

MANY_CHANNELS = 32
"""With fewer channels in the result vectors should be whole ones."""

GAIN = 1.15
"""How much less time it must take."""


def expands(g: Geometry, facts: Facts, backward: bool) -> bool:
    """Whether it takes less time, and nobody asks for another form."""
    depth, repeats = _sides(g, backward)
    taps: float = g.weight[2] * g.weight[3]
    if g.groups == 1 or g.is_depthwise or (depth > 1 and taps > IN_PLACE_TAPS):
        return False
    if facts.convolution not in ("auto", "direct", "winograd"):
        return facts.convolution == "expand"
    channels = g.groups * repeats
    if (channels % facts.lanes > 0 and channels < MANY_CHANNELS) or has_pixel_rows(g.arguments, facts):
        return False
    if backward and (max(g.stride) > 2 or (max(g.stride) == 2 and depth > 2)):
        return False
    inputs, outputs = g.x[2] * g.x[3], g.output[0] * g.output[1]
    if backward:
        taps, inputs, outputs = taps / (g.stride[0] * g.stride[1]), outputs, inputs
    vectors = ceil_div(channels, facts.lanes)
    repeating = inputs * g.groups * (GROUP_TWICE if (depth, repeats) == (1, 2) else GROUP)
    expanded = depth * (outputs * vectors * (taps * TAP + RESULT) + repeating)
    direct = outputs * g.groups * ceil_div(repeats, facts.lanes) * (taps * depth * DIRECT_STEP + DIRECT_TILE)
    return GAIN * expanded < direct


def _sides(g: Geometry, backward: bool) -> tuple[int, int]:
    """depth and repeats."""
    sides = g.weight[1], g.weight[0] // g.groups
    return sides[::-1] if backward else sides


def expand(
    steps: Lowering, source: Reference, pixels: int, groups: int, depth: int, repeats: int, offset: int,
    expanded: Reference,
) -> None:  # fmt: skip
    sizes = {"pixels": pixels, "groups": groups, "depth": depth, "repeats": repeats, "offset": offset}
    work = pixels * groups * repeats / FLOATS_PER_NANOSECOND
    steps.step("conv2d_expand", work, source=source, expanded=expanded, **sizes)
    steps.steps[-1].flops = 0.0


def _images(steps: Lowering, tensor: Tensor | None, first: int, count: int) -> Reference | None:
    if tensor is None:
        return None
    size = tensor.spec.size // max(tensor.shape[0], 1)
    return steps.part(tensor, first * size, count * size)


def lower_expanded(
    steps: Lowering, g: Geometry, source: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None,
    result: Tensor, activation: int, backward: bool,
) -> None:  # fmt: skip
    """The steps of result = activation(bias + residual + the convolution of source, or with `backward` its gradient)."""
    depth, repeats = _sides(g, backward)
    channels, taps = g.groups * repeats, g.weight[2] * g.weight[3]
    shape = {k: g.arguments[k] for k in ("out_channels", "channels", "kernel_height", "kernel_width", "groups")}
    size, name = weight.spec.size, "conv2d_expand_pack"
    packed = steps.prepared(weight, (name, backward), size, name, size / 4, backward=backward, **shape)
    batch, pixels = g.x[0], source.shape[2] * source.shape[3]
    blocks = max(min(ceil_div(batch * pixels * channels, BLOCK_FLOATS), batch, BLOCKS), 1)
    expanded = steps.workspace(4 * max(ceil_div(batch, blocks), 1) * pixels * channels)
    for block in range(blocks):
        first = block * batch // blocks
        count = (block + 1) * batch // blocks - first
        images = _images(steps, source, first, count)
        y, before = _images(steps, result, first, count), _images(steps, residual, first, count)
        assert images is not None
        for j in range(depth):
            expand(steps, images, count * pixels, g.groups, depth, repeats, j, expanded)
            filters = Reference(packed.storage, packed.offset + 4 * j * taps * channels, 4 * taps * channels)
            last = j == depth - 1
            arguments: dict[str, Any] = {
                "packed": filters, "residual": before if j == 0 else y, "bias": steps.pointer(bias) if last else None,
                "activation": activation if last else 0,
                **g.arguments, "batch": count, "channels": channels, "out_channels": channels, "groups": channels,
            }  # fmt: skip
            _depthwise(steps, g, expanded, y, arguments, backward)
            steps.steps[-1].flops /= blocks * depth


def _depthwise(
    steps: Lowering, g: Geometry, source: Reference, result: Reference | None, arguments: dict[str, Any], backward: bool
) -> None:
    depth, _ = _sides(g, backward)
    work = 4 * g.work(steps.facts) * arguments["batch"] / max(g.x[0] * depth, 1)
    if not backward:
        moments = {"moments": None, "moment_rows": 0}
        steps.step("conv2d_depthwise_forward", work, x=source, y=result, **moments, **arguments)
        return
    sums = dict.fromkeys(("normalized", "statistics", "norm_weight", "norm_bias", "sums"))
    none = {**sums, "norm_activation": 0, "sum_rows": 0}
    steps.step("conv2d_depthwise_backward_data", work, dy=source, dx=result, **none, **arguments)


def expands_weight_gradient(g: Geometry, facts: Facts) -> bool:
    """Whether the gradient of the weight is that of a depthwise convolution of repeated channels."""
    return g.weight[1] == 1 and expands(g, facts, backward=False)
