"""Trainer: its bits depend on the seed alone, not on threads, other trainers, or a break."""

from __future__ import annotations

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
