"""Elementwise activations."""

from __future__ import annotations

from typing import Any

from ...graph import Tensor
from .eager import eager
from .sizes import one_of, real

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _activation(input: Tensor, kind: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Tensor:
    return input.graph.record("activation", input, kind=kind, a=a, b=b, c=c)


@eager("input")
def relu(input: Any, inplace: bool = False) -> Any:
    """max(input, 0), elementwise; any shape.

    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.], dtype=float32)
    """
    return input.graph.record("relu", input)


@eager("input")
def relu6(input: Any, inplace: bool = False) -> Any:
    """min(max(input, 0), 6), elementwise; any shape.

    >>> import numpy as np
    >>> relu6(np.array([-1.0, 2.0, 9.0]))
    array([0., 2., 6.], dtype=float32)
    """
    return input.graph.record("relu6", input)


@eager("input")
def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """min(max(input, min_val), max_val), elementwise; any shape.

    >>> import numpy as np
    >>> hardtanh(np.array([-2.0, 0.5]))
    array([-1. ,  0.5], dtype=float32)
    """
    low, high = real(min_val, "min_val"), real(max_val, "max_val")
    if low >= high:
        raise ValueError(f"min_val must be less than max_val, got {min_val} and {max_val}")
    return _activation(input, "hardtanh", low, high)


@eager("input")
def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """input where positive, else negative_slope * input, elementwise; any shape.

    >>> import numpy as np
    >>> leaky_relu(np.array([-1.0, 2.0]), 0.25)
    array([-0.25,  2.  ], dtype=float32)
    """
    return _activation(input, "leaky_relu", real(negative_slope, "negative_slope"))


@eager("input", "weight")
def prelu(input: Any, weight: Any) -> Any:
    """input where positive, else weight * input: one slope (1) for all, or one for each channel (C) of (N,C,...).

    Raises ValueError for another number of slopes. Source: He et al., "Delving deep into rectifiers", ICCV 2015.

    >>> import numpy as np
    >>> prelu(np.array([[-1.0, 2.0]]), np.array([0.25]))
    array([[-0.25,  2.  ]], dtype=float32)
    """
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim != 1 or weight.shape[0] not in (1, channels):
        raise ValueError(
            f"weight must have the shape (1,) or ({channels},) for an input of shape {input.shape}, got {weight.shape}"
        )
    if input.ndim in (2, 4) or weight.shape[0] == 1:
        return input.graph.record("prelu", input, weight)
    slopes = weight.reshape(weight.shape[0], *[1] * (input.ndim - 2))
    below = input.graph.record("negative_part", input)
    return input.graph.record("relu", input) + below * slopes


@eager("input")
def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """input where positive, else alpha * (exp(input) - 1), elementwise; any shape.

    Source: Clevert et al., ICLR 2016.

    >>> import numpy as np
    >>> elu(np.array([-np.inf, 2.0]))
    array([-1.,  2.], dtype=float32)
    """
    return _activation(input, "elu", real(alpha, "alpha"), 1.0, 1.0)


@eager("input")
def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """input where positive, else alpha * (exp(input / alpha) - 1), alpha > 0, elementwise; any shape.

    Source: Barron, "Continuously differentiable exponential linear units", 2017.

    >>> import numpy as np
    >>> celu(np.array([-np.inf, 2.0]), 0.5)
    array([-0.5,  2. ], dtype=float32)
    """
    if real(alpha, "alpha") <= 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    return _activation(input, "elu", alpha, 1.0, 1.0 / alpha)


@eager("input")
def selu(input: Any, inplace: bool = False) -> Any:
    """1.0507 * elu(input, 1.6733), elementwise; any shape.

    Source: Klambauer et al., "Self-normalizing neural networks", NeurIPS 2017.

    >>> import numpy as np
    >>> selu(np.array([1.0])).round(4)
    array([1.0507], dtype=float32)
    """
    return _activation(input, "elu", SELU_ALPHA, SELU_SCALE, 1.0)


@eager("input")
def gelu(input: Any, approximate: str = "none") -> Any:
    """input * P(standard normal < input), or its approximation by tanh, elementwise; any shape.

    approximate : "none" or "tanh". Source: Hendrycks and Gimpel, "Gaussian error linear units", 2016.

    >>> import numpy as np
    >>> gelu(np.array([-9.0, 0.0, 9.0])).round(4) + 0
    array([0., 0., 9.], dtype=float32)
    """
    return _activation(input, "gelu" if one_of(approximate, "approximate", "none", "tanh") == "none" else "gelu_tanh")


@eager("input")
def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta * input)) / beta, or the input itself where beta * input > threshold, elementwise; any shape.

    >>> import numpy as np
    >>> softplus(np.array([0.0, 50.0])).round(4)
    array([ 0.6931, 50.    ], dtype=float32)
    """
    if beta == 0:
        raise ValueError("beta must not be 0")
    return _activation(input, "softplus", real(beta, "beta"), real(threshold, "threshold"))


@eager("input")
def silu(input: Any, inplace: bool = False) -> Any:
    """input * sigmoid(input), elementwise; any shape.

    >>> import numpy as np
    >>> silu(np.array([0.0, 50.0]))
    array([ 0., 50.], dtype=float32)
    """
    return _activation(input, "silu")


@eager("input")
def mish(input: Any, inplace: bool = False) -> Any:
    """input * tanh(log(1 + exp(input))), elementwise; any shape.

    >>> import numpy as np
    >>> mish(np.array([0.0, 50.0]))
    array([ 0., 50.], dtype=float32)
    """
    return _activation(input, "mish")


@eager("input")
def hardswish(input: Any, inplace: bool = False) -> Any:
    """input * min(max(input + 3, 0), 6) / 6, elementwise; any shape.

    >>> import numpy as np
    >>> hardswish(np.array([-1.5, 4.0]))
    array([-0.375,  4.   ], dtype=float32)
    """
    return _activation(input, "hardswish")


@eager("input")
def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """min(max(input + 3, 0), 6) / 6, elementwise; any shape.

    >>> import numpy as np
    >>> hardsigmoid(np.array([-4.0, 0.0]))
    array([0. , 0.5], dtype=float32)
    """
    return _activation(input, "hardsigmoid")


@eager("input")
def sigmoid(input: Any) -> Any:
    """1 / (1 + exp(-input)), elementwise; any shape.

    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0]))
    array([0. , 0.5], dtype=float32)
    """
    return _activation(input, "sigmoid")


@eager("input")
def tanh(input: Any) -> Any:
    """tanh(input), elementwise; any shape.

    >>> import numpy as np
    >>> tanh(np.array([0.0, 100.0]))
    array([0., 1.], dtype=float32)
    """
    return _activation(input, "tanh")


@eager("input")
def logsigmoid(input: Any) -> Any:
    """-log(1 + exp(-input)), elementwise; any shape.

    >>> import numpy as np
    >>> logsigmoid(np.array([-100.0, 100.0])) + 0
    array([-100.,    0.], dtype=float32)
    """
    return _activation(input, "logsigmoid")


@eager("input")
def softsign(input: Any) -> Any:
    """input / (1 + |input|), elementwise; any shape.

    >>> import numpy as np
    >>> softsign(np.array([-1.0, 3.0]))
    array([-0.5 ,  0.75], dtype=float32)
    """
    return _activation(input, "softsign")


@eager("input")
def rrelu(
    input: Any, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False,
    *, layer: int = 0,
) -> Any:  # fmt: skip
    """input where positive, else input times a slope drawn evenly between lower and upper for each element; any shape.

    Outside training the slope is (lower + upper) / 2. Slopes depend on the seed (`fastnn.manual_seed`), the step (one for
    each call), `layer` and the element alone. ValueError unless lower <= upper.
    Source: Xu et al., "Empirical evaluation of rectified activations in convolutional network", 2015.

    >>> import numpy as np
    >>> rrelu(np.array([-1.0, 2.0]), 0.25, 0.75)
    array([-0.5,  2. ], dtype=float32)
    """
    lower, upper = real(lower, "lower"), real(upper, "upper")
    if lower > upper:
        raise ValueError(f"lower must not be above upper, got {lower} and {upper}")
    if not training:
        return _activation(input, "leaky_relu", (lower + upper) / 2)
    return input.graph.record("random_rectifier", input, input, lower=lower, upper=upper, layer=int(layer))
