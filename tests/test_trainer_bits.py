"""Trainer: its bits depend on the seed alone, not on threads, other trainers, or a break."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from trainers import losses_of, make_data, make_model, make_trainer, same, seen_batches, weights_of

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, optim, reference
from fastnn.variable import Array


def test_losses_do_not_depend_on_threads(same_bits: Any) -> None:
    same_bits(lambda: [np.array(losses_of(make_trainer())), *weights_of(make_trainer().model)])


def test_losses_depend_on_the_seed_alone() -> None:
    expected = losses_of(make_trainer(seed=1))
    trainer = make_trainer(seed=1)
    F.dropout(np.ones(100, np.float32), 0.5)  # draws from the common stream
    np.random.default_rng().random()
    assert losses_of(trainer) == expected
    assert losses_of(make_trainer(seed=2)) != expected


def test_masks_follow_seed_layer_step_and_element() -> None:
    """The trainer's k-th step draws step k of its seed's stream, however the steps are spread over fits."""
    model = nn.Sequential(nn.Linear(9, 9), nn.Dropout(0.5))
    model[0].weight.data, model[0].bias.data = np.eye(9), np.zeros(9)
    outputs: list[Array] = []

    def note(output: Array, target: Array) -> float:
        outputs.append(output)
        return 0.0

    trainer = fnn.Trainer(model, lambda output, target: output.sum(), optim.SGD(lr=0.0), [note], seed=2**63 + 11)
    x, y = np.ones((8, 9)), np.zeros(8)
    trainer.fit(x, y, 2, 4, progress=False)
    trainer.step(x[:4], y[:4])
    trainer.fit(x, y, 1, 4, progress=False)
    expected = [
        2.0 * reference.dropout_mask((4, 9), 0.5, seed=2**63 + 11, layer=model[1].layer, step=k)
        for k in (1, 2, 3, 4, 6, 7)
    ]
    assert same(outputs, expected)


def test_the_order_of_samples_depends_on_the_seed() -> None:
    assert seen_batches(seed=1) == seen_batches(seed=1) != seen_batches(seed=2)


def test_without_a_seed_manual_seed_counts() -> None:
    def run(seed: int) -> list[float]:
        fnn.manual_seed(seed)
        return losses_of(fnn.Trainer(make_model(), nn.CrossEntropyLoss(), optim.SGD(lr=0.1)))

    assert run(4) == run(4) != run(5)


def test_two_trainers_by_turns_give_the_bits_of_one_by_one() -> None:
    x, y = make_data()
    expected = [[t.step(x, y) for _ in range(4)] for t in (make_trainer(1), make_trainer(2))]
    pair = [make_trainer(1), make_trainer(2)]
    mixed = [[trainer.step(x, y) for trainer in pair] for _ in range(4)]
    assert np.array(mixed).T.tolist() == expected


def test_a_training_goes_on_with_the_same_bits() -> None:
    whole = losses_of(make_trainer(), epochs=4)
    first = make_trainer()
    start = losses_of(first, epochs=2)
    saved = first.state_dict()
    fnn.manual_seed(3)
    second = fnn.Trainer(make_model(), nn.CrossEntropyLoss(), optim.Adam(lr=0.3), seed=77)
    second.load_state_dict(saved)
    assert start + losses_of(second, epochs=2) == whole


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    trainer = make_trainer()
    trainer.step(*make_data())
    before, moments = weights_of(trainer.model), trainer.optimizer.state_dict()["state"][0]["exp_avg"]
    for part, key in (("model", "0.weight"), ("optimizer", "param_groups"), ("steps", None)):
        bad = trainer.state_dict()
        if key is None:
            bad[part] = -1
        else:
            bad[part] = {name: value for name, value in bad[part].items() if name != key}
        bad["optimizer"] = {**bad["optimizer"], "steps": 99}
        with pytest.raises((KeyError, ValueError)):
            trainer.load_state_dict(bad)
        assert same(weights_of(trainer.model), before) and trainer.steps == trainer.optimizer.steps == 1
        assert np.array_equal(trainer.optimizer.state_dict()["state"][0]["exp_avg"], moments)


def test_trainers_in_threads_give_the_bits_of_one_by_one() -> None:
    x, y = make_data()
    expected = [[t.step(x, y) for _ in range(20)] for t in (make_trainer(1), make_trainer(2), make_trainer(3))]
    trainers = [make_trainer(1), make_trainer(2), make_trainer(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda trainer: [trainer.step(x, y) for _ in range(20)], trainers))
    assert found == expected


def test_a_copy_trains_on_by_itself() -> None:
    average = optim.ExponentialMovingAverage(0.9)
    trainer = fnn.Trainer(make_model(), nn.CrossEntropyLoss(), optim.Adam(lr=0.1), max_memory=10**9, average=average)
    x, y = make_data()
    trainer.step(x, y)
    twin = copy.deepcopy(trainer)
    before = weights_of(trainer.model)
    losses = [twin.step(x, y) for _ in range(3)]
    assert same(weights_of(trainer.model), before) and trainer.steps == trainer.optimizer.steps == average.steps == 1
    assert [trainer.step(x, y) for _ in range(3)] == losses
    assert same(weights_of(trainer.model), weights_of(twin.model)) and twin.average.steps == 4
    assert np.array_equal(trainer.predict(x), twin.predict(x))


def test_a_state_without_a_part_changes_nothing() -> None:
    trainer = make_trainer()
    trainer.step(*make_data())
    saved, before = trainer.state_dict(), weights_of(trainer.model)
    for name in saved:
        with pytest.raises(ValueError, match=f"there is no '{name}'"):
            trainer.load_state_dict({key: value for key, value in saved.items() if key != name})
    for name, value in (("seed", 2**64), ("seed", -1), ("steps", 2**64), ("epochs", -1)):
        with pytest.raises(ValueError, match=f"{name} must lie in 0 to"):
            trainer.load_state_dict({**saved, name: value, "optimizer": {**saved["optimizer"], "steps": 9}})
    assert same(weights_of(trainer.model), before) and trainer.optimizer.steps == trainer.steps == 1


def test_a_training_is_not_saved_with_its_averages_as_weights() -> None:
    trainer = fnn.Trainer(
        make_model(), nn.CrossEntropyLoss(), optim.Adam(), average=optim.ExponentialMovingAverage(0.5)
    )
    for _ in range(2):
        trainer.step(*make_data())
    saved, before = trainer.state_dict(), trainer.optimizer.steps
    with trainer.average.applied():
        with pytest.raises(RuntimeError, match="to save the training"):
            trainer.state_dict()
        with pytest.raises(RuntimeError, match="to load a training"):
            trainer.load_state_dict({**saved, "optimizer": {**saved["optimizer"], "steps": 9}})
    assert trainer.optimizer.steps == before and same(weights_of(trainer.model), list(saved["model"].values()))
