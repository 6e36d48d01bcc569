"""Figures of merit, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..variable import Array
from .batches import checked_count


class Metric:
    """A figure over many batches: `reset`, then `update` for each batch, then `result`.

    `output` is what the model returned, `target` the y given; both are NumPy arrays.

    >>> class Largest(Metric):
    ...     name = "largest"
    ...     def reset(self):
    ...         self.value = 0.0
    ...     def update(self, output, target):
    ...         self.value = max(self.value, float(output.max()))
    ...     def result(self):
    ...         return self.value
    >>> trainer = fnn.Trainer(nn.ReLU(), nn.MSELoss(), fnn.optim.SGD(), [Largest()])
    >>> trainer.evaluate([[1.0, 3.0]], [[1.0, 1.0]])
    {'loss': 2.0, 'largest': 3.0}
    """

    name: str = "metric"

    def reset(self) -> None:
        """Forgets all batches."""
        raise NotImplementedError(type(self).__name__)

    def update(self, output: Array, target: Array) -> None:
        """Adds a batch."""
        raise NotImplementedError(type(self).__name__)

    def result(self) -> float:
        """The figure over all batches since `reset`; NaN if there were none."""
        raise NotImplementedError(type(self).__name__)


class Mean(Metric):
    """The mean of function(output, target) over batches, each weighted by its number of samples.

    >>> metric = Mean(lambda output, target: float(np.abs(output - target).max()), "largest_error")
    >>> metric.update(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> metric.name, metric.result()
    ('largest_error', 2.0)
    """

    def __init__(self, function: Callable[[Array, Array], float], name: str | None = None) -> None:
        self._function = function
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.reset()

    def reset(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float, count: int) -> None:
        """Adds a batch of `count` samples with a known value."""
        self._sum += value * count
        self._count += count

    def update(self, output: Array, target: Array) -> None:
        self.add(float(self._function(output, target)), len(target))

    def result(self) -> float:
        return self._sum / self._count if self._count else float("nan")


def _classes(output: Array, target: Array) -> tuple[Array, Array]:
    """The class of the highest score and the true class; scores (N, C, ...), classes (N, ...) or scores again."""
    if output.ndim < 2 or output.shape[1] < 2:
        advice = (
            ""
            if output.ndim < 2
            else (
                "; with one score give a function, e.g. lambda output, target: float(((output > 0) == target).mean())"
            )
        )
        raise ValueError(
            f"accuracy needs class scores (N, C, ...); the model's output has shape {output.shape}{advice}"
        )
    found = output.argmax(axis=1)
    truth = target.argmax(axis=1) if target.shape == output.shape else target
    if truth.shape != found.shape:
        raise ValueError(f"accuracy: scores of shape {output.shape} do not fit targets of shape {target.shape}")
    return found, truth


class Accuracy(Metric):
    """The share of samples whose highest score is at the true class; classes `ignore_index` do not count.

    >>> accuracy = Accuracy()
    >>> accuracy.update(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    >>> accuracy.result()
    0.5
    """

    name = "accuracy"

    def __init__(self, ignore_index: int = -100) -> None:
        self._ignored = ignore_index
        self.reset()

    def reset(self) -> None:
        self._right, self._count = 0, 0

    def update(self, output: Array, target: Array) -> None:
        found, truth = _classes(output, target)
        counts = truth != self._ignored
        self._right += int(np.count_nonzero((found == truth) & counts))
        self._count += int(np.count_nonzero(counts))

    def result(self) -> float:
        return self._right / self._count if self._count else float("nan")


class ConfusionMatrix(Metric):
    """How often class i (row) was taken for class j (column); `result` is the accuracy. Samples of the class
    `ignore_index` do not count; ValueError for a class that is none of `classes`.

    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    >>> matrix.counts.tolist()
    [[0, 0], [1, 1]]
    >>> print(matrix)
           0  1
       0   .  .
       1   1  1
    """

    name = "confusion"

    def __init__(self, classes: int, ignore_index: int = -100) -> None:
        classes = checked_count("classes", classes)
        self.counts = np.zeros((classes, classes), np.int64)
        self._ignored = ignore_index

    def reset(self) -> None:
        self.counts[...] = 0

    def update(self, output: Array, target: Array) -> None:
        found, truth = _classes(output, target)
        counts = truth != self._ignored
        found, truth = found[counts], truth[counts].astype(np.int64)
        classes = len(self.counts)
        for what, given in (("scored", found), ("true", truth)):
            outside = given[(given < 0) | (given >= classes)]
            if outside.size:
                raise ValueError(f"ConfusionMatrix of {classes} classes: class {outside[0]} was {what}")
        np.add.at(self.counts, (truth, found), 1)

    def result(self) -> float:
        total = int(self.counts.sum())
        return int(self.counts.trace()) / total if total else float("nan")

    def __str__(self) -> str:
        classes = len(self.counts)
        width = max(len(str(self.counts.max(initial=0))), len(str(classes - 1))) + 2
        lines = ["     " + "".join(f"{column:{width}d}" for column in range(classes))]
        for row, counts in enumerate(self.counts):
            lines.append(f"{row:4d} " + "".join(f"{count or '.':>{width}}" for count in counts.tolist()))
        return "\n".join(lines)


def _squared(output: Array, target: Array) -> float:
    return float(np.square(output - target, dtype=np.float64).mean())


def _absolute(output: Array, target: Array) -> float:
    return float(np.abs(output - target, dtype=np.float64).mean())


NAMED: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy,
    "mean_absolute_error": lambda: Mean(_absolute, "mean_absolute_error"),
    "mean_squared_error": lambda: Mean(_squared, "mean_squared_error"),
}
"""Metrics that a Trainer knows by name."""


def make_metrics(wanted: Iterable[Any]) -> tuple[Metric, ...]:
    """Metrics from names, Metric objects or functions (output, target) -> number."""
    if isinstance(wanted, str):
        wanted = (wanted,)
    metrics = tuple(_make(entry) for entry in wanted)
    names = [metric.name for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1 or name == "loss"})
    if twice:
        raise ValueError(f"metrics need names of their own, got {twice} twice, or as a metric beside the loss")
    return metrics


def _make(entry: Any) -> Metric:
    if isinstance(entry, Metric):
        return entry
    if isinstance(entry, str):
        if entry not in NAMED:
            raise ValueError(f"there is no metric {entry!r}; known by name are {', '.join(NAMED)}")
        return NAMED[entry]()
    if callable(entry):
        return Mean(entry)
    raise TypeError(
        f"a metric is a name, a Metric or a function (output, target) -> number, not {type(entry).__name__}"
    )
