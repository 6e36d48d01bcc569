"""Inference: the three convolutions of an inverted residual block become one step, whose wide images stay in cache."""

from __future__ import annotations

from ..graph import OPS, Graph, Node, Tensor
from ..ops.convolution import Convolution
from ..ops.inverted_residual import MAX_ROWS, Block
from ..settings import current_facts
from .rewriting import only_reader


def fuse_inverted_residuals(graph: Graph) -> None:
    """1x1 conv2d -> depthwise conv2d -> 1x1 conv2d, each with its bias and activation, the last with a residual ->
    inverted_residual.

    Only in graphs without gradients, where each image on the way has one reader, and where it is faster (`Block.pays`).
    """
    if any(node.is_gradient for node in graph.nodes):
        return
    users, facts = graph.users(), current_facts()
    for depthwise in [node for node in graph.nodes if _is_depthwise(node)]:
        expand, project = depthwise.inputs[0].node, only_reader(users, depthwise.outputs[0])
        if expand is None or only_reader(users, expand.outputs[0]) is not depthwise or not _is_product(expand):
            continue
        if project is None or not _is_product(project) or depthwise.outputs[0] is not project.inputs[0]:
            continue
        weights = [node.inputs[1].shape for node in (expand, depthwise, project)]
        block = Block.of(expand.inputs[0].shape, weights, depthwise.stride, depthwise.padding)
        if Convolution.residual(expand) is None and block.pays(facts):
            _fuse(graph, expand, depthwise, project)


def _fuse(graph: Graph, expand: Node, depthwise: Node, project: Node) -> None:
    """Lets `project` be the node of all three."""
    nodes = {"expand_": expand, "depthwise_": depthwise, "": project}
    named: dict[str, Tensor | None] = {f"{prefix}weight": node.inputs[1] for prefix, node in nodes.items()}
    named |= {f"{prefix}bias": Convolution.bias(node) for prefix, node in nodes.items()}
    named["residual"] = Convolution.residual(project)
    given = {name: tensor for name, tensor in named.items() if tensor is not None}
    project.op = OPS["inverted_residual"]
    project.inputs = [expand.inputs[0], *given.values()]
    project.attributes = {
        "given": tuple(given),
        "activations": tuple(node.attributes.get("activation") for node in nodes.values()),
        "stride": depthwise.stride,
        "padding": depthwise.padding,
    }
    graph.nodes.remove(expand)
    graph.nodes.remove(depthwise)


def _is_depthwise(node: Node) -> bool:
    """Whether a node is a depthwise convolution as the kernel makes it."""
    if node.op.name != "conv2d" or Convolution.residual(node) is not None:
        return False
    (_, channels, _, _), (out_channels, _, rows, _) = node.inputs[0].shape, node.inputs[1].shape
    return node.groups == channels == out_channels and node.dilation == (1, 1) and rows <= MAX_ROWS


def _is_product(node: Node) -> bool:
    """Whether a node is a convolution that multiplies each pixel by one matrix."""
    if node.op.name != "conv2d" or node.inputs[1].shape[2:] != (1, 1):
        return False
    return node.groups == 1 and node.stride == (1, 1) and not any(node.padding)
