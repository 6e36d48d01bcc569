"""Convolution of images, forward and backward.

x (N,C,H,W), weight (K,C/G,R,S), bias (K,) -> y (N,K,P,Q). Padding is (top, bottom, left, right). Three algorithms: "direct" for
every geometry, "depthwise" where each channel has one filter of its own, "winograd" for 3x3 and 5x5 filters
(convolution_winograd.py; which one: convolution_algorithm.py), 3x3 with stride 2 too (convolution_winograd_strided.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Facts, Lowering, Reference
from .convolution_expand import expand, expands, expands_weight_gradient, lower_expanded
from .convolution_geometry import Geometry, check_shapes, geometry_of
from .convolution_planar import planar_bands, planar_stride, uses_planes
from .convolution_spread import packed_floats, spread_stride, spreads
from .convolution_strip import lies_along, rotated, strip_floats, strip_rows, uses_strips
from .convolution_winograd import can_pool, is_forward, lower_backward_data, lower_backward_weight, lower_forward
from .convolution_winograd_strided import is_strided_forward, lower_strided_backward_data, lower_strided_forward
from .elementwise import ACTIVATIONS
from .product_gradient import lower_product_gradient
from .rounding import round_up
from .shape import channels_last
from .weight_gradient import WeightGradient

MOST_TAPS, MOST_DEPTH = 64, 1024
"""GEMM_RUNS, GEMM_DEPTH of csrc/kernels/gemm.h: taps, and channels of each, that are summed in one go."""

DEPTHWISE_CHUNKS, DEPTHWISE_CHUNK_ROWS = 256, 16
"""Parts that the sum of a depthwise weight gradient is cut into, at most, and rows of dy in each, at least."""


def packed_weight(steps: Lowering, weight: Tensor, g: Geometry, backward: bool, turned: bool = False) -> Reference:
    """The weight in the panels that the forward, or the backward data, kernel reads (csrc/kernels/conv2d_pack.c)."""
    columns, depth = (g.weight[1], g.weight[0] // g.groups) if backward else (g.weight[0] // g.groups, g.weight[1])
    taps = g.weight[2] * g.weight[3]
    size = 4 * g.groups * round_up(columns, steps.facts.lanes) * taps * depth
    name = "conv2d_pack_weight_backward" if backward else "conv2d_pack_weight"
    more = {"rotated": turned} if backward else {}
    key = (name, g.groups, turned)
    return steps.prepared(weight, key, size, name, weight.spec.size / 8, **more, **g.weight_arguments)


def in_one_go(taps: int, depth: int) -> bool:
    """Whether the kernels make a sum of so many taps of `depth` channels in one go: then they read a residual where they
    write."""
    return taps <= MOST_TAPS and depth <= MOST_DEPTH


def _forward_form(
    steps: Lowering, g: Geometry, weight: Tensor, takes_moments: bool, planar: bool, has_residual: bool
) -> str:
    """The form that computes y: the first that applies and pays."""
    if takes_moments:
        return "pointwise" if g.is_pointwise else "depthwise"
    if is_forward(steps, g, weight):
        return "winograd"
    if is_strided_forward(steps, g, weight):
        return "strided winograd"
    if g.is_depthwise:
        return "depthwise"
    if expands(g, steps.facts, backward=False):
        return "expanded"
    strips = uses_strips(g.arguments, steps.facts)
    along = strips and not has_residual and lies_along(g.arguments, steps.facts, planar)
    wished = steps.facts.convolution == "spread"
    if (wished or not along) and g.stride == (1, 1) and spreads(rotated(g.arguments), steps.facts):
        return "spread"
    return "strip" if strips else "indirect"


def _strip(steps: Lowering, work: float, sizes: dict[str, int], planar: bool = False, **arguments: Any) -> None:
    """The step of conv2d_strip_forward."""
    rows = strip_rows(sizes, steps.facts, planar, steps.may_share(work))
    stride = strip_floats(sizes, steps.facts, rows, planar)
    workspace = steps.workspace(4 * stride * steps.facts.threads)
    arguments |= {"workspace": workspace, "workspace_stride": stride, "rows": rows, "planar": planar}
    steps.step("conv2d_strip_forward", work, **arguments, **sizes)


def _spread(
    steps: Lowering, g: Geometry, arguments: dict[str, int], turned: bool, source: Tensor, weight: Tensor, result: Tensor,
    **more: Any,
) -> None:  # fmt: skip
    """The step that spreads `source` over `result`. `arguments`: the geometry of the gradient that this is."""
    shape = {"rotated": turned, "stride_h": arguments["stride_h"], "dilation_h": arguments["dilation_h"]}
    shape |= g.weight_arguments
    name, size = "conv2d_spread_pack", 4 * packed_floats(arguments, steps.facts)
    key = (name, *shape.values())
    stride = spread_stride(arguments, steps.facts)
    more |= {
        "dy": steps.pointer(source),
        "packed": steps.prepared(weight, key, size, name, weight.spec.size / 4, **shape),
        "dx": steps.pointer(result),
        "workspace": steps.workspace(4 * stride * steps.facts.threads),
        "workspace_stride": stride,
    }
    steps.step("conv2d_spread_backward_data", g.work(steps.facts), **more, **arguments)


def _planar(steps: Lowering, g: Geometry, dy: Tensor, weight: Tensor, dx: Tensor, **more: Any) -> None:
    """The step that makes planes of dy."""
    bands = planar_bands(g.arguments, steps.facts)
    stride = planar_stride(g.arguments, steps.facts, bands)
    more |= {"dy": steps.pointer(dy), "weight": steps.pointer(weight), "dx": steps.pointer(dx)}
    more |= {"workspace": steps.workspace(4 * stride * steps.facts.threads), "workspace_stride": stride, "bands": bands}
    steps.step("conv2d_planar_backward_data", g.work(steps.facts), **more, **g.arguments)


def packed_depthwise(steps: Lowering, weight: Tensor, g: Geometry) -> Reference:
    arguments = {k: g.arguments[k] for k in ("channels", "kernel_height", "kernel_width")}
    name = "conv2d_depthwise_pack"
    return steps.prepared(weight, name, weight.spec.size, name, weight.spec.size / 2, **arguments)


@register
class Convolution(Op):
    """y = activation(conv(x, weight) + bias + residual).

    Inputs: x, weight, then bias if there is one, then the residual if `has_residual` is set. `activation` is
    None, "relu" or "relu6". `planar`: x lies N,C,H,W in memory. With `pool` y is the maxima of 2x2 pixels each, side by side.
    With `moment_rows` there is a second output, the moments of blocks of so many pixels (convolution_moments.py). These
    attributes are set by passes.
    """

    name = "conv2d"

    def infer(  # type: ignore[override]
        self, x: Tensor, weight: Tensor, *more: Tensor, has_residual: bool = False, activation: str | None = None,
        pool: bool = False, **attributes: Any,
    ) -> Spec:  # fmt: skip
        geometry = geometry_of(x.shape, weight.shape, attributes)
        bias = more[0].shape if len(more) > has_residual else None
        check_shapes(x.shape, weight.shape, bias, geometry)
        n, k, p, q = geometry.y
        return Spec((n, k, p // 2, q // 2) if pool else geometry.y)

    @staticmethod
    def bias(node: Node) -> Tensor | None:
        return node.inputs[2] if len(node.inputs) > 2 + node.attributes.get("has_residual", False) else None

    @staticmethod
    def residual(node: Node) -> Tensor | None:
        return node.inputs[-1] if node.attributes.get("has_residual", False) else None

    @staticmethod
    def can_pool(node: Node, fixed: bool, facts: Facts) -> bool:
        """Whether `pool` may be set and saves time. fixed: the weight is."""
        plain = not node.attributes.get("has_residual", False)
        return plain and can_pool(
            geometry_of(node.inputs[0].shape, node.inputs[1].shape, node.attributes), fixed, facts
        )

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None and node.attributes.keys().isdisjoint({"activation", "has_residual", "pool"})
        x, weight = node.inputs[:2]
        graph, attributes = dy.graph, node.attributes
        gradients: list[Tensor | None] = [None] * len(node.inputs)
        if needed[0]:
            gradients[0] = graph.record("conv2d_backward_data", dy, weight, shape=x.shape, **attributes)
        if any(needed[1:]):
            has_bias = len(needed) > 2 and needed[2]
            made = graph.record("conv2d_backward_weight", x, dy, shape=weight.shape, has_bias=has_bias, **attributes)
            gradients[1:] = made if has_bias else [made] + [None] * (len(node.inputs) - 2)
        return gradients

    def flops(self, node: Node) -> float:
        return geometry_of(node.inputs[0].shape, node.inputs[1].shape, node.attributes).flops

    def in_place(self, node: Node) -> dict[int, int]:
        _, depth, rows, columns = node.inputs[1].shape
        possible = self.residual(node) is not None and in_one_go(rows * columns, depth)
        return {0: len(node.inputs) - 1} if possible else {}

    def lower(self, node: Node, steps: Lowering) -> None:
        (x, weight), y = node.inputs[:2], node.outputs[0]
        g = geometry_of(x.shape, weight.shape, node.attributes)
        moments = node.outputs[1] if "moment_rows" in node.attributes else None
        planar, has_residual = node.attributes.get("planar", False), self.residual(node) is not None
        form = _forward_form(steps, g, weight, moments is not None, planar, has_residual)
        work = g.work(steps.facts)
        if planar and form != "strip":
            x, planar = channels_last(x, steps), False
        pool = node.attributes.get("pool", False)
        assert form == "winograd" or not pool
        panels = partial(packed_weight, steps, weight, g, backward=False)
        bias, residual = steps.pointer(self.bias(node)), steps.pointer(self.residual(node))
        activation = ACTIVATIONS[node.attributes.get("activation")]
        epilogue: dict[str, Any] = {"bias": bias, "residual": residual, "activation": activation}
        images: dict[str, Any] = {"x": steps.pointer(x), "y": steps.pointer(y)}
        taken = {"moments": steps.pointer(moments), "moment_rows": node.attributes.get("moment_rows", 0)}
        if form == "winograd":
            lower_forward(steps, g, x, weight, y, epilogue, panels, pool)
        elif form == "strided winograd":
            lower_strided_forward(steps, g, x, weight, y, epilogue)
        elif form == "expanded":
            lower_expanded(steps, g, x, weight, self.bias(node), self.residual(node), y, activation, backward=False)
        elif form == "spread":
            _spread(steps, g, rotated(g.arguments), True, x, weight, y, **epilogue)
        elif form == "pointwise":
            sizes = {"rows": g.x[0] * g.x[2] * g.x[3], "channels": g.x[1], "out_channels": g.y[1]}
            steps.step("conv2d_pointwise_moments", work, packed=panels(), bias=bias, **images, **taken, **sizes)
        elif form == "depthwise":
            packed = packed_depthwise(steps, weight, g)
            steps.step(
                "conv2d_depthwise_forward", work * 4, packed=packed, **images, **taken, **epilogue, **g.arguments
            )
        elif form == "strip":
            _strip(steps, work, g.arguments, planar, packed=panels(), **images, **epilogue)
        else:
            steps.step("conv2d_forward", work, packed=panels(), **images, **epilogue, **g.arguments)


def _normalization(steps: Lowering, node: Node | None = None) -> dict[str, Any]:
    """What kernels that take sums of dx are told of the batch norm whose gradient it is; `node` None: they take none."""
    names = ("normalized", "statistics", "norm_weight", "norm_bias")
    if node is None:
        return {**dict.fromkeys((*names, "sums")), "norm_activation": 0, "sum_rows": 0}
    given = dict(zip(node.norm_given, node.inputs[-len(node.norm_given) :], strict=True))
    return {
        **{name: steps.pointer(given.get(name)) for name in names},
        "sums": steps.pointer(node.outputs[1]),
        "norm_activation": ACTIVATIONS[node.norm_activation],
        "sum_rows": node.sum_rows,
    }


def lower_input_gradient(
    steps: Lowering, g: Geometry, dy: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, dx: Tensor,
    activation: int, sums: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """The steps of dx = activation(bias + residual + the gradient of the input), bias one for each channel of dx.

    `sums`: arguments of the kernels that take sums of dx (convolution_moments.py).
    """
    if sums is not None and g.is_pointwise:
        packed, residuals = packed_weight(steps, weight, g, backward=True), steps.pointer(residual)
        sizes = {"rows": g.x[0] * g.x[2] * g.x[3], "channels": g.x[1], "out_channels": g.y[1]}
        arrays = {"dy": steps.pointer(dy), "packed": packed, "residual": residuals, "dx": steps.pointer(dx)}
        steps.step("conv2d_pointwise_sums", g.work(steps.facts), **arrays, **sums, **sizes)
        return
    arguments: dict[str, Any] = {
        "bias": steps.pointer(bias),
        "residual": steps.pointer(residual),
        "activation": activation,
    }
    for lower in (lower_backward_data, lower_strided_backward_data):
        if sums is None and lower(steps, g, dy, weight, dx, arguments):
            return
    if sums is None and expands(g, steps.facts, backward=True):
        lower_expanded(steps, g, dy, weight, bias, residual, dx, activation, backward=True)
        return
    if residual is None and sums is None and uses_planes(g.arguments, steps.facts):
        _planar(steps, g, dy, weight, dx, bias=steps.pointer(bias), activation=activation)
        return
    if not g.is_depthwise and spreads(g.arguments, steps.facts):
        _spread(steps, g, g.arguments, False, dy, weight, dx, **arguments)
        return
    if g.stride == (1, 1) and not g.is_depthwise and uses_strips(turned := rotated(g.arguments), steps.facts):
        packed = packed_weight(steps, weight, g, backward=True, turned=True)
        arguments |= {"x": steps.pointer(dy), "packed": packed, "y": steps.pointer(dx)}
        _strip(steps, g.work(steps.facts), turned, **arguments)
        return
    arguments |= {"dy": steps.pointer(dy), "dx": steps.pointer(dx), **g.arguments}
    if g.is_depthwise:
        packed = packed_depthwise(steps, weight, g)
        arguments |= _normalization(steps) if sums is None else sums
        steps.step("conv2d_depthwise_backward_data", g.work(steps.facts) * 4, packed=packed, **arguments)
    else:
        packed = packed_weight(steps, weight, g, backward=True)
        steps.step("conv2d_backward_data", g.work(steps.facts), packed=packed, **arguments)


@register
class ConvolutionBackwardData(Op):
    """dx (shape) from dy and weight, plus a third input of dx's shape if there is one.

    With `sum_rows` there is a second output, the sums of blocks of so many pixels for the batch normalisation of which dx is
    the gradient: `norm_given` names the inputs behind the others that say which, `norm_activation` what followed it.
    """

    name = "conv2d_backward_data"

    def infer(self, dy: Tensor, weight: Tensor, *residual: Tensor, shape: Shape, **attributes: Any) -> Spec:  # type: ignore[override]
        return Spec(shape)

    @staticmethod
    def residual(node: Node) -> Tensor | None:
        return node.inputs[2] if len(node.inputs) > 2 + len(node.attributes.get("norm_given", ())) else None

    def flops(self, node: Node) -> float:
        return geometry_of(node.shape, node.inputs[1].shape, node.attributes).flops

    def in_place(self, node: Node) -> dict[int, int]:
        out_channels, _, rows, columns = node.inputs[1].shape
        possible = self.residual(node) is not None and in_one_go(rows * columns, out_channels // node.groups)
        return {0: 2} if possible else {}

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, weight), dx = node.inputs[:2], node.outputs[0]
        g = geometry_of(node.shape, weight.shape, node.attributes)
        residual = self.residual(node)
        sums = _normalization(steps, node) if "sum_rows" in node.attributes else None
        lower_input_gradient(steps, g, dy, weight, None, residual, dx, ACTIVATIONS[None], sums)


def _repeated(steps: Lowering, x: Tensor, g: Geometry) -> Reference:
    """x with a channel for each one of y, where groups have one channel of x."""
    pixels, repeats = g.x[0] * g.x[2] * g.x[3], g.y[1] // g.groups
    repeated, source = steps.workspace(4 * max(pixels, 1) * g.y[1]), steps.pointer(x)
    assert source is not None
    expand(steps, source, pixels, g.groups, 1, repeats, 0, repeated)
    return repeated


@register
class ConvolutionBackwardWeight(Op):
    """dweight (shape), and with `has_bias` dbias, from x and dy."""

    name = "conv2d_backward_weight"

    def infer(  # type: ignore[override]
        self, x: Tensor, dy: Tensor, shape: Shape, has_bias: bool, **attributes: Any
    ) -> Spec | tuple[Spec, ...]:
        return (Spec(shape), Spec(shape[:1])) if has_bias else Spec(shape)

    def flops(self, node: Node) -> float:
        return geometry_of(node.inputs[0].shape, node.shape, node.attributes).flops

    def lower(self, node: Node, steps: Lowering) -> None:
        x, dy = node.inputs
        dw, dbias = node.outputs[0], node.outputs[1] if node.has_bias else None
        g = geometry_of(x.shape, node.shape, node.attributes)
        if lower_backward_weight(steps, g, x, dy, dw, dbias):
            return
        n, out_channels, out_height, out_width = g.y
        if g.is_pointwise:
            sizes = {"batch": n * out_height * out_width, "channels": g.x[1], "out_channels": out_channels}
            lower_product_gradient(steps, x, dy, dw, dbias, sizes, g.work(steps.facts))
            return
        arguments: dict[str, Any] = {
            "x": steps.pointer(x),
            "dy": steps.pointer(dy),
            "dw": steps.pointer(dw),
            "dbias": steps.pointer(dbias),
            **g.arguments,
        }
        if g.is_depthwise or expands_weight_gradient(g, steps.facts):
            if not g.is_depthwise:
                repeated = _repeated(steps, x, g)
                arguments |= {"x": repeated, "channels": out_channels, "groups": out_channels}
            chunks = max(1, min(DEPTHWISE_CHUNKS, n * out_height // DEPTHWISE_CHUNK_ROWS))
            taps = g.weight[2] * g.weight[3]
            workspace = steps.workspace(4 * chunks * (taps + 1) * out_channels)
            name, work = "conv2d_depthwise_backward_weight", g.work(steps.facts) * 4
        else:
            cut = WeightGradient(g.arguments, steps.facts)
            chunks, workspace = cut.chunks, steps.workspace(cut.workspace)
            arguments |= {"workspace_stride": cut.stride, "transposed": cut.transposed}
            name, work = "conv2d_backward_weight", g.work(steps.facts)
        steps.step(name, work, workspace=workspace, chunks=chunks, **arguments)
