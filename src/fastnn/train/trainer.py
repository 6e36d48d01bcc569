"""Trainer: a model, a loss and an optimizer as one compiled training step, and the loop around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..optim.state import count, parts
from ..variable import Array, aligned_empty, logical_view, memory_shape
from .batches import Batches, checked_count, checked_samples
from .callbacks import Callback, Logs, warn_not_finite
from .guard import FirstNonFinite
from .history import History
from .metrics import Mean
from .monitors import LayerMonitor
from .progress import Progress, make_progress
from .step import TrainingStep
from .tracing import check_batches


class Trainer(TrainingStep):
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
        """All that a later run needs to go on with the same bits: model, optimizer, counts and seed. RuntimeError while the
        averages are applied: the model has other weights then."""
        self._check_not_applied("save the training")
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps,
            "epochs": self.epochs, "seed": self.seed,
            **({} if self.average is None else {"average": self.average.state_dict()}),
        }  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict()` gave, from a trainer of the same model and optimizer. ValueError, TypeError: it does
        not fit; nothing is changed then. RuntimeError while the averages are applied."""
        self._check_not_applied("load a training")
        averaged = () if self.average is None else ("average",)
        parts(state_dict, "model", "optimizer", "steps", "epochs", "seed", *averaged)
        seed, steps, epochs = (count(name, state_dict[name]) for name in ("seed", "steps", "epochs"))
        before = self.optimizer.state_dict()
        averages = None if self.average is None else self.average.state_dict()
        self.optimizer.load_state_dict(state_dict["optimizer"])
        try:
            if self.average is not None:
                self.average.load_state_dict(state_dict["average"])
            self.model.load_state_dict(state_dict["model"])
        except (TypeError, ValueError):
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
