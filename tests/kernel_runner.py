"""Runs single kernels on NumPy arrays: every argument by its name in kernels.def.

Arrays are copied to odd addresses, and what a kernel writes stands between guard elements that must survive.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastnn as fnn
from fastnn import _core

Array = NDArray[Any]
Results = dict[str, Array]
Outputs = Mapping[str, tuple[tuple[int, ...], DTypeLike]]

UNIT = 2.0**-24
"""The relative error of one float32 rounding."""

GUARD = 37
"""Elements on either side of an array; odd, so that no array is aligned to a vector."""

ENDS_ARE_WATCHED = "libasan" in os.environ.get("LD_PRELOAD", "")
"""Whether AddressSanitizer sees who reads or writes past the end of an allocation: arrays then end where it does."""

_DTYPES = {"float": "f4", "double": "f8", "int64_t": "i8", "uint8_t": "u1"}


class _Guarded:
    """An array among guard bytes."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        size = int(np.prod(shape))
        self.guard = GUARD if np.dtype(dtype).itemsize > 1 else 4 * GUARD  # bytes may hold indices of four
        behind = 0 if ENDS_ARE_WATCHED else self.guard
        self.memory = np.empty(self.guard + size + behind, dtype)
        self.memory.view(np.uint8)[...] = 0xA5
        self.array = self.memory[self.guard : self.guard + size].reshape(shape)

    def check(self, name: str) -> None:
        edges = np.concatenate([self.memory[: self.guard], self.memory[self.guard + self.array.size :]])
        assert (edges.view(np.uint8) == 0xA5).all(), f"the kernel wrote outside of {name}"


def run_kernel(kernel: str, outputs: Outputs, updates: tuple[str, ...] = (), **arguments: Any) -> Results:
    """Run one kernel with the current ISA and threads; return the arrays named by `outputs` and `updates`.

    outputs maps names to (shape, dtype); updates names array arguments that the kernel changes (copies of them, that is).
    A list is a table, whose arrays are changed in place. Optional arguments may be left out.
    """
    guarded: dict[str, _Guarded] = {}
    for name, (shape, dtype) in outputs.items():
        guarded[name] = _Guarded(shape, dtype)
    externals: list[Array] = []

    def pointer(array: Array) -> Any:
        externals.append(array)
        return _core.Pointer(_core.EXTERNAL, len(externals) - 1, 0, array.nbytes)

    bound: dict[str, Any] = {}
    for field, kind, c_type in _core.KERNELS[kernel]:
        value = arguments.pop(field, None)
        if kind == "table":
            bound[field] = [pointer(entry) if isinstance(entry, np.ndarray) else entry for entry in value]
            continue
        if isinstance(value, np.ndarray):
            assert value.dtype.itemsize == np.dtype(_DTYPES[c_type]).itemsize or c_type == "uint8_t", field
            guarded[field] = _Guarded(value.shape, value.dtype)
            guarded[field].array[...] = value
        if field in guarded:
            value = pointer(guarded[field].array)
        bound[field] = float(value) if kind == "real" else value
    assert not arguments, f"{kernel} has no {sorted(arguments)}"
    sizes = tuple(array.nbytes for array in externals)
    _core.Program(fnn.current_isa(), [(kernel, bound, _core.PIECEWISE)], (), sizes, 0).run(tuple(externals))
    for name, array in guarded.items():
        array.check(name)
    return {name: guarded[name].array for name in (*outputs, *updates)}


def same_results(same_bits: Callable[..., Any], run: Callable[[], Results], *scratch: str) -> Results:
    """run() with several team sizes: the results, whose bits must agree but for those named `scratch`."""
    names: list[str] = []

    def call() -> list[Array]:
        results = run()
        names[:] = [name for name in results if name not in scratch]
        return [results[name] for name in names]

    return dict(zip(names, same_bits(call), strict=False))


def assert_within(actual: Array, expected: Array, bound: Any) -> None:
    """|actual - expected| <= bound, element by element; expected in float64."""
    error = np.abs(actual.astype(np.float64) - expected)
    assert actual.shape == np.shape(expected)
    assert (error <= bound).all(), f"error up to {np.max(error / np.maximum(bound, 1e-300)):.3g} times the bound"


def channels_last(x: Array) -> Array:
    """(N,C,...) -> contiguous (N,...,C)."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def channels_first(x: Array) -> Array:
    """(N,...,C) -> a view (N,C,...)."""
    return np.moveaxis(x, -1, 1)
