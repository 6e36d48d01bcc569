"""The inverted residual block in one step, for inference: csrc/kernels/inverted_residual.c.

x (N,C,H,W) -> 1x1 (I,C,1,1) -> depthwise (I,1,R,S) -> 1x1 (K,I,1,1) -> y (N,K,P,Q), each convolution with bias and activation,
the last with a residual. `passes.fuse_inverted_residuals` records it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Facts, Lowering
from .convolution import packed_depthwise, packed_weight
from .convolution_geometry import Geometry, Pair, Sides, check_shapes
from .elementwise import ACTIVATIONS
from .rounding import LINE, round_up

LARGE_BYTES = 1 << 20
"""Expanded images of fewer bytes stay in a second-level cache between two steps as well."""

WEIGHT_BYTES = 256 << 10
"""Larger weights do not stay there beside a band: convolutions that are steps of their own walk through them less often."""

MIN_ROWS = 16
"""Rows of the result that a thread must have: where two shares meet, both expand the rows that both look at."""

BAND_BYTES = 512 << 10
"""About half of a second-level cache: for a thread's band and the weights."""

MAX_ROWS = 64
"""DEPTHWISE_ROWS of csrc/kernels/conv2d_depthwise_row.h."""

Names = tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """The convolutions that become one step."""

    expand: Geometry
    depthwise: Geometry
    project: Geometry

    @staticmethod
    def of(x: Shape, weights: Sequence[Shape], stride: Pair, padding: Sides) -> Block:
        """From the shapes of the three weights, and the depthwise convolution's stride and padding."""
        expand, depthwise, project = weights
        first = Geometry(x, expand, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        second = Geometry(first.y, depthwise, stride, padding, (1, 1), expand[0])
        return Block(first, second, Geometry(second.y, project, (1, 1), (0, 0, 0, 0), (1, 1), 1))

    @property
    def geometries(self) -> tuple[Geometry, Geometry, Geometry]:
        return self.expand, self.depthwise, self.project

    @property
    def flops(self) -> float:
        return sum(g.flops for g in self.geometries)

    @property
    def weight_bytes(self) -> int:
        return 4 * sum(g.weight[0] * g.weight[1] * g.weight[2] * g.weight[3] for g in self.geometries)

    def band_floats(self, band: int) -> int:
        """Workspace of a thread that makes `band` rows of the result at a time, in whole cache lines."""
        g = self.depthwise
        (_, hidden, _, width), rows = g.x, (band - 1) * g.stride[0] + g.weight[2]
        return round_up((rows * width + band * g.output[1]) * hidden, LINE)

    @property
    def band(self) -> int:
        """As many rows as fit into the cache beside the weights, at least one."""
        band, most = 1, (BAND_BYTES - self.weight_bytes) // 4
        while band < self.depthwise.output[0] and self.band_floats(band + 1) <= most:
            band += 1
        return band

    def pays(self, facts: Facts) -> bool:
        """Whether one step is faster than three, by measurement on AVX2. Never where the caller wants a form of convolution."""
        batch, hidden, height, width = self.depthwise.x
        return (
            facts.convolution not in ("strip", "indirect", "spread")
            and 4 * batch * hidden * height * width >= LARGE_BYTES
            and self.weight_bytes <= WEIGHT_BYTES
            and batch * self.depthwise.output[0] >= MIN_ROWS * facts.threads
        )

    def work(self, facts: Facts) -> float:
        """As of three steps."""
        return self.expand.work(facts) + 4 * self.depthwise.work(facts) + self.project.work(facts)


@register
class InvertedResidual(Op):
    """`given` names the inputs behind x: expand_weight, depthwise_weight, weight, and some of expand_bias, depthwise_bias, bias,
    residual. `activations`: one for each convolution. `stride` and `padding` are the depthwise convolution's."""

    name = "inverted_residual"

    def infer(self, x: Tensor, *inputs: Tensor, **attributes: Any) -> Spec:  # type: ignore[override]
        block, given = _block([x, *inputs], attributes), dict(zip(attributes["given"], inputs, strict=True))
        for prefix, g in zip(("expand_", "depthwise_", ""), block.geometries, strict=True):
            bias = given.get(f"{prefix}bias")
            check_shapes(g.x, g.weight, None if bias is None else bias.shape, g)
        if block.depthwise.weight[2] > MAX_ROWS:
            raise ValueError(
                f"inverted_residual: the filter has {block.depthwise.weight[2]} rows, at most {MAX_ROWS} are possible"
            )
        if "residual" in given and given["residual"].shape != block.project.y:
            raise ValueError(
                f"inverted_residual: the residual has shape {given['residual'].shape}, the result {block.project.y}"
            )
        return Spec(block.project.y)

    def flops(self, node: Node) -> float:
        return _block(node.inputs, node.attributes).flops

    def lower(self, node: Node, steps: Lowering) -> None:
        block = _block(node.inputs, node.attributes)
        x, named = node.inputs[0], dict(zip(node.given, node.inputs[1:], strict=True))
        sizes = block.depthwise.arguments
        for name in ("out_channels", "dilation_h", "dilation_w", "groups"):
            del sizes[name]
        sizes |= {
            "channels": x.shape[1],
            "hidden_channels": block.depthwise.x[1],
            "out_channels": block.project.weight[0],
        }
        names = ("expand_activation", "depthwise_activation", "activation")
        codes = {name: ACTIVATIONS[activation] for name, activation in zip(names, node.activations, strict=True)}
        optional = ("expand_bias", "depthwise_bias", "bias", "residual")
        floats = block.band_floats(block.band)
        steps.step(
            "inverted_residual_forward",
            block.work(steps.facts),
            x=steps.pointer(x),
            expand_weight=packed_weight(steps, named["expand_weight"], block.expand, backward=False),
            depthwise_weight=packed_depthwise(steps, named["depthwise_weight"], block.depthwise),
            weight=packed_weight(steps, named["weight"], block.project, backward=False),
            y=steps.pointer(node.outputs[0]),
            workspace=steps.workspace(4 * floats * steps.facts.threads),
            workspace_stride=floats,
            band=block.band,
            **{name: steps.pointer(named.get(name)) for name in optional},
            **codes,
            **sizes,
        )


def _block(inputs: list[Tensor], attributes: dict[str, Any]) -> Block:
    shapes = {name: tensor.shape for name, tensor in zip(attributes["given"], inputs[1:], strict=True)}
    weights = [shapes[name] for name in ("expand_weight", "depthwise_weight", "weight")]
    return Block.of(inputs[0].shape, weights, attributes["stride"], attributes["padding"])
