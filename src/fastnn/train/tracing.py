"""What the Trainer needs around a trace: the mode of its modules, outputs of their own, and a look at all targets before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..graph import Graph, Tensor
from ..nn.module import Module
from ..trace import Argument, Compiled, argument, check_limits
from .batches import Batches


def as_output(graph: Graph, value: Tensor) -> Tensor:
    """A copy of what is only another view of something, so that the forward part of the plan writes the output."""
    is_view = value.node is not None and value.node.op.is_view(value.node)
    copied: Tensor = graph.record("copy", value) if is_view else value
    return copied


def check_batches(compiled: Compiled, data: Batches) -> None:
    """Compiles for every size of batch that will occur, and checks all targets, before anything is touched."""
    for size in data.sizes():
        arguments = compiled.arguments((data.x[:size], data.y[:size]))
        plan = compiled.plan([given.key for given in arguments])
        x = argument(data.x, integers=True) if plan.inputs[0].limits else arguments[0]
        whole: list[Argument] = [x, argument(data.y, integers=True)]
        check_limits(plan, whole)


@contextmanager
def traced_mode(model: Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode while a model is traced, unnoticed by anyone else."""
    before = [(module, module.training) for module in model.modules()]
    if not (training and model.training):
        for module, _ in before:
            object.__setattr__(module, "training", training)
    try:
        yield
    finally:
        for module, mode in before:
            object.__setattr__(module, "training", mode)


def model_output(model: Module, x: Tensor, training: bool) -> Tensor:
    """Traces the model in the given mode; what it returns must be one tensor."""
    with traced_mode(model, training):
        output = model(x)
    if not isinstance(output, Tensor):
        raise TypeError(f"Trainer: the model must return one tensor, not {type(output).__name__}")
    return output
