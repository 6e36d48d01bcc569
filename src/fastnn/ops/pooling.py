"""Pooling of images (N,C,H,W) over sliding windows and to a given size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _core
from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND, elements

Pair = tuple[int, int]
BYTE_TAPS = 255
"""Windows of up to this many taps keep the position of their maximum in one byte."""


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Windows along one axis; ValueError when none fits."""
    extent = dilation * (kernel - 1) + 1
    if 2 * padding > extent:
        raise ValueError(
            f"padding {padding} is more than half of the window of {extent} (kernel {kernel}, dilation {dilation})"
        )
    count: int = _core.window_positions(size, kernel, stride, dilation, padding, padding, ceil_mode)
    if count < 1:
        raise ValueError(
            f"the window of {extent} (kernel {kernel}, dilation {dilation}) is larger than the padded input of "
            f"{size + 2 * padding} (size {size}, padding {padding})"
        )
    return count


def pooled_shape(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> Shape:
    """(N,C,P,Q) for x (N,C,H,W)."""
    if x.ndim != 4:
        raise ValueError(f"the input must have the shape (N,C,H,W), got {x.ndim} axes in {x.shape}")
    axes = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    return (*x.shape[:2], *(pooled_size(*axis, ceil_mode) for axis in axes))


def shape_arguments(image: Shape, pooled: Shape) -> dict[str, int]:
    """The kernels' arguments for an image (N,C,H,W) pooled to (N,C,P,Q)."""
    batch, channels, height, width = image
    return {"batch": batch, "height": height, "width": width, "channels": channels,
            "out_height": pooled[2], "out_width": pooled[3]}  # fmt: skip


def window_arguments(node: Node) -> dict[str, int]:
    """The kernels' arguments for a window."""
    (height, width), (stride_h, stride_w), (top, left) = node.kernel, node.stride, node.padding
    return {"kernel_height": height, "kernel_width": width, "stride_h": stride_h, "stride_w": stride_w,
            "pad_top": top, "pad_left": left}  # fmt: skip


def dilation_arguments(node: Node) -> dict[str, int]:
    return {"dilation_h": node.dilation[0], "dilation_w": node.dilation[1]}


def pooling_work(image: Tensor, taps: int, pooled: Tensor) -> float:
    """Nanoseconds of one thread: the image is read once from memory, its windows from cache."""
    return (elements(image) + elements(pooled) * taps / 4) / FLOATS_PER_NANOSECOND


@register
class MaxPool2d(Op):
    """y (N,C,P,Q) and the tap that won in each window; attributes kernel, stride, padding, dilation, ceil_mode."""

    name = "max_pool2d"

    def infer(  # type: ignore[override]
        self, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
    ) -> tuple[Spec, Spec]:
        shape = pooled_shape(x, kernel, stride, padding, dilation, ceil_mode)
        return Spec(shape), Spec(shape, "uint8" if kernel[0] * kernel[1] <= BYTE_TAPS else "uint32")

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        dy = dys[0]
        if dy is None:
            return [None]
        return [
            dy.graph.record("max_pool2d_backward", dy, node.outputs[1], image=node.inputs[0].shape, **_window(node))
        ]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y, index) = node.inputs, node.outputs
        steps.step(
            "max_pool2d_forward",
            pooling_work(x, node.kernel[0] * node.kernel[1], y),
            x=steps.pointer(x),
            y=steps.pointer(y),
            index=steps.pointer(index) if index in self._read(steps) else None,
            **shape_arguments(x.shape, y.shape),
            **window_arguments(node),
            **dilation_arguments(node),
        )

    def _read(self, steps: Lowering) -> set[Tensor]:
        return {tensor for node in steps.graph.nodes for tensor in node.inputs}


def _window(node: Node) -> dict[str, Any]:
    return {name: node.attributes[name] for name in ("kernel", "stride", "padding", "dilation")}


@register
class MaxPool2dBackward(Op):
    """dx (N,C,H,W), H and W from `image`: each dy goes to the tap that won."""

    name = "max_pool2d_backward"

    def infer(  # type: ignore[override]
        self, dy: Tensor, index: Tensor, image: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Spec:
        return Spec(image)

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy, index), (dx,) = node.inputs, node.outputs
        steps.step(
            "max_pool2d_backward",
            pooling_work(dx, node.kernel[0] * node.kernel[1], dy),
            dy=steps.pointer(dy),
            index=steps.pointer(index),
            dx=steps.pointer(dx),
            **shape_arguments(dx.shape, dy.shape),
            **window_arguments(node),
            **dilation_arguments(node),
        )


@register
class MaxPool2dPositions(Op):
    """h * W + w of each maximum (N,C,P,Q), int64, from the tap that won; -1 for a window without a tap in the image."""

    name = "max_pool2d_positions"

    def infer(  # type: ignore[override]
        self, index: Tensor, image: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Spec:
        return Spec(index.shape, "int64")

    def lower(self, node: Node, steps: Lowering) -> None:
        (index,), (positions,) = node.inputs, node.outputs
        steps.step(
            "max_pool2d_positions",
            positions.spec.size / 8,
            index=steps.pointer(index),
            positions=steps.pointer(positions),
            **shape_arguments(node.image, positions.shape),
            **window_arguments(node),
            **dilation_arguments(node),
        )


@register
class AvgPool2d(Op):
    """y (N,C,P,Q); attributes kernel, stride, padding, ceil_mode, count_include_pad, divisor (0: the window's size)."""

    name = "avg_pool2d"

    def infer(  # type: ignore[override]
        self,
        x: Tensor,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor: int,
    ) -> Spec:
        return Spec(pooled_shape(x, kernel, stride, padding, (1, 1), ceil_mode))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("avg_pool2d_backward", dy, image=node.inputs[0].shape, **node.attributes)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        steps.step(
            "avg_pool2d_forward",
            pooling_work(x, node.kernel[0] * node.kernel[1], y),
            x=steps.pointer(x),
            y=steps.pointer(y),
            count_include_pad=int(node.count_include_pad),
            divisor=node.divisor,
            **shape_arguments(x.shape, y.shape),
            **window_arguments(node),
        )


@register
class AvgPool2dBackward(Op):
    """dx (N,C,H,W), H and W from `image`: each dy over its divisor goes to every element of its window."""

    name = "avg_pool2d_backward"

    def infer(self, dy: Tensor, image: Shape, **_: Any) -> Spec:  # type: ignore[override]
        return Spec(image)

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy,), (dx,) = node.inputs, node.outputs
        steps.step(
            "avg_pool2d_backward",
            pooling_work(dx, node.kernel[0] * node.kernel[1], dy),
            dy=steps.pointer(dy),
            dx=steps.pointer(dx),
            count_include_pad=int(node.count_include_pad),
            divisor=node.divisor,
            **shape_arguments(dx.shape, dy.shape),
            **window_arguments(node),
        )


@register
class AdaptiveAvgPool2d(Op):
    """y (N,C,P,Q): the means of P x Q windows that cover the image; attribute output = (P, Q)."""

    name = "adaptive_avg_pool2d"

    def infer(self, x: Tensor, output: Pair) -> Spec:  # type: ignore[override]
        if x.ndim != 4:
            raise ValueError(f"the input must have the shape (N,C,H,W), got {x.ndim} axes in {x.shape}")
        if min(*output, *x.shape[2:]) < 1:
            raise ValueError(f"cannot pool an image of {x.shape[2:]} to {output}: the sizes must be at least 1")
        return Spec((*x.shape[:2], *output))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("adaptive_avg_pool2d_backward", dy, image=node.inputs[0].shape)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        work = pooling_work(x, 1, y)
        geometry = shape_arguments(x.shape, y.shape)
        steps.step("adaptive_avg_pool2d_forward", work, x=steps.pointer(x), y=steps.pointer(y), **geometry)


@register
class AdaptiveAvgPool2dBackward(Op):
    """dx (N,C,H,W), H and W from `image`: each dy over its window's size goes to every element of the window."""

    name = "adaptive_avg_pool2d_backward"

    def infer(self, dy: Tensor, image: Shape) -> Spec:  # type: ignore[override]
        return Spec(image)

    def lower(self, node: Node, steps: Lowering) -> None:
        (dy,), (dx,) = node.inputs, node.outputs
        work = pooling_work(dx, 1, dy)
        geometry = shape_arguments(dx.shape, dy.shape)
        steps.step("adaptive_avg_pool2d_backward", work, dy=steps.pointer(dy), dx=steps.pointer(dx), **geometry)
