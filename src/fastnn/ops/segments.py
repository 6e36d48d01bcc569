"""Blocks of the kernels that work over a list of tensors (csrc/kernels/segments.h)."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Tensor
from .elementwise import elements
from .rounding import ceil_div

SEGMENT_BLOCK = 4096
"""Elements of a block."""


def segment_blocks(tensors: Sequence[Tensor]) -> int:
    """Blocks of all tensors."""
    return sum(ceil_div(elements(tensor), SEGMENT_BLOCK) for tensor in tensors)
