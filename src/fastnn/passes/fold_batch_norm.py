"""Inference: a batch normalisation with fixed statistics becomes part of the weights before it."""

from __future__ import annotations

from ..graph import Graph, Node, Tensor
from .rewriting import absorb, only_reader

LINEAR_MAPS = ("conv2d", "linear")


def fold_batch_norm(graph: Graph) -> None:
    """conv2d or linear, then batch_norm_eval -> the same map with scaled weights and a new bias.

    Scaling is computed when the weights change, not at each call. Only where all weights are fixed, and nobody
    else reads the map's result or the statistics (a gradient would).
    """
    users = graph.users()
    written = {id(node.inputs[i].variable) for node in graph.nodes for i in node.op.writes(node)}

    def fixed(tensor: Tensor) -> bool:
        return tensor.variable is not None and id(tensor.variable) not in written

    for node in list(graph.nodes):
        if node.op.name not in LINEAR_MAPS:
            continue
        reader = only_reader(users, node.outputs[0])
        if reader is None or not _foldable(reader) or reader.outputs[1] in users:
            continue
        if all(fixed(tensor) for tensor in [*node.inputs[1:], *reader.inputs[1:]]):
            _fold(graph, node, reader)


def _foldable(node: Node) -> bool:
    return node.op.name == "batch_norm_eval" and node.activation == "none" and "residual" not in node.given


def _fold(graph: Graph, node: Node, reader: Node) -> None:
    given = (*(("conv_bias",) if len(node.inputs) > 2 else ()), *reader.given)
    folded = graph.record("batch_norm_fold", *node.inputs[1:], *reader.inputs[1:], given=given, eps=reader.eps)
    graph.nodes.insert(graph.nodes.index(node), graph.nodes.pop())
    node.inputs = [node.inputs[0], *folded]
    absorb(graph, node, reader)
