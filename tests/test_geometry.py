"""Sizes of windows and tensors: against counting, at the edges of 64 bits, and with arguments that make no sense."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnn import _core

LARGEST = 2**63 - 1


def _count(size: int, kernel: int, stride: int, dilation: int, before: int, after: int, ceil_mode: bool) -> int:
    """Positions of a window, counted one by one; may be 0 or less when it does not fit."""
    reach = (kernel - 1) * dilation + 1
    slack = size + before + after - reach
    if slack < 0:
        return 0
    starts = list(range(0, slack + 1, stride))
    if ceil_mode and starts[-1] != slack:
        following = starts[-1] + stride
        if following < size + before:  # a window that starts in the padding behind does not count
            starts.append(following)
    return len(starts)


@settings(max_examples=2000, deadline=None)
@given(
    st.integers(0, 40), st.integers(1, 8), st.integers(1, 9), st.integers(1, 5), st.integers(0, 6), st.integers(0, 6)
)
def test_window_positions_without_ceil_mode(
    size: int, kernel: int, stride: int, dilation: int, before: int, after: int
) -> None:
    counted = _count(size, kernel, stride, dilation, before, after, False)
    positions = _core.window_positions(size, kernel, stride, dilation, before, after)
    assert max(positions, 0) == counted


@settings(max_examples=2000, deadline=None)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 9), st.integers(1, 5), st.data())
def test_window_positions_with_ceil_mode(
    size: int, kernel: int, stride: int, dilation: int, data: st.DataObject
) -> None:
    """Padding as PyTorch's pools allow it: at most half a window, equal on both sides."""
    padding = data.draw(st.integers(0, kernel // 2))
    counted = _count(size, kernel, stride, dilation, padding, padding, True)
    positions = _core.window_positions(size, kernel, stride, dilation, padding, padding, True)
    if counted > 0:
        assert positions == counted
    else:
        assert positions <= 1


@pytest.mark.parametrize(
    "arguments",
    [
        (LARGEST, 1, 1, 1, 1, 0),
        (LARGEST, 1, 1, 1, 0, 1),
        (1, LARGEST, 1, 2, 0, 0),
        (1, 2**40, 1, 2**40, 0, 0),
        (1, 2, 1, LARGEST, 0, 0),
        (0, 1, 1, 1, LARGEST, LARGEST),
    ],
)
def test_window_positions_overflow(arguments: tuple[int, ...]) -> None:
    with pytest.raises(OverflowError):
        _core.window_positions(*arguments)


def test_window_positions_at_the_edge() -> None:
    assert _core.window_positions(LARGEST - 1, 1, 1, 1, 0, 0) == LARGEST - 1
    assert _core.window_positions(LARGEST, 1, LARGEST, 1, 0, 0) == 1
    assert _core.window_positions(LARGEST, LARGEST, 1, 1, 0, 0) == 1
    assert _core.window_positions(1, LARGEST, 1, 1, 0, 0) <= 0


@pytest.mark.parametrize("position", range(6))
def test_window_positions_of_nonsense(position: int) -> None:
    arguments = [5, 3, 1, 1, 0, 0]
    arguments[position] = -1
    with pytest.raises(ValueError, match="at least"):
        _core.window_positions(*arguments)


@pytest.mark.parametrize("position", [1, 2, 3])
def test_zero_kernel_stride_or_dilation(position: int) -> None:
    arguments = [5, 3, 1, 1, 0, 0]
    arguments[position] = 0
    with pytest.raises(ValueError, match="at least 1"):
        _core.window_positions(*arguments)


def test_beyond_64_bits() -> None:
    with pytest.raises(OverflowError):
        _core.window_positions(2**64, 1, 1, 1, 0, 0)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.integers(0, 2**40), max_size=6), st.sampled_from([1, 4, 8]))
def test_tensor_bytes(shape: list[int], item: int) -> None:
    total, fits = item, True
    for extent in shape:
        total *= extent
        fits &= total <= LARGEST
    if fits:
        assert _core.tensor_bytes(tuple(shape), item) == total
    else:
        with pytest.raises(OverflowError):
            _core.tensor_bytes(tuple(shape), item)


def test_a_negative_extent_is_no_tensor() -> None:
    with pytest.raises((OverflowError, ValueError)):
        _core.tensor_bytes((3, -1), 4)
