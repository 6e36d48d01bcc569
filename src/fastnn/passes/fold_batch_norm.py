"""Inference: a batch normalisation with fixed statistics becomes part of the weights before it."""

from __future__ import annotations

import numpy as np

from ..graph import Graph, Node, Tensor
from .rewriting import absorb, only_reader, place_before

LINEAR_MAPS = ("conv2d", "conv_transpose2d", "linear")


def fold_batch_norm(graph: Graph) -> None:
    """conv2d, conv_transpose2d of one group, or linear, then batch_norm_eval -> that map with scaled weights and a new bias.

    Scaling is computed when the weights change, not at each call. Only where all weights are fixed, and nobody
    else reads the map's result or the statistics (a gradient would).
    """
    users, written = graph.users(), graph.written()

    def fixed(tensor: Tensor) -> bool:
        return tensor.variable is not None and id(tensor.variable) not in written

    for node in list(graph.nodes):
        if node.op.name not in LINEAR_MAPS or _is_transposed(node) and node.groups > 1:
            continue
        reader = only_reader(users, node.outputs[0])
        if reader is None or not _foldable(reader) or reader.outputs[1] in users:
            continue
        if all(fixed(tensor) for tensor in [*node.inputs[1:], *reader.inputs[1:]]):
            _fold(graph, node, reader)


def _foldable(node: Node) -> bool:
    return node.op.name == "batch_norm_eval" and node.activation is None and "residual" not in node.given


def _fold(graph: Graph, node: Node, reader: Node) -> None:
    given = (*(("conv_bias",) if len(node.inputs) > 2 else ()), *reader.given)
    x, weight, *rest = [*node.inputs, *reader.inputs[1:]]
    before = len(graph.nodes)
    if _is_transposed(node):  # the outputs are its weight's second axis: scale ones, and the weight by them
        ones = graph.constant(np.ones(weight.shape[1], np.float32))
        scale, bias = graph.record("batch_norm_fold", ones, *rest, given=given, eps=reader.eps)
        scaled = graph.record("multiply", weight, scale.reshape(1, weight.shape[1], 1, 1))
    else:
        scaled, bias = graph.record("batch_norm_fold", weight, *rest, given=given, eps=reader.eps)
    place_before(graph, node, graph.nodes[before:])
    node.inputs = [x, scaled, bias]
    absorb(graph, node, reader)


def _is_transposed(node: Node) -> bool:
    return node.op.name == "conv_transpose2d"
