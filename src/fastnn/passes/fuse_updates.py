"""Training: the gradient of a large linear layer's weight is made where the optimizer uses it, and never stored."""

from __future__ import annotations

from ..graph import Graph, Node, Tensor
from ..ops.optimizer import Update, rows_of
from ..ops.product_gradient import DEPTH_BLOCK, WIDE
from .rewriting import only_reader, place_before

LEAST = 1 << 20
"""Weights from which on it pays: a smaller gradient stays in the caches until it is used. By measurement."""


def fuse_updates(graph: Graph) -> None:
    """linear_backward_weight, then an update that alone reads the weight's gradient -> an update that is given its factors.

    The same bits, and none of the gradient's memory. Sums are one block long there, so only for batches of at most that;
    a gradient that is clipped, penalised, averaged, returned or looked at is made as before.
    """
    users = graph.users()
    for node in list(graph.nodes):
        if isinstance(node.op, Update):
            for position in range(Update.parameter_count(node)):
                _factor(graph, users, node, position)


def _factor(graph: Graph, users: dict[Tensor, list[Node]], node: Node, position: int) -> None:
    gradient = node.inputs[Update.gradient_at(node, position)]
    maker = gradient.node
    if maker is None or maker.op.name != "linear_backward_weight" or only_reader(users, gradient) is not node:
        return
    x, dy = maker.inputs
    if not 0 < rows_of(x) <= DEPTH_BLOCK or min(gradient.shape) < WIDE or gradient.spec.size < 4 * LEAST:
        return
    Update.factor(node, position, x, dy)
    if maker.has_bias:
        dbias = graph.record("linear_backward_bias", dy)
        dbias.node.is_gradient = True
        place_before(graph, maker, [dbias.node])
        graph.replace(maker.outputs[1], dbias)
    graph.nodes.remove(maker)
