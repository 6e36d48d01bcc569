"""Normalisation of each sample by itself: rows of a matrix, groups of channels of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements
from .rounding import LINE, ROW_BLOCKS, ceil_div, round_up

CHUNK_ROWS_MIN = 8
"""FNN_CHUNK_ROWS_MIN of csrc/kernels/row_blocks.h: rows of a block, at least."""

GROUP_NORM_ROWS = 2 * ROW_BLOCKS + 4
"""Floats a channel that a thread of the kernels of group normalisation works with (FNN_GROUP_NORM_ROWS)."""

Names = tuple[str, ...]


class SampleNorm(Op):
    """What layer and group normalisation share: inputs are x and those that `given` names, some of weight and bias; outputs are
    y and the statistics of x. Its gradient is the operation of the same name and "_backward"."""

    kept: ClassVar[Names] = ()
    """Attributes that the gradient has as well."""

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        dy = dys[0]
        if dy is None:
            return [None] * len(node.inputs)
        named = dict(zip(node.given, node.inputs[1:], strict=True))
        wanted = tuple(n for n, need in zip(("x", *node.given), needed, strict=True) if need)
        weight = [named["weight"]] if "weight" in named else []
        kept = {name: node.attributes[name] for name in self.kept}
        recorded = dy.graph.record(
            f"{self.name}_backward", dy, node.inputs[0], node.outputs[1], *weight, wanted=wanted, **kept
        )
        gradients = dict(zip(wanted, recorded, strict=True))
        return [gradients.get(name) for name in ("x", *node.given)]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}


class SampleNormBackward(Op):
    """Gradients of x, weight, bias, those that `wanted` names, from dy, x, the statistics and weight, if any."""

    def infer(self, dy: Tensor, x: Tensor, *_: Tensor, wanted: Names, **attributes: Any) -> tuple[Spec, ...]:  # type: ignore[override]
        return tuple(x.spec if name == "x" else Spec(x.shape[1:2]) for name in wanted)

    def in_place(self, node: Node) -> dict[int, int]:
        return {node.wanted.index("x"): 0} if "x" in node.wanted else {}


def _check_given(given: Names, inputs: Sequence[Tensor], channels: Shape) -> None:
    for name, tensor in zip(given, inputs, strict=True):
        if tensor.shape != channels:
            raise ValueError(f"{name} must have shape {channels}, got {tensor.shape}")


def _forward_arguments(node: Node, steps: Lowering) -> dict[str, Any]:
    named = dict(zip(node.given, node.inputs[1:], strict=True))
    return {
        "x": steps.pointer(node.inputs[0]),
        "weight": steps.pointer(named.get("weight")),
        "bias": steps.pointer(named.get("bias")),
        "y": steps.pointer(node.outputs[0]),
        "statistics": steps.pointer(node.outputs[1]),
        "eps": node.eps,
    }


def _backward_arguments(node: Node, steps: Lowering) -> dict[str, Any]:
    dy, x, statistics, *weight = node.inputs
    gradients = {name: steps.pointer(tensor) for name, tensor in zip(node.wanted, node.outputs, strict=True)}
    return {
        "dy": steps.pointer(dy),
        "x": steps.pointer(x),
        "statistics": steps.pointer(statistics),
        "weight": steps.pointer(weight[0] if weight else None),
        "dx": gradients.get("x"),
        "dweight": gradients.get("weight"),
        "dbias": gradients.get("bias"),
    }


@register
class LayerNorm(SampleNorm):
    """y (rows, columns) and the statistics (3, rows) of x; `given` names the inputs behind x: some of weight, bias."""

    name = "layer_norm"

    def infer(self, x: Tensor, *inputs: Tensor, given: Names, eps: float) -> tuple[Spec, Spec]:  # type: ignore[override]
        _check_given(given, inputs, x.shape[1:])
        return x.spec, Spec((3, x.shape[0]))

    def lower(self, node: Node, steps: Lowering) -> None:
        x = node.inputs[0]
        steps.step(
            "layer_norm_forward",
            elements(x) / FLOATS_PER_NANOSECOND * 2,
            **_forward_arguments(node, steps),
            rows=x.shape[0],
            columns=x.shape[1],
        )


@register
class LayerNormBackward(SampleNormBackward):
    name = "layer_norm_backward"

    def lower(self, node: Node, steps: Lowering) -> None:
        x = node.inputs[1]
        rows, columns = x.shape
        steps.step(
            "layer_norm_backward",
            elements(x) / FLOATS_PER_NANOSECOND * 2,
            **_backward_arguments(node, steps),
            workspace=steps.workspace(4 * 2 * min(ROW_BLOCKS, ceil_div(rows, CHUNK_ROWS_MIN)) * columns),
            rows=rows,
            columns=columns,
        )


def _image_sizes(x: Tensor, groups: int) -> dict[str, int]:
    batch, channels, height, width = x.shape
    return {"batch": batch, "positions": height * width, "channels": channels, "groups": groups}


def _thread_floats(channels: int) -> int:
    """Floats of workspace a thread, whole cache lines."""
    return round_up(GROUP_NORM_ROWS * channels, LINE)


@register
class GroupNorm(SampleNorm):
    """y (N,C,H,W) and the statistics (3, N * groups) of x, an image with more than no pixel; `given` names the inputs behind
    x: some of weight, bias (C)."""

    name = "group_norm"
    kept = ("groups",)

    def infer(self, x: Tensor, *inputs: Tensor, given: Names, groups: int, eps: float) -> tuple[Spec, Spec]:  # type: ignore[override]
        if x.ndim != 4 or 0 in x.shape[1:] or x.shape[1] % groups:
            raise ValueError(f"{groups} groups of an image (N,C,H,W) are normalised, got {x.shape}")
        _check_given(given, inputs, x.shape[1:2])
        return x.spec, Spec((3, x.shape[0] * groups))

    def lower(self, node: Node, steps: Lowering) -> None:
        x = node.inputs[0]
        stride = _thread_floats(x.shape[1])
        steps.step(
            "group_norm_forward",
            elements(x) / FLOATS_PER_NANOSECOND * 2,
            **_forward_arguments(node, steps),
            workspace=steps.workspace(steps.facts.threads * stride * 4),
            workspace_stride=stride,
            **_image_sizes(x, node.groups),
        )


@register
class GroupNormBackward(SampleNormBackward):
    name = "group_norm_backward"

    def lower(self, node: Node, steps: Lowering) -> None:
        x = node.inputs[1]
        stride, threads = _thread_floats(x.shape[1]), steps.facts.threads
        steps.step(
            "group_norm_backward",
            elements(x) / FLOATS_PER_NANOSECOND * 2,
            **_backward_arguments(node, steps),
            workspace=steps.workspace((threads * stride + 2 * x.shape[0] * x.shape[1]) * 4),
            workspace_stride=stride,
            threads=threads,
            **_image_sizes(x, node.groups),
        )


@register
class InstanceNormTrack(Op):
    """Moves running_mean and running_variance (C) towards the means over the batch of the samples' statistics (3, N*C),
    which layer_norm wrote for rows of `positions` elements."""

    name = "instance_norm_track"
    has_effects = True

    def infer(  # type: ignore[override]
        self, statistics: Tensor, running_mean: Tensor, running_variance: Tensor, batch: int, positions: int,
        eps: float, momentum: float,
    ) -> tuple[Spec, ...]:  # fmt: skip
        for tensor in (running_mean, running_variance):
            if (3, batch * tensor.shape[0]) != statistics.shape:
                raise ValueError(
                    f"running statistics of shape {tensor.shape} for statistics of shape {statistics.shape}"
                )
        return ()

    def writes(self, node: Node) -> tuple[int, ...]:
        return 1, 2

    def lower(self, node: Node, steps: Lowering) -> None:
        statistics, running_mean, running_variance = node.inputs
        steps.step(
            "instance_norm_track",
            elements(statistics) / FLOATS_PER_NANOSECOND * 4,
            statistics=steps.pointer(statistics),
            running_mean=steps.pointer(running_mean),
            running_variance=steps.pointer(running_variance),
            batch=node.batch,
            channels=running_mean.shape[0],
            positions=node.positions,
            eps=node.eps,
            momentum=node.momentum,
        )
