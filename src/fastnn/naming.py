"""Errors of bad input that tell which layer or function raised them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

FUNCTION, LAYER = 1, 2
"""Who names itself in an error: a function, then the layer that called it. The innermost of each kind is named."""


def named_error(kind: type[Exception], message: str) -> Exception:
    """An error whose message already begins with the layer's name.

    >>> with naming(lambda: "Sequential"):
    ...     raise named_error(ValueError, "CrossEntropyLoss(): a target is not one of the 3 classes")
    Traceback (most recent call last):
    ...
    ValueError: CrossEntropyLoss(): a target is not one of the 3 classes
    """
    error = kind(message)
    error.named = LAYER  # type: ignore[attr-defined]
    return error


class naming:
    """Puts a name before the message of a ValueError, TypeError or OverflowError that is raised inside.

    Parameters
    ----------
    name : says the name; it is called only if there is an error.
    kind : FUNCTION or LAYER; an error that already has a name of this kind or a later one is left as it is.

    >>> with naming(lambda: "conv2d", FUNCTION):
    ...     raise ValueError("stride must be at least 1, got 0")
    Traceback (most recent call last):
    ...
    ValueError: conv2d: stride must be at least 1, got 0
    """

    __slots__ = ("_name", "_kind")

    def __init__(self, name: Callable[[], str], kind: int = LAYER) -> None:
        self._name = name
        self._kind = kind

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, (ValueError, TypeError, OverflowError)) or getattr(error, "named", 0) >= self._kind:
            return
        if type(error) not in (ValueError, TypeError, OverflowError):
            return  # one of a kind of its own, which need not be made of a message
        name, message = self._name(), str(error)
        named = named_error(type(error), message if message.startswith(f"{name}: ") else f"{name}: {message}")
        named.named = self._kind  # type: ignore[attr-defined]
        raise named from error
