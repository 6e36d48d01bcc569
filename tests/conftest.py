"""Fixtures that every test file shares: ISAs, numbers of threads, seeds, and the settings put back after each test."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from ran import built_kernels, partial_modules

import fastnn as fnn
from fastnn import _core
from fastnn.settings import serial_below

BITWISE_THREADS = tuple(int(count) for count in os.environ.get("FASTNN_TEST_THREADS", "1,2,3,5,8").split(","))
"""Team sizes between which no bit of a result may differ; a sanitizer, which looks at memory, need not see them all."""


@pytest.fixture(autouse=True)
def restored_settings() -> Iterator[None]:
    """Each test starts at seed 0 with the default threads, and leaves them so."""
    threads = fnn.get_num_threads()
    fnn.manual_seed(0)
    yield
    fnn.set_num_threads(threads)
    fnn.manual_seed(0)


@pytest.fixture(params=fnn.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once on each instruction set of this CPU."""
    with fnn.use_isa(request.param):
        yield request.param


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """The test runs with one thread, and with an uneven team that shares even the smallest step."""
    fnn.set_num_threads(request.param)
    with serial_below(0):
        yield int(request.param)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name alone."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


def _bits(result: Any) -> list[bytes]:
    results = result if isinstance(result, (tuple, list)) else [result]
    return [repr(np.shape(r)).encode() + np.ascontiguousarray(r).tobytes() for r in results]


@pytest.fixture
def same_bits() -> Callable[..., Any]:
    """same_bits(function) calls function() with 1, 2, 3, 5 and 8 threads; every result has the bits of the first.

    function returns an array, a number, or a sequence of them; same_bits returns the result of one thread. What
    function does to random state or to a model it must undo itself.
    """

    def check(function: Callable[[], Any], counts: Sequence[int] = BITWISE_THREADS) -> Any:
        before = fnn.get_num_threads()
        first = None
        try:
            for count in counts:
                fnn.set_num_threads(count)
                with serial_below(0):
                    result = function()
                if first is None:
                    first = result
                assert _bits(result) == _bits(first), f"{count} threads gave other bits than {counts[0]}"
        finally:
            fnn.set_num_threads(before)
        return first

    return check


# ---- which kernels ran, and which tests


def _record_programs() -> None:
    original = _core.Program

    class RecordingProgram(original):
        """A program that notes its kernels."""

        def __init__(self, isa: str, steps: list[Any], *args: Any, **kwargs: Any) -> None:
            super().__init__(isa, steps, *args, **kwargs)
            built_kernels.update(step[0] for step in steps)

    _core.Program = RecordingProgram


_record_programs()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    partial_modules.update(item.path.name for item in items)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The registry test runs last: it asks what the others did."""
    partial_modules.update(str(arg).split("::")[0].rpartition("/")[2] for arg in config.args if "::" in str(arg))
    items.sort(key=lambda item: item.path.name == "test_registry.py")
