"""What tracing a model records: symbolic tensors, and the nodes that make them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from . import _core
from .axes import Shape as Shape
from .axes import axis_index, axis_indices, resolve_shape
from .habits import TENSOR, no_attribute
from .variable import Variable


@dataclass(frozen=True)
class Spec:
    """Shape and element type of a tensor."""

    shape: Shape
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Bytes in memory; OverflowError when no machine could hold them."""
        return _core.tensor_bytes(self.shape, np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class RuntimeValue:
    """A number that a run of the plan is given by name: the learning rate, the step of the random stream."""

    name: str


@dataclass(eq=False)
class Node:
    """One operation of a graph."""

    op: Op
    inputs: list[Tensor]
    attributes: dict[str, Any]
    outputs: list[Tensor] = field(default_factory=list)
    is_gradient: bool = False  # recorded by differentiate, or after it
    origin: str = ""  # the layer that recorded it, or whose gradient it is

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["attributes"][name]
        except KeyError:
            raise AttributeError(f"node {self.__dict__.get('op')} has no attribute {name!r}") from None


class Op:
    """All there is to know about an operation. Subclasses are registered once, with `@register`."""

    name: ClassVar[str]
    has_effects: ClassVar[bool] = False  # it changes variables: never removed, never moved

    def infer(self, *inputs: Tensor, **attributes: Any) -> Spec | tuple[Spec, ...]:
        """The outputs' shapes; raises ValueError or TypeError for inputs that do not fit."""
        raise NotImplementedError(self.name)

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        """For each input that is needed, its gradient as a tensor recorded in the same graph."""
        raise TypeError(f"{self.name} has no gradient")

    def is_view(self, node: Node) -> bool:
        """Whether the output is the first input's memory under another shape."""
        return False

    def in_place(self, node: Node) -> dict[int, int]:
        """{output: input} pairs for which the kernel may write the output over the input."""
        return {}

    def writes(self, node: Node) -> tuple[int, ...]:
        """Inputs (variables) that the operation changes."""
        return ()

    def flops(self, node: Node) -> float:
        """Multiplications and additions, for operations that arithmetic limits; 0: memory limits it."""
        return 0.0

    def lower(self, node: Node, steps: Any) -> None:
        """Adds the kernel calls to a plan (see plan.Lowering)."""
        raise NotImplementedError(self.name)

    def __repr__(self) -> str:
        return self.name


OPS: dict[str, Op] = {}


def register(cls: type[Op]) -> type[Op]:
    """Adds an op to the list of ops."""
    if cls.name in OPS:
        raise ValueError(f"op {cls.name!r} is registered twice")
    OPS[cls.name] = cls()
    return cls


class Tensor:
    """A value that a model will compute: its shape is known, its numbers are not.

    `forward` of a Module sees these. They know shape, dtype, arithmetic and the shape methods; anything that
    needs numbers (a condition, a loop over values, NumPy) raises a TypeError that says so.

    >>> class Ratio(nn.Module):
    ...     def forward(self, x):
    ...         print(x.shape, x.dtype, x.ndim)
    ...         return x / x.sum(1, keepdim=True)
    >>> Ratio()(np.array([[1.0, 3.0]]))
    (1, 2) float32 2
    array([[0.25, 0.75]], dtype=float32)
    """

    __slots__ = ("graph", "spec", "node", "variable", "layout", "limits", "__weakref__")

    def __init__(self, graph: Graph, spec: Spec, node: Node | None = None) -> None:
        self.graph = graph
        self.spec = spec
        self.node = node
        self.variable: Variable | None = None
        self.layout = "memory"  # "first": an input array that lies N,C,H,W in memory
        self.limits: list[tuple[int, int, int | None, str]] = []  # of an input: least, most, exception, message

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    @property
    def dtype(self) -> str:
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self.spec.shape)

    def size(self, axis: int | None = None) -> Any:
        """The shape, or one extent of it."""
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        """Number of axes."""
        return self.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, dtype={self.dtype})"

    # -- arithmetic

    def _binary(self, op: str, left: Any, right: Any) -> Tensor:
        operands = [v if isinstance(v, Tensor) else self.graph.constant(v) for v in (left, right)]
        return self.graph.record(op, *operands)

    def __add__(self, other: Any) -> Tensor:
        return self._binary("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return self._binary("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return self._binary("subtract", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return self._binary("subtract", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return self._binary("multiply", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return self._binary("multiply", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return self._binary("divide", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._binary("divide", other, self)

    def __neg__(self) -> Tensor:
        return self._binary("multiply", self, -1.0)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (None,), **options: Any) -> Tensor:
        """NumPy's arrays and numbers leave arithmetic with tensors to us, `array += tensor` too; the rest needs numbers."""
        name = {"true_divide": "divide"}.get(ufunc.__name__, ufunc.__name__)
        plain = method == "__call__" and not options and (out[0] is None or out[0] is inputs[0])
        if not plain or name not in ("add", "subtract", "multiply", "divide"):
            raise self._no_values(f"numpy.{ufunc.__name__}")
        return self._binary(name, *inputs)

    # -- shapes

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in logical order under another shape; one extent may be -1."""
        target = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
        shape = resolve_shape(self.shape, target)
        source = self
        if len(shape) == self.ndim == 4 and shape != self.shape:  # between two images: through one axis
            source = self.graph.record("reshape", self, shape=(math.prod(shape),))
        return self.graph.record("reshape", source, shape=shape)

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes start_dim to end_dim as one."""
        for name, dim in (("start_dim", start_dim), ("end_dim", end_dim)):
            if not -max(self.ndim, 1) <= dim < max(self.ndim, 1):
                raise ValueError(
                    f"flatten: {name} {dim} is out of range for the {self.ndim} axes of shape {self.shape}"
                )
        start, end = axis_index(start_dim, self.ndim), axis_index(end_dim, self.ndim)
        if start > end:
            raise ValueError(f"flatten: start_dim {start_dim} lies behind end_dim {end_dim} in shape {self.shape}")
        merged = math.prod(self.shape[start : end + 1])
        return self.reshape(*self.shape[:start], merged, *self.shape[end + 1 :])

    def mean(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """The mean over all axes, or over some."""
        return self._reduced("mean", dim, keepdim)

    def sum(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """The sum over all axes, or over some."""
        return self._reduced("sum", dim, keepdim)

    def _reduced(self, op: str, dim: int | tuple[int, ...] | None, keepdim: bool) -> Tensor:
        axes = axis_indices(dim, self.ndim)
        result: Tensor = self.graph.record(op, self, axes=axes)
        return result if keepdim else result.reshape(tuple(n for axis, n in enumerate(self.shape) if axis not in axes))

    def __getitem__(self, key: Any) -> Tensor:
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > self.ndim or not all(isinstance(k, slice) for k in keys):
            raise TypeError("a symbolic tensor is sliced by slices only, e.g. x[:, 8:16]")
        result = self
        for axis, part in enumerate(keys):
            start, stop, step = part.indices(result.shape[axis])
            if step != 1:
                raise TypeError("a symbolic tensor is sliced without a step")
            if (start, stop) != (0, result.shape[axis]):
                result = self.graph.record("slice", result, axis=axis, start=start, stop=max(start, stop))
        return result

    # -- what a symbol cannot do

    def _no_values(self, what: str) -> TypeError:
        return TypeError(
            f"{what} needs the numbers of a tensor of shape {self.shape}, but forward() is traced once per input "
            "shape with symbolic tensors that have none. Compute it with fastnn.nn.functional, or outside the model."
        )

    def __bool__(self) -> bool:
        raise self._no_values("a condition (if, while, and, or)")

    def __iter__(self) -> Iterator[Any]:
        raise self._no_values("iteration")

    def __float__(self) -> float:
        raise self._no_values("float()")

    def __int__(self) -> int:
        raise self._no_values("int()")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self._no_values("a NumPy function")

    def __lt__(self, other: Any) -> Any:
        raise self._no_values("a comparison")

    def __pow__(self, other: Any) -> Any:
        raise TypeError("a symbolic tensor has no **; write x * x")

    def __matmul__(self, other: Any) -> Any:
        raise TypeError("a symbolic tensor has no @; x @ w is fastnn.nn.functional.linear(x, w.T)")

    def __getattr__(self, name: str) -> Any:
        raise no_attribute("a symbolic tensor", name, TENSOR)

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> Any:
        """What PyTorch calls when one of its functions is given a symbolic tensor."""
        raise TypeError(f"PyTorch's {function.__name__}() works on its own tensors; use fastnn.nn.functional")

    __le__ = __gt__ = __ge__ = __lt__


def viewed(tensor: Tensor) -> Tensor:
    """The tensor whose memory it is: itself, or what it is a view of."""
    while tensor.node is not None and tensor.node.op.is_view(tensor.node):
        tensor = tensor.node.inputs[0]
    return tensor


@lru_cache(maxsize=256)
def _number(value: float) -> Variable:
    """The variable of a constant: one for each number, so that two traces of a model are the same graph."""
    return Variable(value)


class Graph:
    """Nodes in execution order, with the inputs, variables and outputs they work on."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.variables: dict[int, Tensor] = {}  # id of the variable -> its tensor
        self.recording_gradients = False
        self.origin = ""

    def input(self, shape: Shape, dtype: str = "float32", layout: str = "memory") -> Tensor:
        """A new input. One that lies N,C,H,W in memory is turned channels-last by the first node."""
        tensor = Tensor(self, Spec(tuple(shape), dtype))
        tensor.layout = layout
        self.inputs.append(tensor)
        return self.record("to_channels_last", tensor) if layout == "first" else tensor

    def variable(self, variable: Variable) -> Tensor:
        """The tensor of a variable, the same one each time."""
        if id(variable) not in self.variables:
            tensor = Tensor(self, Spec(variable.shape, variable.dtype.name))
            tensor.variable = variable
            self.variables[id(variable)] = tensor
        return self.variables[id(variable)]

    def constant(self, value: Any) -> Tensor:
        """A number, array or variable as a tensor."""
        owner = getattr(value, "variable", value)
        if isinstance(owner, Variable):
            return self.variable(owner)
        if np.asarray(value).dtype.kind not in "fiub":
            raise TypeError(f"cannot compute with {type(value).__name__} in a model")
        return self.variable(_number(float(value)) if np.ndim(value) == 0 else Variable(value))

    def record(self, op: str, *inputs: Tensor, **attributes: Any) -> Any:
        """Appends a node; returns its output tensor, or a tuple of them."""
        operation = OPS[op]
        for tensor in inputs:
            if tensor.graph is not self:
                raise ValueError(
                    f"{op}: a tensor of another call to forward() was used; tensors do not outlive a trace"
                )
        inferred = operation.infer(*inputs, **attributes)
        node = Node(operation, list(inputs), attributes, is_gradient=self.recording_gradients, origin=self.origin)
        for spec in inferred if isinstance(inferred, tuple) else (inferred,):
            spec.size  # noqa: B018  raises OverflowError before anything is formed from it
            node.outputs.append(Tensor(self, spec, node))
        self.nodes.append(node)
        return tuple(node.outputs) if isinstance(inferred, tuple) else node.outputs[0]

    def written(self) -> set[int]:
        """The ids of the variables that nodes change."""
        return {id(node.inputs[i].variable) for node in self.nodes for i in node.op.writes(node)}

    def users(self) -> dict[Tensor, list[Node]]:
        """For each tensor the nodes that read it; a graph output counts as read once more, by None."""
        users: dict[Tensor, list[Any]] = {}
        for node in self.nodes:
            for tensor in node.inputs:
                users.setdefault(tensor, []).append(node)
        for tensor in self.outputs:
            users.setdefault(tensor, []).append(None)
        return users

    def replace(self, old: Tensor, new: Tensor) -> None:
        """Lets every reader of old read new."""
        for node in self.nodes:
            node.inputs = [new if tensor is old else tensor for tensor in node.inputs]
        self.outputs = [new if tensor is old else tensor for tensor in self.outputs]

    def last_uses(self) -> dict[Tensor, int]:
        """The position of the last node that reads each tensor, under its own name or through a view of it."""
        last: dict[Tensor, int] = {}
        for position, node in reversed(list(enumerate(self.nodes))):
            for tensor in node.inputs:
                last.setdefault(tensor, position)
            if node.op.is_view(node):
                source, view = node.inputs[0], node.outputs[0]
                last[source] = max(last.get(source, position), last.get(view, position))
        return last

    def forward_nodes(self) -> int:
        """How many nodes come before the first that belongs to the gradients."""
        return next((i for i, node in enumerate(self.nodes) if node.is_gradient), len(self.nodes))

    def signature(self) -> tuple[Any, ...]:
        """Equal for two graphs that compute the same with the same variables."""
        names: dict[int, Any] = {id(t): ("input", i, t.spec, t.layout) for i, t in enumerate(self.inputs)}
        names.update({id(t): ("variable", key) for key, t in self.variables.items()})
        nodes = []
        for position, node in enumerate(self.nodes):
            nodes.append(
                (node.op.name, tuple(names[id(t)] for t in node.inputs), tuple(sorted(node.attributes.items())))
            )
            names.update({id(t): (position, i) for i, t in enumerate(node.outputs)})
        return tuple(nodes), tuple(names[id(t)] for t in self.outputs), tuple(t.spec for t in self.inputs)
