"""Finding where the first number of a training came from that is not finite."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Graph, Tensor
from ..nn.functional.sizes import one_of
from ..nn.parameter import Buffer
from ..plan import Plan
from ..trace import Compiled, refresh_constants, runtime_values
from ..variable import Array, Variable, logical_view, weights_clock
from .batches import checked_count
from .callbacks import Callback, Logs
from .observation import noting_outputs
from .tracing import model_output


@dataclass(frozen=True)
class Finding:
    """The first place in a training with a number that is not finite.

    kind : "input", "parameter" (an update wrote it), "layer" (its output, of finite inputs and weights) or "loss".
    name : the layer's or parameter's; "x" or "loss" otherwise. step counts from 1, epoch and batch from 0.

    >>> Finding("layer", "3", step=7, epoch=0, batch=6).name
    '3'
    """

    kind: str
    name: str
    step: int
    epoch: int
    batch: int

    def __str__(self) -> str:
        where = f"in step {self.step} (epoch {self.epoch}, batch {self.batch})"
        if self.kind == "parameter":
            return f"the update {where} made parameter {self.name!r} infinite or NaN"
        what = {"input": "the input", "layer": f"the output of layer {self.name!r}", "loss": "the loss"}[self.kind]
        return f"{what} is the first that is infinite or NaN, {where}"


class FirstNonFinite(Callback):
    """Names the layer and the step that produced the first infinity or NaN of a training.

    Parameters
    ----------
    action : "stop" (default) warns and ends the training before the update of that step, the model's parameters and
        running statistics still as they were; "raise" raises FloatingPointError there; "continue" warns and goes on.
    every : look at all parameters after every so many steps, too.

    The loss tells: each step runs forward, then backward if the loss is finite, and nothing else is looked at. Only when
    it is not, the forward pass is computed again layer by layer. If parameters are no longer finite, the update of the
    step before made them so: the one named is the last in the model, where the backward pass begins. Such an update
    whose infinities do not reach the loss is found when `every` says, and its step is then the one it was found at.
    `finding` is the Finding, None: there was none. Cost: a second call a step, 10 to 40 microseconds.

    >>> import fastnn as fnn, numpy as np
    >>> from fastnn import nn, optim
    >>> class Root(nn.Module):
    ...     def forward(self, x):
    ...         return x / (x - x)
    >>> trainer = fnn.Trainer(nn.Sequential(nn.Linear(2, 3), Root()), nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    >>> guard = fnn.train.FirstNonFinite(action="raise")
    >>> trainer.fit(np.eye(2), [0, 1], callbacks=[guard], progress=False)
    Traceback (most recent call last):
    ...
    FloatingPointError: the output of layer '1' is the first that is infinite or NaN, in step 1 (epoch 0, batch 0)
    """

    def __init__(self, action: str = "stop", every: int = 100) -> None:
        self.action = one_of(action, "action", "stop", "raise", "continue")
        self.every = checked_count("every", every)
        self.finding: Finding | None = None
        self._epoch = self._batch = 0
        self._running: dict[int, tuple[Plan, Any]] = {}
        self._buffers: list[Buffer] = []

    def on_train_begin(self, logs: Logs) -> None:
        self.finding = None
        self._running.clear()
        self._buffers = list(self.trainer.model.buffers())

    def on_train_end(self, logs: Logs) -> None:
        self._running.clear()

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        self._epoch = epoch

    def on_batch_begin(self, batch: int, logs: Logs) -> None:
        self._batch = batch

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        if self.trainer.steps % self.every == 0:
            self._check_parameters(self.trainer.steps)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self._check_parameters(self.trainer.steps)

    def _check_parameters(self, step: int) -> None:
        name = self._bad_parameter() if self.finding is None else None
        if name is not None:
            self._report(Finding("parameter", name, step, self._epoch, self._batch))

    # -- a step in two parts

    def step(self, compiled: Compiled, x: Any, y: Any, runtime: Mapping[str, Any]) -> tuple[Sequence[Array], bool]:
        """A training step on data that `fit` has checked: its outputs, and whether it came to the update."""
        arguments = compiled.arguments((x, y))
        plan = compiled.plan([given.key for given in arguments])
        values = runtime_values(plan, runtime)
        refresh_constants(plan)
        instance, outputs = self._instance(plan), plan.allocate_outputs()
        arrays = (*[given.data for given in arguments], *outputs)
        before = _stored(self._buffers)
        with _put_back_on_error(before):
            plan.program.run_part(instance, 0, plan.split, arrays, values)
            if not math.isfinite(float(outputs[0])) and self.finding is None:
                statistics = _stored(self._buffers)
                _put_back(before)
                finding = self._found(x, y, runtime)
                _put_back(before if self.action != "continue" else statistics)
                self._report(finding)
                if self.action != "continue":
                    return [logical_view(output) for output in outputs], False
        last = plan.program.step_count - plan.program.prologue
        plan.program.run_part(instance, plan.split, last, arrays, values, weights_clock, plan.written)
        return [logical_view(output) for output in outputs], True

    def _instance(self, plan: Plan) -> Any:
        """Memory for the run, the same for every step but where prepared weights may have changed."""
        kept = self._running.get(id(plan))
        if kept is None or plan.program.prologue:
            kept = self._running[id(plan)] = plan, plan.program.begin()
        return kept[1]

    # -- where it came from

    def _found(self, x: Any, y: Any, runtime: Mapping[str, Any]) -> Finding:
        step = self.trainer.steps + 1
        if not np.isfinite(np.asarray(x, np.float64)).all():
            return Finding("input", "x", step, self._epoch, self._batch)
        name = self._bad_parameter()
        if name is not None:  # it was the update before that wrote it
            return Finding("parameter", name, step - 1, self._epoch, self._batch - 1)
        name = self._bad_layer(x, y, runtime)
        return Finding("layer" if name else "loss", name or "loss", step, self._epoch, self._batch)

    def _bad_parameter(self) -> str | None:
        bad = [name for name, p in self.trainer.model.named_parameters() if not np.isfinite(p.data).all()]
        return bad[-1] if bad else None

    def _bad_layer(self, x: Any, y: Any, runtime: Mapping[str, Any]) -> str | None:
        """Runs the forward pass again, each layer by itself: looking at its output keeps it from being fused."""
        layers: list[tuple[str, Variable]] = []

        def build(graph: Graph, x: Tensor, y: Tensor) -> Sequence[Tensor]:
            noted: list[tuple[str, Tensor]] = []
            with noting_outputs(self.trainer.model, noted):
                output = model_output(self.trainer.model, x, training=True)
            layers.clear()
            for name, tensor in noted:
                if tensor.dtype == "float32" and tensor.node is not None:
                    layers.append((name, Variable(np.zeros((1, 3)))))
                    graph.record("tensor_statistics", tensor, graph.variable(layers[-1][1]))
            return (output,)

        Compiled(build, (self.trainer.model.keeps_integers, True))(x, y, runtime=dict(runtime))
        return next((name for name, figures in layers if figures.view[0, 2] > 0), None)

    def _report(self, finding: Finding) -> None:
        self.finding = finding
        if self.action == "raise":
            raise FloatingPointError(str(finding))
        warnings.warn(str(finding), RuntimeWarning, stacklevel=5)
        if self.action == "stop":
            self.trainer.stop_training = True


def _stored(buffers: Sequence[Buffer]) -> list[tuple[Buffer, Array]]:
    return [(buffer, buffer.variable.storage.copy()) for buffer in buffers]


@contextmanager
def _put_back_on_error(values: Sequence[tuple[Buffer, Array]]) -> Iterator[None]:
    """A step that is broken off before its update, by Ctrl-C for example, leaves no trace."""
    try:
        yield
    except BaseException:
        _put_back(values)
        raise


def _put_back(values: Sequence[tuple[Buffer, Array]]) -> None:
    for buffer, stored in values:
        buffer.variable.assign(logical_view(stored))
