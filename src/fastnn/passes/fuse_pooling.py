"""Inference: a convolution by Winograd's algorithm writes the maxima of its pixels alone, where a max pooling reads them."""

from __future__ import annotations

from ..graph import Graph, Node, Tensor
from ..ops.convolution import Convolution
from ..settings import current_facts
from .rewriting import absorb, fixed_tensors, only_reader

WINDOW = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}


def fuse_pooling(graph: Graph) -> None:
    """conv2d with its bias and activation, max_pool2d of 2x2 pixels side by side -> one conv2d with `pool`, the same bits.

    Only in graphs without gradients, where the convolution has no other reader and nobody asks which pixels won.
    """
    if any(node.is_gradient for node in graph.nodes):
        return
    users, fixed, facts = graph.users(), fixed_tensors(graph), current_facts()
    for node in list(graph.nodes):
        pooling = only_reader(users, node.outputs[0]) if node.op.name == "conv2d" else None
        if pooling is None or not _is_plain(pooling, users):
            continue
        if Convolution.can_pool(node, node.inputs[1] in fixed, facts):
            node.attributes["pool"] = True
            absorb(graph, node, pooling)


def _is_plain(node: Node, users: dict[Tensor, list[Node]]) -> bool:
    """Whether a node pools windows of WINDOW, all of them whole, to their maxima and no more."""
    if node.op.name != "max_pool2d" or any(node.attributes[name] != value for name, value in WINDOW.items()):
        return False
    (x,), (y, index) = node.inputs, node.outputs
    return y.shape[2:] == (x.shape[2] // 2, x.shape[3] // 2) and index not in users
