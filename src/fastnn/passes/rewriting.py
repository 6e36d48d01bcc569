"""What passes have in common: finding a single reader, and letting one node do the work of two."""

from __future__ import annotations

from ..graph import Graph, Node, Tensor


def only_reader(users: dict[Tensor, list[Node]], tensor: Tensor) -> Node | None:
    """The one node that reads a tensor; None if there are more, or none, or it is an output of the graph."""
    readers = users.get(tensor, [])
    return readers[0] if len(readers) == 1 else None


def absorb(graph: Graph, node: Node, reader: Node) -> None:
    """Lets `node` make the output of `reader`, at reader's place in the order, and removes reader."""
    node.outputs[0] = reader.outputs[0]
    node.outputs[0].node = node
    graph.nodes.remove(node)
    graph.nodes[graph.nodes.index(reader)] = node
