"""What a training calls on its way."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..nn.module import Module
from ..optim.average import ExponentialMovingAverage
from ..optim.clipping import Clipping
from ..optim.optimizer import Optimizer
from ..variable import Array
from .batches import checked_count
from .metrics import Metric

Logs = dict[str, float]


class Training(Protocol):
    """What a callback sees of the Trainer that calls it, which lies above this module."""

    model: Module
    loss: Callable[[Any, Any], Any]
    optimizer: Optimizer
    metrics: tuple[Metric, ...]
    clipping: Clipping | None
    average: ExponentialMovingAverage | None
    gradient_norm: float | None
    seed: int
    steps: int
    epochs: int
    stop_training: bool

    def evaluate(self, x: Any, y: Any, batch_size: int = 256) -> Logs: ...

    def predict(self, x: Any, batch_size: int = 256) -> Array: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None: ...


class Callback:
    """Base of callbacks: override what you need.

    While `fit` runs, `self.trainer` is the trainer; `self.trainer.stop_training = True` ends the training after the
    batch at hand. `logs` holds the figures so far by name; epochs and batches count from 0.

    >>> class Stop(Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         self.trainer.stop_training = logs["loss"] < 10
    >>> trainer = fnn.Trainer(nn.Linear(2, 3), nn.CrossEntropyLoss(), fnn.optim.SGD())
    >>> len(trainer.fit(np.eye(2), [0, 1], epochs=9, callbacks=[Stop()], progress=False).history["loss"])
    1
    """

    trainer: Training

    def on_train_begin(self, logs: Logs) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Before an epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation; `logs` has "loss", the metrics, and both with "val_"."""

    def on_batch_begin(self, batch: int, logs: Logs) -> None:
        """Before a training step."""

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        """After a training step; `logs["loss"]` is the loss of this batch."""


class LambdaCallback(Callback):
    """A callback made of functions, given under the names of the methods.

    >>> callback = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    >>> callback.on_epoch_end(0, {"loss": 0.5})
    0 0.5
    """

    def __init__(self, **functions: Callable[..., None]) -> None:
        for name, function in functions.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                events = [event for event in dir(Callback) if event.startswith("on_")]
                raise TypeError(f"LambdaCallback takes {', '.join(events)}, not {name!r}")
            if not callable(function):
                raise TypeError(f"LambdaCallback: {name} must be a function, not {type(function).__name__}")
            setattr(self, name, function)


class Monitor:
    """Follows one of the figures of the epochs and tells when it got better.

    `mode` is "min", "max" or "auto": larger is better if the name says accuracy.
    """

    def __init__(self, monitor: str, min_delta: float, mode: str) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor is the name of a figure, not {monitor!r}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode is 'auto', 'min' or 'max', got {mode!r}")
        if not (math.isfinite(min_delta) and min_delta >= 0):
            raise ValueError(f"min_delta must be finite and at least 0, got {min_delta}")
        self.name = monitor
        self._min_delta = min_delta
        self._sign = 1.0 if mode == "max" or (mode == "auto" and monitor.endswith("accuracy")) else -1.0
        self.reset()

    def reset(self) -> None:
        """Forgets what was best."""
        self._best = -math.inf

    @property
    def best(self) -> float:
        """The best value so far."""
        return self._sign * self._best

    def improved(self, logs: Logs) -> bool:
        """Whether the epoch with these figures is better than all before by more than min_delta."""
        if self.name not in logs:
            raise ValueError(f"there is no figure {self.name!r} to monitor; there are {', '.join(logs)}")
        value = self._sign * logs[self.name]
        if not value > self._best + (self._min_delta if math.isfinite(self._best) else 0.0):
            return False
        self._best = value
        return True


class EarlyStopping(Callback):
    """Ends a training that no longer gets better, and goes back to the best weights.

    Parameters
    ----------
    monitor : the figure to follow, e.g. "val_loss", "val_accuracy", "loss".
    min_delta : changes up to this count as none.
    patience : epochs without improvement after which training ends (0 and 1 both end it at the first).
    mode : "min", "max" or "auto" (larger is better if the name says accuracy).
    restore_best_weights : load the weights and statistics of the best epoch at the end (PyTorch: by hand; Keras: off).

    After `fit`, `stopped_epoch` is the epoch that was the last one (None: the training ran to its end), `best_epoch`
    the best one and `best` its figure.

    >>> EarlyStopping("val_accuracy", patience=3).patience
    3
    """

    def __init__(
        self, monitor: str = "val_loss", min_delta: float = 0.0, patience: int = 0, mode: str = "auto",
        restore_best_weights: bool = True,
    ) -> None:  # fmt: skip
        self._monitor = Monitor(monitor, min_delta, mode)
        self.patience = checked_count("patience", patience, 0)
        self.restore_best_weights = restore_best_weights
        self.stopped_epoch: int | None = None
        self.best_epoch: int | None = None
        self._weights: dict[str, Array] | None = None
        self._waited = 0

    @property
    def best(self) -> float:
        """The best value of the monitored figure."""
        return self._monitor.best

    def on_train_begin(self, logs: Logs) -> None:
        self._monitor.reset()
        self.stopped_epoch = self.best_epoch = self._weights = None
        self._waited = 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self._monitor.improved(logs):
            self.best_epoch = epoch
            self._waited = 0
            if self.restore_best_weights:
                self._weights = dict(self.trainer.model.state_dict())
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = epoch
            self.trainer.stop_training = True

    def on_train_end(self, logs: Logs) -> None:
        if self._weights is not None:
            self.trainer.model.load_state_dict(self._weights)
            self._weights = None


class ReduceLROnPlateau(Callback):
    """Lowers the learning rate when a figure no longer gets better.

    Parameters
    ----------
    monitor, min_delta, mode : as for EarlyStopping.
    factor : what the learning rates of all groups are multiplied by, above 0 and below 1.
    patience : epochs without improvement after which they are (0 and 1 both at the first).
    cooldown : epochs after that in which none are counted.
    min_lr : lowest learning rate.

    The optimizer's learning rates must be numbers, not schedules (ValueError).

    >>> ReduceLROnPlateau(factor=0.5).factor
    0.5
    """

    def __init__(
        self, monitor: str = "val_loss", factor: float = 0.1, patience: int = 10, mode: str = "auto",
        min_delta: float = 1e-4, cooldown: int = 0, min_lr: float = 0.0,
    ) -> None:  # fmt: skip
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie between 0 and 1, got {factor}")
        if not (math.isfinite(min_lr) and min_lr >= 0):
            raise ValueError(f"min_lr must be finite and at least 0, got {min_lr}")
        self._monitor = Monitor(monitor, min_delta, mode)
        self.factor = factor
        self.patience = checked_count("patience", patience, 0)
        self.cooldown = checked_count("cooldown", cooldown, 0)
        self.min_lr = min_lr
        self._waited = self._cooling = 0

    def on_train_begin(self, logs: Logs) -> None:
        self._monitor.reset()
        self._waited = self._cooling = 0
        if any(callable(group["lr"]) for group in self.trainer.optimizer.param_groups):
            raise ValueError("ReduceLROnPlateau cannot change the learning rate: it follows a schedule")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        better = self._monitor.improved(logs)
        if self._cooling > 0:
            self._cooling -= 1
            self._waited = 0
        elif better:
            self._waited = 0
        else:
            self._waited += 1
            if self._waited >= self.patience:
                self._waited, self._cooling = 0, self.cooldown
                for group in self.trainer.optimizer.param_groups:
                    group["lr"] = max(group["lr"] * self.factor, min(self.min_lr, group["lr"]))


class TerminateOnNaN(Callback):
    """Ends a training whose loss is no longer finite, with a warning that names epoch and step.

    >>> trainer = fnn.Trainer(nn.Linear(2, 3), nn.CrossEntropyLoss(), fnn.optim.SGD())
    >>> history = trainer.fit(np.eye(2), [0, 1], epochs=2, callbacks=[TerminateOnNaN()], progress=False)
    >>> len(history.history["loss"])
    2
    """

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        if not math.isfinite(logs["loss"]):
            self.trainer.stop_training = True


class CSVLogger(Callback):
    """Writes the figures of each epoch to a CSV file, a line an epoch.

    >>> CSVLogger("log.csv").path.name
    'log.csv'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._names: list[str] = []

    def on_train_begin(self, logs: Logs) -> None:
        self._names = []
        self.path.write_text("", encoding="utf-8")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            if not self._names:
                self._names = ["epoch", *logs]
                csv.writer(file).writerow(self._names)
            csv.DictWriter(file, self._names).writerow({"epoch": epoch, **logs})


def warn_not_finite(loss: float, epoch: int, batch: int, step: int) -> None:
    """Tells where a loss stopped being a number."""
    warnings.warn(
        f"the loss is {loss} in epoch {epoch + 1}, batch {batch + 1} (training step {step}); a smaller learning rate, "
        "gradient clipping or scaled inputs may help. fastnn.train.TerminateOnNaN() ends a training here",
        RuntimeWarning,
        stacklevel=4,
    )
