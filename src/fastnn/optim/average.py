"""Averages of the weights that a training passes through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..graph import Graph, RuntimeValue
from ..nn.parameter import Parameter
from ..trace import structure_clock
from ..variable import Array, Variable
from .group import flag, fraction
from .state import count, parts

WEIGHT = "average.weight"
"""Name of the run-time value that says how much a step's weights count."""


class ExponentialMovingAverage:
    """average = decay * average + (1 - decay) * weights after each step of a `Trainer` that has it as `average`.

    Parameters
    ----------
    decay : how much of the average stays, in [0, 1).
    warmup : decay grows with the number n of averages so far, min(decay, (1 + n) / (10 + n)), so that the first steps are
        soon forgotten.

    The first average is a copy, as that of torch.optim.swa_utils.AveragedModel(multi_avg_fn=get_ema_multi_avg_fn(decay)).
    Parameters alone are averaged: running statistics are averages already, and stay the model's. One kernel call a step;
    the same bits for any number of threads. Source: Polyak and Juditsky 1992.

    >>> import fastnn as fnn, numpy as np
    >>> from fastnn import nn, optim
    >>> average = optim.ExponentialMovingAverage(decay=0.9)
    >>> model = nn.Linear(2, 3)
    >>> trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.5), average=average)
    >>> x, y = np.eye(2), np.array([0, 1])
    >>> history = trainer.fit(x, y, epochs=5, batch_size=2, progress=False)
    >>> with average.applied():
    ...     figures = trainer.evaluate(x, y)
    >>> average.steps
    5
    """

    def __init__(self, decay: float = 0.999, warmup: bool = False) -> None:
        self._decay = fraction("decay", decay)
        self.warmup = flag("warmup", warmup)
        self.steps = 0
        self.is_applied = False
        self._averages: dict[Parameter, Variable] = {}
        self._bound_to: Any = None

    @property
    def decay(self) -> float:
        """How much of the average stays; a new value counts from the next step on."""
        return self._decay

    @decay.setter
    def decay(self, decay: float) -> None:
        self._decay = fraction("decay", decay)

    def bind(self, parameters: Iterable[Parameter], model: Any = None) -> None:
        """Takes parameters to average, of a model; those that are known keep their averages. ValueError: the averages are
        another model's."""
        if model is not None:
            if self._bound_to is not None and self._bound_to is not model:
                raise ValueError("this average already belongs to another model's training; make a new one")
            self._bound_to = model
        parameters = list(parameters)
        if [id(p) for p in parameters] == [id(p) for p in self._averages]:
            return
        if self.is_applied:
            raise RuntimeError("the averages are applied: leave `with average.applied()` before training goes on")
        self._averages = {p: self._averages.get(p) or Variable(p.data) for p in parameters}
        structure_clock.tick()

    def record(self, graph: Graph) -> None:
        """Records the averaging of all parameters, behind their update."""
        pairs = [(graph.variable(average), graph.variable(p.variable)) for p, average in self._averages.items()]
        graph.record("average_weights", *[tensor for pair in pairs for tensor in pair], weight=RuntimeValue(WEIGHT))

    def runtime(self) -> dict[str, float]:
        """The run-time values of the next step."""
        n = self.steps
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        return {WEIGHT: 1.0 - decay if n else 1.0}

    def __getitem__(self, parameter: Parameter) -> Array:
        """The average of a parameter, in its shape."""
        variable = parameter.variable if self.is_applied else self._averages[parameter]
        return np.array(variable.view, order="C")

    def swap(self) -> None:
        """Exchanges the model's weights and their averages: a second time puts both back."""
        for parameter, average in self._averages.items():
            weights = np.array(parameter.data)
            parameter.variable.assign(average.view)
            average.assign(weights)
        self.is_applied = not self.is_applied

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averages as its weights: evaluate, predict or save it there. Training in
        the block raises RuntimeError, as does a block within a block."""
        if self.is_applied:
            raise RuntimeError("the averages are applied already")
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Any]:
        """The averages in the order of the parameters, and the count of steps."""
        return {"averages": [self[parameter] for parameter in self._averages], "steps": self.steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict()` gave. ValueError, TypeError: it does not fit; nothing is changed then."""
        given, steps = parts(state_dict, "averages", "steps")
        averages, steps = [np.asarray(a) for a in given], count("steps", steps)
        if any(a.dtype.kind not in "fiub" for a in averages):
            raise TypeError(f"load_state_dict: averages of dtypes {[str(a.dtype) for a in averages]} are no numbers")
        shapes, own = [a.shape for a in averages], [p.shape for p in self._averages]
        if shapes != own:
            raise ValueError(f"load_state_dict: averages of shapes {shapes} do not fit parameters of {own}")
        if self.is_applied:
            raise RuntimeError("the averages are applied: leave `with average.applied()` first")
        for variable, average in zip(self._averages.values(), averages, strict=True):
            variable.assign(average)
        self.steps = steps

    def __repr__(self) -> str:
        return f"ExponentialMovingAverage(decay={self.decay}, warmup={self.warmup})"
