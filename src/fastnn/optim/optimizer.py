"""What all optimizers share: parameter groups, state, and the recording of their update into a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..graph import Graph, RuntimeValue, Tensor
from ..habits import OPTIMIZER, kind_of, no_attribute
from ..naming import FUNCTION, naming
from ..nn.parameter import Buffer, Parameter
from ..trace import structure_clock
from ..variable import Variable
from .group import ParameterGroup, Rule, learning_rate, not_negative
from .state import count, parts

Clip = Callable[[Graph, Sequence[Tensor]], Sequence[Tensor]]

STEP = "optimizer.step"
"""Name of the run-time value that counts the steps of an optimizer from 1."""


class Optimizer:
    """A rule that turns gradients into new parameters, with its settings and its state.

    A `Trainer` records the rule into its training step: one kernel call updates all parameters of a group.
    `params` is left out (all trainable parameters of the trainer's model), or given as in PyTorch: an iterable of
    parameters, or of dicts with "params" and settings of their own.

    Every group also has `l1` and `l2`: the loss that is minimised (not the one that is reported) has
    l1 * sum(abs(w)) + l2 * sum(w * w) added for the parameters w of the group.

    `lr` is a number or a schedule, a callable step -> lr with steps counted from 0.

    >>> from fastnn import optim
    >>> layer = nn.Linear(2, 3)
    >>> optimizer = optim.SGD([{"params": [layer.weight], "l2": 1e-3}, {"params": [layer.bias]}], lr=0.1)
    >>> [group["l2"] for group in optimizer.param_groups], isinstance(optimizer, optim.Optimizer)
    ([0.001, 0.0], True)
    """

    operation: ClassVar[str]
    rules: ClassVar[Mapping[str, Rule]] = {"lr": learning_rate, "l1": not_negative, "l2": not_negative}

    def __init__(self, params: Iterable[Any] | None, **defaults: Any) -> None:
        self.defaults = {**defaults, "l1": 0.0, "l2": 0.0}
        self.steps = 0
        self.state: dict[Parameter, dict[str, Variable]] = {}
        self._for_all = params is None
        self._bound_to: Any = None
        self.param_groups: list[ParameterGroup] = []
        with naming(lambda: type(self).__name__):
            for settings in [{"params": []}] if params is None else _as_groups(params):
                self.add_param_group(settings)

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(type(self).__name__, name, OPTIMIZER)

    # -- groups

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Adds parameters with settings of their own; settings left out are the optimizer's."""
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(
                f"a parameter group is a dict with 'params', e.g. {{'params': [weight]}}, not {param_group!r}"
            )
        parameters = param_group["params"]
        parameters = [parameters] if isinstance(parameters, Parameter) else list(parameters)
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for parameter in parameters:
            if not isinstance(parameter, Parameter) or isinstance(parameter, Buffer):
                hint = "; pass model.parameters()" if hasattr(parameter, "parameters") else ""
                raise TypeError(f"an optimizer works on Parameters, not on {kind_of(parameter)}{hint}")
            if id(parameter) in known:
                raise ValueError("a parameter is given to the optimizer twice")
            known.add(id(parameter))
        settings = {**self.defaults, **param_group, "params": parameters}
        self.param_groups.append(ParameterGroup(type(self).__name__, settings, self.rules, self.check))

    def bind(self, model: Any, parameters: Iterable[Parameter]) -> None:
        """Takes the model's parameters, but those of groups added by hand, if none were given at the start."""
        if not self._for_all:
            return
        if self._bound_to is not None and self._bound_to is not model:
            raise ValueError(
                f"this {type(self).__name__} already trains another model; make a new one, or give it its parameters"
            )
        self._bound_to = model
        others = {id(parameter) for group in self.param_groups[1:] for parameter in group["params"]}
        chosen = [parameter for parameter in parameters if id(parameter) not in others]
        if [id(p) for p in chosen] != [id(p) for p in self.param_groups[0]["params"]]:  # each assignment costs a trace
            self.param_groups[0]["params"] = chosen

    def parameters(self) -> list[Parameter]:
        """The parameters of all groups, in order."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings that do not go together."""

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The arrays that a parameter of a group with these settings needs beside it."""
        raise NotImplementedError(type(self).__name__)

    def attributes(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What the operation wants to know of a group beside `lr` and the step."""
        raise NotImplementedError(type(self).__name__)

    def initial_state(self, settings: Mapping[str, Any], name: str) -> float:
        """The value that a state array starts with."""
        return 0.0

    # -- recording

    def record(self, graph: Graph, gradients: Mapping[Parameter, Tensor], clip: Clip | None = None) -> None:
        """Records the update of all parameters that have a gradient, one node a group.

        `clip` records the clipping of all gradients at once, penalties included: (graph, gradients) -> gradients.
        """
        given: dict[Parameter, Tensor] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in gradients:
                    value = graph.variable(parameter.variable)
                    given[parameter] = _with_penalty(graph, value, gradients[parameter], group)
        if clip is not None and given:
            given = dict(zip(given, clip(graph, list(given.values())), strict=True))
        for number, group in enumerate(self.param_groups):
            inputs: list[Tensor] = []
            names = self.state_names(group)
            for parameter in group["params"]:
                if parameter in given:
                    states = self._state_of(parameter, group)
                    inputs += [graph.variable(parameter.variable), given[parameter]]
                    inputs += [graph.variable(states[name]) for name in names]
            if inputs:
                graph.record(
                    self.operation,
                    *inputs,
                    states=len(names),
                    lr=RuntimeValue(f"group{number}.lr"),
                    step=RuntimeValue(STEP),
                    **self.attributes(group),
                )

    def _state_of(self, parameter: Parameter, group: Mapping[str, Any]) -> dict[str, Variable]:
        states = self.state.setdefault(parameter, {})
        for name in self.state_names(group):
            if name not in states:
                states[name] = Variable(np.full(parameter.shape, self.initial_state(group, name), np.float32))
        return states

    def runtime(self) -> dict[str, float]:
        """The run-time values of the next step."""
        values: dict[str, float] = {STEP: self.steps + 1}
        for number in range(len(self.param_groups)):
            values[f"group{number}.lr"] = self.learning_rate(number)
        return values

    def learning_rate(self, group: int = 0) -> float:
        """The learning rate of a group at the next step.

        >>> from fastnn import optim
        >>> optim.SGD(lr=lambda step: 0.5 / (1 + step)).learning_rate()
        0.5
        """
        lr = self.param_groups[group]["lr"]
        if not callable(lr):
            return float(lr)
        with naming(lambda: type(self).__name__, FUNCTION):
            return not_negative(f"lr (of the schedule of group {group}, at step {self.steps})", lr(self.steps))

    # -- saving

    def state_dict(self) -> dict[str, Any]:
        """The state as arrays and the settings as numbers, laid out as PyTorch does, plus "steps"."""
        positions = {id(parameter): i for i, parameter in enumerate(self.parameters())}
        state = {
            positions[id(parameter)]: {name: np.array(v.view, order="C") for name, v in states.items()}
            for parameter, states in self.state.items()
            if id(parameter) in positions
        }
        groups = []
        for number, group in enumerate(self.param_groups):
            settings = {name: value for name, value in group.items() if name != "params"}
            settings["lr"] = self.learning_rate(number)
            groups.append({**settings, "params": [positions[id(p)] for p in group["params"]]})
        return {"state": state, "param_groups": groups, "steps": self.steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict()` gave (PyTorch's of the same optimizer works, too); the parameters must be
        the same in number, order and shape. A group whose `lr` is a schedule keeps it. ValueError, TypeError: it does
        not fit; nothing is changed then."""
        groups, states = parts(state_dict, "param_groups", "state")
        own, given = ([len(parts(g, "params")[0]) for g in groups] for groups in (self.param_groups, groups))
        if own != given:
            raise ValueError(
                f"load_state_dict: groups of {given} parameters do not fit groups of {own}; nothing was changed"
            )
        order = [position for group in groups for position in group["params"]]
        parts(states)
        unknown = [position for position in states if position not in order]
        if unknown:
            raise ValueError(
                f"load_state_dict: there is state of parameters {unknown}, in no group; nothing was changed"
            )
        arrays = {p: self._checked_state(p, states.get(i, {})) for p, i in zip(self.parameters(), order, strict=True)}
        steps = _steps_of(state_dict)
        fresh = [self._loaded_group(group, loaded) for group, loaded in zip(self.param_groups, groups, strict=True)]
        self.state = {p: {name: Variable(a) for name, a in values.items()} for p, values in arrays.items() if values}
        for group, settings in zip(self.param_groups, fresh, strict=True):
            group.data = settings.data
        self.steps = steps
        structure_clock.tick()  # the state lies in new arrays

    def _loaded_group(self, group: ParameterGroup, loaded: Mapping[str, Any]) -> ParameterGroup:
        settings = {name: loaded.get(name, value) for name, value in group.items()}
        settings["params"] = group["params"]
        if callable(group["lr"]):
            settings["lr"] = group["lr"]
        return ParameterGroup(type(self).__name__, settings, self.rules, self.check)

    def _checked_state(self, parameter: Parameter, given: Mapping[str, Any]) -> dict[str, Any]:
        parts(given)
        arrays = {name: np.asarray(value) for name, value in given.items() if name != "step" and value is not None}
        least, most = (set(self.state_names(dict.fromkeys(self.rules, on))) for on in (False, True))
        if arrays and not least <= arrays.keys() <= most:
            raise ValueError(
                f"load_state_dict: a state of {sorted(arrays)} does not fit {type(self).__name__}, which has "
                f"{sorted(most)}; nothing was changed"
            )
        for name, array in arrays.items():
            if array.shape != parameter.shape or array.dtype.kind not in "fiu":
                raise ValueError(
                    f"load_state_dict: {name} of shape {array.shape} and dtype {array.dtype} does not fit a parameter of "
                    f"shape {parameter.shape}; nothing was changed"
                )
        return arrays

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _as_groups(params: Iterable[Any]) -> list[Mapping[str, Any]]:
    if isinstance(params, (Parameter, np.ndarray)) or not isinstance(params, Iterable):
        hint = "; pass model.parameters()" if hasattr(params, "parameters") else ""
        raise TypeError(f"params must be an iterable of Parameters or of dicts, not {kind_of(params)}{hint}")
    entries = list(params)
    if not entries:
        raise ValueError("the optimizer got an empty list of parameters")
    if isinstance(entries[0], Mapping):
        return entries
    return [{"params": entries}]


def _with_penalty(graph: Graph, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> Tensor:
    if group["l1"] == 0 and group["l2"] == 0:
        return gradient
    sign = -1.0 if group.get("maximize") else 1.0  # what is maximised has the penalty subtracted
    result: Tensor = graph.record("penalty_gradient", gradient, parameter, l1=sign * group["l1"], l2=sign * group["l2"])
    return result


def _steps_of(state_dict: Mapping[str, Any]) -> int:
    """Our count of steps, or what PyTorch keeps with each parameter; with momentum alone it only matters that there
    was a step."""
    if "steps" in state_dict:
        return count("steps", state_dict["steps"])
    counts = [
        count("step", int(np.asarray(state["step"]))) for state in state_dict["state"].values() if "step" in state
    ]
    return max(counts, default=1 if state_dict["state"] else 0)
