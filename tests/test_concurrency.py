"""Calls from several Python threads at once: the same bits as one by one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, optim
from fastnn.settings import serial_below
from fastnn.variable import Variable, weights_clock

Array = np.ndarray
THREADS = 10


def at_once(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Runs every task in a thread of its own, all released together; their results in order."""
    barrier, results, errors = threading.Barrier(len(tasks)), [None] * len(tasks), []

    def run(number: int) -> None:
        try:
            barrier.wait()
            with serial_below(0):
                results[number] = tasks[number]()
        except BaseException as error:
            errors.append(error)
            raise

    workers = [threading.Thread(target=run, args=(i,)) for i in range(len(tasks))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert not worker.is_alive(), "a thread never came back"
    assert not errors, errors
    return results


def make_model(dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 17, 3, padding=1), nn.BatchNorm2d(17), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(17, 20, 3), nn.ReLU(),
        nn.Flatten(), nn.Dropout(dropout), nn.Linear(20 * 16, 30), nn.Tanh(), nn.Linear(30, 5),
    )  # fmt: skip


def images(seed: int, samples: int = 4) -> Array:
    return np.random.default_rng(seed).standard_normal((samples, 3, 12, 12)).astype(np.float32)


@pytest.fixture(params=[1, 2, 3])
def team(request: pytest.FixtureRequest) -> int:
    fnn.set_num_threads(request.param)
    return int(request.param)


@pytest.mark.parametrize("compiled", [False, True])
def test_ten_threads_call_one_model(team: int, compiled: bool) -> None:
    """Each thread has its own inputs, of two batch sizes; with and without plans made before."""
    model = make_model().eval()
    inputs = [[images(10 * t + i, 4 if i % 2 else 7) for i in range(12)] for t in range(THREADS)]
    if compiled:
        for x in inputs[0][:2]:
            model(x)
    got = at_once([lambda own=own: [model(x) for x in own] for own in inputs])
    for outputs, own in zip(got, inputs, strict=True):
        for y, x in zip(outputs, own, strict=True):
            np.testing.assert_array_equal(y, model(x))


def test_results_stay_their_callers(team: int) -> None:
    """A result is never memory that another call writes."""
    model = make_model().eval()
    x = images(0)
    expected = model(x)
    kept = at_once([lambda: [model(x) for _ in range(20)]] * THREADS)
    arrays = [y for results in kept for y in results]
    assert len({y.ctypes.data for y in arrays}) == len(arrays)
    for y in arrays:
        np.testing.assert_array_equal(y, expected)


def test_functions_and_gradients_at_once(team: int) -> None:
    model = make_model().eval()
    inputs = [images(t) for t in range(THREADS)]

    def work(x: Array) -> list[Array]:
        y, pullback = fnn.vjp(model, x)
        return [y, *pullback(np.ones_like(y)), F.gelu(x), F.softmax(y, 1)]

    got = at_once([lambda x=x: work(x) for x in inputs])
    for results, x in zip(got, inputs, strict=True):
        for a, b in zip(results, work(x), strict=True):
            np.testing.assert_array_equal(a, b)


def new_trainer(kind: int) -> fnn.Trainer:
    """Two trainers that have nothing in common, each with random layers, clipping and averages."""
    fnn.manual_seed(kind)
    if kind == 0:
        return fnn.Trainer(
            make_model(0.3), nn.CrossEntropyLoss(), optim.SGD(lr=0.05, momentum=0.9), seed=1, clip_norm=1.0
        )
    model = nn.Sequential(nn.Flatten(), nn.Linear(432, 64), nn.RReLU(), nn.Dropout(0.5), nn.Linear(64, 5))
    average = optim.ExponentialMovingAverage(0.9)
    return fnn.Trainer(model, nn.CrossEntropyLoss(label_smoothing=0.1), optim.AdamW(lr=0.01), seed=2, average=average)


def train(trainer: fnn.Trainer) -> list[Any]:
    x, y = images(5, 50), np.arange(50) % 5
    history = trainer.fit(x, y, epochs=3, batch_size=8, progress=False)
    return [*history.history["loss"], *trainer.model.state_dict().values(), trainer.predict(x)]


def test_two_trainers_in_two_threads(team: int) -> None:
    expected = [train(new_trainer(kind)) for kind in (0, 1)]
    trainers = [new_trainer(kind) for kind in (0, 1)]
    got = at_once([lambda trainer=trainer: train(trainer) for trainer in trainers])
    for results, wanted in zip(got, expected, strict=True):
        for a, b in zip(results, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_six_trainers_of_two_kinds_beside_inference(team: int) -> None:
    expected = [train(new_trainer(kind)) for kind in (0, 1)]
    model = make_model().eval()
    x = images(3)
    y = model(x)
    tasks: list[Callable[[], Any]] = []
    for number in range(6):
        trainer = new_trainer(number % 2)
        tasks.append(lambda trainer=trainer: train(trainer))
    tasks += [lambda: [model(x) for _ in range(30)]] * 4
    got = at_once(tasks)
    for number, results in enumerate(got[:6]):
        for a, b in zip(results, expected[number % 2], strict=True):
            np.testing.assert_array_equal(a, b)
    for outputs in got[6:]:
        for a in outputs:
            np.testing.assert_array_equal(a, y)


def test_different_instruction_sets_at_once(team: int) -> None:
    """use_isa belongs to the thread that says it."""
    model = make_model().eval()
    x = images(1)

    def on(isa: str) -> Array:
        with fnn.use_isa(isa):
            return model(x)

    isas = list(fnn.available_isas()) * 3
    expected = {isa: on(isa) for isa in isas}
    for isa, y in zip(isas, at_once([lambda isa=isa: on(isa) for isa in isas]), strict=True):
        np.testing.assert_array_equal(y, expected[isa])


def test_evaluation_while_another_thread_changes_the_number_of_threads() -> None:
    model = make_model().eval()
    x = images(2)
    expected = model(x)
    stop = threading.Event()

    def change() -> None:
        for count in (1, 2, 3, 5) * 10:
            fnn.set_num_threads(count)
        stop.set()

    def call() -> list[Array]:
        outputs = [model(x)]
        while not stop.is_set():
            outputs.append(model(x))
        return outputs[-20:]

    for outputs in at_once([change, call, call, call])[1:]:
        for y in outputs:
            np.testing.assert_array_equal(y, expected)


def test_more_threads_than_a_plan_was_made_for(rng: np.random.Generator) -> None:
    """What was compiled for one thread has room for one: it runs on no more, whatever is set meanwhile."""
    x = rng.standard_normal((4, 8, 30, 30), np.float32)
    weight = rng.standard_normal((16, 8, 3, 3), np.float32)
    with serial_below(0):
        fnn.set_num_threads(1)
        y, pullback = fnn.vjp(lambda x, w: F.conv2d(x, w, padding=1), x, weight)
        expected = pullback(y)
        for count in (2, 3, 8):
            fnn.set_num_threads(count)
            for gradient, same in zip(pullback(y), expected, strict=True):
                np.testing.assert_array_equal(gradient, same)


class Meanwhile(nn.Module):
    """Scales by a number; while it is traced for the first time, another thread does something."""

    def __init__(self, task: Callable[[Any], Any]) -> None:
        super().__init__()
        self.scale, self.dropout = 1.0, nn.Dropout(1.0)
        self.__dict__["others"] = [threading.Thread(target=task, args=(self,))]

    def forward(self, x: Any) -> Any:
        y = self.dropout(x * self.scale)
        if self.others:
            other = self.others.pop()
            other.start()
            other.join(0.3)
        return y


def test_a_change_during_a_trace_is_seen_by_the_next_call() -> None:
    model = Meanwhile(lambda model: setattr(model, "scale", 5.0)).eval()
    x = np.ones((2, 3), np.float32)
    model(x)
    for _ in range(3):
        np.testing.assert_array_equal(model(x), 5 * x)


def test_a_call_does_not_see_the_mode_of_a_trainer_that_traces() -> None:
    x, results = np.ones((2, 3), np.float32), []
    model = nn.Sequential(Meanwhile(lambda _: results.append(model(x))), nn.Linear(3, 3, bias=False))
    trainer = fnn.Trainer(model, nn.MSELoss(), optim.SGD(lr=0.1))
    other = model[0].others[0]
    assert trainer.evaluate(x, x)["loss"] > 0
    other.join()
    for y in (*results, model(x)):
        np.testing.assert_array_equal(y, np.zeros((2, 3)))  # in training mode everything is dropped


class Watcher:
    """Something with a time of change, that looks at the clock in the moment when it is given one."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    @property
    def changed(self) -> int:
        return self.seen[-1][0]

    @changed.setter
    def changed(self, time: int) -> None:
        self.seen.append((time, weights_clock.now))


def test_a_change_is_noted_before_the_clock_tells_of_it() -> None:
    """Else a plan that runs in between takes the new time for one at which nothing had changed, and keeps old weights."""
    watcher = Watcher()
    Variable.touch(watcher)  # type: ignore[arg-type]
    weights_clock.stamp((watcher, watcher))
    assert len(watcher.seen) == 3
    assert all(now == time - 1 for time, now in watcher.seen)
    assert weights_clock.now == watcher.changed
