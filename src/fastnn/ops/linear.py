"""The linear layer, forward and backward: x (..., C), weight (K, C), bias (K,) -> y (..., K)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Facts, Lowering
from .convolution import packed_weight
from .convolution_geometry import Geometry
from .elementwise import ACTIVATIONS, FLOATS_PER_NANOSECOND, elements
from .product_gradient import blocked_workspace, lower_product_gradient
from .rounding import round_up

STREAM_ROWS, STREAM_ROWS_TALL, TRANSPOSED_ROWS, TRANSPOSED_OUTPUTS = 4, 6, 128, 64
"""Of csrc/kernels/linear.h: between how many rows, and from how many outputs on, the forward pass is the transposed product."""

STREAM_ROWS_NARROW, PACKED_WEIGHTS = 16, 1 << 21
"""Likewise: with so few outputs, how many rows are streamed by; and the most weights that are packed at once with more rows."""

SHALLOW, FEW_OUTPUTS, LONG = 16, 4, 64
"""Likewise: so few outputs of LONG channels are dot products; weights of LONG outputs and fewer channels than SHALLOW are packed
for any number of rows."""

DATA_ROWS, DATA_SUMS = 16, 4096
"""Likewise, for the gradient of the input: rows up to which weights are read as they stand, and the sums of each thread."""

TRANSPOSED_GROUP = 4
"""Of csrc/kernels/linear_transposed.c: register tiles' rows in a group of outputs."""

PACKED_ROWS, PACKED_ROWS_TALL, PACKED_SIZE = 4, 17, 1 << 22
"""Rows from which on a product with weights that do not change is worth packing them once, and weights so many that it is not
where the product is the transposed one: they come from memory. With fewer rows they are streamed as they stand
(csrc/kernels/linear_stream.c), which pays for more rows where register tiles are tall. By measurement on AVX2; on AVX-512 it is
where streaming ends."""

TALL = 8
"""Rows of a tile that are many in this sense."""


def _sizes(x: Shape, weight: Shape) -> dict[str, int]:
    return {"batch": math.prod(x[:-1]), "channels": weight[1], "out_channels": weight[0]}


def _work(sizes: dict[str, int], facts: Facts) -> float:
    """About the nanoseconds that one thread takes: half of the vectors' multiply-adds, or reading the weights."""
    weights = sizes["channels"] * sizes["out_channels"]
    return max(sizes["batch"] * weights / (2.0 * facts.lanes), weights / 4.0)


def _is_transposed(sizes: dict[str, int], facts: Facts) -> bool:
    """linear_is_transposed of csrc/kernels/linear.h."""
    stream = STREAM_ROWS_TALL if facts.gemm_rows >= TALL else STREAM_ROWS
    return stream < sizes["batch"] <= TRANSPOSED_ROWS and sizes["out_channels"] >= max(
        sizes["batch"], TRANSPOSED_OUTPUTS
    )


def _is_streamed(sizes: dict[str, int]) -> bool:
    """linear_is_streamed of csrc/kernels/linear.h, where the product is not the transposed one."""
    few = sizes["out_channels"] <= FEW_OUTPUTS and sizes["channels"] >= LONG
    return few or (sizes["batch"] <= STREAM_ROWS_NARROW and not _is_shallow(sizes))


def _is_shallow(sizes: dict[str, int]) -> bool:
    return sizes["channels"] < SHALLOW and sizes["out_channels"] >= LONG


def _packs_once(steps: Lowering, weight: Tensor, sizes: dict[str, int]) -> bool:
    """Whether the weight does not change, and is worth packing beforehand."""
    if not steps.is_fixed(weight) or (_is_streamed(sizes) and sizes["out_channels"] <= FEW_OUTPUTS):
        return False
    rows = PACKED_ROWS_TALL if steps.facts.gemm_rows >= TALL else PACKED_ROWS
    stands = weight.spec.size >= 4 * PACKED_SIZE and _is_transposed(sizes, steps.facts)
    return (sizes["batch"] >= rows or _is_shallow(sizes)) and not stands


def _forward_workspace(steps: Lowering, sizes: dict[str, int]) -> dict[str, Any]:
    """With some rows x is packed, and each thread has sums for a group of outputs; with many, weights are."""
    batch, channels, outputs, facts = sizes["batch"], sizes["channels"], sizes["out_channels"], steps.facts
    if not _is_transposed(sizes, facts):
        if _is_streamed(sizes):
            return {"workspace": steps.workspace(4), "workspace_stride": 0}
        if channels * outputs > PACKED_WEIGHTS:
            return blocked_workspace(steps, batch, outputs, channels)
        packed = 4 * channels * round_up(outputs, facts.lanes)
        return {"workspace": steps.workspace(packed), "workspace_stride": 0}
    width = round_up(batch, facts.lanes)
    stride = TRANSPOSED_GROUP * facts.gemm_rows * width
    return {"workspace": steps.workspace(4 * (width * channels + stride * facts.threads)), "workspace_stride": stride}


def _backward_workspace(steps: Lowering, sizes: dict[str, int]) -> dict[str, Any]:
    """With some rows dy is packed, and each thread has sums for a block of columns."""
    batch, outputs, facts = sizes["batch"], sizes["out_channels"], steps.facts
    if not 1 < batch <= DATA_ROWS:
        return blocked_workspace(steps, batch, sizes["channels"], outputs)
    packed = round_up(batch * outputs, facts.lanes)
    return {"workspace": steps.workspace(4 * (packed + DATA_SUMS * facts.threads)), "workspace_stride": DATA_SUMS}


class _Product(Op):
    """A product of matrices (N,C), (K,C) and (N,K), any two of which are inputs and the third the output."""

    def flops(self, node: Node) -> float:
        sizes = [elements(tensor) for tensor in (*node.inputs[:2], node.outputs[0])]
        return 2.0 * math.isqrt(math.prod(sizes))  # NC * CK * NK is the square of NCK


@register
class Linear(_Product):
    """y = activation(x weight^T + bias). `activation` (None, "relu", "relu6") is set by passes."""

    name = "linear"

    def infer(self, x: Tensor, weight: Tensor, *bias: Tensor, activation: str | None = None) -> Spec:  # type: ignore[override]
        if len(weight.shape) != 2:
            raise ValueError(f"linear: weight (out_features, in_features) has 2 axes, not {weight.shape}")
        if 0 in weight.shape:
            raise ValueError(
                f"linear: weight {weight.shape} has no elements; in_features and out_features are at least 1"
            )
        if not x.shape or x.shape[-1] != weight.shape[1]:
            raise ValueError(
                f"linear: input {x.shape} and weight {weight.shape}: the input's last axis must be {weight.shape[1]} long; "
                "flatten images first (nn.Flatten or x.flatten(1))"
            )
        if len(x.shape) == 4:
            raise ValueError(f"linear: input {x.shape} is an image; use x.flatten(1), or x.reshape to 2 or 3 axes")
        if bias and bias[0].shape != weight.shape[:1]:
            raise ValueError(
                f"linear: bias has shape {bias[0].shape}, the weight {weight.shape} needs ({weight.shape[0]},)"
            )
        return Spec((*x.shape[:-1], weight.shape[0]))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None and "activation" not in node.attributes
        x, weight = node.inputs[:2]
        gradients: list[Tensor | None] = [None] * len(node.inputs)
        if needed[0]:
            gradients[0] = dy.graph.record("linear_backward_data", dy, weight)
        if any(needed[1:]):
            has_bias = len(needed) > 2 and needed[2]
            made = dy.graph.record("linear_backward_weight", x, dy, has_bias=has_bias)
            gradients[1:] = made if has_bias else [made] + [None] * (len(node.inputs) - 2)
        return gradients

    def lower(self, node: Node, steps: Lowering) -> None:
        (x, weight), (y,) = node.inputs[:2], node.outputs
        sizes = _sizes(x.shape, weight.shape)
        arguments: dict[str, Any] = {
            "x": steps.pointer(x),
            "bias": steps.pointer(node.inputs[2]) if len(node.inputs) > 2 else None,
            "y": steps.pointer(y),
            "activation": ACTIVATIONS[node.attributes.get("activation")],
        }
        if _packs_once(steps, weight, sizes):
            _lower_packed(steps, weight, sizes, arguments)
            return
        workspace = _forward_workspace(steps, sizes)
        steps.step(
            "linear_forward", _work(sizes, steps.facts), weight=steps.pointer(weight), **arguments, **workspace, **sizes
        )


def _lower_packed(steps: Lowering, weight: Tensor, sizes: dict[str, int], arguments: dict[str, Any]) -> None:
    """A convolution over images of one pixel, whose weights are packed when they change."""
    x, filters = (sizes["batch"], sizes["channels"], 1, 1), (sizes["out_channels"], sizes["channels"], 1, 1)
    g = Geometry(x, filters, (1, 1), (0, 0, 0, 0), (1, 1), 1)
    packed = packed_weight(steps, weight, g, backward=False)
    steps.step("conv2d_forward", _work(sizes, steps.facts), packed=packed, residual=None, **arguments, **g.arguments)


def lower_product(steps: Lowering, dy: Tensor, weight: Tensor, dx: Tensor, sizes: dict[str, int]) -> None:
    """The step of dx (batch, channels) = dy (batch, out_channels) weight (out_channels, channels)."""
    steps.step(
        "linear_backward_data",
        _work(sizes, steps.facts),
        dy=steps.pointer(dy),
        weight=steps.pointer(weight),
        dx=steps.pointer(dx),
        **_backward_workspace(steps, sizes),
        **sizes,
    )


@register
class LinearBackwardData(_Product):
    """dx = dy weight."""

    name = "linear_backward_data"

    def infer(self, dy: Tensor, weight: Tensor) -> Spec:  # type: ignore[override]
        return Spec((*dy.shape[:-1], weight.shape[1]))

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, weight), (dx,) = node.inputs, node.outputs
        lower_product(steps, dy, weight, dx, _sizes(dy.shape, weight.shape))


@register
class LinearBackwardWeight(_Product):
    """dweight = dy^T x, and with `has_bias` dbias = the sum of dy over the batch."""

    name = "linear_backward_weight"

    def infer(self, x: Tensor, dy: Tensor, has_bias: bool) -> Spec | tuple[Spec, ...]:  # type: ignore[override]
        shape = (dy.shape[-1], x.shape[-1])
        return (Spec(shape), Spec(shape[:1])) if has_bias else Spec(shape)

    def lower(self, node: Node, steps: Lowering) -> None:
        x, dy = node.inputs
        dbias = (*node.outputs, None)[1]
        sizes = _sizes(x.shape, (dy.shape[-1], x.shape[-1]))
        lower_product_gradient(steps, x, dy, node.outputs[0], dbias, sizes, _work(sizes, steps.facts))


@register
class LinearBackwardBias(Op):
    """dbias = the sum of dy (..., K) over the batch, as LinearBackwardWeight makes it."""

    name = "linear_backward_bias"

    def infer(self, dy: Tensor) -> Spec:  # type: ignore[override]
        return Spec(dy.shape[-1:])

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy,), (dbias,) = node.inputs, node.outputs
        steps.step(
            self.name,
            elements(dy) / FLOATS_PER_NANOSECOND,
            dy=steps.pointer(dy),
            dbias=steps.pointer(dbias),
            batch=elements(dy) // dy.shape[-1],
            out_channels=dy.shape[-1],
        )
