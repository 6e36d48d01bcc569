"""Trainer: what a step computes, what a fit does with the data, and that its bits depend on the seed alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, optim, reference
from fastnn.train import Callback, LambdaCallback
from fastnn.train.batches import Batches
from fastnn.variable import Array


def make_model(dropout: float = 0.4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout), nn.Flatten(),
        nn.Linear(30, 3),
    )  # fmt: skip


def make_data(samples: int = 23) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((samples, 2, 5, 7)).astype(np.float32)
    return x, np.argmax(x[:, 0, :3, 0], axis=1)


def make_trainer(seed: int = 1, dropout: float = 0.4, **options: Any) -> fnn.Trainer:
    fnn.manual_seed(3)
    optimizer = options.pop("optimizer", None) or optim.Adam(lr=0.01)
    return fnn.Trainer(make_model(dropout), nn.CrossEntropyLoss(), optimizer, seed=seed, **options)


def losses_of(trainer: fnn.Trainer, epochs: int = 2, **options: Any) -> list[float]:
    losses: list[float] = []
    record = LambdaCallback(on_batch_end=lambda batch, logs: losses.append(logs["loss"]))
    x, y = make_data()
    trainer.fit(x, y, epochs, 8, callbacks=[record], progress=False, **options)
    return losses


def weights_of(model: nn.Module) -> list[Array]:
    return list(model.state_dict().values())


def same(a: list[Array], b: list[Array]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


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


# ---- one step


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


def test_trainers_in_threads_give_the_bits_of_one_by_one() -> None:
    x, y = make_data()
    expected = [[t.step(x, y) for _ in range(20)] for t in (make_trainer(1), make_trainer(2), make_trainer(3))]
    trainers = [make_trainer(1), make_trainer(2), make_trainer(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda trainer: [trainer.step(x, y) for _ in range(20)], trainers))
    assert found == expected


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


# ---- bits


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


# ---- what a fit does with the data


def seen_batches(seed: int = 9, **options: Any) -> list[list[float]]:
    seen: list[list[float]] = []

    def metric(output: Array, target: Array) -> float:
        assert np.array_equal(output[:, 0] * 2, target)
        seen.append(output[:, 0].tolist())
        return 0.0

    model = nn.Sequential(nn.Linear(1, 1))
    model[0].weight.data, model[0].bias.data = [[1.0]], [0.0]
    trainer = fnn.Trainer(model, lambda output, target: output.sum(), optim.SGD(lr=0.0), [metric], seed=seed)
    x = np.arange(10.0)[:, None]
    trainer.fit(x, 2 * x[:, 0], batch_size=4, progress=False, **options)
    return seen


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


# ---- evaluation


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


# ---- what wrong input gets


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
    with pytest.raises(TypeError, match="loss must be callable"):
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


def test_batches_of_channels_last_images_stay_channels_last() -> None:
    x = np.ascontiguousarray(make_data()[0].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    order = np.random.default_rng(0).permutation(23)
    for batch, _ in Batches(x, np.zeros(23), 8).shuffled(order):
        assert batch.transpose(0, 2, 3, 1).flags.c_contiguous
        assert np.array_equal(batch, x[order[: len(batch)]])
        order = order[len(batch) :]


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.RMSprop], ids=lambda make: make.__name__)
def test_a_step_on_an_empty_batch(isa: str, make: Callable[..., optim.Optimizer]) -> None:
    """The mean loss of nothing is NaN, as in PyTorch; every gradient is a sum of nothing or NaN, and nothing crashes."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(),
                          nn.Linear(72, 200), nn.ReLU(), nn.Linear(200, 10))  # fmt: skip
    x, y = np.zeros((0, 3, 8, 8), np.float32), np.zeros(0, np.int64)
    gradients = fnn.value_and_grad(model, nn.CrossEntropyLoss(reduction="sum"))(x, y)[1]
    assert all(np.all(gradient == 0) for gradient in gradients.values())
    assert np.isnan(fnn.Trainer(model, nn.CrossEntropyLoss(), make(lr=0.1)).step(x, y))
