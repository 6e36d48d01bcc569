"""The weight gradient of a linear layer, or of 1x1 filters: a product of two matrices, summed over their rows.

Where either side has few channels, both matrices are tall and are read in place (csrc/kernels/linear_tall.c); else it is a
product in blocks (csrc/kernels/gemm_blocked.c). All of it follows from the shape and the ISA, since the order of the sums
depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..graph import Tensor
from ..plan import Facts, Lowering
from .rounding import ceil_div, round_up

DEPTH_BLOCK, TILE_STEPS, PANEL_STEPS = 256, 32 * 256, 32 * 256
"""Of csrc/kernels/gemm_blocked.h: what a thread packs at a time."""

TALL_BLOCK, TALL_GAP = 128, 1024
"""Of csrc/kernels/linear_tall.c: rows that are summed at a time, and floats between what threads write."""

CHUNK_ROWS = 768
"""Rows in a part of the sum, at least."""

WIDE = 192
"""With so many channels on both sides, packing both operands pays."""

PARTS, PARTS_SHARE, MOST_PARTS = 1 << 16, 64, 8
"""Floats in all parts of the sum, or which share of both operands; and parts, at most: adding them up is to cost little. Of fewer
parts threads share slices, and read the narrow side twice."""


def blocked_workspace(steps: Lowering, rows: int, columns: int, depth: int) -> dict[str, Any]:
    """Each thread packs a block of either operand."""
    facts = steps.facts
    steps_packed = max(min(depth, DEPTH_BLOCK), 1)
    tile = round_up(facts.gemm_rows, facts.lanes)
    left = min(ceil_div(rows, facts.gemm_rows), TILE_STEPS // steps_packed) * tile
    right = min(ceil_div(columns, facts.gemm_columns), PANEL_STEPS // steps_packed) * facts.gemm_columns
    stride = steps_packed * (left + right)
    return {"workspace": steps.workspace(4 * stride * steps.facts.threads), "workspace_stride": stride}


@dataclass(frozen=True)
class TallProduct:
    """The cut of a product of tall matrices."""

    batch: int
    channels: int
    out_channels: int
    facts: Facts
    either: bool = True
    """Whether vectors may lie along the output channels."""

    @property
    def transposed(self) -> bool:
        """Vectors lie along the side with more channels: fewer lanes stay empty, and the other side fits the cache.

        But along a narrow side of one or two whole panels: tiles are as high as they can be where there are many rows.
        """
        if self.channels == self.out_channels or not self.either:
            return False
        narrow, columns = min(self.channels, self.out_channels), self.facts.gemm_columns
        return (self.channels < self.out_channels) != (narrow in (columns, 2 * columns))

    @property
    def chunks(self) -> int:
        """Parts that the sum over the rows is cut into."""
        floats = max(PARTS, self.batch * (self.channels + self.out_channels) // PARTS_SHARE)
        return max(1, min(MOST_PARTS, floats // (self.channels * self.out_channels), self.batch // CHUNK_ROWS))

    @property
    def stride(self) -> int:
        """Floats of workspace for each thread: a copy of a slice, and a gap."""
        return TALL_BLOCK * self.facts.gemm_columns + TALL_GAP

    @property
    def workspace(self) -> int:
        """Bytes: what each thread needs, and the parts of the sum."""
        parts = self.chunks * (self.channels + 1) * self.out_channels if self.chunks > 1 or self.transposed else 0
        return 4 * (parts + self.facts.threads * self.stride)


def lower_product_gradient(
    steps: Lowering, x: Tensor, dy: Tensor, dw: Tensor, dbias: Tensor | None, sizes: Mapping[str, int], work: float
) -> None:
    """The step of dw (out_channels, channels) = dy^T x and dbias, from x (batch, channels) and dy (batch, out_channels)."""
    batch, channels, out_channels = (sizes[name] for name in ("batch", "channels", "out_channels"))
    cut = TallProduct(batch, channels, out_channels, steps.facts)
    arguments: dict[str, Any] = {"chunks": 0, "transposed": False}
    if min(channels, out_channels) < WIDE:
        arguments = {"chunks": cut.chunks, "transposed": cut.transposed}
        arguments |= {"workspace": steps.workspace(cut.workspace), "workspace_stride": cut.stride}
    else:
        arguments |= blocked_workspace(steps, out_channels, channels, batch)
    pointers = {"x": steps.pointer(x), "dy": steps.pointer(dy), "dw": steps.pointer(dw), "dbias": steps.pointer(dbias)}
    steps.step("linear_backward_weight", work, **pointers, **arguments, **sizes)
