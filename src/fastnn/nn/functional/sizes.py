"""Sizes, paddings and other numbers as users write them, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...graph import Shape, Tensor

Sides = tuple[int, int, int, int]
"""(top, bottom, left, right)"""


def integers(value: Any, count: int, name: str, minimum: int = 1) -> tuple[int, ...]:
    """An integer for all axes, or one for each of `count`.

    >>> integers(3, 2, "kernel_size"), integers((2, 5), 2, "kernel_size")
    ((3, 3), (2, 5))
    >>> integers(0, 2, "stride")
    Traceback (most recent call last):
    ...
    ValueError: stride must be at least 1, got 0
    """
    values = (
        tuple(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else (value,) * count
    )
    if len(values) == 1:
        values *= count
    if len(values) != count or not all(_is_integer(v) for v in values):
        wanted = "an integer" if count == 1 else f"an integer or {count} integers"
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    if any(v < minimum for v in values):
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    return tuple(int(v) for v in values)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def integer(value: Any, name: str) -> int:
    """One integer of any sign."""
    if not _is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def positive_integer(value: Any, name: str) -> int:
    """One integer of at least 1."""
    if integer(value, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return int(value)


def label(value: Any, name: str) -> int:
    """One integer of 64 bits, of any sign."""
    if not -(2**63) <= integer(value, name) < 2**63:
        raise ValueError(f"{name} must have 64 bits at most, got {value!r}")
    return int(value)


def probability(p: Any) -> float:
    """A number between 0 and 1; a NaN is none."""
    if isinstance(p, bool) or not isinstance(p, (int, float, np.integer, np.floating)):
        raise TypeError(f"p must be a number, got {p!r}")
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p is a probability and must be between 0 and 1, got {p!r}")
    return float(p)


def real(value: Any, name: str, minimum: float | None = None, finite: bool = True) -> float:
    """A number, not below the minimum, and finite unless it need not be."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if (finite and not np.isfinite(value)) or (minimum is not None and value < minimum):
        raise ValueError(
            f"{name} must be a finite number{'' if minimum is None else f' of at least {minimum}'}, got {value!r}"
        )
    return float(value)


def one_of(value: Any, name: str, *allowed: str) -> str:
    """A word of a list."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(repr(a) for a in allowed)}, got {value!r}")
    return str(value)


def no_legacy(size_average: Any, reduce: Any) -> None:
    """What PyTorch's losses took before `reduction` is not given."""
    if size_average is not None or reduce is not None:
        raise ValueError("size_average and reduce are no longer supported; use reduction")


def convolution_padding(padding: Any, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Sides:
    """Any padding of a 2-D convolution as (top, bottom, left, right).

    Accepted: an integer, (height, width), ((top, bottom), (left, right)), "valid", and "same" for stride 1, which
    keeps the image's size and puts an odd total's extra element at the end, as PyTorch does.

    >>> convolution_padding("same", (4, 3), (1, 1), (1, 1))
    (1, 2, 1, 1)
    >>> convolution_padding(((0, 1), (2, 3)), (3, 3), (1, 1), (1, 1))
    (0, 1, 2, 3)
    """
    if isinstance(padding, str):
        one_of(padding, "padding", "same", "valid")
        if padding == "valid":
            return 0, 0, 0, 0
        if any(s != 1 for s in stride):
            raise ValueError(f'padding="same" needs stride 1, got stride {tuple(stride)}')
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        top, left = totals[0] // 2, totals[1] // 2
        return top, totals[0] - top, left, totals[1] - left
    if isinstance(padding, Sequence) and any(isinstance(side, Sequence) for side in padding):
        if len(padding) != 2 or not all(isinstance(side, Sequence) and len(side) == 2 for side in padding):
            raise ValueError(f"padding per side must be ((top, bottom), (left, right)), got {padding!r}")
        top, bottom = integers(padding[0], 2, "padding", 0)
        left, right = integers(padding[1], 2, "padding", 0)
        return top, bottom, left, right
    height, width = integers(padding, 2, "padding", 0)
    return height, height, width, width


def check_rank(input: Tensor, ranks: Sequence[int], form: str, channels: int | None = None) -> None:
    """The tensor has one of the ranks; `form` says which, in letters. `channels`: how many it should have, if known."""
    if input.ndim not in ranks:
        hint = ""
        if input.ndim + 1 == min(ranks):
            has_channels = channels != 1 or input.shape[0] == 1
            hint = "; pass x[None], a batch of one" if has_channels else "; pass x[:, None], a batch of one channel"
        raise ValueError(f"the input must have the shape {form}, got {input.ndim} axes in {input.shape}{hint}")


def check_channels(shape: Shape, channels: int, what: str = "channels") -> None:
    """Axis 1 has the expected extent; tells an image that is channels-last by mistake."""
    if shape[1] == channels:
        return
    message = f"expected {channels} {what} on axis 1, got {shape[1]} in an input of shape {shape}"
    if len(shape) == 4 and shape[3] == channels:
        message += "; it looks like N,H,W,C; pass x.transpose(0, 3, 1, 2)"
    elif len(shape) == 3 and shape[2] == channels:
        message += "; it looks like N,L,C; pass x.transpose(0, 2, 1)"
    else:
        message += (
            f"; pass an input of shape {(shape[0], channels, *shape[2:])}, or make the layer for {shape[1]} {what}"
        )
    raise ValueError(message)


def as_image(input: Tensor) -> Tensor:
    """A sequence (N,C,L) as an image (N,C,1,L)."""
    n, c, length = input.shape
    return input.reshape(n, c, 1, length)


def as_sequence(image: Tensor) -> Tensor:
    """An image (N,C,1,L) as a sequence (N,C,L)."""
    n, c, _, length = image.shape
    return image.reshape(n, c, length)
