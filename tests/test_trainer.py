"""Trainer: what a step computes, which parts it trains and which may be replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trainers import make_data, make_model, make_trainer, same, weights_of

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, optim
from fastnn.benchmark.machine import Machine


@pytest.mark.parametrize(
    ("part", "make"),
    [
        ("loss", lambda: nn.CrossEntropyLoss(label_smoothing=0.5)),
        ("loss", lambda: lambda output, y: F.cross_entropy(output, y, reduction="sum")),
        ("optimizer", lambda: optim.AdamW(lr=0.1)),
        ("clipping", lambda: optim.Clipping(value=1e-3)),
        ("clipping", lambda: None),
        ("average", lambda: optim.ExponentialMovingAverage(0.5)),
        ("average", lambda: None),
    ],
)
def test_a_part_may_be_replaced(part: str, make: Callable[[], Any]) -> None:
    """The steps behind it are those of a trainer that had the new part from the start."""
    x, y = make_data()
    before = (
        {}
        if make() is not None
        else {"clipping": {"clip_norm": 1e-3}}.get(part, {"average": optim.ExponentialMovingAverage(0.9)})
    )
    trainer = make_trainer(dropout=0.0, optimizer=optim.SGD(lr=0.1), **before)
    for _ in range(3):
        trainer.step(x, y)
    expected = make_trainer(dropout=0.0, optimizer=optim.SGD(lr=0.1))
    expected.model.load_state_dict(trainer.model.state_dict())
    setattr(expected, part, make())
    setattr(trainer, part, make())
    for _ in range(3):
        assert trainer.step(x, y) == expected.step(x, y)
    assert same(weights_of(trainer.model), weights_of(expected.model))
    if trainer.average is not None:
        for parameter, other in zip(trainer.model.parameters(), expected.model.parameters(), strict=True):
            np.testing.assert_array_equal(trainer.average[parameter], expected.average[other])


def test_a_step_is_the_gradient_times_the_learning_rate(isa: str, threads: int) -> None:
    """With lr a power of two the update has one rounding: the bits are known."""
    x, y = make_data()
    trainer = make_trainer(dropout=0.0, optimizer=optim.SGD(lr=0.5))
    before = {name: np.array(p.data) for name, p in trainer.model.named_parameters()}
    copy = make_model(0.0)
    copy.load_state_dict(trainer.model.state_dict())
    value, gradients = fnn.value_and_grad(copy, nn.CrossEntropyLoss())(x, y)
    assert trainer.step(x, y) == value
    for name, parameter in trainer.model.named_parameters():
        assert np.array_equal(parameter.data, before[name] - np.float32(0.5) * gradients[name]), name
    for name, buffer in trainer.model.named_buffers():
        assert np.array_equal(buffer.data, copy.state_dict()[name]), name


def test_a_loss_that_falls() -> None:
    x, y = make_data()
    trainer = make_trainer(dropout=0.0)
    losses = [trainer.step(x, y) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]


def test_the_model_is_seen_changed_by_its_next_call() -> None:
    x, y = make_data()
    trainer = make_trainer()
    trainer.model.eval()
    before = trainer.model(x)
    trainer.model.train()
    trainer.step(x, y)
    trainer.model.eval()
    assert not np.array_equal(trainer.model(x), before)


def test_labels_may_have_any_integer_type_and_images_any_layout() -> None:
    x, y = make_data()
    expected = make_trainer().step(x, y)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    strided = np.stack([x, x], axis=-1)[..., 0]
    for images in (last, strided, x.astype(np.float64), x.astype(">f4")):
        for labels in (y, y.astype(np.uint8), y.astype(np.int32)):
            assert make_trainer().step(images, labels) == expected


def test_frozen_parameters_stay() -> None:
    trainer = make_trainer()
    trainer.model[0].requires_grad_(False)
    before = np.array(trainer.model[0].weight.data)
    other = np.array(trainer.model[6].weight.data)
    trainer.step(*make_data())
    assert np.array_equal(trainer.model[0].weight.data, before)
    assert not np.array_equal(trainer.model[6].weight.data, other)


def test_an_optimizer_of_some_parameters_trains_these_alone() -> None:
    model = make_model()
    before = model.state_dict()
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model[6].parameters(), lr=0.1))
    trainer.step(*make_data())
    changed = {name for name, value in model.named_parameters() if not np.array_equal(value.data, before[name])}
    assert changed == {"6.weight", "6.bias"}


def test_a_group_added_by_hand_keeps_its_parameters() -> None:
    model, optimizer = make_model(), optim.SGD(lr=0.0)
    optimizer.add_param_group({"params": model[6].parameters(), "lr": 0.5})
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optimizer)
    before = trainer.model.state_dict()
    trainer.step(*make_data())
    changed = {name for name, value in trainer.model.named_parameters() if not np.array_equal(value.data, before[name])}
    assert changed == {"6.weight", "6.bias"}
    assert len(optimizer.parameters()) == len({id(p) for p in optimizer.parameters()}) == 6


def test_each_size_of_batch_is_traced_once() -> None:
    traces: list[tuple[int, ...]] = []

    def loss(output: Any, target: Any) -> Any:
        traces.append(output.shape)
        return F.cross_entropy(output, target)

    trainer = fnn.Trainer(make_model(), loss, optim.Adam(), ["accuracy"])
    x, y = make_data()
    trainer.fit(x, y, 3, 10, validation_data=(x, y), progress=False)
    trainer.optimizer.param_groups[0]["lr"] = 0.5
    trainer.fit(x, y, 2, 10, progress=False)
    assert sorted(traces) == [(3, 3), (3, 3), (10, 3), (10, 3)]


def test_parameters_of_the_loss_are_trained_too() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, output: Any, target: Any) -> Any:
            return F.cross_entropy(self.inner(output), target)

    loss = Scaled()
    before = np.array(loss.inner.weight.data)
    fnn.Trainer(make_model(), loss, optim.SGD(lr=0.1)).step(*make_data())
    assert not np.array_equal(loss.inner.weight.data, before)


def test_parts_in_evaluation_mode_stay_there() -> None:
    trainer = make_trainer()
    trainer.model[1].eval()
    before = np.array(trainer.model[1].running_mean.data)
    trainer.step(*make_data())
    assert np.array_equal(trainer.model[1].running_mean.data, before)
    assert not trainer.model[1].training and trainer.model.training


def test_a_model_in_evaluation_mode_is_trained_and_stays_there() -> None:
    trainer = make_trainer()
    trainer.model.eval()
    before = np.array(trainer.model[1].running_mean.data)
    trainer.fit(*make_data(), epochs=1, progress=False)
    assert not np.array_equal(trainer.model[1].running_mean.data, before)
    assert not any(module.training for module in trainer.model.modules())


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.RMSprop], ids=lambda make: make.__name__)
def test_a_step_on_an_empty_batch(isa: str, make: Callable[..., optim.Optimizer]) -> None:
    """The mean loss of nothing is NaN, as in PyTorch; every gradient is a sum of nothing or NaN, and nothing crashes."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(),
                          nn.Linear(72, 200), nn.ReLU(), nn.Linear(200, 10))  # fmt: skip
    x, y = np.zeros((0, 3, 8, 8), np.float32), np.zeros(0, np.int64)
    gradients = fnn.value_and_grad(model, nn.CrossEntropyLoss(reduction="sum"))(x, y)[1]
    assert all(np.all(gradient == 0) for gradient in gradients.values())
    assert np.isnan(fnn.Trainer(model, nn.CrossEntropyLoss(), make(lr=0.1)).step(x, y))


def test_a_profiled_step_trains_like_any_other() -> None:
    (x, y), machine = make_data(8), Machine("scalar", 1, 10.0, 10.0)
    profiled, stepped = (
        make_trainer(average=optim.ExponentialMovingAverage(0.5)),
        make_trainer(average=optim.ExponentialMovingAverage(0.5)),
    )
    for _ in range(2):
        found = profiled.profile(x, y, machine)
        stepped.step(x, y)
    assert same(weights_of(profiled.model), weights_of(stepped.model))
    assert profiled.steps == profiled.optimizer.steps == 2
    kernels = [step.kernel for step in found.steps]
    assert "adam_step" in kernels and "cross_entropy_forward" in kernels
    assert found.seconds > 0 and "adam_step" in str(found)
    with pytest.raises(ValueError, match="expected 2 channels"):
        profiled.profile(x[:, :1], y, machine)
    assert profiled.steps == 2
