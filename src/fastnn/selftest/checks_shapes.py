"""Self-tests of padding, interpolation, pixel shuffle, embedding, pooling to a size and powers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, reference
from ..nn import functional as F
from ..transforms import value_and_grad, vjp
from ..variable import Array
from .checks import IMAGE, _function
from .runner import Check, Figure


def _normal(generator: np.random.Generator, *shape: int) -> Array:
    return generator.standard_normal(shape).astype(np.float32)


def _embedding(generator: np.random.Generator) -> list[Figure]:
    """Indices as an input, one row as padding, and integers where numbers are wanted."""
    layer, indices = nn.Embedding(13, 37, padding_idx=3), generator.integers(0, 13, (7, 9))
    weights = _normal(generator, 7, 9, 37)
    layer.weight.data = _normal(generator, 13, 37)
    table = np.asarray(layer.weight.data, np.float64)
    _, gradients = value_and_grad(layer, lambda y, w: (y * w).sum())(indices, weights)
    expected = reference.embedding_backward(weights.astype(np.float64), indices, table, 3)
    converted = nn.Sequential(_Both(layer), nn.Flatten())(indices)
    return [
        Figure("result", layer(indices), reference.embedding(indices, table), 1),
        Figure("gradient", gradients["weight"], expected, 32),
        Figure("integers as numbers", converted, indices.astype(np.float64), 1),
    ]


class _Both(nn.Module):
    """A model with an embedding that uses its integers as numbers."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.leaky_relu(x, 1.0)


def _lp_pool(norm_type: float) -> Check:
    def check(generator: np.random.Generator) -> list[Figure]:
        x = generator.uniform(0.5, 2.0, IMAGE).astype(np.float32)
        options: dict[str, Any] = {"norm_type": norm_type, "kernel_size": 2}
        y, pullback = vjp(F.lp_pool2d, x, **options)
        dy, exact = _normal(generator, *y.shape), x.astype(np.float64)
        gradient = reference.lp_pool2d_backward(dy.astype(np.float64), exact, **options)
        return [
            Figure("result", y, reference.lp_pool2d(exact, **options), 64),
            Figure("gradient", pullback(dy)[0], gradient, 128),
        ]

    return check


def _pixel_unshuffle(generator: np.random.Generator) -> list[Figure]:
    x = _normal(generator, 2, 5, 6, 9)
    y, pullback = vjp(F.pixel_unshuffle, x, downscale_factor=3)
    exact = x.astype(np.float64)
    return [
        Figure("result", y, reference.pixel_shuffle_backward(exact, 3), 1),
        Figure("gradient", pullback(y)[0], exact, 1),
    ]


SIDES = (2, 1, 0, 3)

CHECKS: dict[str, Check] = {
    "pad": _function("pad", [IMAGE], 1, (0,), pad=SIDES, mode="constant"),
    "pad, channels": _function("pad", [IMAGE], 1, (0,), pad=(0, 0, -1, 2, 1, 3), mode="constant"),
    "pad, reflected": _function("pad", [IMAGE], 4, (0,), pad=SIDES, mode="reflect"),
    "pad, replicated": _function("pad", [IMAGE], 8, (0,), pad=SIDES, mode="replicate"),
    "nearest neighbours": _function("interpolate", [IMAGE], 16, (0,), size=(13, 8)),
    "bilinear interpolation": _function("interpolate", [IMAGE], 32, (0,), size=(20, 7), mode="bilinear"),
    "pixel unshuffle": _pixel_unshuffle,
    "adaptive max pool": _function("adaptive_max_pool2d", [IMAGE], 1, (0,), output_size=(4, 3)),
    "Lp pool": _lp_pool(2.0),
    "Lp pool, any power": _lp_pool(2.7),
    "embedding": _embedding,
}
"""As selftest.checks.CHECKS."""
