"""Elementwise losses."""

from __future__ import annotations

import math
from typing import Any

from ...graph import Tensor
from .eager import eager
from .sizes import no_legacy, one_of, real


def _expanded(tensor: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """A weight in the shape of the input, repeated where it is broadcast."""
    if tensor.shape == shape:
        return tensor
    padded = (1,) * (len(shape) - tensor.ndim) + tensor.shape
    if len(padded) != len(shape) or any(n not in (1, m) for n, m in zip(padded, shape, strict=True)):
        raise ValueError(f"{name} of shape {tensor.shape} does not broadcast to the input's shape {shape}")
    axes = tuple(axis for axis, (n, m) in enumerate(zip(padded, shape, strict=True)) if n != m)
    image = tensor if tensor.shape == padded else tensor.reshape(padded)
    return tensor.graph.record("spread", image, shape=shape, axes=axes, scale=1.0)


def _loss(
    kind: str, input: Tensor, target: Tensor, reduction: str, a: float = 0.0, b: float = 0.0,
    weight: Tensor | None = None, pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if target.dtype != "float32":
        raise TypeError(f"the target must be floating point, got {target.dtype}; pass target.astype(np.float32)")
    if target.shape != input.shape:
        raise ValueError(f"the target must have the input's shape {input.shape}, got {target.shape}")
    given = {"weight": weight, "pos_weight": pos_weight}
    optional = {name: _expanded(tensor, input.shape, name) for name, tensor in given.items() if tensor is not None}
    divisor = math.prod({"mean": input.shape, "batchmean": input.shape[:1]}.get(reduction, ()))
    return input.graph.record(
        "elementwise_loss", input, target, *optional.values(), given=tuple(optional), kind=kind, a=a, b=b,
        reduced=reduction != "none", scale=1.0 / divisor if divisor else float("nan"),
    )  # fmt: skip


def _reduction(reduction: str, *more: str) -> str:
    return one_of(reduction, "reduction", "mean", "sum", "none", *more)


@eager("input", "target")
def mse_loss(input: Any, target: Any, size_average: None = None, reduce: None = None, reduction: str = "mean") -> Any:
    """(input - target)^2, of one shape, and its mean, sum or none of them.

    Raises ValueError for shapes that differ, TypeError for a target of integers; so do all losses here.

    >>> import numpy as np
    >>> float(mse_loss(np.array([1.0, 3.0]), np.array([0.0, 0.0])))
    5.0
    """
    no_legacy(size_average, reduce)
    return _loss("squared_error", input, target, _reduction(reduction))


@eager("input", "target")
def l1_loss(input: Any, target: Any, size_average: None = None, reduce: None = None, reduction: str = "mean") -> Any:
    """|input - target|; its gradient is 0 where they are equal.

    >>> import numpy as np
    >>> float(l1_loss(np.array([1.0, -3.0]), np.array([0.0, 0.0])))
    2.0
    """
    no_legacy(size_average, reduce)
    return _loss("absolute_error", input, target, _reduction(reduction))


@eager("input", "target")
def smooth_l1_loss(
    input: Any, target: Any, size_average: None = None, reduce: None = None, reduction: str = "mean",
    beta: float = 1.0,
) -> Any:  # fmt: skip
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, with d = input - target; beta at least 0.

    >>> import numpy as np
    >>> smooth_l1_loss(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="none")
    array([0.125, 2.5  ], dtype=float32)
    """
    no_legacy(size_average, reduce)
    if real(beta, "beta", 0.0) == 0.0:
        return _loss("absolute_error", input, target, _reduction(reduction))
    return _loss("huber", input, target, _reduction(reduction), beta, 1.0 / beta)


@eager("input", "target")
def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """d^2 / 2 where |d| <= delta, else delta * (|d| - delta / 2), with d = input - target; delta above 0.

    Source: Huber, "Robust estimation of a location parameter", 1964.

    >>> import numpy as np
    >>> huber_loss(np.array([1.0, 4.0]), np.array([0.0, 0.0]), "none", 2.0)
    array([0.5, 6. ], dtype=float32)
    """
    if real(delta, "delta") <= 0:
        raise ValueError(f"delta must be positive, got {delta}")
    return _loss("huber", input, target, _reduction(reduction), delta, 1.0)


@eager("input", "target", "weight")
def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: None = None, reduce: None = None,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """-weight * (target * log(input) + (1 - target) * log(1 - input)); a logarithm is never below -100.

    weight broadcasts against the input. Raises ValueError for arrays with values outside [0, 1].

    >>> import numpy as np
    >>> binary_cross_entropy(np.array([0.0, 0.5]), np.array([1.0, 1.0]), reduction="none").round(4)
    array([100.    ,   0.6931], dtype=float32)
    """
    no_legacy(size_average, reduce)
    if input.node is None and input.variable is None:
        limit = (0, 1, None, "binary_cross_entropy: a probability is out of range (there is one with logits)")
        if limit not in input.limits:
            input.limits.append(limit)
    return _loss("cross_entropy", input, target, _reduction(reduction), weight=weight)


@eager("input", "target", "weight", "pos_weight")
def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, size_average: None = None, reduce: None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:  # fmt: skip
    """-weight * (pos_weight * target * log(s) + (1 - target) * log(1 - s)), s = sigmoid(input), without overflow.

    weight and pos_weight broadcast against the input.

    >>> import numpy as np
    >>> float(binary_cross_entropy_with_logits(np.array([-1000.0]), np.array([1.0])))
    1000.0
    """
    no_legacy(size_average, reduce)
    return _loss("logit_entropy", input, target, _reduction(reduction), weight=weight, pos_weight=pos_weight)


@eager("input", "target")
def kl_div(
    input: Any, target: Any, size_average: None = None, reduce: None = None, reduction: str = "mean",
    log_target: bool = False,
) -> Any:  # fmt: skip
    """Kullback-Leibler divergence, elementwise target * (log(target) - input), input being log-probabilities.

    0 where target is 0. log_target: the target holds logarithms. Besides the usual reductions there is
    "batchmean", the sum over the batch size, which is the divergence itself.

    >>> import numpy as np
    >>> round(float(kl_div(np.log(np.array([[0.5, 0.5]])), np.array([[1.0, 0.0]]), reduction="batchmean")), 4)
    0.6931
    """
    no_legacy(size_average, reduce)
    _reduction(reduction, "batchmean")
    if reduction == "batchmean" and input.ndim == 0:
        raise ValueError('reduction="batchmean" needs a batch axis, but the input is a number')
    return _loss("log_divergence" if log_target else "divergence", input, target, reduction)
