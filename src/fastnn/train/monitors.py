"""Monitors: callbacks that look at activations and gradients while a model trains, and print a table an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..graph import Shape, Tensor
from ..ops.monitor import words_of_units
from ..variable import Array, Variable, memory_shape
from .batches import checked_count
from .callbacks import Callback, Logs
from .observation import Observed


class LayerMonitor(Callback):
    """Base of monitors that record nodes into the training step.

    The step with its monitors is a plan of its own, in which they only look: losses and weights have the bits that they
    have without them.

    >>> from fastnn import train
    >>> isinstance(train.DyingReLU(), LayerMonitor)
    True
    """

    every = 1

    def __init__(self, verbose: bool = True) -> None:
        self.verbose = bool(verbose)

    def is_due(self, step: int) -> bool:
        """Whether the monitor looks at this step, counted from 0."""
        return step % self.every == 0

    def observe(self, observed: Observed) -> None:
        """Records what the monitor looks at, with `observed.look`."""
        raise NotImplementedError(type(self).__name__)

    def table(self) -> str:
        """The figures of the last epoch as text."""
        raise NotImplementedError(type(self).__name__)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.verbose:
            print(self.table())


@dataclass(frozen=True)
class RectifiedUnits:
    """Which units of a ReLU layer were above 0 for some sample of an epoch.

    >>> RectifiedUnits("1", np.array([True, False, True, True])).dead_fraction
    0.25
    """

    layer: str
    fired: Array
    """(C), (C,L) or (C,H,W), bool: a unit is one element of a sample's activation."""

    @property
    def dead_fraction(self) -> float:
        """The share of units that never fired."""
        return float(1.0 - self.fired.mean()) if self.fired.size else 0.0

    @property
    def dead_channels(self) -> tuple[int, ...]:
        """The channels of which no unit fired."""
        channels = self.fired.reshape(len(self.fired), -1) if self.fired.ndim else self.fired.reshape(1, 1)
        return tuple(int(c) for c in np.flatnonzero(~channels.any(1)))


class DyingReLU(LayerMonitor):
    """Follows for each ReLU and ReLU6 which units never fire, i.e. were 0 for every sample of an epoch.

    verbose : print a table at the end of each epoch.

    Every training step is seen. A unit that fired is not looked at again before the next epoch, so the cost is small
    while few units are dead. `figures` has a RectifiedUnits for each layer, of the last epoch; `history` those of all.
    Source: Lu, Shin, Su and Karniadakis, "Dying ReLU and initialization", 2019.

    >>> import fastnn as fnn, numpy as np
    >>> from fastnn import nn, optim
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> model[0].bias.data = [-9.0, 9.0, 9.0]
    >>> monitor = fnn.train.DyingReLU(verbose=False)
    >>> trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.0))
    >>> _ = trainer.fit(np.eye(2), [0, 1], callbacks=[monitor], progress=False)
    >>> [(units.layer, round(units.dead_fraction, 2), units.dead_channels) for units in monitor.figures]
    [('1', 0.33, (0,))]
    """

    def __init__(self, verbose: bool = True) -> None:
        super().__init__(verbose)
        self.figures: list[RectifiedUnits] = []
        self.history: list[list[RectifiedUnits]] = []
        self._words: dict[tuple[str, Shape], Variable] = {}

    def observe(self, observed: Observed) -> None:
        for name, tensor in observed.rectified():
            key = (name, tensor.shape[1:])
            if key not in self._words:
                self._words[key] = Variable(np.zeros(words_of_units(tensor)), np.int64)
            observed.look("fired_units", tensor, observed.graph.variable(self._words[key]))

    def on_train_begin(self, logs: Logs) -> None:
        self.figures, self.history = [], []
        self._words.clear()

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        for words in self._words.values():
            words.assign(np.zeros(words.shape))

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.figures = [RectifiedUnits(name, _units(words, s)) for (name, s), words in self._words.items()]
        self.history.append(self.figures)
        super().on_epoch_end(epoch, logs)

    def table(self) -> str:
        rows = [["ReLU layer", "units", "never fired", "dead channels"]]
        for units in self.figures:
            dead = units.dead_channels
            channels = len(units.fired) if units.fired.ndim else 1
            never = f"{round(units.dead_fraction * units.fired.size)} ({units.dead_fraction:.1%})"
            rows.append([units.layer, str(units.fired.size), never, f"{len(dead)} of {channels}"])
        return format_table(rows)


def _units(words: Variable, shape: Shape) -> Array:
    """The bits of an activation's units in their logical shape."""
    count = math.prod(shape)
    bits = np.unpackbits(words.view.view(np.uint8), bitorder="little", count=count).astype(bool)
    order = memory_shape((1, *shape))[1:]
    return np.moveaxis(bits.reshape(order), -1, 0) if len(shape) == 3 else bits.reshape(shape)


@dataclass(frozen=True)
class Norms:
    """Means over the steps of an epoch that were looked at.

    >>> Norms("0.weight", norm=5.0, largest=4.0, not_finite=0).norm
    5.0
    """

    name: str
    norm: float
    """Root of the sum of squares."""
    largest: float
    """Largest magnitude, over all steps."""
    not_finite: int
    """Elements that were not finite, in all steps."""


class NormMonitor(LayerMonitor):
    """Norms of every layer's activation and of every parameter's gradient, averaged over an epoch.

    Parameters
    ----------
    every : look at every so manieth step, the first included; the others cost nothing.
    verbose : print a table at the end of each epoch.

    Activations are those that exist in the plan: a convolution or normalisation whose ReLU is part of its kernel has its
    row at the ReLU. Gradients are those of the backward pass, before penalties and clipping. `activations` and
    `gradients` have a Norms for each, of the last epoch; a gradient that is not finite makes its norm NaN or infinite.

    >>> monitor = NormMonitor(every=8)
    >>> monitor.every
    8
    """

    def __init__(self, every: int = 16, verbose: bool = True) -> None:
        super().__init__(verbose)
        self.every = checked_count("every", every)
        self.activations: list[Norms] = []
        self.gradients: list[Norms] = []
        self._figures: dict[tuple[str, str], Variable] = {}
        self._sums: dict[tuple[str, str], Array] = {}
        self._looked = 0

    def observe(self, observed: Observed) -> None:
        names = {id(p): name for name, p in self.trainer.model.named_parameters()}
        for name, tensor in observed.made():
            self._look(observed, ("activation", name), tensor)
        for i, (parameter, tensor) in enumerate(observed.gradients):
            self._look(observed, ("gradient", names.get(id(parameter), f"parameter {i}")), tensor)

    def _look(self, observed: Observed, key: tuple[str, str], tensor: Tensor) -> None:
        if tensor.node is None or tensor.dtype != "float32":
            return
        figures = self._figures.setdefault(key, Variable(np.zeros((1, 3))))
        observed.look("tensor_statistics", tensor, observed.graph.variable(figures))

    def on_train_begin(self, logs: Logs) -> None:
        self.activations, self.gradients = [], []
        self._figures.clear()

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        self._sums, self._looked = {}, 0

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        if not self.is_due(self.trainer.steps - 1):
            return
        self._looked += 1
        for key, figures in self._figures.items():
            norm, largest, count = figures.view[0].astype(float)
            sums = self._sums.setdefault(key, np.zeros(3))
            sums += (norm, 0.0, count)
            sums[1] = np.maximum(sums[1], largest)  # NaN stays

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        looked = max(self._looked, 1)
        for kind in ("activation", "gradient"):
            sums = [(name, s) for (k, name), s in self._sums.items() if k == kind]
            norms = [Norms(name, float(s[0]) / looked, float(s[1]), int(s[2])) for name, s in sums]
            setattr(self, f"{kind}s", norms)
        super().on_epoch_end(epoch, logs)

    def table(self) -> str:
        rows = [["", "norm", "largest", "not finite"]]
        for kind, norms in (("activation", self.activations), ("gradient", self.gradients)):
            rows += [[f"{kind} {n.name}", f"{n.norm:.3e}", f"{n.largest:.3e}", str(n.not_finite)] for n in norms]
        return format_table(rows)


def format_table(rows: list[list[str]]) -> str:
    """Columns, the first to the left, the others to the right; the first row is the head.

    >>> print(format_table([["layer", "units"], ["0", "12"]]))
    layer  units
    0         12
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
             for row in rows]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)
