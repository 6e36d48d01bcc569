"""What the user may choose for a block of code: instruction set, convolution algorithm, rewrites of the graph."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from operator import index
from typing import Any

from . import _core
from .plan import SERIAL_WORK, Facts, facts_of

CONVOLUTION_ALGORITHMS = ("auto", "direct", "winograd", "strip", "indirect", "spread", "expand")


PASS_NAMES: list[str] = []
"""The rewrites of graphs that can be left out; `fastnn.passes` enters them."""


def available_isas() -> tuple[str, ...]:
    """The instruction sets that this CPU runs, the best one last.

    >>> "scalar" in available_isas()
    True
    """
    return tuple(_core.ISAS)


def _checked_isa(name: str, source: str) -> str:
    if name not in _core.ISAS:
        raise ValueError(f"{source}: this CPU does not run {name!r}; it runs {', '.join(available_isas())}")
    return name


def _default_isa() -> str:
    wanted = os.environ.get("FASTNN_ISA")
    return _checked_isa(wanted, "FASTNN_ISA") if wanted else available_isas()[-1]


def _check_thread_variable() -> None:
    """The C side reads FASTNN_NUM_THREADS, and passes over what is no number, as OpenMP does with OMP_NUM_THREADS."""
    value = os.environ.get("FASTNN_NUM_THREADS", "").strip()
    if value and not (value.isdecimal() and int(value) > 0):
        raise ValueError(f"FASTNN_NUM_THREADS: {value!r} is not a number of threads, one or more")


_check_thread_variable()


@dataclass(frozen=True)
class Choice:
    """All that holds for a block of code; one object stays in force until another is chosen."""

    isa: str
    convolution: str = "auto"
    serial_work: float = SERIAL_WORK
    without: frozenset[str] = frozenset()
    """Passes that are left out."""


_choice: ContextVar[Choice] = ContextVar("fastnn_settings", default=Choice(_default_isa()))  # noqa: B039  it is frozen

current_choice = _choice.get
"""() -> the settings in force here."""


@contextmanager
def _chosen(**changes: Any) -> Iterator[None]:
    token = _choice.set(replace(_choice.get(), **changes))
    try:
        yield
    finally:
        _choice.reset(token)


def current_isa() -> str:
    """The instruction set that calls made here use: the best one, unless `FASTNN_ISA` or `use_isa` says otherwise.

    >>> current_isa() in available_isas()
    True
    """
    return _choice.get().isa


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Lets the calls inside the block use one instruction set.

    Parameters
    ----------
    name : one of `available_isas()`; anything else raises ValueError.

    >>> with use_isa("scalar"):
    ...     current_isa()
    'scalar'
    """
    with _chosen(isa=_checked_isa(name, "use_isa")):
        yield


@contextmanager
def conv_algorithm(name: str) -> Iterator[None]:
    """Chooses how the convolutions inside the block are computed, wherever the algorithm applies.

    Parameters
    ----------
    name : "auto" (by shape), "direct" (no Winograd, whose rounding errors are larger), "winograd" (3x3 and 5x5 filters
        with stride 1, 3x3 with stride 2), or one form of the direct algorithm, "strip" (rows of patches are copied),
        "indirect" (taps are found by pointers), "spread" (filter rows are spread over rows of the result; stride 1
        forward, any backward) or "expand" (groups as depthwise convolutions of repeated channels).

    >>> with conv_algorithm("direct"):
    ...     pass
    """
    if name not in CONVOLUTION_ALGORITHMS:
        raise ValueError(f"conv_algorithm: {name!r} is none of {', '.join(CONVOLUTION_ALGORITHMS)}")
    with _chosen(convolution=name):
        yield


@contextmanager
def serial_below(nanoseconds: float) -> Iterator[None]:
    """Lets plans of less than this estimated work run on one thread inside the block, and within others the steps of less
    than a tenth of it; 0: every step is shared.

    The default suits normal use. Results do not depend on it; tests use it to run small shapes on a whole team.

    >>> with serial_below(0):
    ...     pass
    """
    with _chosen(serial_work=float(nanoseconds)):
        yield


@contextmanager
def without_passes(*names: str) -> Iterator[None]:
    """Leaves rewrites of the graph out of the plans made inside the block: some of `fastnn.passes.PASSES` by name, or
    all of them if none is named. Results agree within rounding; for tests, and to see what a pass is worth.

    >>> from fastnn import nn
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    >>> with without_passes():
    ...     [step.kernel for step in model.plan((1, 3)).steps]
    ['linear_forward', 'relu_forward']
    """
    for name in names:
        if name not in PASS_NAMES:
            raise ValueError(f"without_passes: {name!r} is none of {', '.join(PASS_NAMES)}")
    with _chosen(without=_choice.get().without.union(names or PASS_NAMES)):
        yield


def get_num_threads() -> int:
    """How many threads a call made now uses.

    >>> get_num_threads() >= 1
    True
    """
    return int(_core.get_num_threads())


def set_num_threads(threads: int) -> None:
    """Lets later calls use this many threads (1 or more); results do not depend on it.

    Raises ValueError for fewer than 1, TypeError for what is no integer.

    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    _core.set_num_threads(index(threads))


def current_facts() -> Facts:
    """What a plan made now is compiled for."""
    choice = _choice.get()
    return facts_of(choice.isa, _core.get_num_threads(), choice.convolution, choice.serial_work)


def settings_key() -> tuple[Choice, int]:
    """Changes when a plan made now would differ from one made before."""
    return _choice.get(), _core.get_num_threads()
