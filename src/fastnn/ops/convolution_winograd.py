"""Kernel calls of Winograd convolutions (csrc/kernels/winograd_*.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..graph import Tensor
from ..plan import Facts, Lowering, Reference
from .convolution_algorithm import (
    MIN_TILES,
    MIN_TILES_WEIGHT,
    TILES,
    Form,
    Product,
    packed_size,
    planes_of,
    schedule,
    uses_winograd,
    weight_schedule,
)
from .convolution_geometry import Geometry
from .convolution_winograd_strided_weight import (
    STRIDED_SHARE,
    strided_product,
    strided_weight_schedule,
    uses_strided_weight,
)

SHARE = 0.4
"""Of the direct algorithm's time, about."""


def _product(g: Geometry, backward: bool, fixed: bool = False) -> Product | None:
    """What the forward kernel computes, or None: it takes 3x3 or 5x5 filters, stride 1, no dilation, one group, padding less
    than the filters."""
    rows, columns = g.weight[2:]
    plain = g.stride == g.dilation == (1, 1) and g.groups == 1 and rows == columns and rows in TILES
    if not plain or max(g.padding) >= rows:
        return None
    batch, channels, height, width = g.x if backward else g.y
    depth = g.weight[0] if backward else g.weight[1]
    return Product(batch, height, width, depth, channels, rows, fixed)


def _packed(steps: Lowering, g: Geometry, weight: Tensor, product: Product, tile: int, backward: bool) -> Reference:
    name = "winograd_pack_weight_backward" if backward else "winograd_pack_weight"
    planes = planes_of(tile, product.kernel_size)
    size = 4 * packed_size(product.out_channels, product.channels, planes, steps.facts)
    sizes = {"out_channels": g.weight[0], "channels": g.weight[1], "tile": tile, "kernel_size": product.kernel_size}
    return steps.prepared(weight, (name, tile), size, name, weight.spec.size / 4, **sizes)


def _image_step(
    steps: Lowering, g: Geometry, weight: Tensor, product: Product, panels: Callable[[], Reference] | None,
    arguments: dict[str, Any],
) -> None:  # fmt: skip
    """`panels` packs the weights for the direct kernel; None: backward."""
    cut = schedule(product, panels is None, steps.facts)
    filters = steps.pointer(weight)
    if cut.form == Form.PACKED:
        filters = _packed(steps, g, weight, product, cut.tile, panels is None)
    elif cut.form == Form.PANELS and panels is not None:
        filters = panels()
    steps.step(
        "winograd_forward",
        g.work(steps.facts) * SHARE,
        weight=filters,
        weight_form=int(cut.form),
        workspace=steps.workspace(4 * cut.workspace(product, steps.facts)),
        tile=cut.tile,
        kernel_size=product.kernel_size,
        block=cut.block,
        shared=int(cut.shared),
        **arguments,
    )


def _applies(product: Product | None, facts: Facts) -> bool:
    return product is not None and uses_winograd(product, MIN_TILES[product.fixed], facts)


def can_pool(g: Geometry, fixed: bool, facts: Facts) -> bool:
    """Whether the forward kernel is the one to use and saves time by pooling its result: by measurement, in tiles of 4x4."""
    product = _product(g, backward=False, fixed=fixed)
    return product is not None and _applies(product, facts) and product.tile == 4


def is_forward(steps: Lowering, g: Geometry, weight: Tensor) -> bool:
    """Whether this is the algorithm to use forward."""
    return _applies(_product(g, backward=False, fixed=steps.is_fixed(weight)), steps.facts)


def lower_forward(
    steps: Lowering, g: Geometry, x: Tensor, weight: Tensor, y: Tensor, epilogue: dict[str, Any],
    panels: Callable[[], Reference], pool: bool,
) -> None:  # fmt: skip
    """Adds the steps of y = activation(conv(x, weight) + bias + residual) where is_forward says so; with `pool` the maxima of
    2x2 pixels each. epilogue: bias, residual and activation as the kernel takes them."""
    product = _product(g, backward=False, fixed=steps.is_fixed(weight))
    assert product is not None
    images = {"x": steps.pointer(x), "y": steps.pointer(y)}
    _image_step(steps, g, weight, product, panels, {**images, **epilogue, "pool": int(pool), **g.winograd_arguments})


def lower_backward_data(
    steps: Lowering, g: Geometry, dy: Tensor, weight: Tensor, dx: Tensor, epilogue: dict[str, Any]
) -> bool:
    """Adds the steps of dx, if this is the algorithm to use: the forward kernel on dy, with channels exchanged and padding
    kernel_size - 1 - padding."""
    product = _product(g, backward=True, fixed=steps.is_fixed(weight))
    if product is None or not _applies(product, steps.facts):
        return False
    sizes, most = g.winograd_arguments, product.kernel_size - 1
    arguments: dict[str, Any] = {
        "x": steps.pointer(dy), "y": steps.pointer(dx), "pool": 0, **epilogue,
        "batch": sizes["batch"], "height": sizes["out_height"], "width": sizes["out_width"],
        "channels": sizes["out_channels"], "out_height": sizes["height"], "out_width": sizes["width"],
        "out_channels": sizes["channels"], "pad_top": most - sizes["pad_top"], "pad_left": most - sizes["pad_left"],
    }  # fmt: skip
    _image_step(steps, g, weight, product, None, arguments)
    return True


def lower_backward_weight(
    steps: Lowering, g: Geometry, x: Tensor, dy: Tensor, dw: Tensor, dbias: Tensor | None
) -> bool:
    """Adds the step of dw and dbias, if this is the algorithm to use."""
    if uses_strided_weight(g, steps.facts):
        product = strided_product(g)
        cut = strided_weight_schedule(product)
    else:
        plain = _product(g, backward=False)
        if plain is None or not uses_winograd(plain, MIN_TILES_WEIGHT[plain.kernel_size], steps.facts):
            return False
        product, cut = plain, weight_schedule(plain)
    steps.step(
        "winograd_backward_weight",
        g.work(steps.facts) * (STRIDED_SHARE if cut.stride == 2 else SHARE),
        x=steps.pointer(x),
        dy=steps.pointer(dy),
        dw=steps.pointer(dw),
        dbias=steps.pointer(dbias),
        workspace=steps.workspace(4 * cut.workspace(product, steps.facts)),
        stride=cut.stride,
        tile=cut.tile,
        kernel_size=product.kernel_size,
        block=cut.block,
        shared=int(cut.shared),
        parts=cut.parts,
        **g.winograd_arguments,
    )
    return True
