"""_core.Program: runs what is right, refuses what is wrong with an error, and never crashes the process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fastnn import _core
from fastnn._core import ALONE, ARENA, CONSTANT, EXTERNAL, PIECEWISE, STATIC, Pointer, Runtime

KERNELS = {"relu_forward", "copy", "fill"}

COUNT = 1000
BYTES = 4 * COUNT
ISA = next(reversed(_core.ISAS))


def _relu(**changes: Any) -> list[Any]:
    """One relu step from external 0 to external 1, with some arguments changed; None removes one."""
    arguments = {"x": Pointer(EXTERNAL, 0, 0, BYTES), "y": Pointer(EXTERNAL, 1, 0, BYTES), "count": COUNT}
    for name, value in changes.items():
        if value is REMOVED:
            del arguments[name]
        else:
            arguments[name] = value
    return [("relu_forward", arguments, PIECEWISE)]


REMOVED = object()


def _relu_through_arena(copy_sharing: int) -> list[Any]:
    """A relu from external 0 into the arena, then a copy to external 1."""
    copy = {"x": Pointer(ARENA, 0, 0, BYTES), "y": Pointer(EXTERNAL, 1, 0, BYTES), "count": COUNT}
    return [*_relu(y=Pointer(ARENA, 0, 0, BYTES)), ("copy", copy, copy_sharing)]


def _program(steps: list[Any] | None = None, **changes: Any) -> _core.Program:
    options: dict[str, Any] = {"statics": (), "external_sizes": (BYTES, BYTES), "arena_bytes": 0, **changes}
    return _core.Program(ISA, _relu() if steps is None else steps, **options)


def _arrays(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal(COUNT).astype(np.float32), np.full(COUNT, np.nan, np.float32)


# ---- what is right


def test_runs(rng: np.random.Generator) -> None:
    x, y = _arrays(rng)
    _program().run((x, y))
    assert (y == np.maximum(x, 0)).all()


def test_spaces(rng: np.random.Generator) -> None:
    """Static -> constant (prologue) -> arena at an offset -> external at an offset."""
    weights = rng.standard_normal(COUNT).astype(np.float32)
    out = np.full(2 * COUNT, 7, np.float32)
    places = [
        Pointer(STATIC, 0, 0, BYTES),
        Pointer(CONSTANT, 0, 64, BYTES),
        Pointer(ARENA, 0, 128, BYTES),
        Pointer(EXTERNAL, 0, BYTES, BYTES),
    ]
    steps = [
        ("relu_forward" if i == 0 else "copy", {"x": a, "y": b, "count": COUNT}, PIECEWISE)
        for i, (a, b) in enumerate(zip(places, places[1:], strict=False))
    ]
    program = _core.Program(ISA, steps, (weights,), (2 * BYTES,), 128 + BYTES, 64 + BYTES, 1)
    program.run((out,))
    assert (out[:COUNT] == 7).all()
    assert (out[COUNT:] == np.maximum(weights, 0)).all()
    before = out[COUNT:].copy()
    weights[:] = 3
    program.run((out,))
    assert (out[COUNT:] == before).all(), "constants stay until refresh"
    program.refresh()
    program.run((out,))
    assert (out[COUNT:] == 3).all()


def test_runtime_values() -> None:
    y = np.empty(COUNT, np.float32)
    step = ("fill", {"y": Pointer(EXTERNAL, 0, 0, BYTES), "count": COUNT, "value": Runtime(1)}, PIECEWISE)
    program = _core.Program(ISA, [step], (), (BYTES,), 0, value_count=2)
    for value in (0.5, -3, np.float64(1.25), True):
        program.run((y,), (99.0, value))
        assert (y == value).all()


def test_parts_and_profile(rng: np.random.Generator) -> None:
    x, y = _arrays(rng)
    program = _program(_relu_through_arena(copy_sharing=ALONE), arena_bytes=BYTES)
    instance = program.begin()
    program.run_part(instance, 0, 1, (x, y))
    assert np.isnan(y).all()
    for _ in range(3):
        y[:] = np.nan
        program.run_part(instance, 1, 2, (x, y))
        assert (y == np.maximum(x, 0)).all()
    y[:] = np.nan
    start = time.perf_counter()
    seconds = program.profile((x, y))
    assert len(seconds) == 2
    assert min(seconds) >= 0 and 0 < sum(seconds) <= time.perf_counter() - start
    assert (y == np.maximum(x, 0)).all()


def test_no_steps_and_no_bytes() -> None:
    _program([]).run((np.zeros(COUNT, np.float32), np.zeros(COUNT, np.float32)))
    empty = np.zeros((0, 3), np.float32)
    steps = _relu(x=Pointer(EXTERNAL, 0, 0, 0), y=Pointer(EXTERNAL, 1, 0, 0), count=0)
    _program(steps, external_sizes=(0, 0)).run((empty, empty.copy()))


def test_instances_are_independent(rng: np.random.Generator) -> None:
    """Many threads in one program: each has an arena of its own."""
    program = _program(_relu_through_arena(copy_sharing=PIECEWISE), arena_bytes=BYTES)
    inputs = [rng.standard_normal(COUNT).astype(np.float32) for _ in range(16)]

    def work(x: np.ndarray) -> bool:
        for _ in range(100):
            y = np.empty_like(x)
            program.run((x, y))
            if not (y == np.maximum(x, 0)).all():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, inputs))


# ---- steps that are wrong


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"x": REMOVED}, ValueError),
        ({"count": REMOVED}, ValueError),
        ({"extra": 1}, ValueError),
        ({"x": None}, TypeError),
        ({"x": 0}, TypeError),
        ({"x": np.zeros(COUNT, np.float32)}, TypeError),
        ({"x": "x"}, TypeError),
        ({"x": Runtime(0)}, TypeError),
        ({"count": 1.5}, TypeError),
        ({"count": None}, TypeError),
        ({"count": "many"}, TypeError),
        ({"count": Pointer(EXTERNAL, 0, 0, 4)}, TypeError),
        ({"count": Runtime(0)}, TypeError),
        ({"count": 2**63}, OverflowError),
        ({"x": Pointer(EXTERNAL, 0, 4, BYTES)}, ValueError),
        ({"x": Pointer(EXTERNAL, 0, 0, BYTES + 1)}, ValueError),
        ({"x": Pointer(EXTERNAL, 0, 2**62, 2**62)}, ValueError),
        ({"x": Pointer(EXTERNAL, 0, 2**63 - 1, 2**63 - 1)}, ValueError),
        ({"x": Pointer(EXTERNAL, 2, 0, BYTES)}, (ValueError, IndexError)),
        ({"x": Pointer(EXTERNAL, 2**62, 0, BYTES)}, (ValueError, IndexError)),
        ({"x": Pointer(STATIC, 0, 0, BYTES)}, (ValueError, IndexError)),
        ({"x": Pointer(ARENA, 0, 0, 4)}, ValueError),
        ({"y": Pointer(CONSTANT, 0, 0, 4)}, ValueError),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        _program(_relu(**changes))


@pytest.mark.parametrize(
    "steps",
    [
        [("no_such_kernel", {}, PIECEWISE)],
        [("relu_forward", {}, PIECEWISE)],
        [("relu_forward", {}, False, 1)],
        [("relu_forward", {})],
        [("relu_forward", None, PIECEWISE)],
        [("relu_forward", [], PIECEWISE)],
        [(None, {}, PIECEWISE)],
        [None],
        ["relu_forward"],
    ],
)
def test_wrong_steps(steps: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        _program(steps)


@pytest.mark.parametrize(
    "arguments",
    [(4, 0, 0, 0), (-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, -1, 0), (0, 0, 0, -1), (0, 0, 0, 2**63), (None, 0, 0, 0), ()],
)
def test_wrong_pointers(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        Pointer(*arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"arena_bytes": -1},
        {"constant_bytes": -1},
        {"prologue": 2},
        {"prologue": -1},
        {"arena_bytes": None},
        {"arena_bytes": 2**64},
        {"statics": None},
        {"statics": (None,)},
        {"statics": ([1.0, 2.0],)},
        {"statics": (np.zeros((4, 4), np.float32)[:, ::2],)},
        {"statics": (np.zeros(17, np.uint8)[1:].view(np.float32),)},
        {"statics": (np.full(8, None),)},
        {"statics": (np.zeros(8, np.dtype(np.float32).newbyteorder()),)},
        {"external_sizes": None},
        {"external_sizes": (BYTES, "many")},
        {"external_sizes": (BYTES, None)},
        {"external_sizes": (BYTES,)},
        {"external_sizes": ()},
        {"external_sizes": (BYTES, BYTES - 1)},
        {"external_sizes": (-1, BYTES)},
    ],
)
def test_wrong_programs(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError, IndexError)):
        _program(**changes)


def test_values_that_are_not_given() -> None:
    step = ("fill", {"y": Pointer(EXTERNAL, 0, 0, BYTES), "count": COUNT, "value": Runtime(2)}, PIECEWISE)
    with pytest.raises(ValueError, match="run-time value 2 of 2"):
        _core.Program(ISA, [step], (), (BYTES,), 0, value_count=2)
    step[1]["value"] = Runtime(-1)
    with pytest.raises(ValueError, match="run-time value -1"):
        _core.Program(ISA, [step], (), (BYTES,), 0, value_count=2)


def test_a_read_only_static_is_not_written() -> None:
    weights = np.zeros(COUNT, np.float32)
    weights.flags.writeable = False
    step = ("fill", {"y": Pointer(STATIC, 0, 0, BYTES), "count": COUNT, "value": 1.0}, PIECEWISE)
    with pytest.raises(ValueError, match="read-only"):
        _core.Program(ISA, [step], (weights,), (), 0)


def test_more_memory_than_there_is(rng: np.random.Generator) -> None:
    program = _program(arena_bytes=2**62)
    for _ in range(2):
        with pytest.raises(MemoryError, match="bytes at once"):
            program.run(_arrays(rng))


def test_a_program_is_built_once() -> None:
    program = _program()
    with pytest.raises(RuntimeError, match="built once"):
        program.__init__(ISA, _relu(), (), (BYTES, BYTES), 0)


@pytest.mark.parametrize("method", ["run", "profile", "begin", "run_part", "refresh"])
def test_a_program_that_was_never_built(method: str) -> None:
    program = _core.Program.__new__(_core.Program)
    arguments: dict[str, tuple[Any, ...]] = {"run": ((),), "profile": ((),), "run_part": (None, 0, 0, ())}
    with pytest.raises((RuntimeError, TypeError, ValueError, AttributeError)):
        getattr(program, method)(*arguments.get(method, ()))


# ---- runs that are wrong


def _wrong_inputs() -> dict[str, Any]:
    misaligned = np.zeros(BYTES + 1, np.uint8)[1:].view(np.float32)
    return {
        "a list": [0.0] * COUNT,
        "none": None,
        "bytes": bytes(BYTES),
        "too short": np.zeros(COUNT - 1, np.float32),
        "too long": np.zeros(COUNT + 1, np.float32),
        "double": np.zeros(COUNT, np.float64),
        "half": np.zeros(COUNT, np.float16),
        "strided": np.zeros(2 * COUNT, np.float32)[::2],
        "reversed": np.zeros(COUNT, np.float32)[::-1],
        "broadcast": np.broadcast_to(np.float32(0), COUNT),
        "fortran": np.zeros((COUNT // 10, 10), np.float32, order="F"),
        "misaligned": misaligned,
        "swapped": np.zeros(COUNT, np.dtype(np.float32).newbyteorder()),
        "objects": np.full(COUNT // 2, None),
        "complex": np.zeros(COUNT // 2, np.complex64),
        "text": np.zeros(COUNT, "U1"),
        "dates": np.zeros(COUNT // 2, "datetime64[s]"),
        "records": np.zeros(COUNT, [("x", np.float32)]),
    }


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("name", _wrong_inputs())
def test_wrong_arrays(name: str, position: int, rng: np.random.Generator) -> None:
    arrays: list[Any] = list(_arrays(rng))
    arrays[position] = _wrong_inputs()[name]
    program = _program()
    with pytest.raises((ValueError, TypeError)):
        program.run(tuple(arrays))
    good = _arrays(rng)
    program.run(good)
    assert (good[1] == np.maximum(good[0], 0)).all(), "the program still works"


def test_a_read_only_array_is_read_but_not_written(rng: np.random.Generator) -> None:
    x, y = _arrays(rng)
    x.flags.writeable = False
    _program().run((x, y))
    y.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        _program().run((x, y))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_wrong_number_of_arrays(count: int) -> None:
    with pytest.raises(ValueError, match="takes 2 arrays and 0 values"):
        _program().run((np.zeros(COUNT, np.float32),) * count)


@pytest.mark.parametrize("values", [(), (1.0, 2.0), ("one",), (None,), ([1.0],), (1j,), None])
def test_wrong_values(values: Any) -> None:
    step = ("fill", {"y": Pointer(EXTERNAL, 0, 0, BYTES), "count": COUNT, "value": Runtime(0)}, PIECEWISE)
    program = _core.Program(ISA, [step], (), (BYTES,), 0, value_count=1)
    with pytest.raises((ValueError, TypeError)):
        program.run((np.zeros(COUNT, np.float32),), values)


@pytest.mark.parametrize(("first", "last"), [(-1, 1), (0, 2), (1, 0), (2, 2)])
def test_wrong_parts(first: int, last: int, rng: np.random.Generator) -> None:
    program = _program()
    with pytest.raises(ValueError, match="of 1"):
        program.run_part(program.begin(), first, last, _arrays(rng))


def test_an_instance_of_another_program(rng: np.random.Generator) -> None:
    with pytest.raises((ValueError, TypeError)):
        _program().run_part(_program([]).begin(), 0, 1, _arrays(rng))
    with pytest.raises(TypeError):
        _program().run_part(None, 0, 1, _arrays(rng))
    with pytest.raises((ValueError, TypeError)):
        _program().run_part(_core.Instance(), 0, 1, _arrays(rng))
