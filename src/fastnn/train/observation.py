"""Looking into a training step: which tensor is which layer's output, and nodes that look at tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..graph import Graph, Node, Tensor
from ..nn.module import Module
from ..nn.parameter import Parameter

RECTIFIERS = ("relu", "relu6")


@dataclass
class Observed:
    """A training step after its passes, to which monitors add nodes that only look: no fusion is lost by them, and no
    bit of the training changes.

    layers : the outputs of the layers without children by dotted name, in the order of the calls; a layer that is called
        again has its name with a number behind it. gradients : those of the parameters as the backward pass made them.
    """

    graph: Graph
    layers: list[tuple[str, Tensor]]
    gradients: list[tuple[Parameter, Tensor]]

    def made(self) -> list[tuple[str, Tensor]]:
        """The layers' outputs that exist in the plan: what went into the next layer's kernel, or is another shape of
        the same memory, has none of its own."""
        alive = {id(t) for node in self.graph.nodes if not node.op.is_view(node) for t in node.outputs}
        return [(name, tensor) for name, tensor in self.layers if id(tensor) in alive]

    def rectified(self) -> list[tuple[str, Tensor]]:
        """The outputs of all ReLUs and ReLU6s, layers or functions, by the name of the layer, or "relu" and a number."""
        names = {id(tensor): name for name, tensor in self.layers}
        nodes = [node for node in self.graph.nodes if not node.is_gradient and _is_rectifier(node)]
        return [(names.get(id(n.outputs[0]), f"relu {i}"), n.outputs[0]) for i, n in enumerate(nodes, 1)]

    def look(self, op: str, tensor: Tensor, *inputs: Tensor) -> None:
        """Records an op without outputs on a tensor, right behind the node that makes it."""
        self.graph.record(op, tensor, *inputs)
        node = self.graph.nodes.pop()
        assert tensor.node is not None
        node.is_gradient = tensor.node.is_gradient
        self.graph.nodes.insert(self.graph.nodes.index(tensor.node) + 1, node)


def _is_rectifier(node: Node) -> bool:
    return node.op.name in RECTIFIERS or node.attributes.get("activation") in RECTIFIERS


@contextmanager
def noting_outputs(model: Module, noted: list[tuple[str, Tensor]]) -> Iterator[None]:
    """Inside the block a trace of the model notes the outputs of its layers without children."""
    calls: dict[str, int] = {}
    changed: list[Module] = []

    def note(name: str, result: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        own = name if calls[name] == 1 else f"{name} #{calls[name]}"
        results: Sequence[Any] = result if isinstance(result, (tuple, list)) else (result,)
        noted.extend((own, tensor) for tensor in results if isinstance(tensor, Tensor))

    def noting(name: str, forward: Any) -> Any:
        def call(*inputs: Any, **options: Any) -> Any:
            result = forward(*inputs, **options)
            note(name, result)
            return result

        return call

    for name, module in model.named_modules():
        if not any(True for _ in module.children()) and "forward" not in module.__dict__:
            object.__setattr__(module, "forward", noting(name or type(module).__name__, module.forward))
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            module.__dict__.pop("forward")
