"""Kernel calls of Winograd convolutions with stride 2 (csrc/kernels/winograd_strided_*.c), and which convolutions they are.

Filters of 3x3 with stride 2 are four convolutions of 2x2, 2x1, 1x2 and 1 taps over the phases of the image (winograd_strided.h),
in tiles of 4x4 outputs: 81 products instead of 144.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..graph import Tensor
from ..plan import Facts, Lowering, Reference
from .convolution_algorithm import (
    GROUP_TILES,
    PACKED_BYTES,
    PACKED_TILES,
    PATCH_BYTES,
    Form,
    even_blocks,
    own_block,
    packed_size,
    patches_size,
    unit_floats,
)
from .convolution_geometry import Geometry
from .rounding import ceil_div

TILE = 4
"""The side of the only tiles that there are."""

PLANES = 25
PHASES = 4
PRODUCTS = 81
"""Of a full tile, for each pair of channels: 16 planes of four phases, 8 of two, one of one."""

SHARE = 0.6
"""Of the direct algorithm's time, about."""

MIN_CHANNELS = 16
"""With fewer channels on either side, the transforms cost more than they save."""

MIN_TILES = 32
"""With fewer tiles, the transform of the filters, or reading those that no cache holds, costs more than it saves."""

MIN_TILES_CACHED = 16
"""Likewise if the filters are fixed and stay in cache (PACKED_BYTES)."""

MAX_SHARE = 0.59
"""Of the direct algorithm's products; a full tile has 0.5625. What tiles of few outputs need more is more than they save."""

OWN_BYTES = 4 << 20
"""Transformed filters up to this size stay in cache: each thread works on blocks of tiles of its own. Larger ones are
walked through by the whole team, as seldom as possible."""


def applies(g: Geometry) -> bool:
    """Whether the kernels compute it: 3x3 filters, stride 2, no dilation, one group, padding less than the filters."""
    plain = g.weight[2:] == (3, 3) and g.stride == (2, 2) and g.dilation == (1, 1) and g.groups == 1
    return plain and max(g.padding) <= 2


@dataclass(frozen=True)
class StridedProduct:
    """A convolution with stride 2 as its kernel sees it: of the input, or backward of the output's gradient."""

    batch: int
    rows: int
    """Of outputs that tiles have in an image: of y, or pairs of rows of dx."""
    columns: int
    channels: int
    """Of the image that is read; they are summed over, forward in each of its phases."""
    out_channels: int
    backward: bool
    fixed: bool = False
    """Whether the weights do not change, so that their transform costs nothing."""

    @property
    def tiles(self) -> int:
        return self.batch * ceil_div(self.rows, TILE) * ceil_div(self.columns, TILE)

    @property
    def share(self) -> float:
        """Products, of nine for each output. A tile of m outputs in one direction has 2*m + 1, m and infinity of the even
        phase, m of the odd one."""
        rows, columns = (2 + ceil_div(n, TILE) / n for n in (self.rows, self.columns))
        return rows * columns / 9

    @property
    def filter_bytes(self) -> int:
        """Of the transformed filters."""
        return 4 * PRODUCTS * self.channels * self.out_channels

    @property
    def in_phases(self) -> int:
        return 1 if self.backward else PHASES

    @property
    def pays(self) -> bool:
        """Whether it is faster than the direct algorithm, by measurement on AVX2."""
        if min(self.channels, self.out_channels) < MIN_CHANNELS or self.share > MAX_SHARE:
            return False
        cached = self.fixed and self.filter_bytes <= PACKED_BYTES
        return self.tiles >= (MIN_TILES_CACHED if cached else MIN_TILES)


def product_of(g: Geometry, backward: bool, fixed: bool = False) -> StridedProduct:
    (batch, channels, height, width), (_, out_channels, out_height, out_width) = g.x, g.y
    if not backward:
        return StridedProduct(batch, out_height, out_width, channels, out_channels, backward, fixed)
    # with even padding the first pair of pixels begins outside of the image
    rows, columns = (ceil_div(n + 1 - pad % 2, 2) for n, pad in ((height, g.padding[0]), (width, g.padding[2])))
    return StridedProduct(batch, rows, columns, out_channels, channels, backward, fixed)


@dataclass(frozen=True)
class StridedSchedule:
    """How a kernel cuts its work; no bit depends on it. See the headers of csrc/kernels/winograd_strided_*.c."""

    block: int
    shared: bool
    form: Form

    def workspace(self, product: StridedProduct, facts: Facts) -> int:
        """Floats."""
        patches = product.in_phases * patches_size(product.channels, PLANES, self.block, facts)
        each = unit_floats(PLANES, self.block, self.form, facts)
        return patches + facts.threads * each if self.shared else facts.threads * (patches + each)


def schedule(product: StridedProduct, facts: Facts) -> StridedSchedule:
    tiles, filters = product.tiles, product.filter_bytes
    packed = product.fixed or filters <= (PACKED_BYTES if tiles > PACKED_TILES else OWN_BYTES)
    form = Form.PACKED if packed else Form.ROTATED if product.backward else Form.FILTERS
    if block := own_block(tiles, filters, OWN_BYTES, facts):
        return StridedSchedule(block, shared=False, form=form)
    tile_bytes = 4 * PLANES * product.in_phases * product.channels
    most = max(PATCH_BYTES // tile_bytes // GROUP_TILES, 1) * GROUP_TILES
    return StridedSchedule(even_blocks(tiles, most), shared=True, form=form)


def packed_floats(product: StridedProduct, facts: Facts) -> int:
    """Of packed filters, at most."""
    if product.backward:
        return PHASES * packed_size(product.out_channels, product.channels, PLANES, facts)
    return packed_size(product.out_channels, PHASES * product.channels, PLANES, facts)


def uses(product: StridedProduct, facts: Facts) -> bool:
    """The caller's wish counts, then the table."""
    return facts.convolution == "winograd" or (facts.convolution == "auto" and product.pays)


def is_strided_forward(steps: Lowering, g: Geometry, weight: Tensor) -> bool:
    """Whether this is the algorithm to use forward."""
    return applies(g) and uses(product_of(g, False, steps.is_fixed(weight)), steps.facts)


def _packed(steps: Lowering, g: Geometry, weight: Tensor, product: StridedProduct) -> Reference:
    name = "winograd_strided_pack_weight_backward" if product.backward else "winograd_strided_pack_weight"
    sizes = {"out_channels": g.weight[0], "channels": g.weight[1]}
    return steps.prepared(weight, name, 4 * packed_floats(product, steps.facts), name, weight.spec.size / 4, **sizes)


def _lower(
    steps: Lowering, g: Geometry, image: Tensor, weight: Tensor, result: Tensor, epilogue: dict[str, Any],
    product: StridedProduct,
) -> None:  # fmt: skip
    backward = product.backward
    cut = schedule(product, steps.facts)
    filters = _packed(steps, g, weight, product) if cut.form == Form.PACKED else steps.pointer(weight)
    names = ("dy", "dx") if backward else ("x", "y")
    images = dict(zip(names, (steps.pointer(image), steps.pointer(result)), strict=True))
    steps.step(
        "winograd_strided_backward_data" if backward else "winograd_strided_forward",
        g.work(steps.facts) * SHARE,
        weight=filters,
        weight_form=int(cut.form),
        workspace=steps.workspace(4 * cut.workspace(product, steps.facts)),
        block=cut.block,
        shared=int(cut.shared),
        **images,
        **epilogue,
        **g.winograd_arguments,
    )


def lower_strided_forward(
    steps: Lowering, g: Geometry, x: Tensor, weight: Tensor, y: Tensor, epilogue: dict[str, Any]
) -> None:
    """Adds the steps of y = activation(conv(x, weight) + bias + residual) where is_strided_forward says so. epilogue: bias,
    residual and activation as the kernel takes them."""
    _lower(steps, g, x, weight, y, epilogue, product_of(g, False, steps.is_fixed(weight)))


def lower_strided_backward_data(
    steps: Lowering, g: Geometry, dy: Tensor, weight: Tensor, dx: Tensor, epilogue: dict[str, Any]
) -> bool:
    """Adds the steps of dx, if this is the algorithm to use."""
    if not applies(g) or not uses(product := product_of(g, True, steps.is_fixed(weight)), steps.facts):
        return False
    _lower(steps, g, dy, weight, dx, epilogue, product)
    return True
