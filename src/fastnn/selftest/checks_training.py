"""Self-tests of what surrounds a training step: losses over classes, random slopes, clipping, averages, monitors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import nn, reference
from ..graph import Graph, Tensor
from ..nn import functional as F
from ..random import default_stream
from ..trace import Compiled
from ..transforms import vjp
from ..variable import Array, Variable
from .runner import Check, Figure

SHAPES = [(5, 3, 3, 2), (37,), (71, 97)]


def _normal(generator: np.random.Generator, *shape: int) -> Array:
    return generator.standard_normal(shape).astype(np.float32)


def _exact(array: Any) -> Array:
    return np.asarray(array, np.float64)


def _nll_loss(generator: np.random.Generator) -> list[Figure]:
    x, target = _normal(generator, 13, 29), generator.integers(0, 29, 13)
    y, pullback = vjp(F.nll_loss, x, target=target, ignore_index=3)
    expected = reference.nll_loss(_exact(x), target, ignore_index=3)
    gradient = reference.nll_loss_backward(_exact(1), _exact(x), target, ignore_index=3)
    return [Figure("result", y, expected, 16), Figure("gradient 0", pullback(np.float32(1))[0], gradient, 4)]


def _rrelu(generator: np.random.Generator) -> list[Figure]:
    x, dy = _normal(generator, 7, 1037), _normal(generator, 7, 1037)
    stream = default_stream()
    step = stream.step + 1
    y, pullback = vjp(F.rrelu, x, training=True, layer=5)
    dx = pullback(dy)[0]
    slopes = reference.rrelu_slopes(x.shape, seed=stream.seed, layer=5, step=step)
    stream.step = step - 1  # the next number of threads draws the same slopes
    options: dict[str, Any] = {"training": True, "slopes": slopes}
    return [
        Figure("result", y, reference.rrelu(_exact(x), **options), 4),
        Figure("gradient 0", dx, reference.rrelu_backward(_exact(dy), _exact(x), **options), 4),
    ]


def _instance_norm(generator: np.random.Generator) -> list[Figure]:
    layer = nn.InstanceNorm2d(19, track_running_stats=True)
    x = 3 + _normal(generator, 4, 19, 5, 7)
    y = layer(x)
    expected = reference.instance_norm(_exact(x), np.zeros(19), np.ones(19))
    return [
        Figure("result", y, expected.output, 64),
        Figure("running mean", layer.running_mean.data, _exact(expected.running_mean), 16),
        Figure("running variance", layer.running_var.data, _exact(expected.running_var), 64),
    ]


def _clipped(op: str, **attributes: Any) -> Check:
    """Three gradients clipped in one call; the expected factor is that of the definition."""

    def check(generator: np.random.Generator) -> list[Figure]:
        def build(graph: Graph, *gradients: Tensor) -> Sequence[Tensor]:
            outputs: Sequence[Tensor] = graph.record(op, *[gradient * 1.0 for gradient in gradients], **attributes)
            return outputs

        gradients = [_normal(generator, *shape) for shape in SHAPES]
        results = Compiled(build)(*gradients)
        if op == "clip_gradient_value":
            pairs = zip(results, gradients, strict=True)
            return [Figure("gradient", got, np.clip(_exact(g), -0.5, 0.5), 0) for got, g in pairs]
        whole = np.concatenate([_exact(g).ravel() for g in gradients])
        order = attributes["order"]
        norm = float((np.abs(whole) ** order).sum() ** (1 / order)) if order else float(np.abs(whole).max())
        figures = [Figure("norm", results[-1], np.array([norm]), 4096)]
        for got, gradient in zip(results, gradients, strict=False):
            figures.append(Figure("gradient", got, _exact(gradient) * attributes["max_norm"] / (norm + 1e-6), 4096))
        return figures

    return check


def _averages(generator: np.random.Generator) -> list[Figure]:
    averages, parameters = ([_normal(generator, *shape) for shape in SHAPES] for _ in range(2))
    variables = [Variable(average) for average in averages]

    def build(graph: Graph, *tensors: Tensor) -> Sequence[Tensor]:
        pairs = zip(variables, tensors, strict=True)
        graph.record("average_weights", *[t for v, p in pairs for t in (graph.variable(v), p * 1.0)], weight=0.25)
        return []

    Compiled(build)(*parameters)
    return [
        Figure("average", variable.view, 0.75 * _exact(average) + 0.25 * _exact(parameter), 4)
        for variable, average, parameter in zip(variables, averages, parameters, strict=True)
    ]


def _monitored(generator: np.random.Generator) -> list[Figure]:
    """Units that fired, and statistics of two tensors."""
    x = _normal(generator, 3, 5, 7, 11) - 1
    fired, figures = Variable(np.zeros(7), np.int64), Variable(np.zeros((2, 3)))

    def build(graph: Graph, x: Tensor) -> Sequence[Tensor]:
        graph.record("fired_units", x, graph.variable(fired))
        graph.record("tensor_statistics", x * 1.0, x * 2.0, graph.variable(figures))
        return []

    Compiled(build)(x)
    bits = np.unpackbits(fired.view.view(np.uint8), bitorder="little")[: 5 * 7 * 11]
    expected = np.moveaxis(x > 0, 1, -1).any(0).ravel()
    norm, largest = np.sqrt((_exact(x) ** 2).sum()), np.abs(_exact(x)).max()
    return [
        Figure("units", bits, expected, 0),
        Figure("statistics", figures.view, np.array([[norm, largest, 0], [2 * norm, 2 * largest, 0]]), 512),
    ]


CHECKS: dict[str, Check] = {
    "likelihood of classes": _nll_loss,
    "random slopes": _rrelu,
    "instance norm, running statistics": _instance_norm,
    "clipping by norm": _clipped("clip_gradient_norm", order=2, max_norm=1.5),
    "clipping by the largest": _clipped("clip_gradient_norm", order=0, max_norm=0.5),
    "clipping by value": _clipped("clip_gradient_value", limit=0.5),
    "averages of weights": _averages,
    "monitors": _monitored,
}
"""As selftest.checks.CHECKS."""
