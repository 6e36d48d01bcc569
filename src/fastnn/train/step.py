"""One training step: forward, loss, backward and update as one plan, made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from ..benchmark.machine import Machine
from ..differentiation import differentiate
from ..graph import Graph, Tensor
from ..habits import kind_of
from ..memory_plan import checked_memory
from ..naming import FUNCTION, naming
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..optim.average import ExponentialMovingAverage
from ..optim.clipping import Clipping
from ..optim.optimizer import Clip, Optimizer
from ..passes import run_passes
from ..passes.fuse_updates import fuse_updates
from ..profile import Profile, profile
from ..random import RANDOM_SEED, RANDOM_STEP, initial_seed
from ..settings import current_choice
from ..trace import Compiled, structure_clock
from ..variable import Array, Variable, weights_clock
from .batches import checked_count
from .guard import FirstNonFinite
from .metrics import make_metrics
from .monitors import LayerMonitor
from .observation import Observed, noting_outputs
from .tracing import as_output, model_output

COMPILED = frozenset({"model", "loss", "optimizer", "metrics", "clipping", "average"})
"""Attributes of a trainer that its plans are made of."""


class TrainingStep:
    """The part of a Trainer that knows one step; its parameters are described there."""

    def __init__(
        self,
        model: Module,
        loss: Callable[[Any, Any], Any],
        optimizer: Optimizer,
        metrics: Iterable[Any] = (),
        *,
        seed: int | None = None,
        max_memory: int | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        norm_type: float = 2.0,
        average: ExponentialMovingAverage | None = None,
    ) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"Trainer: model must be a Module, not {kind_of(model)}")
        if not callable(loss) or isinstance(loss, type) or kind_of(loss).startswith("torch."):
            raise TypeError(f"Trainer: loss must be a loss of fastnn.nn or a function, not {kind_of(loss)}")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"Trainer: optimizer must come from fastnn.optim, not {kind_of(optimizer)}")
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = make_metrics(metrics)
        self.seed = initial_seed() if seed is None else checked_count("seed", seed, 0)
        if self.seed >= 2**64:
            raise ValueError(f"seed must lie in 0 to 2**64 - 1, got {seed}")
        self.clipping: Clipping | None = None
        if clip_norm is not None or clip_value is not None:
            self.clipping = Clipping(clip_norm, clip_value, norm_type)
        if average is not None and not isinstance(average, ExponentialMovingAverage):
            raise TypeError(f"Trainer: average must be an optim.ExponentialMovingAverage, not {type(average).__name__}")
        self.average = average
        self.gradient_norm: float | None = None
        self.steps = 0
        self.epochs = 0
        self.stop_training = False
        self._compile(checked_memory(max_memory))
        self.optimizer.bind(model, self._parameters())
        self._bind_average()
        self._monitors: tuple[LayerMonitor, ...] = ()
        self._guard: FirstNonFinite | None = None
        self._changed: Variable | None = None  # one that every step changes

    def _compile(self, max_memory: int | None) -> None:
        kept = self._keeps_integers
        self._training = Compiled(self._build_training, (kept, True))
        self._training.max_memory = max_memory
        self._evaluation = Compiled(self._build_evaluation, (kept, True))
        self._prediction = Compiled(self._build_prediction, (kept,))
        self._observing: dict[tuple[int, ...], Compiled] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What a copy (copy.deepcopy) takes along: everything but compiled plans."""
        plans = {name for name, value in vars(self).items() if isinstance(value, Compiled)} | {"_observing"}
        state = {name: value for name, value in vars(self).items() if name not in plans}
        return {**state, "_max_memory": self._training.max_memory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        max_memory = state.pop("_max_memory")
        vars(self).update(state)
        self._compile(max_memory)

    def __setattr__(self, name: str, value: Any) -> None:
        """A part that another takes the place of lets the next call compile its plan anew."""
        object.__setattr__(self, name, value)
        if name in COMPILED:
            structure_clock.tick()

    # -- what is compiled

    def _keeps_integers(self) -> bool:
        return self.model.keeps_integers()

    def _parameters(self) -> list[Parameter]:
        owners = [self.model, self.loss] if isinstance(self.loss, Module) else [self.model]
        return list({id(p): p for owner in owners for p in owner.parameters()}.values())

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        value = self.loss(output, y)
        if not isinstance(value, Tensor) or value.shape != ():
            what = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"Trainer: the loss must be one number (reduction='mean' or 'sum'), not {what}")
        return value

    def _bind_average(self) -> None:
        if self.average is not None:
            self.average.bind((p for p in self.optimizer.parameters() if p.requires_grad), self.model)

    def _build_training(
        self, graph: Graph, x: Tensor, y: Tensor, monitors: Sequence[LayerMonitor] = ()
    ) -> Sequence[Tensor]:
        self.optimizer.bind(self.model, self._parameters())
        self._bind_average()
        layers: list[tuple[str, Tensor]] = []
        with noting_outputs(self.model, layers) if monitors else nullcontext():
            output = model_output(self.model, x, training=True)
        value = self._loss(output, y)
        outputs = [as_output(graph, value), *([output] if self.metrics else [])]
        trained = {p: graph.variable(p.variable) for p in self.optimizer.parameters() if p.requires_grad}
        gradients = differentiate(graph, {value: graph.constant(1.0)}, trained.values())
        if not gradients:
            raise ValueError("Trainer: the loss depends on no parameter that the optimizer trains")
        norms: list[Tensor] = []
        given = {p: gradients[tensor] for p, tensor in trained.items() if tensor in gradients}
        self._changed = next(iter(given)).variable
        self.optimizer.record(graph, given, self._clip(norms))
        if self.average is not None:
            self.average.record(graph)
        outputs += norms
        if not monitors:
            return outputs
        graph.outputs = outputs
        # before the monitors: what they look at is fused all the same, but for gradients that would be made nowhere
        run_passes(graph, current_choice().without | {fuse_updates.__name__})
        observed = Observed(graph, layers, list(given.items()))
        for monitor in monitors:
            monitor.observe(observed)
        return graph.outputs

    def _clip(self, norms: list[Tensor]) -> Clip | None:
        """What records the clipping, if there is any, and adds the norm, if one is found, to the list."""
        clipping = self.clipping
        if clipping is None:
            return None

        def clip(graph: Graph, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
            clipped, norm = clipping.record(graph, gradients)
            norms.extend([] if norm is None else [norm])
            return clipped

        return clip

    def _compiled(self) -> Compiled:
        """The training step, with the monitors that look at this one."""
        due = tuple(monitor for monitor in self._monitors if monitor.is_due(self.steps))
        if not due:
            return self._training
        key = tuple(id(monitor) for monitor in due)
        if key not in self._observing:
            compiled = Compiled(partial(self._build_training, monitors=due), (self._keeps_integers, True))
            compiled.max_memory = self._training.max_memory
            self._observing[key] = compiled
        return self._observing[key]

    def _build_evaluation(self, graph: Graph, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        output = model_output(self.model, x, training=False)
        value = self._loss(output, y)
        return (value, output) if self.metrics else (value,)

    def _build_prediction(self, graph: Graph, x: Tensor) -> Sequence[Tensor]:
        return (model_output(self.model, x, training=False),)

    # -- one step

    def step(self, x: Any, y: Any) -> float:
        """One training step on a batch: x (N, ...), y as the loss wants it; returns the loss before the update.

        The model is in training mode for the step: parts that you put in evaluation mode stay so as long as the
        model itself is in training mode. Wrong input raises ValueError or TypeError and changes nothing.
        """
        try:
            return self._step(x, y)[0]
        except (ValueError, TypeError, OverflowError):
            with naming(lambda: "Trainer.step", FUNCTION):
                raise

    def profile(self, x: Any, y: Any, machine: Machine | None = None) -> Profile:
        """One training step, with the clock read between its kernels: a table of time, rate and fraction of the machine's
        limits, which can be saved as a trace (`fastnn.profile.Profile`).

        It trains as `step` does. `machine`: the limits to compare with; measured if left out.
        """
        runtime, compiled = self._runtime(), self._compiled()
        plan = compiled.plan([given.key for given in compiled.arguments((x, y))])
        before = weights_clock.now
        try:
            found = profile(plan, x, y, machine=machine, runtime=runtime)
        except BaseException:
            self._count_if_made(before)
            raise
        self._count()
        return found

    def _runtime(self) -> dict[str, Any]:
        """The numbers of the next step."""
        runtime: dict[str, Any] = {RANDOM_SEED: self.seed, RANDOM_STEP: self.steps + 1, **self.optimizer.runtime()}
        if self.clipping is not None:
            runtime.update(self.clipping.runtime())
        if self.average is not None:
            self._check_not_applied("train")
            runtime.update(self.average.runtime())
        return runtime

    def _check_not_applied(self, what: str) -> None:
        if self.average is not None and self.average.is_applied:
            raise RuntimeError(f"Trainer: the averages are applied: leave `with average.applied()` to {what}")

    def _count(self) -> None:
        """A step was made."""
        self.steps += 1
        self.optimizer.steps += 1
        if self.average is not None:
            self.average.steps += 1

    def _count_if_made(self, before: int) -> None:
        """Counts a step that an exception ended when its kernels were done and the clock stood past `before`: a signal that
        comes while they run, of Ctrl-C for example, is handled then."""
        if self._changed is not None and self._changed.changed > before:
            self._count()

    def _run(self, x: Any, y: Any, runtime: dict[str, Any]) -> tuple[Sequence[Array], bool]:
        """The outputs of the next step, and whether it came to the update."""
        if self._guard is not None:
            return self._guard.step(self._compiled(), x, y, runtime)
        return self._compiled()(x, y, runtime=runtime), True

    def _step(self, x: Any, y: Any) -> tuple[float, Array | None]:
        runtime, before = self._runtime(), weights_clock.now
        try:
            outputs, trained = self._run(x, y, runtime)
        except BaseException:
            self._count_if_made(before)
            raise
        if trained:
            self._count()
            if len(outputs) > 1 + bool(self.metrics):
                self.gradient_norm = float(outputs[-1][0])
        return float(outputs[0]), outputs[1] if self.metrics else None
