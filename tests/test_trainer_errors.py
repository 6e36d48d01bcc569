"""Trainer: what wrong input and wrong parts get, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trainers import make_data, make_model, make_trainer, same, weights_of

import fastnn as fnn
from fastnn import nn, optim
from fastnn.train import Callback
from fastnn.variable import Array


class _Untouched(Callback):
    def on_train_begin(self, logs: dict[str, float]) -> None:
        raise AssertionError("the training began")


def _labels(y: Array, value: int) -> Array:
    return np.where(np.arange(len(y)) == len(y) - 1, value, y)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: {"y": y[:-1]}, ValueError, r"as many samples: x has shape \(23, 2, 5, 7\), y has shape \(22,\)"),
        (lambda x, y: {"x": x[:0], "y": y[:0]}, ValueError, "x is empty"),
        (lambda x, y: {"x": x + 1j}, TypeError, "x: .*complex"),
        (lambda x, y: {"x": x.astype(object)}, TypeError, "x: .*object"),
        (lambda x, y: {"x": np.float32(1)}, ValueError, "x must have a batch axis"),
        (lambda x, y: {"x": x[:, :1]}, ValueError, r"Conv2d.*"),
        (lambda x, y: {"y": _labels(y, 3)}, ValueError, "got 3, allowed are 0 to 2"),
        (lambda x, y: {"y": _labels(y, -1)}, ValueError, "got -1, allowed are 0 to 2"),
        (lambda x, y: {"epochs": -1}, ValueError, "epochs must be at least 0"),
        (lambda x, y: {"epochs": 1.5}, TypeError, "epochs must be an integer"),
        (lambda x, y: {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        (lambda x, y: {"batch_size": 24, "drop_last": True}, ValueError, "drop_last leaves nothing"),
        (lambda x, y: {"progress": "loud"}, ValueError, "progress is one of"),
        (lambda x, y: {"callbacks": [print]}, TypeError, "a callback must be"),
        (lambda x, y: {"validation_data": x}, TypeError, "validation_data must be a pair"),
        (lambda x, y: {"validation_data": (x, y[:3])}, ValueError, "validation x and validation y"),
        (lambda x, y: {"validation_data": (x, _labels(y, 9))}, ValueError, "got 9, allowed are 0 to 2"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_before_anything_is_touched(
    change: Callable[[Array, Array], dict[str, Any]], error: type[Exception], message: str
) -> None:
    x, y = make_data()
    trainer = make_trainer()
    before = weights_of(trainer.model)
    arguments = {"x": x, "y": y, "progress": False, "callbacks": [_Untouched()], **change(x, y)}
    with pytest.raises(error, match=message):
        trainer.fit(**arguments)
    assert same(weights_of(trainer.model), before) and trainer.steps == trainer.epochs == 0


def test_a_last_batch_that_is_too_small_is_refused_before_anything_is_touched() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    trainer, before = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1)), weights_of(model)
    x, y = np.ones((9, 4)), np.zeros(9, np.int64)
    with pytest.raises(ValueError, match="more than one value per channel"):
        trainer.fit(x, y, batch_size=8, progress=False, callbacks=[_Untouched()])
    assert same(weights_of(model), before) and trainer.steps == 0


def test_a_step_with_wrong_labels_changes_nothing() -> None:
    x, y = make_data()
    trainer = make_trainer()
    before = weights_of(trainer.model)
    with pytest.raises(ValueError):
        trainer.step(x, _labels(y, 7))
    assert same(weights_of(trainer.model), before)
    assert trainer.step(x, y) == make_trainer().step(x, y)


def test_wrong_parts_are_refused() -> None:
    model, loss, sgd = make_model(), nn.CrossEntropyLoss(), optim.SGD(lr=0.1)
    with pytest.raises(TypeError, match="model must be a Module"):
        fnn.Trainer(print, loss, sgd)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loss must be a loss of fastnn.nn or a function, not str"):
        fnn.Trainer(model, "loss", sgd)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"optimizer must come from fastnn\.optim"):
        fnn.Trainer(model, loss, "sgd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must"):
        fnn.Trainer(model, loss, sgd, seed=-1)
    with pytest.raises(ValueError, match=r"seed must lie in 0 to 2\*\*64 - 1"):
        fnn.Trainer(model, loss, sgd, seed=2**64)
    with pytest.raises(ValueError, match=r"one number \(reduction='mean' or 'sum'\), not shape \(23,\)"):
        fnn.Trainer(model, nn.CrossEntropyLoss(reduction="none"), sgd).step(*make_data())
    with pytest.raises(ValueError, match="already trains another model"):
        fnn.Trainer(make_model(), loss, sgd)
    other = optim.SGD([nn.Parameter(np.zeros(3))], lr=0.1)
    with pytest.raises(ValueError, match="depends on no parameter"):
        fnn.Trainer(model, loss, other).step(*make_data())


def test_a_loss_that_is_not_finite_is_named_by_epoch_and_step() -> None:
    x, y = make_data()
    trainer = make_trainer(dropout=0.0)
    x[-9] = np.nan
    with pytest.warns(RuntimeWarning) as warned:
        trainer.fit(x, y, 1, 8, progress=False, shuffle=False)
    (message,) = [str(warning.message) for warning in warned]
    assert message.startswith("the loss is nan in epoch 1, batch 2 (training step 2)")


def test_step_names_itself_where_no_layer_does() -> None:
    x, y = make_data()
    trainer = make_trainer()
    with pytest.raises(TypeError, match=r"^Trainer\.step: .*complex64"):
        trainer.step(x + 1j, y)
    with pytest.raises(ValueError, match=r"^CrossEntropyLoss\(.*got 3, allowed are 0 to 2"):
        trainer.step(x, _labels(y, 3))
