"""Monitors: they see what happened, name it rightly, and change no bit of the training."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, optim
from fastnn.train import Callback, DyingReLU, FirstNonFinite, NormMonitor

Array = np.ndarray


def make_model() -> nn.Sequential:
    fnn.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(6 * 16, 20), nn.ReLU6(), nn.Linear(20, 4),
    )  # fmt: skip


def data(samples: int = 22) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((samples, 2, 6, 6)).astype(np.float32), rng.integers(0, 4, samples)


def fit(model: nn.Module, *callbacks: Callback, epochs: int = 2, lr: float = 0.1, **options: Any) -> Any:
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=lr, momentum=0.9), ["accuracy"], seed=5)
    x, y = options.pop("data", None) or data()
    return trainer, trainer.fit(x, y, epochs, 8, callbacks=callbacks, progress=False, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [DyingReLU(False)], lambda: [NormMonitor(1, False)], lambda: [NormMonitor(2, False)],
        lambda: [FirstNonFinite(every=1)], lambda: [DyingReLU(False), NormMonitor(2, False), FirstNonFinite()],
    ],
)  # fmt: skip
def test_monitors_change_no_bit(isa: str, threads: int, make: Any) -> None:
    plain, history = fit(make_model())
    watched, seen = fit(make_model(), *make())
    assert history.history == seen.history
    for name, value in plain.model.state_dict().items():
        np.testing.assert_array_equal(watched.model.state_dict()[name], value)
    assert watched.step(*data(8)) == plain.step(*data(8)), "the plain step is back after fit"


def test_units_that_never_fired(isa: str, threads: int) -> None:
    """A frozen model without random layers: the monitor's units are those that predict's batches show."""
    fnn.manual_seed(2)
    first, second = nn.Conv2d(2, 19, 3, padding=1), nn.Linear(19 * 36, 70)
    model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), second, nn.ReLU(), nn.Linear(70, 4))
    first.bias.data = np.where(np.arange(19) % 4 == 0, -9.0, -0.8)
    second.bias.data = np.full(70, -0.4)
    x, y = data(30)
    monitor = DyingReLU(verbose=False)
    trainer, _ = fit(model, monitor, lr=0.0, epochs=3, data=(x, y))
    maps = nn.Sequential(first, nn.ReLU())(x)
    hidden = model[4](second(maps.reshape(30, -1)))
    assert [units.layer for units in monitor.figures] == ["1", "4"]
    np.testing.assert_array_equal(monitor.figures[0].fired, (maps > 0).any(0))
    np.testing.assert_array_equal(monitor.figures[1].fired, (hidden > 0).any(0))
    assert monitor.figures[0].dead_channels[:2] == (0, 4)
    assert set(range(0, 19, 4)) <= set(monitor.figures[0].dead_channels)
    assert 0 < monitor.figures[0].dead_fraction < 1 and len(monitor.history) == 3


def test_each_epoch_starts_anew() -> None:
    """A layer that dies in training is alive in the first epoch's figures and dead in the last's."""
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))

    class Kill(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            model[0].bias.data = np.full(8, -1e3)

    monitor = DyingReLU(verbose=False)
    x = np.random.default_rng(0).standard_normal((16, 3))
    fit(model, monitor, Kill(), lr=0.0, data=(x, (x[:, 0] > 0).astype(int)))
    assert monitor.history[0][0].dead_fraction < 1 and monitor.history[1][0].dead_fraction == 1
    assert monitor.history[1][0].dead_channels == tuple(range(8))


def test_relu_functions_and_layers_used_twice() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.last = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            return F.relu(self.last(self.relu(self.last(self.relu(self.first(x))))))

    monitor, norms = DyingReLU(verbose=False), NormMonitor(1, verbose=False)
    x = np.random.default_rng(0).standard_normal((16, 4))
    fit(Net(), monitor, norms, data=(x, np.arange(16) % 6))
    assert [units.layer for units in monitor.figures] == ["relu", "relu #2", "relu 3"]
    assert {norm.name for norm in norms.gradients} == {"first.weight", "first.bias", "last.weight", "last.bias"}


def test_norms(isa: str, threads: int) -> None:
    """One step of a linear layer: the norms are those of value_and_grad and of the outputs."""
    fnn.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    x = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    y = np.arange(8) % 3
    monitor = NormMonitor(every=1, verbose=False)
    gradients = fnn.value_and_grad(model, nn.CrossEntropyLoss())(x, y)[1]
    hidden = model[0](x)
    fit(model, monitor, epochs=1, data=(x, y), shuffle=False)
    found = {norm.name: norm for norm in monitor.gradients}
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert abs(found[name].norm - np.linalg.norm(gradient)) <= 1e-5 * found[name].norm
        assert abs(found[name].largest - np.abs(gradient).max()) <= 1e-5 * found[name].largest
    shown = {norm.name: norm.norm for norm in monitor.activations}
    assert abs(shown["0"] - np.linalg.norm(hidden)) <= 1e-5 * shown["0"]
    assert all(norm.not_finite == 0 for norm in [*monitor.gradients, *monitor.activations])


def test_norms_are_means_over_the_sampled_steps() -> None:
    calls: list[tuple[int, ...]] = []

    class Spy(NormMonitor):
        def on_batch_end(self, batch: int, logs: Any) -> None:
            super().on_batch_end(batch, logs)
            calls.append((self.trainer.steps, self._looked))

    fit(make_model(), Spy(every=2, verbose=False), epochs=1, data=data(40))
    assert calls == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)]


def test_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    fit(make_model(), DyingReLU(), NormMonitor(1), epochs=1)
    out = capsys.readouterr().out
    assert "ReLU layer  units" in out and "never fired" in out and "gradient 0.weight" in out and "activation 9" in out


def test_a_monitor_that_looks_at_nothing_yet_has_a_table() -> None:
    assert "units" in DyingReLU().table() and "norm" in NormMonitor().table()


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_intervals_that_are_none(every: Any, error: type[Exception]) -> None:
    for make in (NormMonitor, lambda n: FirstNonFinite(every=n)):
        with pytest.raises(error, match="every"):
            make(every)


# ---- the first number that is not finite


class Poison(nn.Module):
    """The identity, until its buffer says otherwise: x / (1 - bad), infinite or NaN when bad is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = nn.Buffer(np.zeros(1))

    def forward(self, x: Any) -> Any:
        return x / (x * 0.0 + 1.0 - self.bad)


def poisoned() -> nn.Sequential:
    fnn.manual_seed(3)
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), Poison(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 3)
    )


class At(Callback):
    """Does something before a step of the training, counted from 1."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_batch_begin(self, batch: int, logs: Any) -> None:
        if self.trainer.steps == self.step - 1:
            self.action(self.trainer)


def vectors() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((24, 4)).astype(np.float32), rng.integers(0, 3, 24)


def set_bad(trainer: fnn.Trainer) -> None:
    trainer.model[3].bad.data = np.ones(1)


@pytest.mark.parametrize("action", ["stop", "continue"])
def test_the_layer_and_the_step_are_named(isa: str, threads: int, action: str) -> None:
    guard = FirstNonFinite(action)
    states: dict[int, Any] = {}

    class Keep(Callback):
        def on_batch_begin(self, batch: int, logs: Any) -> None:
            states[self.trainer.steps + 1] = self.trainer.model.state_dict()

    with pytest.warns(RuntimeWarning, match=r"output of layer '3' is the first .* in step 5 \(epoch 1, batch 1\)"):
        trainer, _ = fit(poisoned(), At(5, set_bad), Keep(), guard, data=vectors(), epochs=3)
    assert (guard.finding.kind, guard.finding.name, guard.finding.step) == ("layer", "3", 5)
    if action == "continue":
        assert trainer.steps == 9 and not np.isfinite(trainer.model[0].weight.data).all()
        return
    assert trainer.steps == 4
    for name, value in trainer.model.state_dict().items():
        if name != "3.bad":
            np.testing.assert_array_equal(value, states[5][name], err_msg="as before the step")


def test_what_was_finite_is_not_named() -> None:
    guard = FirstNonFinite()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(make_model(), guard)
    assert guard.finding is None


def test_input_that_is_not_finite() -> None:
    x, y = vectors()
    x[13, 2] = np.inf
    guard = FirstNonFinite()
    with pytest.warns(RuntimeWarning, match=r"the input is the first .* in step 2"):
        fit(poisoned(), guard, data=(x, y), shuffle=False)
    assert guard.finding.kind == "input"


class BadGradient(Poison):
    """The identity; with its buffer at 3e38 the gradient is infinity minus infinity."""

    def forward(self, x: Any) -> Any:
        return x * ((x - x) * self.bad * self.bad + 1.0)


@pytest.mark.parametrize("action", ["stop", "raise"])
def test_a_gradient_that_is_not_finite(action: str) -> None:
    """The backward pass of step 5 makes NaN: step 6 finds the weights it was written to, and names step 5 and the layer
    that the backward pass met first behind its origin."""

    def set_bad(trainer: fnn.Trainer) -> None:
        trainer.model[1].bad.data = np.full(1, 3e38)

    fnn.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), BadGradient(), nn.Linear(6, 3))
    guard = FirstNonFinite(action, every=1000)
    message = r"the update in step 5 \(epoch 1, batch 1\) made parameter '0.bias' infinite or NaN"
    context: Any = pytest.raises(FloatingPointError, match=message)
    with context if action == "raise" else pytest.warns(RuntimeWarning, match=message):
        fit(model, At(5, set_bad), guard, data=vectors(), epochs=3)
    assert (guard.finding.kind, guard.finding.step) == ("parameter", 5)


def test_parameters_are_looked_at_at_intervals() -> None:
    """A weight that no output depends on any more: behind a ReLU that is 0."""

    def hide(trainer: fnn.Trainer) -> None:
        trainer.model[4].bias.data = np.full(3, -np.inf)

    guard = FirstNonFinite("raise", every=2)
    with pytest.raises(FloatingPointError, match="parameter '4.bias'"):
        fit(poisoned(), At(1, hide), guard, data=vectors(), epochs=2, lr=0.0)
    assert guard.finding.step == 2


def test_a_loss_that_is_the_first() -> None:
    def loss(output: Any, target: Any) -> Any:
        return output.sum() * 0.0 / (output.sum() * 0.0)

    trainer = fnn.Trainer(poisoned(), loss, optim.SGD(lr=0.1))
    guard = FirstNonFinite("raise")
    x, y = vectors()
    with pytest.raises(FloatingPointError, match="the loss is the first"):
        trainer.fit(x, y, callbacks=[guard], progress=False)


def test_actions_that_are_none() -> None:
    with pytest.raises(ValueError, match="action must be"):
        FirstNonFinite("panic")


def test_one_guard_is_enough() -> None:
    with pytest.raises(ValueError, match="one FirstNonFinite at most"):
        fit(poisoned(), FirstNonFinite(), FirstNonFinite(), data=vectors())
