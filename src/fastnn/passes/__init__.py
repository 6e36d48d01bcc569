"""Rewrites of graphs, in the order in which they run before a plan is made."""

from __future__ import annotations

from collections.abc import Callable

from ..graph import Graph
from .dead_code import remove_dead_code
from .epilogue import fuse_activation_gradients, fuse_epilogues
from .fold_batch_norm import fold_batch_norm

PASSES: tuple[Callable[[Graph], None], ...] = (
    remove_dead_code,
    fold_batch_norm,
    fuse_epilogues,
    fuse_activation_gradients,
)


def run_passes(graph: Graph) -> None:
    """Applies every pass once, in order."""
    for rewrite in PASSES:
        rewrite(graph)
