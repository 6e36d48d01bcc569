"""Removes nodes whose outputs nobody reads."""

from __future__ import annotations

from ..graph import Graph, Node


def remove_dead_code(graph: Graph) -> None:
    """Keeps what leads to an output, and what changes a variable."""
    live = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.op.has_effects or any(tensor in live for tensor in node.outputs):
            live.update(node.inputs)
            kept.append(node)
    graph.nodes = kept[::-1]
