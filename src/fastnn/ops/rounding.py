"""How many blocks hold so many things, and sizes in whole blocks."""

from __future__ import annotations

LINE = 16
"""Floats of a cache line."""

ROW_BLOCKS = 64
"""FNN_ROW_BLOCKS of csrc/kernels/row_blocks.h: blocks that a sum over the rows of a matrix is cut into, at most."""


def ceil_div(count: int, block: int) -> int:
    """Blocks that hold `count` things.

    >>> ceil_div(7, 4), ceil_div(8, 4), ceil_div(0, 4)
    (2, 2, 0)
    """
    return -(-count // block)


def round_up(count: int, block: int) -> int:
    """The least multiple of `block` that is no smaller.

    >>> round_up(7, 4)
    8
    """
    return ceil_div(count, block) * block
