"""What the user may choose for a block of code: the instruction set and the convolution algorithm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import index

from . import _core
from .plan import SERIAL_WORK, Facts, facts_of

CONVOLUTION_ALGORITHMS = ("auto", "direct", "winograd")


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


_isa: ContextVar[str] = ContextVar("fastnn_isa", default=_default_isa())  # noqa: B039  a str
_convolution: ContextVar[str] = ContextVar("fastnn_convolution", default="auto")
_serial_work: ContextVar[float] = ContextVar("fastnn_serial_work", default=SERIAL_WORK)


def current_isa() -> str:
    """The instruction set that calls made here use: the best one, unless `FASTNN_ISA` or `use_isa` says otherwise."""
    return _isa.get()


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
    token = _isa.set(_checked_isa(name, "use_isa"))
    try:
        yield
    finally:
        _isa.reset(token)


@contextmanager
def conv_algorithm(name: str) -> Iterator[None]:
    """Chooses how the convolutions inside the block are computed: "auto", "direct" or "winograd" (see kernels).

    >>> with conv_algorithm("direct"):
    ...     pass
    """
    if name not in CONVOLUTION_ALGORITHMS:
        raise ValueError(f"conv_algorithm: {name!r} is none of {', '.join(CONVOLUTION_ALGORITHMS)}")
    token = _convolution.set(name)
    try:
        yield
    finally:
        _convolution.reset(token)


@contextmanager
def serial_below(nanoseconds: float) -> Iterator[None]:
    """Lets steps of less than this estimated work run on one thread inside the block; 0: every step is shared.

    The default suits normal use. Results do not depend on it; tests use it to run small shapes on a whole team.

    >>> with serial_below(0):
    ...     pass
    """
    token = _serial_work.set(float(nanoseconds))
    try:
        yield
    finally:
        _serial_work.reset(token)


def get_num_threads() -> int:
    """How many threads a call made now uses."""
    return int(_core.get_num_threads())


def set_num_threads(threads: int) -> None:
    """Lets later calls use this many threads (1 or more); results do not depend on it.

    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    _core.set_num_threads(index(threads))


def current_facts() -> Facts:
    """What a plan made now is compiled for."""
    return facts_of(_isa.get(), _core.get_num_threads(), _convolution.get(), _serial_work.get())


def settings_key() -> tuple[str, int, str, float]:
    """Changes when a plan made now would differ from one made before."""
    return _isa.get(), _core.get_num_threads(), _convolution.get(), _serial_work.get()
