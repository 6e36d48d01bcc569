"""Trainer: a model, a loss and an optimizer as one compiled training step, and the loop around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph import Graph, Tensor, differentiate
from ..memory_plan import checked_memory
from ..naming import FUNCTION, naming
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..optim.average import ExponentialMovingAverage
from ..optim.clipping import Clipping
from ..optim.optimizer import Clip, Optimizer
from ..passes import run_passes
from ..random import RANDOM_SEED, RANDOM_STEP, initial_seed
from ..settings import current_choice
from ..trace import Compiled, structure_clock
from ..variable import Array, aligned_empty, logical_view, memory_shape
from .batches import Batches, checked_count, checked_samples
from .callbacks import Callback, warn_not_finite
from .guard import FirstNonFinite
from .history import History
from .metrics import Mean, make_metrics
from .monitors import LayerMonitor
from .observation import Observed, noting_outputs
from .progress import Progress, make_progress
from .tracing import as_output, check_batches, traced_mode

if TYPE_CHECKING:
    from ..benchmark.machine import Machine
    from ..profile import Profile

Logs = dict[str, float]

COMPILED = frozenset({"model", "loss", "optimizer", "metrics", "clipping", "average"})
"""Attributes of a trainer that its plans are made of."""


class Trainer:
    """Trains a model: forward, loss, backward and update are one plan, run in one call.

    Parameters
    ----------
    model : the Module to train.
    loss : (output, target) -> one number: a loss module or a function made of `fastnn.nn.functional`.
    optimizer : from `fastnn.optim`; without parameters of its own it trains all of the model's (and the loss's).
    metrics : names ("accuracy"), Metric objects or functions (output, target) -> number of NumPy arrays.
    seed : of the shuffling and the dropout masks, 0 to 2**64 - 1; None: the one of `fastnn.manual_seed`.
    max_memory : a number of bytes; a batch whose training step needs more beside batch and weights is refused with a
        MemoryError that names what each layer needs, before anything is changed.
    clip_norm, clip_value, norm_type : limit the gradients by their common norm or each element by its value, as
        `fastnn.optim.Clipping` says; `trainer.clipping.limit` changes it, `trainer.gradient_norm` is the last step's
        norm before clipping (with clip_norm).
    average : a `fastnn.optim.ExponentialMovingAverage` of the trained weights.

    The same seed, data and initial weights give the same bits, whatever else runs and on any number of threads.
    `steps` and `epochs` count what this trainer has done.

    >>> import fastnn as fnn
    >>> from fastnn import nn, optim
    >>> model = nn.Sequential(nn.Linear(2, 3))
    >>> trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.5), metrics=["accuracy"])
    >>> x, y = np.eye(2), np.array([0, 1])
    >>> history = trainer.fit(x, y, epochs=20, batch_size=2, progress=False)
    >>> trainer.evaluate(x, y)["accuracy"]
    1.0
    """

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
            raise TypeError(f"Trainer: model must be a Module, not {type(model).__name__}")
        if not callable(loss):
            raise TypeError(f"Trainer: loss must be callable, not {type(loss).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"Trainer: optimizer must come from fastnn.optim, not {type(optimizer).__name__}")
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
        kept = self._keeps_integers
        self._training = Compiled(self._build_training, (kept, True))
        self._training.max_memory = checked_memory(max_memory)
        self._evaluation = Compiled(self._build_evaluation, (kept, True))
        self._prediction = Compiled(self._build_prediction, (kept,))
        self.optimizer.bind(model, self._parameters())
        self._bind_average()
        self._monitors: tuple[LayerMonitor, ...] = ()
        self._guard: FirstNonFinite | None = None
        self._observing: dict[tuple[int, ...], Compiled] = {}

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

    def _output(self, x: Tensor, training: bool) -> Tensor:
        with traced_mode(self.model, training):
            output = self.model(x)
        if not isinstance(output, Tensor):
            raise TypeError(f"Trainer: the model must return one tensor, not {type(output).__name__}")
        return output

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        value = self.loss(output, y)
        if not isinstance(value, Tensor) or value.shape != ():
            what = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"Trainer: the loss must be one number (reduction='mean' or 'sum'), not {what}")
        return value

    def _bind_average(self) -> None:
        if self.average is not None:
            self.average.bind(p for p in self.optimizer.parameters() if p.requires_grad)

    def _build_training(
        self, graph: Graph, x: Tensor, y: Tensor, monitors: Sequence[LayerMonitor] = ()
    ) -> Sequence[Tensor]:
        self.optimizer.bind(self.model, self._parameters())
        self._bind_average()
        layers: list[tuple[str, Tensor]] = []
        with noting_outputs(self.model, layers) if monitors else nullcontext():
            output = self._output(x, training=True)
        value = self._loss(output, y)
        outputs = [as_output(graph, value), *([output] if self.metrics else [])]
        trained = {p: graph.variable(p.variable) for p in self.optimizer.parameters() if p.requires_grad}
        gradients = differentiate(graph, {value: graph.constant(1.0)}, trained.values())
        if not gradients:
            raise ValueError("Trainer: the loss depends on no parameter that the optimizer trains")
        norms: list[Tensor] = []
        given = {p: gradients[tensor] for p, tensor in trained.items() if tensor in gradients}
        self.optimizer.record(graph, given, self._clip(norms))
        if self.average is not None:
            self.average.record(graph)
        outputs += norms
        if not monitors:
            return outputs
        graph.outputs = outputs
        run_passes(graph, current_choice().without)  # before the monitors: what they look at is fused all the same
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
        output = self._output(x, training=False)
        value = self._loss(output, y)
        return (value, output) if self.metrics else (value,)

    def _build_prediction(self, graph: Graph, x: Tensor) -> Sequence[Tensor]:
        return (self._output(x, training=False),)

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
        from ..profile import profile

        runtime, compiled = self._runtime(), self._compiled()
        plan = compiled.plan([given.key for given in compiled.arguments((x, y))])
        found = profile(plan, x, y, machine=machine, runtime=runtime)
        self._count()
        return found

    def _runtime(self) -> dict[str, Any]:
        """The numbers of the next step."""
        runtime: dict[str, Any] = {RANDOM_SEED: self.seed, RANDOM_STEP: self.steps + 1, **self.optimizer.runtime()}
        if self.clipping is not None:
            runtime.update(self.clipping.runtime())
        if self.average is not None:
            if self.average.is_applied:
                raise RuntimeError("Trainer: the averages are applied: leave `with average.applied()` to train")
            runtime.update(self.average.runtime())
        return runtime

    def _count(self) -> None:
        """A step was made."""
        self.steps += 1
        self.optimizer.steps += 1
        if self.average is not None:
            self.average.steps += 1

    def _step(self, x: Any, y: Any) -> tuple[float, Array | None]:
        runtime = self._runtime()
        if self._guard is None:
            outputs: Sequence[Array] = self._compiled()(x, y, runtime=runtime)
        else:
            outputs, trained = self._guard.step(self._compiled(), x, y, runtime)
            if not trained:
                return float(outputs[0]), outputs[1] if self.metrics else None
        self._count()
        if len(outputs) > 1 + bool(self.metrics):
            self.gradient_norm = float(outputs[-1][0])
        return float(outputs[0]), outputs[1] if self.metrics else None

    # -- the loop

    def fit(
        self, x: Any, y: Any, epochs: int = 1, batch_size: int = 32, validation_data: tuple[Any, Any] | None = None,
        callbacks: Iterable[Callback] = (), progress: Any = "auto", shuffle: bool = True, *, drop_last: bool = False,
    ) -> History:  # fmt: skip
        """Trains for a number of passes over the data.

        Parameters
        ----------
        x, y : N samples and their targets.
        epochs : passes over the data.
        batch_size : samples of a step; the last batch of an epoch may be smaller (left out with drop_last).
        validation_data : (x, y) to evaluate after each epoch; its figures have names with "val_".
        callbacks : see `fastnn.train.Callback`.
        progress : "auto" (a tqdm bar if there is a terminal and tqdm, else text), "tqdm", "text" or False.
        shuffle : another order in each epoch, a function of the trainer's seed and its count of epochs.

        Returns the History: the mean of loss and metrics over each epoch's batches as they were trained.
        Raises ValueError or TypeError before anything is changed if the data do not fit the model. A loss that is
        not finite gives a RuntimeWarning that names epoch and step.
        """
        epochs = checked_count("epochs", epochs, 0)
        data = Batches(x, y, batch_size, drop_last)
        callbacks = _checked_callbacks(callbacks)
        shown = make_progress(progress, epochs, data.samples)
        check_batches(self._training, data)
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError("validation_data must be a pair (x, y)")
            validation = Batches(*validation_data, batch_size, name="validation ")
            check_batches(self._evaluation, validation)
        history = History()
        self.stop_training = False
        for callback in callbacks:
            callback.trainer = self
        _call(callbacks, "on_train_begin", {})
        self._monitors = tuple(c for c in callbacks if isinstance(c, LayerMonitor))
        self._guard = next((c for c in callbacks if isinstance(c, FirstNonFinite)), None)
        try:
            for epoch in range(epochs):
                history.append(epoch, self._epoch(epoch, data, validation, callbacks, shown, shuffle))
                if self.stop_training:
                    break
        finally:
            shown.close()
            self._monitors, self._guard = (), None
            self._observing.clear()
        _call(callbacks, "on_train_end", {name: values[-1] for name, values in history.history.items()})
        return history

    def _epoch(
        self, epoch: int, data: Batches, validation: Batches | None, callbacks: Sequence[Callback], shown: Progress,
        shuffle: bool,
    ) -> Logs:  # fmt: skip
        _call(callbacks, "on_epoch_begin", epoch, {})
        shown.begin(epoch)
        mean, warned = self._reset(), False
        order = self._order(len(data.x)) if shuffle else None
        for batch, (x, y) in enumerate(data if order is None else data.shuffled(order)):
            _call(callbacks, "on_batch_begin", batch, {})
            loss, output = self._step(x, y)
            self._add(mean, loss, output, y)
            if not warned and not math.isfinite(loss) and self._guard is None:
                warn_not_finite(loss, epoch, batch, self.steps)
                warned = True
            _call(callbacks, "on_batch_end", batch, {"loss": loss})
            shown.update(len(y), lambda: self._logs(mean))
            if self.stop_training:
                break
        logs = self._logs(mean)
        if validation is not None:
            logs.update({f"val_{name}": value for name, value in self._evaluate(validation).items()})
        self.epochs += 1
        shown.end(logs)
        _call(callbacks, "on_epoch_end", epoch, logs)
        return logs

    def _order(self, samples: int) -> Array:
        """A permutation that depends on the seed and the count of epochs alone."""
        key = np.array([self.seed, self.epochs], np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(samples)

    # -- evaluation

    def evaluate(self, x: Any, y: Any, batch_size: int = 256) -> Logs:
        """{"loss": ..., metric: ...} over N samples, the model in evaluation mode; the loss is the mean of the
        batches' losses, weighted by their number of samples."""
        data = Batches(x, y, batch_size)
        check_batches(self._evaluation, data)
        return self._evaluate(data)

    def _evaluate(self, data: Batches) -> Logs:
        mean = self._reset()
        for x, y in data:
            loss, *output = self._evaluation(x, y)
            self._add(mean, float(loss), output[0] if output else None, y)
        return self._logs(mean)

    def predict(self, x: Any, batch_size: int = 256) -> Array:
        """The model's outputs for N samples, the model in evaluation mode."""
        x, batch_size = checked_samples("x", x), checked_count("batch_size", batch_size)
        result: Array | None = None
        for start in range(0, max(len(x), 1), batch_size):
            (output,) = self._prediction(x[start : start + batch_size])
            if result is None:
                result = logical_view(aligned_empty(memory_shape((len(x), *output.shape[1:]))))
            result[start : start + batch_size] = output
        assert result is not None
        return result

    def _reset(self) -> Mean:
        for metric in self.metrics:
            metric.reset()
        return Mean(_no_function, "loss")

    def _add(self, mean: Mean, loss: float, output: Array | None, y: Array) -> None:
        mean.add(loss, len(y))
        if output is not None:
            for metric in self.metrics:
                metric.update(output, y)

    def _logs(self, mean: Mean) -> Logs:
        return {"loss": mean.result(), **{metric.name: metric.result() for metric in self.metrics}}

    # -- saving

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs to go on with the same bits: model, optimizer, counts and seed."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps,
            "epochs": self.epochs, "seed": self.seed,
            **({} if self.average is None else {"average": self.average.state_dict()}),
        }  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict()` gave, from a trainer of the same model and optimizer."""
        seed, steps, epochs = (checked_count(name, state_dict[name], 0) for name in ("seed", "steps", "epochs"))
        before = self.optimizer.state_dict()
        averages = None if self.average is None else self.average.state_dict()
        self.optimizer.load_state_dict(state_dict["optimizer"])
        try:
            if self.average is not None:
                self.average.load_state_dict(state_dict["average"])
            self.model.load_state_dict(state_dict["model"])
        except (KeyError, TypeError, ValueError):
            self.optimizer.load_state_dict(before)
            if self.average is not None and averages is not None:
                self.average.load_state_dict(averages)
            raise
        self.seed, self.steps, self.epochs = seed, steps, epochs


def _no_function(output: Array, target: Array) -> float:
    raise AssertionError("the mean of the losses is given its values")


def _checked_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    result = (callbacks,) if isinstance(callbacks, Callback) else tuple(callbacks)
    for callback in result:
        if not isinstance(callback, Callback):
            raise TypeError(f"a callback must be a fastnn.train.Callback, not {type(callback).__name__}")
    if sum(isinstance(callback, FirstNonFinite) for callback in result) > 1:
        raise ValueError("one FirstNonFinite at most can watch a training")
    return result


def _call(callbacks: Sequence[Callback], event: str, *arguments: Any) -> None:
    for callback in callbacks:
        getattr(callback, event)(*arguments)
