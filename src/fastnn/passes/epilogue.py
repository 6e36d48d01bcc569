"""Bias, residual addition and activation are done by the kernel that makes the value, while it is in registers."""

from __future__ import annotations

from ..graph import Graph, Node, Tensor
from ..ops.elementwise import ACTIVATIONS
from .rewriting import absorb, only_reader

MAPS = ("conv2d", "conv_transpose2d", "batch_norm_train", "batch_norm_track", "batch_norm_eval")

ACTIVATING = (*MAPS, "linear")
"""Ops that can apply one of ACTIVATIONS to their result."""

ADDING = (*MAPS, "conv2d_backward_data")
"""Ops that can add a tensor of the result's shape."""


def fuse_epilogues(graph: Graph) -> None:
    """Moves additions and activations into the node before them, where that node's own result has no other reader."""
    for node in list(graph.nodes):
        while _fuse_one(graph, node):
            pass


def _fuse_one(graph: Graph, node: Node) -> bool:
    name = node.op.name
    if name not in ADDING and name not in ACTIVATING or node not in graph.nodes or _is_activated(node):
        return False
    reader = only_reader(graph.users(), node.outputs[0])
    if reader is None:
        return False
    if name in ACTIVATING and reader.op.name in ACTIVATIONS:
        node.attributes["activation"] = reader.op.name
    elif name in ADDING and reader.op.name == "add" and not _has_residual(node):
        residual = _other(reader, node.outputs[0])
        if residual is None:
            return False
        _add_residual(node, residual)
    else:
        return False
    absorb(graph, node, reader)
    return True


def _is_activated(node: Node) -> bool:
    return node.attributes.get("activation") is not None


def _has_residual(node: Node) -> bool:
    return bool(node.attributes.get("has_residual")) or "residual" in node.attributes.get("given", ())


def _other(addition: Node, tensor: Tensor) -> Tensor | None:
    """The other operand of an addition without broadcasting."""
    others = [t for t in addition.inputs if t is not tensor]
    same = len(others) == 1 and others[0].shape == tensor.shape == addition.outputs[0].shape
    return others[0] if same else None


def _add_residual(node: Node, residual: Tensor) -> None:
    if "given" in node.attributes:  # batch normalisation names its optional inputs, in any order
        node.attributes["given"] = (*node.given, "residual")
    else:
        node.attributes["has_residual"] = True
    node.inputs.append(residual)


def fuse_activation_gradients(graph: Graph) -> None:
    """ReLU or ReLU6 behind a batch normalisation: the gradient of both in one pass.

    batch_norm_backward(relu_backward(dy, y), x, ...) -> batch_norm_backward(dy, x, ..., activation="relu"), where y is the
    result of the fused forward node and no residual came between: whether y was positive is seen from x, and y need
    not be kept.
    """
    users = graph.users()
    fused = {
        id(node.outputs[0]): node
        for node in graph.nodes
        if node.op.name.startswith("batch_norm_") and _is_activated(node) and not _has_residual(node)
    }
    for node in list(graph.nodes):
        if node.op.name != "batch_norm_backward" or node.activation is not None:
            continue
        mask = node.inputs[0].node
        if mask is None or not _masks(mask) or only_reader(users, mask.outputs[0]) is not node:
            continue
        forward = fused.get(id(mask.inputs[1]))
        if forward is not None and forward.outputs[1] is node.inputs[2]:
            node.inputs[0] = mask.inputs[0]
            node.attributes["activation"] = forward.activation
            graph.nodes.remove(mask)


def _masks(node: Node) -> bool:
    """The gradient of ReLU, or that of ReLU6, from its output."""
    limits = tuple(node.attributes.get(name) for name in ("kind", "a", "b"))
    return node.op.name == "relu_backward" or (node.op.name, *limits) == ("activation_backward", "hardtanh", 0.0, 6.0)
