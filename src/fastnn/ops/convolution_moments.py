"""Convolutions that take the sums over their result that a batch normalisation begins with: which, and in what blocks.

Forward these are the moments of y, backward the sums of the gradient dx.

Pointwise and depthwise ones, that memory limits. Others are bounded by arithmetic: in a ResNet-18 all that
normalisations could save is 1 % of a step. The blocks depend on the shape alone.
"""

from __future__ import annotations

from ..graph import Shape
from .convolution_geometry import Geometry
from .rounding import ceil_div

BLOCKS = 128
"""Blocks that many threads can share, as long as they have a size worth it."""

LEAST_ROWS, MOST_ROWS = 84, 1536
"""Pixels of a block, about: whole register tiles of every ISA, and additions that cost a mean no digits."""

LEAST_BYTES = 8 << 20
"""Of a result: smaller ones the normalisation finds in cache, where reading costs less than adding up moments vector by vector
(measured on pointwise and depthwise convolutions of 2 to 77 MB)."""


def block_rows(g: Geometry, shape: Shape) -> int:
    """Pixels of a block of the convolution's result, or of its gradient of the input, of this shape: whole rows of the image.

    0 where the normalisation had better read them itself.
    """
    n, channels, height, width = shape
    if not (g.is_pointwise or g.is_depthwise) or 4 * n * channels * height * width < LEAST_BYTES or n == 0:
        return 0
    rows = min(ceil_div(n * height, BLOCKS), MOST_ROWS // width)
    return width * max(rows, ceil_div(LEAST_ROWS, width))


def block_count(shape: Shape, rows: int) -> int:
    n, _, height, width = shape
    return ceil_div(n * height * width, rows)
