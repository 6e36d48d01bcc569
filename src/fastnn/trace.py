"""Calling a traced function with arrays: shapes are looked up, plans are made once, arrays are brought into memory order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _core, ops  # noqa: F401  importing ops registers them
from ._core import Clock
from .graph import Graph, Tensor
from .locks import Lock
from .naming import named_error
from .passes import run_passes
from .plan import Plan, compile_graph
from .random import RANDOM_SEED, default_stream
from .settings import Choice, current_choice, current_facts, settings_key
from .variable import Array, logical_view, weights_clock

structure_clock = Clock()
"""Ticks whenever any module changes in a way that a new trace could see."""

ARRAYS_KNOWN = 8
"""Inputs and outputs that a call can have to be recognised at once."""

AXES_KNOWN = 8
"""Axes that these arrays can have."""

_tracing = Lock()
"""One trace at a time: a trainer's has the model in another mode, which no other may see."""

PLANS_KEPT = 16
"""Plans that one traced function keeps, the least recently used going first."""

Build = Callable[..., Sequence[Tensor]]
Integers = bool | Callable[[], bool]
"""Whether integer arrays stay integers, or a function to ask when there is one."""


def as_array(value: Any) -> Array:
    """Anything array-like (NumPy, DLPack, buffer protocol, nested lists) of real numbers as a NumPy array."""
    if not isinstance(value, np.ndarray):
        what, given = type(value).__name__, value
        try:
            value = np.from_dlpack(given) if hasattr(given, "__dlpack__") else np.asarray(given)
        except ValueError as error:
            raise ValueError(f"cannot make an array of a {what}: {error}") from error
        except (BufferError, RuntimeError) as error:
            advice = "pass a tensor of PyTorch's as x.detach().float().cpu()"
            raise TypeError(f"cannot make an array of a {what}: {error}; {advice}") from error
        if value.dtype == object:
            raise TypeError(f"a {what} is no array of real numbers; pass a NumPy array or nested lists of numbers")
    if value.dtype.kind not in "fiub":
        advice = (
            "x.real, or real and imaginary parts as channels" if value.dtype.kind == "c" else "x.astype(np.float32)"
        )
        raise TypeError(
            f"fastnn works on real numbers (float, integer or bool); got an array of shape {value.shape} and dtype "
            f"{value.dtype}; pass {advice}"
        )
    return value


class Argument(NamedTuple):
    """An array as a plan takes it, and what a plan is chosen by: shape, dtype character, and which way round an image
    lies ("first": N,C,H,W in memory; "memory": in the order of `variable.memory_order`)."""

    data: Array
    key: tuple[tuple[int, ...], str, str]


FLOAT = np.dtype(np.float32)
LARGEST = np.iinfo(np.int64).max
READY = 0x101  # array flags C_CONTIGUOUS and ALIGNED


def argument(value: Any, integers: Integers = False) -> Argument:
    """Brings an array into a form that a plan takes, copying only what no kernel reads.

    float32 (with `integers`, integer arrays int64), native byte order, aligned, contiguous.
    """
    array = value if isinstance(value, np.ndarray) else as_array(value)
    if array.dtype is not FLOAT:
        array = _cast(array, integers)
    flags = array.flags.num
    if array.ndim != 4:
        if flags & READY != READY:
            array = array.copy(order="C")
        return Argument(array, (array.shape, array.dtype.char, "memory"))
    last = array.transpose(0, 2, 3, 1)
    if last.flags.num & READY == READY:
        return Argument(last, (array.shape, array.dtype.char, "memory"))
    if flags & READY == READY and array.dtype is FLOAT:
        return Argument(array, (array.shape, "f", "first"))
    return Argument(last.copy(order="C"), (array.shape, array.dtype.char, "memory"))


def _cast(array: Array, integers: Integers) -> Array:
    array = as_array(array)
    kept = array.dtype.kind in "iu" and (integers() if callable(integers) else integers)
    if kept and array.dtype.kind == "u" and array.size and array.max() > LARGEST:
        raise ValueError(
            f"labels and indices are at most 2**63 - 1, got {array.max()} in an array of shape {array.shape}"
        )
    wanted = np.int64 if kept else np.float32
    return array.astype(wanted, copy=False)


def _character(tensor: Tensor) -> str:
    return "f" if tensor.dtype == "float32" else "q"


def _form(tensor: Tensor, given: Argument) -> _core.Form | None:
    """What an array must look like to be taken as this one was; None: more than C compares."""
    (shape, character, layout), limits = given.key, [limit[:3] for limit in tensor.limits]
    image = len(shape) == 4
    if len(limits) > 1 or image and character != "f" or limits and tensor.dtype != "int64":
        return None
    return _core.Form(_character(tensor), shape, image and layout == "memory", *limits)


class Compiled:
    """A function of tensors that is called with arrays.

    build(graph, *tensors) records the computation and returns its outputs; it is called once for each
    combination of input shapes, settings and structure of the modules. `integers` tells for each argument whether
    integer arrays stay integers (labels, indices), `others` tells it for those behind.
    """

    def __init__(
        self, build: Build, integers: Sequence[Integers] = (), repeatable: bool = False, others: Integers = False
    ) -> None:
        self._build = build
        self._integers = tuple(integers)
        self._others = others
        self._repeatable = repeatable
        self.max_memory: int | None = None
        """Bytes beyond which a plan is refused."""
        self._calls = _core.Calls(current_choice, structure_clock, weights_clock)
        self.again = self._calls.run
        """(arrays, runtime) -> the outputs of a call like one before; None: it is another, or something changed."""
        self._found: OrderedDict[Any, Plan] = OrderedDict()  # by shapes and clock: no trace needed
        self._plans: OrderedDict[Any, Plan] = OrderedDict()  # by what the graph computes

    def arguments(self, values: Sequence[Any]) -> list[Argument]:
        """The arrays in the form that a plan takes."""
        if not self._integers:
            return [argument(value, self._others) for value in values]
        integers = self._integers + (self._others,) * (len(values) - len(self._integers))
        return [argument(value, integer) for value, integer in zip(values, integers, strict=True)]

    def plan(self, shapes: Sequence[tuple[Any, ...]]) -> Plan:
        """The plan for inputs of the given (shape, dtype character, layout)."""
        key = (*shapes, *settings_key(), structure_clock.now)
        plan = self._found.get(key)
        if plan is None:
            with _tracing:
                others = structure_clock.now - structure_clock.own_ticks()
                plan = self._trace(shapes)
                now = structure_clock.now  # forward may have ticked the clock
                if now - structure_clock.own_ticks() != others:
                    return plan  # another thread did: what it changed may or may not be in the plan
                self._found[(*shapes, *settings_key(), now)] = plan
                while len(self._found) > PLANS_KEPT:
                    self._found.popitem(last=False)
        return plan

    def _trace(self, shapes: Sequence[tuple[Any, ...]]) -> Plan:
        graph = Graph()
        tensors = [
            graph.input(shape, "int64" if character == "l" or character == "q" else "float32", layout)
            for shape, character, layout in shapes
        ]
        graph.outputs = list(self._build(graph, *tensors))
        run_passes(graph, current_choice().without)
        key = (graph.signature(), settings_key())
        if key not in self._plans:
            plan = compile_graph(graph, current_facts(), self._repeatable)
            plan.check_memory(self.max_memory)
            self._plans[key] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return self._plans[key]

    def __call__(self, *values: Any, runtime: dict[str, Any] | None = None) -> tuple[Array, ...]:
        """Runs the plan for these arrays; returns the outputs, images channels-last in memory."""
        outputs = self.again(values, runtime)
        if outputs is not None:
            return outputs
        choice, threads, structure = current_choice(), _core.get_num_threads(), structure_clock.now
        arguments = self.arguments(values)
        plan = self.plan([a.key for a in arguments])
        outputs = run(plan, arguments, runtime)
        if structure == structure_clock.now:
            self._remember(plan, arguments, (choice, threads, structure))
        return outputs

    def _remember(self, plan: Plan, arguments: Sequence[Argument], valid: tuple[Choice, int, int]) -> None:
        """Lets `again` know the way of this call, if it is one that C can check."""
        if any(tensor.ndim > AXES_KNOWN for tensor in (*plan.inputs, *plan.outputs)):
            return
        inputs = [_form(tensor, given) for tensor, given in zip(plan.inputs, arguments, strict=True)]
        outputs = [_core.Form(_character(t), t.shape, t.ndim == 4) for t in plan.outputs]
        if None in inputs or len(inputs) + len(outputs) > ARRAYS_KNOWN or plan.program.may_write(len(inputs)):
            return
        names, time = plan.value_names, plan.constants_time
        self._calls.remember(
            _core.Route(plan.program, tuple(inputs), tuple(outputs), names, plan.written, *valid, time)  # type: ignore[arg-type]
        )


def check_limits(plan: Plan, arguments: Sequence[Argument]) -> None:
    """Labels and indices lie in range; checked before anything is touched."""
    for tensor, given in zip(plan.inputs, arguments, strict=True) if plan.has_limits else ():
        for least, most, exception, message in tensor.limits:
            data = given.data
            outside = (data < least) | (data > most)
            if exception is not None:
                outside &= data != exception
            if outside.any():
                raise named_error(ValueError, f"{message}: got {data[outside].flat[0]}, allowed are {least} to {most}")


def runtime_values(plan: Plan, runtime: Mapping[str, Any] | None) -> tuple[Any, ...]:
    """The numbers of a run, in the plan's order; the random stream's are drawn if nobody gave them."""
    if not plan.value_names:
        return ()
    numbers = dict(runtime or {})
    if RANDOM_SEED in plan.value_names and RANDOM_SEED not in numbers:
        numbers.update(default_stream().values())
    return tuple(numbers[name] for name in plan.value_names)


def refresh_constants(plan: Plan) -> None:
    """Has weights packed anew if any changed since the plan ran last."""
    now = weights_clock.now
    if plan.constants_time != now:
        if any(variable.changed > plan.constants_time for variable in plan.read):
            plan.program.refresh()
        plan.constants_time = now


def run(plan: Plan, arguments: Sequence[Argument], runtime: dict[str, Any] | None = None) -> tuple[Array, ...]:
    """One run of a plan into fresh output arrays."""
    check_limits(plan, arguments)
    values = runtime_values(plan, runtime)
    refresh_constants(plan)
    outputs = plan.allocate_outputs()
    plan.program.run((*[a.data for a in arguments], *outputs), values, weights_clock, plan.written)
    return tuple([logical_view(output) for output in outputs])
