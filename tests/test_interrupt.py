"""Ctrl-C while kernels run: a step is made and counted, or it is neither."""

from __future__ import annotations

import gc
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim, train
from fastnn.benchmark.machine import Machine
from fastnn.locks import Lock, _locks

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send signals")

SAMPLES, FEATURES, CLASSES = 256, 512, 256
DELAYS = (0.003, 0.007, 0.011, 0.017, 0.023)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """KeyboardInterrupt in the block, as Ctrl-C raises it, and no later. Not in the callbacks that the garbage collector has from
    others, where it would be lost."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, should it be lost in a destructor of somebody's
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


def _trainer() -> fnn.Trainer:
    fnn.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(FEATURES, 1024), nn.BatchNorm1d(1024), nn.ReLU(), nn.Dropout(0.3), nn.Linear(1024, CLASSES)
    )
    average = optim.ExponentialMovingAverage(0.9)
    return fnn.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(lr=1e-3), average=average, seed=0)


def _by_steps(trainer: fnn.Trainer, x: np.ndarray, y: np.ndarray) -> None:
    while True:
        trainer.step(x, y)


def _by_profiles(trainer: fnn.Trainer, x: np.ndarray, y: np.ndarray) -> None:
    machine = Machine(fnn.current_isa(), 1, 100.0, 10.0)
    while True:
        trainer.profile(x, y, machine=machine)


def _by_fit(*callbacks: train.Callback) -> Callable[..., None]:
    def fit(trainer: fnn.Trainer, x: np.ndarray, y: np.ndarray) -> None:
        trainer.fit(x, y, 1000, SAMPLES, callbacks=callbacks, progress=False, shuffle=False)

    return fit


@pytest.mark.parametrize(
    "run",
    [_by_steps, _by_profiles, _by_fit(train.FirstNonFinite()), _by_fit(train.NormMonitor(1, verbose=False))],
    ids=["step", "profile", "guard", "monitor"],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_an_interrupted_training_goes_on_with_the_same_bits(
    run: Callable[..., None], first: bool, rng: np.random.Generator
) -> None:
    x, y = rng.normal(size=(SAMPLES, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, SAMPLES)
    for delay in DELAYS:
        trainer, expected = _trainer(), _trainer()
        if not first:
            trainer.step(x, y)
        trainer.predict(x)  # packs weights, which every step makes stale
        with interrupted_after(delay):
            run(trainer, x, y)
        trainer.step(x, y)
        for _ in range(trainer.steps):
            expected.step(x, y)
        counts = trainer.optimizer.steps, trainer.average.steps, int(trainer.model[1].num_batches_tracked.data)  # type: ignore[union-attr]
        assert counts == (trainer.steps,) * 3
        for name, values in expected.model.state_dict().items():
            np.testing.assert_array_equal(trainer.model.state_dict()[name], values, err_msg=name)
        np.testing.assert_array_equal(trainer.predict(x), expected.predict(x))


def test_a_lock_runs_no_line_of_python() -> None:
    lock = Lock()
    assert not hasattr(lock.acquire, "__code__") and not hasattr(lock.release, "__code__")
    held = lock.acquire
    lock.renew()
    assert lock.acquire != held


def test_a_lock_that_dies_runs_no_line_of_python() -> None:
    """An exception of a signal handler that runs then would be lost."""
    lock = Lock()
    (known,) = weakref.getweakrefs(lock)
    assert known in _locks and isinstance(known.__callback__, BuiltinFunctionType)
    del lock
    gc.collect()
    assert known not in _locks
