"""Saved states, looked at before anything takes them over."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any

LARGEST_COUNT = 2**64 - 1
"""Of steps: what a run of a plan takes as a number."""


def parts(state_dict: Any, *names: str) -> list[Any]:
    """The parts of a state under the given names. TypeError: it is no dict; ValueError: some are missing.

    >>> parts({"steps": 3, "state": {}}, "state", "steps")
    [{}, 3]
    >>> parts({"steps": 3}, "state", "steps")
    Traceback (most recent call last):
    ...
    ValueError: load_state_dict: there is no 'state'; nothing was changed
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"load_state_dict takes what state_dict() gave, a dict, not a {type(state_dict).__name__}")
    missing = [name for name in names if name not in state_dict]
    if missing:
        raise ValueError(f"load_state_dict: there is no {', '.join(map(repr, missing))}; nothing was changed")
    return [state_dict[name] for name in names]


def count(name: str, value: Any) -> int:
    """A number of steps.

    >>> count("steps", -1)
    Traceback (most recent call last):
    ...
    ValueError: load_state_dict: steps must lie in 0 to 2**64 - 1, got -1; nothing was changed
    """
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"load_state_dict: {name} must be an integer, not {value!r}; nothing was changed") from None
    if not 0 <= number <= LARGEST_COUNT:
        raise ValueError(f"load_state_dict: {name} must lie in 0 to 2**64 - 1, got {value}; nothing was changed")
    return number
