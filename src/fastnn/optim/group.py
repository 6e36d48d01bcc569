"""Parameter groups: settings that are checked whenever they are given or assigned."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from ..naming import FUNCTION, naming
from ..trace import structure_clock

Rule = Callable[[str, Any], Any]


def number(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    result = number(name, value)
    if result < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return result


def fraction(name: str, value: Any) -> float:
    """A number in [0, 1)."""
    result = number(name, value)
    if not 0 <= result < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")
    return result


def learning_rate(name: str, value: Any) -> Any:
    """A number of at least 0, or a schedule: a callable step -> number."""
    return value if callable(value) else not_negative(name, value)


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def pair_of_fractions(name: str, value: Any) -> tuple[float, float]:
    """Two numbers in [0, 1)."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair of numbers, got {value!r}")
    return fraction(f"{name}[0]", value[0]), fraction(f"{name}[1]", value[1])


class ParameterGroup(UserDict[str, Any]):
    """Parameters with the settings that an optimizer has for them, read and assigned as in a dict.

    A wrong value raises ValueError or TypeError and changes nothing. A new learning rate counts from the next step
    on at no cost; any other setting lets the next step compile its plan anew.

    >>> from fastnn import optim
    >>> group = optim.SGD(lr=0.1).param_groups[0]
    >>> group["lr"] = 0.01
    >>> group["lr"] = float("nan")
    Traceback (most recent call last):
    ...
    ValueError: SGD: lr must be finite, got nan
    """

    def __init__(
        self,
        owner: str,
        settings: Mapping[str, Any],
        rules: Mapping[str, Rule],
        check: Callable[[Mapping[str, Any]], None],
    ) -> None:
        super().__init__()
        self._owner = owner
        self._rules = rules
        self._check = check
        unknown = sorted(settings.keys() - rules.keys() - {"params"})
        if unknown:
            raise ValueError(f"a parameter group has no settings {unknown}; it has {sorted(rules)}")
        self.data = {"params": [], **{name: self._checked(name, value) for name, value in settings.items()}}
        check(self.data)

    def _checked(self, name: str, value: Any) -> Any:
        with naming(lambda: self._owner, FUNCTION):
            return list(value) if name == "params" else self._rules[name](name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self.data:
            raise KeyError(f"a parameter group has no setting {name!r}; it has {sorted(self.data)}")
        candidate = {**self.data, name: self._checked(name, value)}
        self._check(candidate)
        self.data = candidate
        if name != "lr":
            structure_clock.tick()

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"the setting {name!r} of a parameter group cannot be deleted")
