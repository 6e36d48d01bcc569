"""Inference: a convolution reads images that lie N,C,H,W in memory as they are, instead of a transposed copy."""

from __future__ import annotations

from ..graph import Graph
from .rewriting import only_reader


def read_planes(graph: Graph) -> None:
    """to_channels_last, conv2d -> conv2d(planar=True).

    Only where nobody else reads the copy: in training, the gradient of the weight does. A convolution that runs in another
    form than strips makes the copy itself.
    """
    users = graph.users()
    for node in list(graph.nodes):
        if node.op.name != "to_channels_last":
            continue
        reader = only_reader(users, node.outputs[0])
        if reader is not None and reader.op.name == "conv2d" and reader.inputs[0] is node.outputs[0]:
            reader.inputs[0] = node.inputs[0]
            reader.attributes["planar"] = True
            graph.nodes.remove(node)
