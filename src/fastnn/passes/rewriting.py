"""What passes have in common: finding a single reader, what is fixed, and letting one node do the work of two."""

from __future__ import annotations

from ..graph import Graph, Node, Tensor


def only_reader(users: dict[Tensor, list[Node]], tensor: Tensor) -> Node | None:
    """The one node that reads a tensor; None if there are more, or none, or it is an output of the graph."""
    readers = users.get(tensor, [])
    return readers[0] if len(readers) == 1 else None


def fixed_tensors(graph: Graph) -> set[Tensor]:
    """What depends on variables alone that this graph does not change: the plan computes it in the prologue, once."""
    written = graph.written()
    fixed = {tensor for key, tensor in graph.variables.items() if key not in written}
    for node in graph.nodes:
        if node.inputs and not node.op.has_effects and fixed.issuperset(node.inputs):
            fixed.update(node.outputs)
    return fixed


def place_before(graph: Graph, node: Node, made: list[Node]) -> None:
    """Moves the nodes that were recorded last to the place before `node`, as a part of its layer."""
    del graph.nodes[len(graph.nodes) - len(made) :]
    for new in made:
        new.origin = node.origin
    place = graph.nodes.index(node)
    graph.nodes[place:place] = made


def absorb(graph: Graph, node: Node, reader: Node) -> None:
    """Lets `node` make the output of `reader`, at reader's place in the order, and removes reader."""
    node.outputs[0] = reader.outputs[0]
    node.outputs[0].node = node
    graph.nodes.remove(node)
    graph.nodes[graph.nodes.index(reader)] = node
