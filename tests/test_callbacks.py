"""Callbacks: when they are called, when they end a training, what they put back."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.train import Callback, CSVLogger, EarlyStopping, LambdaCallback, ReduceLROnPlateau, TerminateOnNaN

EVENTS = ["on_train_begin", "on_epoch_begin", "on_batch_begin", "on_batch_end", "on_epoch_end", "on_train_end"]


def fit(*callbacks: Callback, epochs: int = 3, lr: float = 0.1, x: Any = None, validation: bool = False) -> Any:
    fnn.manual_seed(1)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((10, 4)) if x is None else x
    y = rng.integers(0, 3, 10)
    trainer = fnn.Trainer(nn.Sequential(nn.Linear(4, 3)), nn.CrossEntropyLoss(), optim.SGD(lr=lr), ["accuracy"])
    data = (x, y) if validation else None
    history = trainer.fit(x, y, epochs, 4, validation_data=data, callbacks=callbacks, progress=False)
    return trainer, history


def test_events_come_in_order() -> None:
    calls: list[Any] = []

    class Record(Callback):
        pass

    for event in EVENTS:

        def note(self: Any, *arguments: Any, event: str = event) -> None:
            calls.append((event, *arguments[:-1]))
            assert isinstance(arguments[-1], dict) and isinstance(self.trainer, fnn.Trainer)

        setattr(Record, event, note)
    fit(Record(), epochs=2)
    batches = [call for batch in range(3) for call in (("on_batch_begin", batch), ("on_batch_end", batch))]
    epochs = [call for e in range(2) for call in (("on_epoch_begin", e), *batches, ("on_epoch_end", e))]
    assert calls == [("on_train_begin",), *epochs, ("on_train_end",)]


def test_what_the_logs_hold() -> None:
    seen: dict[str, set[str]] = {}
    functions = {name: lambda *a, name=name: seen.setdefault(name, set(a[-1])) for name in EVENTS}
    fit(LambdaCallback(**functions), validation=True)
    whole = {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert seen["on_batch_end"] == {"loss"} and seen["on_epoch_end"] == seen["on_train_end"] == whole


def test_lambda_callbacks_know_their_events() -> None:
    with pytest.raises(TypeError, match="on_train_end, not 'on_lunch'"):
        LambdaCallback(on_lunch=print)


def test_training_stops_after_the_batch_at_hand() -> None:
    def stop(batch: int, logs: dict[str, float]) -> None:
        callback.trainer.stop_training = batch == 1

    callback = LambdaCallback(on_batch_end=stop)
    trainer, history = fit(callback)
    assert trainer.steps == 2 and history.epoch == [0]
    trainer.fit(np.zeros((8, 4)), np.zeros(8, int), 2, 8, progress=False)
    assert trainer.steps == 4  # the next fit is not stopped


def run_early_stopping(values: list[float], **options: Any) -> tuple[EarlyStopping, int, int]:
    """Feeds a stopper with figures; returns it, the epochs run and the epoch whose weights were there at the end."""

    class Set(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            logs["figure"] = values[epoch]
            self.trainer.model[0].bias.data = np.full(3, epoch)

    stopper = EarlyStopping(**{"monitor": "figure", **options})
    trainer, history = fit(Set(), stopper, epochs=len(values))
    return stopper, len(history.epoch), int(trainer.model[0].bias.data[0])


def test_early_stopping_waits_and_goes_back() -> None:
    stopper, epochs, weights = run_early_stopping([5, 3, 4, 3, 2.5, 9, 9, 9, 1], patience=3)
    assert (stopper.best, stopper.best_epoch, stopper.stopped_epoch, epochs, weights) == (2.5, 4, 7, 8, 4)


@pytest.mark.parametrize(
    ("values", "options", "epochs", "weights"),
    [
        ([3, 2, 1, 4], {}, 4, 2),
        ([3, 3, 1], {}, 2, 0),
        ([3, 3, 1], {"patience": 1}, 2, 0),
        ([3, 3, 1], {"patience": 2}, 3, 2),
        ([3, 2.9, 2.8], {"min_delta": 0.15, "patience": 1}, 2, 0),
        ([3, 2.9, 2.8], {"min_delta": 0.15, "patience": 2}, 3, 2),
        ([1, 2, 3, 2, 1], {"mode": "max"}, 4, 2),
        ([1, 2, 3, 2, 1], {"mode": "max", "restore_best_weights": False}, 4, 3),
        ([float("nan"), 2, 3, 1], {"patience": 2}, 4, 3),
        ([float("nan"), float("nan"), 3], {"patience": 2}, 2, 1),
    ],
)  # fmt: skip
def test_early_stopping(values: list[float], options: dict[str, Any], epochs: int, weights: int) -> None:
    _, ran, there = run_early_stopping(values, **options)
    assert (ran, there) == (epochs, weights)


def test_more_accuracy_is_better() -> None:
    stopper = EarlyStopping("val_accuracy", patience=1)
    fit(stopper, epochs=2, lr=0.0, validation=True)
    assert stopper.stopped_epoch == 1 and 0 <= stopper.best <= 1


def test_early_stopping_refuses_what_makes_no_sense() -> None:
    for options in ({"patience": -1}, {"mode": "best"}, {"min_delta": -0.1}, {"min_delta": float("nan")}):
        with pytest.raises(ValueError):
            EarlyStopping(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no figure 'val_loss' to monitor; there are loss, accuracy"):
        fit(EarlyStopping())


@pytest.mark.parametrize(
    ("values", "options", "rates"),
    [
        ([3, 2, 2, 2, 2], {"patience": 2}, [1, 1, 1, 0.5, 0.5]),
        ([3, 2, 2, 2, 2], {"patience": 0}, [1, 1, 0.5, 0.25, 0.125]),
        ([3, 2, 2, 1, 1], {"patience": 1}, [1, 1, 0.5, 0.5, 0.25]),
        ([3, 3, 3, 3, 3], {"patience": 1, "cooldown": 2}, [1, 0.5, 0.5, 0.5, 0.25]),
        ([3, 3, 3, 3, 3], {"patience": 1, "min_lr": 0.3}, [1, 0.5, 0.3, 0.3, 0.3]),
        ([3, 3, 3, 3, 3], {"patience": 1, "min_lr": 2}, [1, 1, 1, 1, 1]),
        ([1, 2, 3, 3, 3], {"patience": 1, "mode": "max"}, [1, 1, 1, 0.5, 0.25]),
        ([3, 2.9, 2.8, 2.7, 2.6], {"patience": 1, "min_delta": 0.25}, [1, 0.5, 0.25, 0.25, 0.125]),
    ],
)
def test_reduced_learning_rates(values: list[float], options: dict[str, Any], rates: list[float]) -> None:
    found: list[float] = []

    def give(epoch: int, logs: dict[str, float]) -> None:
        logs["figure"] = values[epoch]

    reduce = ReduceLROnPlateau("figure", factor=0.5, **options)
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: found.append(note.trainer.optimizer.learning_rate()))
    fit(LambdaCallback(on_epoch_end=give), reduce, note, epochs=len(values), lr=1.0)
    assert found == rates


def test_reducing_refuses_what_makes_no_sense() -> None:
    for options in ({"factor": 1.0}, {"factor": 0}, {"patience": -1}, {"cooldown": -1}, {"min_lr": -1}):
        with pytest.raises(ValueError):
            ReduceLROnPlateau(**options)
    with pytest.raises(ValueError, match="it follows a schedule"):
        fit(ReduceLROnPlateau(), lr=lambda step: 0.1)  # type: ignore[arg-type]


def test_nan_ends_a_training() -> None:
    x = np.ones((10, 4))
    x[:] = np.inf
    with pytest.warns(RuntimeWarning, match="in epoch 1, batch 1"):
        trainer, history = fit(TerminateOnNaN(), x=x)
    assert trainer.steps == 1 and history.epoch == [0]
    trainer, _ = fit(TerminateOnNaN())
    assert trainer.steps == 9


def test_csv_logger_writes_a_line_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    logger = CSVLogger(path)
    for _ in range(2):  # a second training starts the file anew
        _, history = fit(logger, validation=True)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
        assert [float(row["val_loss"]) for row in rows] == history.history["val_loss"]
