"""Seeds: the counter-based stream of the dropout layers, and the generator of initial weights."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .locks import Lock

RANDOM_SEED, RANDOM_STEP = "random.seed", "random.step"
"""Names of the run-time values that random operations of a plan read."""


class Stream:
    """Where the random numbers of a run of calls stand: a seed, and one step for each call that draws any.

    Element i of layer l in step s depends on (seed, l, s, i) alone (Philox4x32-10).
    """

    def __init__(self, seed: int = 0, step: int = 0) -> None:
        self.seed = seed
        self.step = step
        self._lock = Lock()

    def values(self) -> dict[str, int]:
        """The seed and the next step."""
        with self._lock:
            self.step += 1
            return {RANDOM_SEED: self.seed, RANDOM_STEP: self.step}


class _State:
    def __init__(self, seed: int) -> None:
        self.stream = Stream(seed)
        self.layers = 0

    @cached_property
    def generator(self) -> np.random.Generator:
        """Made when weights are first drawn: importing numpy.random takes as long as importing us."""
        return np.random.Generator(np.random.Philox(self.stream.seed))


_state = _State(0)
_lock = Lock()


def manual_seed(seed: int) -> None:
    """Restarts initial weights, dropout and shuffling from a seed (0 to 2**64 - 1; 0 when a program starts).

    Raises TypeError for what is no integer, ValueError for one out of range.

    >>> manual_seed(7)
    """
    global _state
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"a seed is an integer, not {type(seed).__name__}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed lies in 0 to 2**64 - 1, got {seed}")
    with _lock:
        _state = _State(int(seed))


def initial_seed() -> int:
    """The seed that is in force.

    >>> manual_seed(7)
    >>> initial_seed()
    7
    >>> manual_seed(0)
    """
    return _state.stream.seed


def default_stream() -> Stream:
    """The stream of calls that have none of their own."""
    return _state.stream


def default_generator() -> np.random.Generator:
    """The generator that draws initial weights."""
    return _state.generator


def next_layer() -> int:
    """A number for a new random layer: counted from 0 since the last `manual_seed`."""
    with _lock:
        _state.layers += 1
        return _state.layers - 1
