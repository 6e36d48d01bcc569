"""Trainer: what fit, evaluate and predict do with the data."""

from __future__ import annotations

import numpy as np
from trainers import make_data, make_trainer, same, seen_batches, weights_of

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, optim
from fastnn.train import LambdaCallback
from fastnn.train.batches import Batches


def test_batches_in_order() -> None:
    assert seen_batches(shuffle=False) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert seen_batches(shuffle=False, drop_last=True) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_shuffled_batches_hold_each_sample_once_an_epoch() -> None:
    batches = seen_batches(epochs=2)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = ([sample for batch in epoch for sample in batch] for epoch in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first != list(range(10))
    assert seen_batches(epochs=2) == batches


def test_history_holds_means_over_samples() -> None:
    x, y = make_data(10)
    losses: list[float] = []
    trainer = make_trainer(metrics=["accuracy"])
    record = LambdaCallback(on_batch_end=lambda batch, logs: losses.append(logs["loss"]))
    history = trainer.fit(x, y, 1, 4, validation_data=(x, y), callbacks=[record], progress=False)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"] and history.epoch == [0]
    assert history.history["loss"] == [(losses[0] * 4 + losses[1] * 4 + losses[2] * 2) / 10]
    figures = trainer.evaluate(x, y, batch_size=4)
    assert history.history["val_loss"] == [figures["loss"]]
    assert history.history["val_accuracy"] == [figures["accuracy"]]
    assert trainer.epochs == 1 and trainer.steps == trainer.optimizer.steps == 3


def test_no_epochs_no_change() -> None:
    trainer = make_trainer()
    before = weights_of(trainer.model)
    assert trainer.fit(*make_data(), epochs=0, progress=False).history == {}
    assert same(weights_of(trainer.model), before)


def test_batches_of_channels_last_images_stay_channels_last() -> None:
    x = np.ascontiguousarray(make_data()[0].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    order = np.random.default_rng(0).permutation(23)
    for batch, _ in Batches(x, np.zeros(23), 8).shuffled(order):
        assert batch.transpose(0, 2, 3, 1).flags.c_contiguous
        assert np.array_equal(batch, x[order[: len(batch)]])
        order = order[len(batch) :]


def test_predict_and_evaluate_are_the_model_in_evaluation_mode() -> None:
    x, y = make_data()
    trainer = make_trainer(metrics=["accuracy"])
    trainer.fit(x, y, 2, progress=False)
    assert trainer.model.training
    found = trainer.predict(x, batch_size=7)
    assert trainer.model.training
    trainer.model.eval()
    assert np.array_equal(found, np.concatenate([trainer.model(x[i : i + 7]) for i in range(0, 23, 7)]))
    figures = trainer.evaluate(x, y, batch_size=23)
    assert figures["loss"] == float(F.cross_entropy(trainer.model(x), y))
    assert figures["accuracy"] == np.mean(trainer.model(x).argmax(1) == y)


def test_predicted_images_lie_channels_last() -> None:
    trainer = fnn.Trainer(nn.Conv2d(2, 3, 1), lambda output, target: output.sum(), optim.SGD())
    y = trainer.predict(make_data()[0], batch_size=10)
    assert y.shape == (23, 3, 5, 7) and y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_nothing_predicted_of_nothing() -> None:
    assert make_trainer().predict(np.zeros((0, 2, 5, 7))).shape == (0, 3)
