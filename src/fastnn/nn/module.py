"""Module: layers in __init__, a traced forward, state_dict with PyTorch's keys and shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from operator import index
from typing import Any, NamedTuple, Self

import numpy as np

from ..graph import Graph, Tensor
from ..habits import MODULE, keys_advice, kind_of, no_attribute
from ..naming import naming
from ..plan import Plan
from ..trace import Compiled, structure_clock
from ..variable import Array, check_values
from .parameter import Buffer, Parameter


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def _naming_constructor(cls: type[Module]) -> None:
    construct = cls.__init__

    @wraps(construct)
    def __init__(self: Module, *args: Any, **kwargs: Any) -> None:
        with naming(lambda: type(self).__name__):
            construct(self, *args, **kwargs)

    cls.__init__ = __init__  # type: ignore[method-assign]


def _extents(shape: Any) -> tuple[int, ...]:
    """A shape that a user gives."""
    try:
        extents = tuple(index(n) for n in shape)
    except TypeError:
        raise TypeError(f"plan: a shape is a sequence of integers, e.g. (1, 3, 224, 224), not {shape!r}") from None
    if any(n < 0 for n in extents):
        raise ValueError(f"plan: a shape has no extents below 0, got {extents}")
    return extents


def _state_array(name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of a tensor of PyTorch's that requires gradients
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"load_state_dict: nothing was changed: {name}: {error}") from error


class Module:
    """Base of all layers and models, used as `torch.nn.Module` is.

    `forward` is written with layers, `fastnn.nn.functional` and arithmetic. It is traced with symbolic tensors, once
    for each input shape and mode, and compiled into a plan; `model(array)` runs the plan and returns an array.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> class Double(nn.Module):
    ...     def forward(self, x):
    ...         return x + x
    >>> Double()(np.ones((1, 2), np.float32))
    array([[2., 2.]], dtype=float32)
    """

    training: bool
    _compiled: Compiled | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Our own layers name themselves in errors about their arguments."""
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(f"{__package__}.") and "__init__" in cls.__dict__:
            _naming_constructor(cls)

    def __init__(self) -> None:
        object.__setattr__(self, "_parameters", OrderedDict())
        object.__setattr__(self, "_buffers", OrderedDict())
        object.__setattr__(self, "_modules", OrderedDict())
        object.__setattr__(self, "_compiled", None)
        self.training = True

    def forward(self, *inputs: Tensor) -> Any:
        """Computes the outputs from symbolic tensors; a model defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(self, ...)")

    # -- calling

    def __call__(self, *inputs: Any) -> Any:
        outputs = None if self._compiled is None else self._compiled.again(inputs)
        if outputs is None:
            for x in inputs:
                if isinstance(x, Tensor):
                    return self._forward_named(*inputs)
            with naming(self._title):
                if not inputs:
                    raise TypeError("called without an input; pass at least one array")
                outputs = self._compile()(*inputs)
        if len(outputs) == 1 and not (self._tuples_of_one and tuple(map(np.shape, inputs)) in self._tuples_of_one):
            return outputs[0]
        return outputs

    def _forward_named(self, *inputs: Any) -> Any:
        """forward, with errors of bad input that tell which layer raised them."""
        with naming(self._title):
            if self._modules:
                return self.forward(*inputs)
            graph = next(x.graph for x in inputs if isinstance(x, Tensor))
            graph.origin = repr(self)
            try:
                return self.forward(*inputs)
            finally:
                graph.origin = ""

    def _title(self) -> str:
        """What errors call the module: a layer with its arguments, one that holds others by its class."""
        return type(self).__name__ if self._modules else repr(self)

    def _compile(self) -> Compiled:
        compiled: Compiled | None = self.__dict__.get("_compiled")
        if compiled is None:
            compiled = Compiled(self._build, self._integers, others=self.keeps_integers)
            object.__setattr__(self, "_compiled", compiled)
        return compiled

    _tuples_of_one: frozenset[tuple[tuple[int, ...], ...]] = frozenset()  # input shapes that forward returns one for
    _integers: tuple[bool, ...] = ()  # for each argument of forward, whether integer arrays stay integers
    takes_indices = False
    """Whether the layer looks something up by integers."""

    def keeps_integers(self) -> bool:
        """Whether integer arrays stay integers when the module is called: a layer in it takes indices. Else all
        arrays become float32."""
        return any(module.takes_indices for module in self.modules())

    def _build(self, graph: Graph, *inputs: Tensor) -> Sequence[Tensor]:
        outputs = self._forward_named(*inputs)
        many = isinstance(outputs, (tuple, list))
        results = list(outputs) if many else [outputs]
        shapes = frozenset([tuple(x.shape for x in inputs)])
        others = self._tuples_of_one - shapes
        object.__setattr__(self, "_tuples_of_one", others | shapes if many and len(results) == 1 else others)
        for result in results:
            if not isinstance(result, Tensor):
                raise TypeError(f"{type(self).__name__}.forward returned {type(result).__name__}, not a tensor")
        return results

    def plan(self, *shapes: Sequence[int], max_memory: int | None = None) -> Plan:
        """The plan of a call with float32 inputs of the given shapes (int64, if the model takes indices), in the current
        mode: print it to see steps and places in memory; `peak_bytes` is what a run needs.

        max_memory : a number of bytes; MemoryError names what each layer needs if the plan's peak is larger.

        Raises TypeError for a shape that is no sequence of integers, ValueError for one with an extent below 0.

        >>> from fastnn import nn
        >>> nn.ReLU().plan((2, 3)).peak_bytes
        0
        """
        character = np.dtype(np.int64).char if self.keeps_integers() else "f"
        plan = self._compile().plan([(_extents(shape), character, "memory") for shape in shapes])
        plan.check_memory(max_memory)
        return plan

    def __getstate__(self) -> dict[str, Any]:
        """What a copy (copy.deepcopy) takes along: everything but compiled plans."""
        return {**self.__dict__, "_compiled": None, "_vjp": None}

    # -- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if "_modules" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
        for kind, members in self._registries():
            if isinstance(value, kind):
                self._register(members, name, value)
                break
        else:
            holder = next((m for _, m in self._registries() if name in m), None)
            if holder is not None and value is None:
                holder[name] = None
            else:
                if holder is not None:
                    raise TypeError(
                        f"cannot assign {type(value).__name__} as {name!r}: it is a registered "
                        f"{type(holder[name]).__name__}; assign to .data to change its values"
                    )
                object.__setattr__(self, name, value)
        structure_clock.tick()

    def _registries(self) -> Iterable[tuple[type, OrderedDict[str, Any]]]:
        own = self.__dict__
        return ((Buffer, own["_buffers"]), (Parameter, own["_parameters"]), (Module, own["_modules"]))

    def _remove(self, name: str, but_from: OrderedDict[str, Any] | None = None) -> None:
        self.__dict__.pop(name, None)
        for _, members in self._registries():
            if members is not but_from:
                members.pop(name, None)

    def _register(self, members: OrderedDict[str, Any], name: str, value: Any) -> None:
        """Puts a value under a name into a registry; one that replaces another takes its place in the order."""
        self._remove(name, but_from=members)
        members[name] = value
        structure_clock.tick()

    def __getattr__(self, name: str) -> Any:
        for registry in ("_parameters", "_buffers", "_modules"):
            members = self.__dict__.get(registry, {})
            if name in members:
                return members[name]
        raise no_attribute(type(self).__name__, name, MODULE)

    def __delattr__(self, name: str) -> None:
        if name not in self.__dict__ and not any(name in members for _, members in self._registries()):
            raise AttributeError(name)
        self._remove(name)
        structure_clock.tick()

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for _, members in self._registries() for name in members)})

    def _check_name(self, name: str) -> None:
        """A name that a state_dict can tell from others, and that nothing else of the module has. KeyError, as in PyTorch."""
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: a name must be a str, not {kind_of(name)}")
        if not name or "." in name:
            raise KeyError(f"{type(self).__name__}: a name must not be empty or hold a dot, got {name!r}")
        if hasattr(self, name) and not any(name in members for _, members in self._registries()):
            raise KeyError(f"{type(self).__name__}: there is an attribute {name!r} already")

    def register_buffer(self, name: str, value: Buffer | None) -> None:
        """Adds state that is not trained."""
        self._check_name(name)
        self._register(self._buffers, name, value)

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Adds a parameter; None reserves the name."""
        self._check_name(name)
        self._register(self._parameters, name, value)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a child under a name that need not be an identifier. KeyError: it is empty, holds a dot or is taken."""
        if module is not None and not isinstance(module, Module):
            hint = "; pass its modules one by one: *layers" if isinstance(module, (list, tuple)) else ""
            raise TypeError(f"expected a Module, got {kind_of(module)}{hint}")
        self._check_name(name)
        self._register(self._modules, name, module)

    register_module = add_module

    # -- walking

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with its dotted name."""
        seen: set[int] = set()

        def walk(module: Module, name: str) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            seen.add(id(module))
            yield name, module
            for key, child in module._modules.items():
                if child is not None:
                    yield from walk(child, f"{name}.{key}" if name else key)

        yield from walk(self, prefix)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that this one holds directly, each once, with their names."""
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """The modules that this one holds directly, each once."""
        return (child for _, child in self.named_children())

    def _named_members(self, registry: str, unique: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in getattr(module, registry).items():
                if value is None or (unique and id(value) in seen):
                    continue
                seen.add(id(value))
                yield f"{prefix}.{name}" if prefix else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Trainable arrays with their dotted names; one shared by two layers comes once."""
        return self._named_members("_parameters", unique=True)

    def parameters(self) -> Iterator[Parameter]:
        """Trainable arrays."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """State that is not trained, with dotted names."""
        return self._named_members("_buffers", unique=True)

    def buffers(self) -> Iterator[Buffer]:
        """State that is not trained."""
        return (buffer for _, buffer in self.named_buffers())

    def get_submodule(self, target: str) -> Module:
        """The module with a dotted name."""
        module = self
        for name in filter(None, target.split(".")):
            if name not in module._modules:
                raise AttributeError(f"{type(module).__name__} has no child {name!r} (in {target!r})")
            module = module._modules[name]
        return module

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Calls function on every module below, then on this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -- modes

    def train(self, mode: bool = True) -> Self:
        """Training mode (batch statistics, dropout), here and below."""
        for module in self.modules():
            if module.training != bool(mode):
                module.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Inference mode, here and below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Lets training change all parameters, or none."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    # -- state

    def _state(self, prefix: str = "") -> OrderedDict[str, Parameter]:
        """Parameters and buffers by dotted name; what two layers share stands under both names."""
        state: OrderedDict[str, Parameter] = OrderedDict()
        for members in (self._parameters, self._buffers):
            state.update((prefix + name, value) for name, value in members.items() if value is not None)
        for name, child in self._modules.items():
            if child is not None:
                state.update(child._state(f"{prefix}{name}."))
        return state

    def state_dict(self) -> OrderedDict[str, Array]:
        """Copies of all parameters and buffers under PyTorch's names, C-contiguous in their logical shapes."""
        return OrderedDict((name, np.array(value.data, order="C")) for name, value in self._state().items())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Overwrites parameters and buffers from arrays under the same names; a wrong key or shape changes nothing.

        Parameters
        ----------
        state_dict : arrays (NumPy, PyTorch tensors or anything array-like) by name, as `state_dict()` gives them.
        strict : whether a missing or unexpected key is an error (ValueError lists them all).

        Raises
        ------
        ValueError : keys are missing or unexpected, and strict; shapes differ. The message lists all of them. A count
            that is no integer.
        TypeError : no dict, or values that are no real numbers.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict takes a dict of arrays by name, not a {type(state_dict).__name__}")
        own = self._state()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        if strict and (missing or unexpected):
            raise ValueError(
                f"load_state_dict: missing keys {missing}, unexpected keys {unexpected}; nothing was changed "
                f"(strict=False loads what fits){keys_advice(state_dict, missing)}"
            )
        arrays = {name: _state_array(name, state_dict[name]) for name in own if name in state_dict}
        wrong = [
            f"{name}: {a.shape} instead of {own[name].shape}"
            for name, a in arrays.items()
            if a.shape != own[name].shape
        ]
        if wrong:
            raise ValueError(f"load_state_dict: shapes differ, nothing was changed: {'; '.join(wrong)}")
        for name, array in arrays.items():
            with naming(lambda name=name: f"load_state_dict: nothing was changed: {name}"):  # type: ignore[misc]
                check_values(array, own[name].dtype)
        for name, array in arrays.items():
            own[name].variable.assign(array)
        return IncompatibleKeys(missing, unexpected)

    # -- text

    def extra_repr(self) -> str:
        """The arguments of this layer, for repr."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"
