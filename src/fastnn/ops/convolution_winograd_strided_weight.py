"""Which weight gradients of convolutions with stride 2 Winograd's algorithm computes, and how they are cut.

Filters of 3x3 taps, over the four phases of the image: tiles of 4x4 outputs from 81 products instead of 144 (csrc/kernels/
winograd_phases.h). Nothing here depends on the number of threads: all of it decides bits.
"""

from __future__ import annotations

from ..plan import Facts
from .convolution_algorithm import PART_BYTES, Product, WeightSchedule, even_blocks
from .convolution_geometry import Geometry
from .convolution_winograd_strided import TILE, applies

STRIDED_SHARE = 0.7
"""Of the direct algorithm's time, about."""

PLANES, ERROR_PLANES = (2 * TILE + 1) ** 2, (TILE + 1) ** 2
"""Products of one tile: planes of its patch of x; and those of its patch of dy."""

MIN_CHANNELS = 16
"""With fewer channels on either side, the transforms cost more than they save."""

MIN_TILES = 48
"""With fewer tiles, the transform of the gradient costs more than it saves."""

MAX_SHARE = 0.75
"""Tiles that overhang a small image must still save a quarter of the direct algorithm's products."""

PART_TILES = 64
"""Tiles of a part, at least, and of its blocks, at most."""

BLOCK_BYTES = 5 << 20
"""Transformed patches of a block of more than 64 tiles."""


def strided_product(g: Geometry) -> Product:
    """The convolution whose result has the tiles."""
    batch, out_channels, height, width = g.y
    return Product(batch, height, width, g.weight[1], out_channels)


def _pays(product: Product) -> bool:
    """Whether it is faster than the direct algorithm, by measurement on AVX2."""
    tiles = product.tiles(TILE)
    few = min(product.channels, product.out_channels) < MIN_CHANNELS or tiles < MIN_TILES
    return not few and tiles * PLANES <= MAX_SHARE * product.direct_products


def uses_strided_weight(g: Geometry, facts: Facts) -> bool:
    """Where the algorithm applies, the caller's wish counts, then the table."""
    if not applies(g):
        return False
    return facts.convolution == "winograd" or (facts.convolution == "auto" and _pays(strided_product(g)))


def strided_weight_schedule(product: Product) -> WeightSchedule:
    tiles = product.tiles(TILE)
    parts = min(8, tiles // PART_TILES)
    if 4 * PLANES * product.channels * product.out_channels <= PART_BYTES and parts >= 4:
        return WeightSchedule(TILE, PART_TILES, shared=False, parts=parts, stride=2)
    floats = PLANES * product.channels + ERROR_PLANES * product.out_channels
    most = next((block for block in (128, 96) if 4 * floats * block <= BLOCK_BYTES), 64)
    return WeightSchedule(TILE, even_blocks(tiles, most), shared=True, parts=1, stride=2)
