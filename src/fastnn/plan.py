"""From a graph to a plan: kernel calls with every tensor at its place in one arena, known before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from . import _core
from .graph import Graph, Node, RuntimeValue, Tensor, viewed
from .memory_plan import Reference as Reference  # ops find it here, beside Lowering
from .memory_plan import Storage, assign_offsets, bytes_by_owner, checked_memory, readable, references, resolved
from .variable import Array, Variable, memory_shape

SERIAL_WORK = 20_000
"""Nanoseconds of one thread's work below which steps are not worth a team, all together: waking and joining one costs some
ten thousand."""

SERIAL_PART = 0.1
"""Of SERIAL_WORK: what a single step must be worth to be shared by a team that is there; a barrier costs a thousand."""

EVEN_PART = 5.0
"""The same of a step in which threads that are done help others: below it, each keeps to its part."""

LONE_PART = 0.02
"""The same of a single step between two that a team shares: the barriers before and after it are there in any case."""

BRIEF_WORK = 20_000
"""Nanoseconds of a whole run below which it keeps the GIL: to give it up and to take it again costs as much as a
small layer, and nobody waits longer than that for it."""


@dataclass
class Step:
    """One kernel call of a plan."""

    kernel: str
    arguments: dict[str, Any]
    work: float
    node: Node
    position: int
    prologue: bool

    flops: float
    """Multiplications and additions, where arithmetic is what limits the step; else 0."""

    sharing: int = _core.ALONE
    """How a team shares it: _core.ALONE, EVENLY or PIECEWISE."""

    @property
    def serial(self) -> bool:
        return self.sharing == _core.ALONE

    @property
    def size(self) -> int:
        """Bytes of all memory that the step is given, each stretch once: what it must read or write at least."""
        parts = {(id(r.storage), r.offset): r.size for r in self.references()}
        return sum(parts.values())

    def references(self) -> list[Reference]:
        """The memory that it is given, in the order of its arguments."""
        return [reference for argument in self.arguments.values() for reference in references(argument)]


@dataclass
class Facts:
    """What the kernels of an ISA were compiled with, and how many threads will run them."""

    isa: str
    threads: int
    lanes: int
    gemm_rows: int
    gemm_columns: int
    convolution: str = "auto"
    serial_work: float = SERIAL_WORK


def facts_of(isa: str, threads: int, convolution: str = "auto", serial_work: float = SERIAL_WORK) -> Facts:
    facts = _core.ISAS[isa]
    return Facts(isa, threads, facts["lanes"], facts["gemm_rows"], facts["gemm_columns"], convolution, serial_work)


class Lowering:
    """What an op's `lower` builds its kernel calls with.

    Nodes that depend on variables alone, in a plan that does not change them, go to the prologue: they run again
    only after a change of the weights, and their outputs keep their place.
    """

    def __init__(self, graph: Graph, facts: Facts, repeatable: bool = False) -> None:
        self.graph = graph
        self.kept_from = graph.forward_nodes() if repeatable else 0
        self.facts = facts
        self.steps: list[Step] = []
        self.statics: list[Array] = []
        self.value_names: list[str] = []
        self._static_index: dict[int, int] = {}
        self._storages: dict[Tensor, Storage] = {}
        self._prepared: dict[Any, Reference] = {}
        self.written = graph.written()
        self._fixed: set[Tensor] = set()
        self._position = 0
        self._node: Node = None  # type: ignore[assignment]
        self._prologue = False

    # -- what ops call

    def pointer(self, tensor: Tensor | None) -> Reference | None:
        """A tensor as a kernel argument; None stays None."""
        if tensor is None:
            return None
        storage = self.storage(tensor)
        return Reference(storage, 0, tensor.spec.size)

    def part(self, tensor: Tensor, offset: int, size: int) -> Reference:
        """`size` bytes at byte `offset` of a tensor."""
        return Reference(self.storage(tensor), offset, size)

    def workspace(self, size: int) -> Reference:
        """Memory for this node's kernels alone."""
        storage = self._new_storage(size)
        return Reference(storage, 0, size)

    def scratch(self, like: Tensor) -> Tensor:
        """A tensor of another's shape for this node's kernels alone."""
        tensor = Tensor(self.graph, like.spec)
        self._storages[tensor] = self._new_storage(like.spec.size)
        return tensor

    def value(self, number: float | RuntimeValue) -> Any:
        """A number, or the slot of one that is given at every run."""
        if not isinstance(number, RuntimeValue):
            return number
        if number.name not in self.value_names:
            self.value_names.append(number.name)
        return _core.Runtime(self.value_names.index(number.name))

    def step(self, kernel: str, work: float, **arguments: Any) -> None:
        """Adds a kernel call. `work` is about the nanoseconds it takes one thread; it decides whether the
        team is worth its while, never a bit of the result."""
        flops = self._node.op.flops(self._node)
        self.steps.append(Step(kernel, arguments, work, self._node, self._position, self._prologue, flops))

    def may_share(self, work: float) -> bool:
        """Whether a step of so much work can be one that a team shares."""
        return self.facts.threads > 1 and work >= SERIAL_PART * self.facts.serial_work

    def prepared(self, tensor: Tensor, key: Any, size: int, kernel: str, work: float, **arguments: Any) -> Reference:
        """Another form of a tensor (weights packed for a kernel), made once per plan, or once per change of the
        weights when the tensor is fixed. The kernel reads argument `source` and writes `packed`."""
        if (tensor, key) in self._prepared:
            reference = self._prepared[tensor, key]
            reference.storage.last = max(reference.storage.last, self._position)
            return reference
        before = self._prologue
        self._prologue = self.is_fixed(tensor)
        reference = Reference(self._new_storage(size), 0, size)
        self.step(kernel, work, source=self.pointer(tensor), packed=reference, **arguments)
        self.steps[-1].flops = 0.0
        self._prologue = before
        self._prepared[tensor, key] = reference
        return reference

    def is_fixed(self, tensor: Tensor) -> bool:
        """Depends on variables alone that this plan does not change."""
        if tensor.variable is not None:
            return id(tensor.variable) not in self.written
        return tensor in self._fixed

    # -- the walk over the graph

    def storage(self, tensor: Tensor) -> Storage:
        if tensor.variable is not None and tensor not in self._storages:
            variable = tensor.variable
            index = self._static_index.setdefault(id(variable), len(self.statics))
            if index == len(self.statics):
                self.statics.append(variable.storage)
            self._storages[tensor] = Storage(variable.storage.nbytes, _core.STATIC, index)
        storage = self._storages[tensor]
        storage.last = max(storage.last, self._position)
        return storage

    def _new_storage(self, size: int) -> Storage:
        space = _core.CONSTANT if self._prologue else _core.ARENA
        return Storage(size, space, first=self._position, last=self._position)

    def run(self) -> None:
        """Lowers every node."""
        outputs = self._place_externals()
        last_use = self.graph.last_uses()
        for self._position, self._node in enumerate(self.graph.nodes):  # noqa: B020  attributes, not names
            node = self._node
            fixed = not node.op.has_effects and all(self.is_fixed(t) for t in node.inputs) and bool(node.inputs)
            self._prologue = fixed and outputs.keys().isdisjoint(node.outputs)  # those are new at every call
            if self._prologue:
                self._fixed.update(node.outputs)
            for i, tensor in enumerate(node.outputs):
                self._place_output(node, i, tensor, outputs, last_use)
            if not node.op.is_view(node):
                node.op.lower(node, self)

    def _place_externals(self) -> dict[Tensor, Storage]:
        for i, tensor in enumerate(self.graph.inputs):
            self._storages[tensor] = Storage(tensor.spec.size, _core.EXTERNAL, i)
        first = len(self.graph.inputs)
        return {
            viewed(tensor): Storage(tensor.spec.size, _core.EXTERNAL, first + i)
            for i, tensor in enumerate(self.graph.outputs)
        }

    def _place_output(
        self, node: Node, i: int, tensor: Tensor, outputs: dict[Tensor, Storage], last_use: dict[Tensor, int]
    ) -> None:
        if node.op.is_view(node):
            self._storages[tensor] = self.storage(node.inputs[0])
            return
        if tensor in outputs:
            self._storages[tensor] = outputs[tensor]
            return
        source = node.op.in_place(node).get(i)
        if source is not None and not self._prologue:
            storage = self.storage(node.inputs[source])
            aliases = [t for t, s in self._storages.items() if s is storage]
            dead = all(last_use.get(t, -1) <= self._position for t in aliases)
            others = [t for k, t in enumerate(node.inputs) if k != source and self.storage(t) is storage]
            kept = storage.first < self.kept_from <= self._position
            fits = storage.space == _core.ARENA and storage.size == tensor.spec.size
            if fits and dead and not others and not kept:
                self._storages[tensor] = storage
                return
        self._storages[tensor] = self._new_storage(tensor.spec.size)

    def external_outputs(self) -> None:
        """Makes sure that every output is written by a kernel of its own, itself or what it is a view of: a copy where that
        is an input, a variable, or given twice."""
        seen: set[Tensor] = set()
        graph = self.graph
        for i, tensor in enumerate(graph.outputs):
            source = viewed(tensor)
            if source.node is None or source in seen:
                graph.outputs[i] = graph.record("copy", tensor)
            seen.add(source)


@dataclass
class Plan:
    """A compiled graph: run it with arrays in memory order, print it to see its steps.

    `peak_bytes` is what a run needs beyond inputs, outputs and variables: arena_bytes, used anew by every run, and
    constant_bytes, weights in the form that the kernels want.
    """

    program: _core.Program
    steps: list[Step]
    inputs: list[Tensor]
    outputs: list[Tensor]
    value_names: tuple[str, ...]
    read: tuple[Variable, ...]
    written: tuple[Variable, ...]
    split: int
    facts: Facts
    constants_time: int = field(default=0)
    profiler: ClassVar[Callable[..., Any]]
    """What `profile` calls; `fastnn.profile`, which reads plans and calls them with arrays, enters it."""

    def __post_init__(self) -> None:
        self.has_limits = any(t.limits for t in self.inputs)
        self._output_memory = [(memory_shape(t.shape), np.dtype(t.dtype)) for t in self.outputs]

    @property
    def arena_bytes(self) -> int:
        return int(self.program.arena_bytes)

    @property
    def constant_bytes(self) -> int:
        return int(self.program.constant_bytes)

    @property
    def peak_bytes(self) -> int:
        return self.arena_bytes + self.constant_bytes

    def layer_bytes(self) -> list[tuple[str, int]]:
        """For each layer, in the order in which they first run: the bytes of all results and workspaces that the plan
        keeps for it, forward and backward. Layers that do not live at the same time share memory, so that the sum is
        larger than `peak_bytes`."""
        return bytes_by_owner((step.node.origin or step.kernel, r) for step in self.steps for r in step.references())

    def check_memory(self, limit: int | None) -> None:
        """Raises MemoryError, with the bytes of each layer, if a run needs more than `limit` bytes."""
        limit = checked_memory(limit)
        if limit is None or self.peak_bytes <= limit:
            return
        layers = "\n".join(f"  {size:14,d}  {layer}" for layer, size in self.layer_bytes())
        raise MemoryError(
            f"the plan needs {self.peak_bytes:,d} bytes beside inputs, outputs and weights, max_memory is {limit:,d}; "
            f"a smaller batch needs less. Bytes of each layer, which share memory over time:\n{layers}"
        )

    def profile(self, *arrays: Any, machine: Any = None) -> Any:
        """Runs the plan once on the given arrays with the clock read between the steps: a table of time, rate and
        fraction of the machine's limits; see `fastnn.profile.profile`.

        >>> import numpy as np
        >>> from fastnn import nn
        >>> plan = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval().plan((2, 8))
        >>> [step.kernel for step in plan.profile(np.ones((2, 8))).steps]
        ['linear_forward']
        """
        return self.profiler(self, *arrays, machine=machine)

    def allocate_outputs(self) -> tuple[Array, ...]:
        """Fresh arrays for the outputs, in memory order."""
        return tuple([_core.new_array(shape, dtype) for shape, dtype in self._output_memory])

    def __str__(self) -> str:
        lines = [
            f"plan: {len(self.steps)} steps, isa {self.facts.isa}, {self.facts.threads} threads, "
            f"peak {readable(self.peak_bytes)} (arena {readable(self.arena_bytes)}, constants {readable(self.constant_bytes)})"
        ]
        for name, tensors in (("input", self.inputs), ("output", self.outputs)):
            lines += [f"  {name} {i}: {t.shape} {t.dtype}" for i, t in enumerate(tensors)]
        for i, step in enumerate(self.steps):
            node = step.node
            shapes = ", ".join(str(t.shape) for t in node.outputs[:1]) or "-"
            when = "once" if step.prologue else "1 thread" if step.serial else "team"
            places = " ".join(r.place for a in step.arguments.values() for r in references(a)[:1])
            lines.append(f"  {i:3d}  {step.kernel:32s} {shapes:22s} {when:9s} {places}")
        return "\n".join(lines)


def _share(steps: list[Step], facts: Facts) -> None:
    """Decides which steps a team shares: those that outweigh a barrier, if together they outweigh the team, and between two of
    them a step that needs no barrier more."""
    least, least_alone = SERIAL_PART * facts.serial_work, LONE_PART * facts.serial_work
    worth = sum(step.work for step in steps if step.work >= least) >= facts.serial_work
    for step in steps:
        if worth and step.work >= least:
            step.sharing = _core.EVENLY if step.work < EVEN_PART * facts.serial_work else _core.PIECEWISE
    for before, step, after in zip(steps, steps[1:], steps[2:], strict=False):
        if step.serial and not (before.serial or after.serial or step.work < least_alone):
            step.sharing = _core.EVENLY


def compile_graph(graph: Graph, facts: Facts, repeatable: bool = False) -> Plan:
    """Lowers a graph (after its passes) to a plan.

    With `repeatable`, what the gradients read of the forward part is kept to the end, so that the steps from
    `plan.split` on can run more than once (fastnn.vjp).
    """
    lowering = Lowering(graph, facts, repeatable)
    lowering.external_outputs()
    lowering.run()
    steps = sorted(lowering.steps, key=lambda step: not step.prologue)
    prologue = sum(step.prologue for step in steps)
    _share(steps[:prologue], facts)
    _share(steps[prologue:], facts)
    storages = {id(r.storage): r.storage for step in steps for r in step.references()}
    arena = [s for s in storages.values() if s.space == _core.ARENA]
    constant = [s for s in storages.values() if s.space == _core.CONSTANT]
    for storage in {r.storage for step in steps[prologue:] for r in step.references()}.intersection(constant):
        storage.last = len(graph.nodes)  # the others are what the prologue works with: they share memory over time
    forward_nodes = graph.forward_nodes()
    if repeatable:
        for storage in arena:
            if storage.first < forward_nodes <= storage.last:
                storage.last = len(graph.nodes)
    arena_bytes, constant_bytes = assign_offsets(arena), assign_offsets(constant)
    program = _core.Program(
        facts.isa,
        [(s.kernel, {k: resolved(v) for k, v in s.arguments.items()}, s.sharing) for s in steps],
        tuple(lowering.statics),
        tuple(t.spec.size for t in [*graph.inputs, *graph.outputs]),
        arena_bytes,
        constant_bytes,
        prologue,
        len(lowering.value_names),
        all(s.serial for s in steps) and sum(s.work for s in steps) < BRIEF_WORK,
        facts.threads,
    )
    split = sum(not s.prologue and s.position < forward_nodes for s in steps)
    variables = [t.variable for t in graph.variables.values() if t.variable is not None]
    return Plan(
        program,
        steps,
        graph.inputs,
        graph.outputs,
        tuple(lowering.value_names),
        tuple(variables),
        tuple(v for v in variables if id(v) in lowering.written),
        split,
        facts,
    )
