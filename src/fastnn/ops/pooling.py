"""Pooling of images (N,C,H,W) over sliding windows and to a given size. Op and kernel of each kind share a name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from .. import _core
from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import FLOATS_PER_NANOSECOND

Pair = tuple[int, int]
BYTE_TAPS = 255
"""Windows of up to this many taps keep the position of their maximum in one byte."""


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Windows along one axis; ValueError when none fits."""
    extent = dilation * (kernel - 1) + 1
    if 2 * padding > extent:
        raise ValueError(
            f"padding {padding} is more than half of the window of {extent} (kernel {kernel}, dilation {dilation}); "
            f"use at most {extent // 2}"
        )
    count: int = _core.window_positions(size, kernel, stride, dilation, padding, padding, ceil_mode)
    if count < 1:
        raise ValueError(
            f"the window of {extent} (kernel {kernel}, dilation {dilation}) is larger than the padded input of "
            f"{size + 2 * padding} (size {size}, padding {padding}); use a smaller kernel or more padding"
        )
    return count


def check_image(x: Tensor) -> None:
    """x has the shape (N,C,H,W)."""
    if x.ndim != 4:
        raise ValueError(f"the input must have the shape (N,C,H,W), got {x.ndim} axes in {x.shape}")


def pooled_shape(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> Shape:
    """(N,C,P,Q) for x (N,C,H,W)."""
    check_image(x)
    axes = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    return (*x.shape[:2], *(pooled_size(*axis, ceil_mode) for axis in axes))


def adapted_shape(x: Tensor, output: Pair) -> Shape:
    """(N,C,P,Q) for x (N,C,H,W) and output (P,Q)."""
    check_image(x)
    if min(*output, *x.shape[2:]) < 1:
        raise ValueError(f"cannot pool an image of {x.shape[2:]} to {output}: the sizes must be at least 1")
    return (*x.shape[:2], *output)


def shape_arguments(image: Shape, pooled: Shape) -> dict[str, int]:
    """The kernels' arguments for an image (N,C,H,W) pooled to (N,C,P,Q)."""
    batch, channels, height, width = image
    return {"batch": batch, "height": height, "width": width, "channels": channels,
            "out_height": pooled[2], "out_width": pooled[3]}  # fmt: skip


def window_arguments(attributes: dict[str, Any]) -> dict[str, int]:
    """The kernels' arguments for those of a window's attributes that there are."""
    names = {"kernel": ("kernel_height", "kernel_width"), "stride": ("stride_h", "stride_w"),
             "padding": ("pad_top", "pad_left"), "dilation": ("dilation_h", "dilation_w")}  # fmt: skip
    arguments = {
        argument: number
        for name, both in names.items()
        if name in attributes
        for argument, number in zip(both, attributes[name], strict=True)
    }
    return {
        **arguments,
        **{name: int(attributes[name]) for name in ("count_include_pad", "divisor") if name in attributes},
    }


def pooling_step(
    kernel: str,
    node: Node,
    steps: Lowering,
    image: Shape,
    pooled: Shape,
    row_of_sums: bool = False,
    /,
    **tensors: Tensor | None,
) -> None:
    """A kernel call between an image and what it is pooled to. Work: the image is read once from memory, its windows
    from cache. `row_of_sums`: each thread has a workspace of a row of what is pooled, and a vector."""
    row = 4 * steps.facts.threads * (pooled[3] * image[1] + steps.facts.lanes)
    taps = math.prod(node.attributes.get("kernel", (1,)))
    steps.step(
        kernel,
        (math.prod(image) + math.prod(pooled) * taps / 4) / FLOATS_PER_NANOSECOND,
        **{name: steps.pointer(tensor) for name, tensor in tensors.items()},
        **shape_arguments(image, pooled),
        **window_arguments(node.attributes),
        **({"workspace": steps.workspace(row)} if row_of_sums else {}),
    )


class _Backward(Op):
    """dx (N,C,H,W), H and W from the attribute `image`, from dy and what else the kernel reads."""

    reads: ClassVar[tuple[str, ...]] = ("dy",)
    row_of_sums: ClassVar[bool] = False

    def infer(self, *inputs: Tensor, image: Shape, **_: Any) -> Spec:  # type: ignore[override]
        return Spec(image)

    def lower(self, node: Node, steps: Lowering) -> None:
        (dx,) = node.outputs
        tensors = dict(zip(self.reads, node.inputs, strict=True))
        pooling_step(self.name, node, steps, dx.shape, tensors["dy"].shape, self.row_of_sums, **tensors, dx=dx)


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
        if dys[0] is None:
            return [None]
        window = {name: node.attributes[name] for name in ("kernel", "stride", "padding", "dilation")}
        image = node.inputs[0].shape
        return [dys[0].graph.record("max_pool2d_backward", dys[0], node.outputs[1], image=image, **window)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y, index) = node.inputs, node.outputs
        is_read = any(index in other.inputs for other in steps.graph.nodes)
        tensors = {"x": x, "y": y, "index": index if is_read else None}
        pooling_step("max_pool2d_forward", node, steps, x.shape, y.shape, **tensors)


@register
class MaxPool2dBackward(_Backward):
    """Each dy goes to the tap that won."""

    name = "max_pool2d_backward"
    reads = ("dy", "index")


@register
class MaxPool2dPositions(Op):
    """h * W + w of each maximum (N,C,P,Q), int64, from the tap that won; -1 for a window without a tap in the image."""

    name = "max_pool2d_positions"

    def infer(self, index: Tensor, **_: Any) -> Spec:  # type: ignore[override]
        return Spec(index.shape, "int64")

    def lower(self, node: Node, steps: Lowering) -> None:
        (index,), (positions,) = node.inputs, node.outputs
        pooling_step(self.name, node, steps, node.image, positions.shape, index=index, positions=positions)


@register
class AvgPool2d(Op):
    """y (N,C,P,Q); attributes kernel, stride, padding, ceil_mode, count_include_pad, divisor (0: the window's size)."""

    name = "avg_pool2d"

    def infer(  # type: ignore[override]
        self, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, **_: Any
    ) -> Spec:
        return Spec(pooled_shape(x, kernel, stride, padding, (1, 1), ceil_mode))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("avg_pool2d_backward", dy, image=node.inputs[0].shape, **node.attributes)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        pooling_step("avg_pool2d_forward", node, steps, x.shape, y.shape, x=x, y=y)


@register
class AvgPool2dBackward(_Backward):
    """Each dy over its divisor goes to every element of its window."""

    name = "avg_pool2d_backward"
    row_of_sums = True


@register
class AdaptiveAvgPool2d(Op):
    """y (N,C,P,Q): the means of P x Q windows that cover the image; attribute output = (P, Q)."""

    name = "adaptive_avg_pool2d"

    def infer(self, x: Tensor, output: Pair) -> Spec:  # type: ignore[override]
        return Spec(adapted_shape(x, output))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        (dy,) = dys
        assert dy is not None
        return [dy.graph.record("adaptive_avg_pool2d_backward", dy, image=node.inputs[0].shape)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y,) = node.inputs, node.outputs
        pooling_step("adaptive_avg_pool2d_forward", node, steps, x.shape, y.shape, x=x, y=y)


@register
class AdaptiveAvgPool2dBackward(_Backward):
    """Each dy over its window's size goes to every element of the window."""

    name = "adaptive_avg_pool2d_backward"
    row_of_sums = True


@register
class AdaptiveMaxPool2d(Op):
    """y (N,C,P,Q): the maxima of P x Q windows that cover the image, and h * W + w of each, int64; attribute output = (P, Q)."""

    name = "adaptive_max_pool2d"

    def infer(self, x: Tensor, output: Pair) -> tuple[Spec, Spec]:  # type: ignore[override]
        shape = adapted_shape(x, output)
        if x.shape[2] * x.shape[3] >= 2**32:
            raise ValueError(f"cannot number the pixels of an image of {x.shape[2:]}: they must be fewer than 2**32")
        return Spec(shape), Spec(shape, "int64")

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        if dys[0] is None:
            return [None]
        image = node.inputs[0].shape
        return [dys[0].graph.record("adaptive_max_pool2d_backward", dys[0], node.outputs[1], image=image)]

    def lower(self, node: Node, steps: Lowering) -> None:
        (x,), (y, positions) = node.inputs, node.outputs
        pooling_step("adaptive_max_pool2d_forward", node, steps, x.shape, y.shape, x=x, y=y, positions=positions)


@register
class AdaptiveMaxPool2dBackward(_Backward):
    """Each dy goes to its window's maximum."""

    name = "adaptive_max_pool2d_backward"
    reads = ("dy", "positions")
