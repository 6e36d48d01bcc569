"""Which algorithm computes a convolution, and how it is cut: from the shape and the tables here.

With stride 1, Winograd's algorithm makes tiles of 4x4 outputs of 3x3 filters from 36 products instead of 144, or tiles
of 2x2 from 16 instead of 36, and tiles of 2x2 outputs of 5x5 filters from 36 instead of 100. What decides the bits of a
result (algorithm, tile, blocks and parts of a weight gradient) never depends on the number of threads; how the work is
cut may.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..plan import Facts
from .rounding import ceil_div, round_up

TILES = {3: (4, 2), 5: (2,)}
"""The sides of the tiles that there are, by the filter's side."""

DEPTH = 64
"""WINOGRAD_DEPTH of csrc/kernels/winograd.h: channels in a chunk."""

GROUP_COLUMNS = 64
"""WINOGRAD_GROUP_COLUMNS: output channels in a unit of work."""

GROUP_TILES = 70
"""WINOGRAD_GROUP_TILES: tiles in a unit of work."""

LINE = 16
"""WINOGRAD_LINE: floats between planes."""

MIN_CHANNELS = {3: 8, 5: 12}
"""By the filter's side. With fewer channels on either side, the transforms cost more than they save."""

MIN_TILES = {True: 8, False: 4}
"""With fewer tiles, the transform of the filters costs more than it saves. Key: whether the weights are fixed; where they
change with every step the direct algorithm would have to pack them, too. More for their gradient, which is transformed
back. Fixed weights may do with fewer, see Product.saves."""

MIN_TILES_WEIGHT = {3: 12, 5: 20}

MAX_SHARE = 0.5
"""Tiles that overhang a small image must still save half of the direct algorithm's products."""

SAVING = 0.8
"""Fixed weights: of the direct algorithm's time, what Winograd's must not exceed by estimate."""

LARGER_TILE = 0.9
"""Fixed weights: of the time with smaller tiles, what larger ones, which round more and read more, must not exceed."""

TRANSFORM = 48
"""Channels for whose products of a tile its transforms take as long as the products themselves."""

READ = {True: 3.5, False: 7.0}
"""Products that take as long as reading a float of the filters. Key: whether all of them stay in cache (PACKED_BYTES)."""

PACKED_BYTES = 12 << 20
"""Larger transformed filters, if they change with every step, are made on the way, while they are in cache: writing
them to memory takes as long as the products save. So are smaller ones that few tiles use."""

PACKED_TILES = 2 * GROUP_TILES
"""Tiles that are few in this sense."""

READ_TILES, MAKING_LANES = 16, 16
"""With fewer tiles even reading transformed filters beyond PACKED_BYTES takes longer than making them, in vectors of at
least so many lanes."""

OWN_BYTES = 3 << 20
"""Transformed filters up to this size stay in cache: each thread works on blocks of tiles of its own. Larger ones are
walked through by the whole team, as seldom as possible."""

OWN_TILES = 28, 14
"""Tiles in such a block, at most: as many whole register tiles."""

PATCH_BYTES = 8 << 20
"""Transformed patches that a team works on at a time."""

PART_BYTES = 5 << 18
"""Larger transformed weight gradients are summed by the whole team at once, instead of in a part for each thread."""


UNIT_FLOATS = 128 * 1024
"""UNIT_FLOATS of csrc/kernels/winograd_backward_weight.c: of a transformed gradient that a thread makes at a time."""

LARGE_FLOATS = 4 * UNIT_FLOATS
"""LARGE_FLOATS of the same: of one block's transformed gradient from which on it is made so."""


def planes_of(tile: int, kernel_size: int) -> int:
    """Products of one tile."""
    return (tile + kernel_size - 1) ** 2


@dataclass(frozen=True)
class Product:
    """A Winograd convolution as the forward kernel sees it; for the gradient of the input, dy is the image."""

    batch: int
    height: int
    width: int
    """Of the result."""
    channels: int
    out_channels: int
    kernel_size: int = 3
    """Side of the filter."""
    fixed: bool = False
    """Whether the weights do not change, so that their transform costs nothing."""

    def tiles(self, tile: int) -> int:
        return self.batch * ceil_div(self.height, tile) * ceil_div(self.width, tile)

    def products(self, tile: int) -> int:
        """For each pair of channels."""
        return self.tiles(tile) * planes_of(tile, self.kernel_size)

    @property
    def direct_products(self) -> int:
        """Likewise, of the direct algorithm."""
        return self.kernel_size**2 * self.batch * self.height * self.width

    @property
    def tile(self) -> int:
        """The one of fewest products, or with fixed weights of the least time by estimate; of equal ones the smallest, which
        is the most accurate one."""
        small, *larger = sorted(TILES[self.kernel_size])
        if self.fixed:
            return next((tile for tile in larger if self._time(tile) < LARGER_TILE * self._time(small)), small)
        return min((small, *larger), key=lambda tile: (self.products(tile), tile))

    def pays(self, min_tiles: int) -> bool:
        """Whether it is faster than the direct algorithm, by measurement on AVX-512, AVX2 and scalar."""
        if min(self.channels, self.out_channels) < MIN_CHANNELS[self.kernel_size]:
            return False
        many = self.tiles(self.tile) >= min_tiles and self.products(self.tile) <= MAX_SHARE * self.direct_products
        return many or (self.fixed and self.saves)

    @property
    def saves(self) -> bool:
        """Whether few tiles save time by estimate, the weights being transformed beforehand: what must be read of them counts
        as much as the products."""
        return self._time(self.tile) <= SAVING * self._time(0)

    def _time(self, tile: int) -> float:
        """In products; tile 0: of the direct algorithm. Reading filters and multiplying go on at once, not quite."""
        if tile:
            products = self.products(tile) * (1 + TRANSFORM / min(self.channels, self.out_channels))
            floats = planes_of(tile, self.kernel_size)
        else:
            products, floats = self.direct_products, self.kernel_size**2
        reading = floats * READ[4 * floats * self.channels * self.out_channels <= PACKED_BYTES]
        return max(products, reading) + min(products, reading) / 3

    @property
    def filter_bytes(self) -> int:
        return 4 * planes_of(self.tile, self.kernel_size) * self.channels * self.out_channels


class Form(IntEnum):
    """How the forward kernel is given its weights: enum winograd_form of csrc/kernels/winograd.h."""

    PACKED = 0
    FILTERS = 1
    ROTATED = 2
    PANELS = 3


@dataclass(frozen=True)
class Schedule:
    """How winograd_forward cuts its work; see the header of csrc/kernels/winograd_forward.c."""

    tile: int
    block: int
    shared: bool
    form: Form

    def workspace(self, product: Product, facts: Facts) -> int:
        """Floats."""
        planes = planes_of(self.tile, product.kernel_size)
        patches = patches_size(product.channels, planes, self.block, facts)
        each = unit_floats(planes, self.block, self.form, facts)
        return patches + facts.threads * each if self.shared else facts.threads * (patches + each)


def patches_size(channels: int, planes: int, block: int, facts: Facts) -> int:
    """Floats of the transformed patches of a block of tiles (struct winograd_patches)."""
    width = min(DEPTH, round_up(channels, facts.lanes))
    return planes * ceil_div(channels, DEPTH) * (block * width + LINE)


def packed_size(columns: int, depth: int, planes: int, facts: Facts) -> int:
    """Floats of packed filters, at most."""
    return planes * ceil_div(columns, facts.gemm_columns) * (depth * facts.gemm_columns + LINE)


def even_blocks(tiles: int, most: int) -> int:
    """The block of at most so many tiles that cuts them evenly."""
    return max(ceil_div(tiles, max(ceil_div(tiles, most), 1)), 1)


def own_block(tiles: int, filter_bytes: int, own_bytes: int, facts: Facts) -> int | None:
    """Tiles that a thread has of its own at a time; None where the whole team walks through the filters."""
    for most in OWN_TILES:
        block = most // facts.gemm_rows * facts.gemm_rows
        if filter_bytes <= own_bytes and tiles >= 4 * facts.threads * block:
            return block
    return None


def unit_floats(planes: int, block: int, form: Form, facts: Facts) -> int:
    """Floats that a thread works with: the products of a unit of work, and its filters where they are made on the way."""
    products = min(block, GROUP_TILES) * (planes * GROUP_COLUMNS + LINE)
    if form == Form.PACKED:
        return products
    return products + planes * GROUP_COLUMNS // facts.gemm_columns * (DEPTH * facts.gemm_columns + LINE)


def _form(product: Product, backward: bool, lanes: int) -> Form:
    filters, tiles = product.filter_bytes, product.tiles(product.tile)
    if filters <= OWN_BYTES or (filters <= PACKED_BYTES and (product.fixed or tiles > PACKED_TILES)):
        return Form.PACKED
    if product.fixed:
        return Form.PACKED if backward or tiles >= READ_TILES or lanes < MAKING_LANES else Form.PANELS
    return Form.ROTATED if backward else Form.FILTERS


def schedule(product: Product, backward: bool, facts: Facts) -> Schedule:
    """The bits depend on the tile alone."""
    tile = product.tile
    tiles, filters = product.tiles(tile), product.filter_bytes
    form = _form(product, backward, facts.lanes)
    if block := own_block(tiles, filters, OWN_BYTES, facts):
        return Schedule(tile, block, shared=False, form=form)
    most = PATCH_BYTES // (4 * planes_of(tile, product.kernel_size) * product.channels) // GROUP_TILES * GROUP_TILES
    return Schedule(tile, even_blocks(tiles, max(most, GROUP_TILES)), shared=True, form=form)


@dataclass(frozen=True)
class WeightSchedule:
    """How winograd_backward_weight cuts its work; all of it decides bits. See that kernel's header."""

    tile: int
    block: int
    shared: bool
    parts: int
    stride: int = 1

    def planes(self, kernel_size: int) -> tuple[int, int]:
        """Of transformed patches of x and of dy."""
        if self.stride == 2:
            return (2 * self.tile + 1) ** 2, (self.tile + 1) ** 2
        return (planes_of(self.tile, kernel_size),) * 2

    def workspace(self, product: Product, facts: Facts) -> int:
        """Floats."""
        columns, rows = round_up(product.channels, facts.lanes), round_up(product.out_channels, facts.lanes)
        planes, error_planes = self.planes(product.kernel_size)
        patches = patches_size(product.channels, planes, self.block, facts)
        errors = patches_size(product.out_channels, error_planes, self.block, facts)
        each = patches + errors + self.block * rows
        gradient = planes * (product.out_channels * columns + LINE)
        if self.shared and product.tiles(self.tile) <= self.block and gradient > LARGE_FLOATS:
            return rows + each + facts.threads * (UNIT_FLOATS + planes * LINE)
        return self.parts * (gradient + rows) + (each if self.shared else facts.threads * each)


def weight_schedule(product: Product) -> WeightSchedule:
    tile = product.tile
    tiles = product.tiles(tile)
    parts = min(8, tiles // 98)
    if product.filter_bytes <= PART_BYTES and parts >= 4:
        return WeightSchedule(tile, 56, shared=False, parts=parts)
    return WeightSchedule(tile, even_blocks(tiles, 64), shared=True, parts=1)


def uses_winograd(product: Product, min_tiles: int, facts: Facts) -> bool:
    """Where Winograd's algorithm applies, the caller's wish counts, then the table."""
    return facts.convolution == "winograd" or (facts.convolution == "auto" and product.pays(min_tiles))
