"""Gradients of a graph as more nodes of it: reverse mode, by the rules of its ops."""

from __future__ import annotations

from collections.abc import Iterable

from .graph import Graph, Tensor


def differentiate(graph: Graph, seeds: dict[Tensor, Tensor], wanted: Iterable[Tensor]) -> dict[Tensor, Tensor]:
    """Records the gradients of sum(seed * tensor) with respect to the wanted tensors.

    Only what leads to a wanted tensor is computed: the gradient of a first layer's input is never asked for.
    A wanted tensor that nothing depends on is missing from the result.
    """
    graph.recording_gradients = True
    forward = list(graph.nodes)
    wanted = set(wanted)
    leads = set(wanted)
    for node in forward:
        if any(tensor in leads for tensor in node.inputs):
            leads.update(node.outputs)
    gradients = {tensor: seed for tensor, seed in seeds.items() if tensor in leads}
    for node in reversed(forward):
        needed = [tensor in leads for tensor in node.inputs]
        dys = [gradients.get(tensor) for tensor in node.outputs]
        if not any(needed) or all(dy is None for dy in dys):
            continue
        graph.origin = node.origin
        for tensor, gradient in zip(node.inputs, node.op.gradient(node, needed, *dys), strict=True):
            if gradient is None or tensor not in leads:
                continue
            if gradient.shape != tensor.shape:
                raise AssertionError(f"gradient of {node.op}: shape {gradient.shape} for a tensor of {tensor.shape}")
            before = gradients.get(tensor)
            gradients[tensor] = gradient if before is None else graph.record("add", before, gradient)
    graph.origin = ""
    return {tensor: gradients[tensor] for tensor in wanted if tensor in gradients}
