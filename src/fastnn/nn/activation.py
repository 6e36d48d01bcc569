"""Activation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import random
from . import functional as F
from .functional.sizes import one_of, positive_integer, real
from .module import Module
from .parameter import Parameter


class _InPlace(Module):
    """What the activations share that PyTorch can compute in place.

    `inplace` is accepted for compatibility: plans decide by themselves what is computed in place.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def _settings(self) -> list[str]:
        return []

    def extra_repr(self) -> str:
        return ", ".join([*self._settings(), *(["inplace=True"] if self.inplace else [])])


class ReLU(_InPlace):
    """max(x, 0), elementwise; any shape.

    >>> import numpy as np
    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.relu(x)


class ReLU6(_InPlace):
    """min(max(x, 0), 6), elementwise; any shape.

    >>> import numpy as np
    >>> ReLU6()(np.array([-1.0, 2.0, 9.0]))
    array([0., 2., 6.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.relu6(x)


class SELU(_InPlace):
    """1.0507 * ELU(x, 1.6733), elementwise; any shape. Source: Klambauer et al., NeurIPS 2017.

    >>> import numpy as np
    >>> SELU()(np.array([1.0])).round(4)
    array([1.0507], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.selu(x)


class SiLU(_InPlace):
    """x * sigmoid(x), elementwise; any shape.

    >>> import numpy as np
    >>> SiLU()(np.array([0.0, 50.0]))
    array([ 0., 50.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.silu(x)


class Mish(_InPlace):
    """x * tanh(log(1 + exp(x))), elementwise; any shape.

    >>> import numpy as np
    >>> Mish()(np.array([0.0, 50.0]))
    array([ 0., 50.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.mish(x)


class Hardswish(_InPlace):
    """x * min(max(x + 3, 0), 6) / 6, elementwise; any shape.

    >>> import numpy as np
    >>> Hardswish()(np.array([-1.5, 4.0]))
    array([-0.375,  4.   ], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.hardswish(x)


class Hardsigmoid(_InPlace):
    """min(max(x + 3, 0), 6) / 6, elementwise; any shape.

    >>> import numpy as np
    >>> Hardsigmoid()(np.array([-4.0, 0.0]))
    array([0. , 0.5], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.hardsigmoid(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise; any shape.

    >>> import numpy as np
    >>> Sigmoid()(np.array([-1000.0, 0.0]))
    array([0. , 0.5], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.sigmoid(x)


class Tanh(Module):
    """tanh(x), elementwise; any shape.

    >>> import numpy as np
    >>> Tanh()(np.array([0.0, 100.0]))
    array([0., 1.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.tanh(x)


class LogSigmoid(Module):
    """-log(1 + exp(-x)), elementwise; any shape.

    >>> import numpy as np
    >>> LogSigmoid()(np.array([-100.0]))
    array([-100.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.logsigmoid(x)


class Softsign(Module):
    """x / (1 + |x|), elementwise; any shape.

    >>> import numpy as np
    >>> Softsign()(np.array([-1.0, 3.0]))
    array([-0.5 ,  0.75], dtype=float32)
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.softsign(x)


class Hardtanh(_InPlace):
    """min(max(x, min_val), max_val), elementwise; any shape. ValueError unless min_val < max_val.

    min_value and max_value are older names of the two.

    >>> import numpy as np
    >>> Hardtanh()(np.array([-2.0, 0.5]))
    array([-1. ,  0.5], dtype=float32)
    """

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(inplace)
        self.min_val = real(min_val if min_value is None else min_value, "min_val")
        self.max_val = real(max_val if max_value is None else max_value, "max_val")
        if self.min_val >= self.max_val:
            raise ValueError(f"min_val must be less than max_val, got {self.min_val} and {self.max_val}")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.hardtanh(x, self.min_val, self.max_val)

    def _settings(self) -> list[str]:
        return [f"min_val={self.min_val}", f"max_val={self.max_val}"]


class LeakyReLU(_InPlace):
    """x where positive, else negative_slope * x, elementwise; any shape.

    >>> import numpy as np
    >>> LeakyReLU(0.25)(np.array([-1.0, 2.0]))
    array([-0.25,  2.  ], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = real(negative_slope, "negative_slope")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.leaky_relu(x, self.negative_slope)

    def _settings(self) -> list[str]:
        return [f"negative_slope={self.negative_slope}"]


class PReLU(Module):
    """x where positive, else weight * x, with learned slopes: one, or one for each channel of (N,C,...).

    num_parameters : 1 or C. init : the slopes at first. Attribute: weight (num_parameters).
    Source: He et al., "Delving deep into rectifiers", ICCV 2015.

    >>> import numpy as np
    >>> PReLU()(np.array([-1.0, 2.0]))
    array([-0.25,  2.  ], dtype=float32)
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = positive_integer(num_parameters, "num_parameters")
        self.init = real(init, "init")
        self.weight = Parameter(np.full(num_parameters, init))

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class ELU(_InPlace):
    """x where positive, else alpha * (exp(x) - 1), elementwise; any shape. Source: Clevert et al., ICLR 2016.

    >>> import numpy as np
    >>> ELU()(np.array([-np.inf, 2.0]))
    array([-1.,  2.], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = real(alpha, "alpha")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.elu(x, self.alpha)

    def _settings(self) -> list[str]:
        return [f"alpha={self.alpha}"]


class CELU(ELU):
    """x where positive, else alpha * (exp(x / alpha) - 1), alpha > 0, elementwise; any shape. Source: Barron, 2017.

    >>> import numpy as np
    >>> CELU(0.5)(np.array([-np.inf, 2.0]))
    array([-0.5,  2. ], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(alpha, inplace)
        if self.alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.celu(x, self.alpha)


class GELU(Module):
    """x * P(standard normal < x), or with approximate="tanh" its approximation, elementwise; any shape.

    Source: Hendrycks and Gimpel, "Gaussian error linear units", 2016.

    >>> import numpy as np
    >>> GELU()(np.array([0.0, 9.0]))
    array([0., 9.], dtype=float32)
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = one_of(approximate, "approximate", "none", "tanh")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta, or x itself where beta * x > threshold, elementwise; any shape.

    >>> import numpy as np
    >>> Softplus()(np.array([0.0, 50.0])).round(4)
    array([ 0.6931, 50.    ], dtype=float32)
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = real(beta, "beta"), real(threshold, "threshold")
        if self.beta == 0:
            raise ValueError("beta must not be 0")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class GLU(Module):
    """The first half of x along `dim` times the sigmoid of the second half. Source: Dauphin et al., ICML 2017.

    >>> import numpy as np
    >>> GLU()(np.array([3.0, 0.0]))
    array([1.5], dtype=float32)
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.glu(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(Module):
    """exp(x) / sum of exp(x) along `dim` (None: PyTorch's rule, see `functional.softmax`); any shape.

    >>> import numpy as np
    >>> Softmax(dim=1)(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """x - log(sum of exp(x)) along `dim` (None: PyTorch's rule, see `functional.softmax`); any shape.

    >>> import numpy as np
    >>> LogSoftmax(dim=1)(np.array([[1000.0, 0.0]]))
    array([[    0., -1000.]], dtype=float32)
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.log_softmax(x, self.dim)

    extra_repr = Softmax.extra_repr


class RReLU(_InPlace):
    """x where positive, else x times a slope drawn evenly between lower and upper in training, their mean otherwise.

    Slopes depend on the seed (`fastnn.manual_seed`), the layer, the step and the element alone; the backward pass draws
    them again. Raises ValueError unless lower <= upper. See `functional.rrelu`.

    >>> import numpy as np
    >>> RReLU(0.25, 0.75).eval()(np.array([-1.0, 2.0]))
    array([-0.5,  2. ], dtype=float32)
    """

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower, self.upper = real(lower, "lower"), real(upper, "upper")
        if self.lower > self.upper:
            raise ValueError(f"lower must not be above upper, got {lower} and {upper}")
        self.layer = random.next_layer()

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.rrelu(x, self.lower, self.upper, self.training, layer=self.layer)

    def _settings(self) -> list[str]:
        return [f"lower={self.lower}", f"upper={self.upper}"]
