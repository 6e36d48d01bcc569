"""Transposed convolution of images: what a convolution does backwards with its output's gradient, done forwards.

x (N,C,H,W), weight (C,K/G,R,S), bias (K,) -> y (N,K,P,Q). With the convolution that takes y to x and has these weights:
the forward pass is its gradient of the input, the gradient of x is the convolution itself, and the gradient of the
weight is the convolution's with x and y in exchanged places. So every kernel and algorithm is one of convolution.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .convolution import Convolution, in_one_go, lower_input_gradient
from .convolution_geometry import Geometry, Pair, geometry_of
from .elementwise import ACTIVATIONS, FLOATS_PER_NANOSECOND, elements
from .linear import lower_product


def output_sizes(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    output_padding: Sequence[int], dilation: Sequence[int],
) -> tuple[int, ...]:  # fmt: skip
    """(P, Q) = (size - 1)*stride - 2*padding + dilation*(kernel - 1) + output_padding + 1, which may be below 1.

    >>> output_sizes((4, 4), (4, 4), (2, 2), (1, 1), (0, 0), (1, 1))
    (8, 8)
    """
    axes = zip(size, kernel, stride, padding, output_padding, dilation, strict=True)
    return tuple((n - 1) * s - 2 * p + d * (k - 1) + more + 1 for n, k, s, p, more, d in axes)


def _check(x: Shape, weight: Shape, bias: Shape | None, groups: int) -> None:
    if len(x) != 4 or len(weight) != 4:
        raise ValueError(
            f"conv_transpose2d: input (N, C, H, W) and weight (C, K/groups, R, S) have 4 axes, not {x} and {weight}"
        )
    if groups < 1 or x[1] % groups:
        raise ValueError(f"conv_transpose2d: groups={groups} must be positive and divide the {x[1]} input channels")
    if x[1] != weight[0]:
        raise ValueError(f"conv_transpose2d: input {x} has {x[1]} channels, weight {weight} takes {weight[0]}")
    if min(weight) < 1 or min(x[2:]) < 1:
        raise ValueError(f"conv_transpose2d: the images of {x} or the weight {weight} have no elements")
    if bias is not None and bias != (weight[1] * groups,):
        raise ValueError(
            f"conv_transpose2d: bias has shape {bias}, the weight {weight} with groups={groups} needs "
            f"({weight[1] * groups},)"
        )


def _check_window(stride: Pair, padding: Pair, output_padding: Pair, dilation: Pair) -> None:
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or min(output_padding) < 0:
        raise ValueError(
            f"conv_transpose2d: stride {stride} and dilation {dilation} must be at least 1, "
            f"padding {padding} and output_padding {output_padding} at least 0"
        )
    if any(more >= max(s, d) for more, s, d in zip(output_padding, stride, dilation, strict=True)):
        raise ValueError(
            f"conv_transpose2d: output_padding {output_padding} must be smaller than stride {stride} or dilation {dilation}"
        )


def _convolution_attributes(node: Node) -> dict[str, Any]:
    """The attributes of the convolution that takes y to x. `positions`: a large output_padding could make room for more."""
    vertical, horizontal = node.attributes["padding"]
    return {
        "stride": node.stride,
        "padding": (vertical, vertical, horizontal, horizontal),
        "dilation": node.dilation,
        "groups": node.groups,
        "positions": node.inputs[0].shape[2:],
    }


def _geometry(node: Node) -> Geometry:
    return geometry_of(node.outputs[0].shape, node.inputs[1].shape, _convolution_attributes(node))


@register
class TransposedConvolution(Op):
    """y = activation(transposed conv(x, weight) + bias + residual).

    Inputs: x, weight, then bias if there is one, then the residual if `has_residual` is set. `padding` is (height, width).
    `activation` is None, "relu" or "relu6". The last two attributes are set by passes.
    """

    name = "conv_transpose2d"

    def infer(  # type: ignore[override]
        self, x: Tensor, weight: Tensor, *more: Tensor, stride: Pair, padding: Pair, output_padding: Pair,
        dilation: Pair, groups: int, has_residual: bool = False, activation: str | None = None,
    ) -> Spec:  # fmt: skip
        _check(x.shape, weight.shape, more[0].shape if len(more) > has_residual else None, groups)
        _check_window(stride, padding, output_padding, dilation)
        sizes = output_sizes(x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
        if min(sizes) < 1:
            raise ValueError(
                f"conv_transpose2d: padding {padding} leaves {sizes[0]} x {sizes[1]} pixels of the output for input "
                f"{x.shape} and weight {weight.shape}; use less padding"
            )
        return Spec((x.shape[0], weight.shape[1] * groups, *sizes))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None and "activation" not in node.attributes and "has_residual" not in node.attributes
        x, weight = node.inputs[:2]
        graph, attributes = dy.graph, _convolution_attributes(node)
        gradients: list[Tensor | None] = [None] * len(node.inputs)
        if needed[0]:
            gradients[0] = graph.record("conv2d", dy, weight, **attributes)
        if needed[1]:
            gradients[1] = graph.record(
                "conv2d_backward_weight", dy, x, shape=weight.shape, has_bias=False, **attributes
            )
        if len(needed) > 2 and needed[2]:
            gradients[2] = graph.record("sum", dy, axes=(0, 2, 3)).reshape(dy.shape[1])
        return gradients

    def flops(self, node: Node) -> float:
        return _geometry(node).flops

    def in_place(self, node: Node) -> dict[int, int]:
        channels, _, rows, columns = node.inputs[1].shape
        possible = Convolution.residual(node) is not None and in_one_go(rows * columns, channels // node.groups)
        return {0: len(node.inputs) - 1} if possible else {}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x, weight), (y,) = node.inputs[:2], node.outputs
        bias, residual = Convolution.bias(node), Convolution.residual(node)
        activation = ACTIVATIONS[node.attributes.get("activation")]
        if residual is None and activation in (0, ACTIVATIONS["relu"]) and _is_product(node):
            _lower_product(steps, x, weight, bias, y, activation)
            return
        lower_input_gradient(steps, _geometry(node), x, weight, bias, residual, y, activation)


def _is_product(node: Node) -> bool:
    """Whether all that an image holds is one pixel, which meets each filter once: y = x (N,C) weight (C,R*S*K)."""
    x, weight = node.inputs[0].shape, node.inputs[1].shape
    return x[2:] == (1, 1) and node.groups == 1 and node.outputs[0].shape[2:] == weight[2:] and node.padding == (0, 0)


def _lower_product(steps: Lowering, x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, activation: int) -> None:
    channels, out_channels, rows, columns = weight.shape
    sizes = {"batch": x.shape[0], "channels": rows * columns * out_channels, "out_channels": channels}
    lower_product(steps, x, weight, y, sizes)
    result, work = steps.pointer(y), elements(y) / FLOATS_PER_NANOSECOND
    if bias is not None:
        axes = [elements(y) // out_channels, out_channels, 0, out_channels, 1, 1]  # bias is repeated for each pixel
        steps.step("arithmetic", work, a=result, b=steps.pointer(bias), y=result, axes=axes, rank=2, operation=0)
    if activation:
        steps.step("relu_forward", work, x=result, y=result, count=elements(y))
