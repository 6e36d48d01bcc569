"""Inference: a linear layer reads an image as it lies in memory; its weight's columns are permuted instead, once."""

from __future__ import annotations

from ..graph import OPS, Graph, Node, Tensor
from .rewriting import fixed_tensors, only_reader, place_before

LARGEST_WEIGHT = 16 << 20
"""Bytes up to which a weight is worth a second form: reading a larger one takes hundreds of times as long as the
transpose that is saved."""


def fold_flatten(graph: Graph) -> None:
    """reshape of images (N,C,H,W) to rows (..., C*H*W), activations, linear -> view of the images' memory, the same
    activations, linear with its weight's columns in the order H,W,C.

    The columns are permuted when the weights change, not at each call. Only in graphs without gradients, where the weight
    is fixed and each value on the way has one reader.
    """
    if any(node.is_gradient for node in graph.nodes):
        return
    users, fixed = graph.users(), fixed_tensors(graph)
    for node in list(graph.nodes):
        linear = _linear_behind(node, users) if _is_flatten(node) else None
        if linear is not None and linear.inputs[1] in fixed and linear.inputs[1].spec.size <= LARGEST_WEIGHT:
            node.op = OPS["memory_view"]
            _permute_columns(graph, linear, node.inputs[0])


def _is_flatten(node: Node) -> bool:
    """Whether a node turns each image into a row of its own, in an order that is not the memory's."""
    if node.op.name != "reshape" or node.op.is_view(node):
        return False
    (x,), (y,) = node.inputs, node.outputs
    return x.ndim == 4 and y.shape[-1:] == (x.shape[1] * x.shape[2] * x.shape[3],)


def _linear_behind(flatten: Node, users: dict[Tensor, list[Node]]) -> Node | None:
    """The linear layer that alone reads the rows, or what activations make of each of their elements."""
    rows = flatten.outputs[0]
    reader = only_reader(users, rows)
    while reader is not None and reader.op.name in ("relu", "relu6", "activation"):
        rows = reader.outputs[0]
        reader = only_reader(users, rows)
    if reader is None or reader.op.name != "linear" or rows is not reader.inputs[0]:
        return None
    return reader


def _permute_columns(graph: Graph, linear: Node, image: Tensor) -> None:
    """Columns as filters: an image's worth of them in logical order, transposed to lie as images do."""
    weight, before = linear.inputs[1], len(graph.nodes)
    filters = graph.record("reshape", weight, shape=(weight.shape[0], *image.shape[1:]))
    linear.inputs[1] = graph.record("memory_view", filters, shape=weight.shape)
    place_before(graph, linear, graph.nodes[before:])
