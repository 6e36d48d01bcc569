"""Rewrites of graphs, in the order in which they run before a plan is made."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..graph import Graph
from ..settings import PASS_NAMES
from .batch_moments import take_gradient_sums, take_moments
from .dead_code import remove_dead_code
from .epilogue import fuse_activation_gradients, fuse_epilogues
from .fold_batch_norm import fold_batch_norm
from .fold_flatten import fold_flatten
from .fuse_inverted_residuals import fuse_inverted_residuals
from .fuse_pooling import fuse_pooling
from .fuse_updates import fuse_updates
from .read_planes import read_planes

PASSES: tuple[Callable[[Graph], None], ...] = (
    remove_dead_code,
    fold_batch_norm,
    fold_flatten,
    fuse_epilogues,
    fuse_activation_gradients,
    fuse_inverted_residuals,
    read_planes,
    fuse_pooling,
    take_moments,
    take_gradient_sums,
    fuse_updates,
)

PASS_NAMES.extend(rewrite.__name__ for rewrite in PASSES)


def run_passes(graph: Graph, without: Collection[str] = ()) -> None:
    """Applies every pass once, in order, but those whose names are left out."""
    for rewrite in PASSES:
        if rewrite.__name__ not in without:
            rewrite(graph)
