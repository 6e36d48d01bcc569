"""How many blocks hold so many things, and sizes in whole blocks."""

from __future__ import annotations


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
