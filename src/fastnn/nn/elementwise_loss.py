"""Elementwise losses as modules: loss(prediction, target) -> one number, or one for each element."""

from __future__ import annotations

from typing import Any

from . import functional as F
from .functional.sizes import real
from .loss import _Loss
from .parameter import Buffer


class MSELoss(_Loss):
    """(input - target)^2 and its mean, sum or none of them, see `functional.mse_loss`.

    >>> import numpy as np
    >>> float(MSELoss()(np.array([1.0, 3.0]), np.array([0.0, 0.0])))
    5.0
    """

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|input - target| and its mean, sum or none of them, see `functional.l1_loss`.

    >>> import numpy as np
    >>> float(L1Loss()(np.array([1.0, -3.0]), np.array([0.0, 0.0])))
    2.0
    """

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Quadratic below a distance of beta, linear above, see `functional.smooth_l1_loss`.

    >>> import numpy as np
    >>> SmoothL1Loss(reduction="none")(np.array([0.5, 3.0]), np.array([0.0, 0.0]))
    array([0.125, 2.5  ], dtype=float32)
    """

    def __init__(
        self, size_average: None = None, reduce: None = None, reduction: str = "mean", beta: float = 1.0
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = real(beta, "beta", 0.0)

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Quadratic up to a distance of delta, linear above, see `functional.huber_loss`. Source: Huber, 1964.

    >>> import numpy as np
    >>> HuberLoss("none", 2.0)(np.array([1.0, 4.0]), np.array([0.0, 0.0]))
    array([0.5, 6. ], dtype=float32)
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = real(delta, "delta")
        if self.delta <= 0:
            raise ValueError(f"delta must be positive, got {delta}")

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.huber_loss(input, target, self.reduction, self.delta)


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities, see `functional.binary_cross_entropy`; weight broadcasts.

    >>> import numpy as np
    >>> round(float(BCELoss()(np.array([0.5]), np.array([1.0]))), 4)
    0.6931
    """

    def __init__(
        self, weight: Any = None, size_average: None = None, reduce: None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", None if weight is None else Buffer(weight))

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(BCELoss):
    """Binary cross-entropy of sigmoid(input), see `functional.binary_cross_entropy_with_logits`.

    weight and pos_weight (which multiplies the positive targets' term) broadcast against the input.

    >>> import numpy as np
    >>> float(BCEWithLogitsLoss()(np.array([-1000.0]), np.array([1.0])))
    1000.0
    """

    def __init__(
        self, weight: Any = None, size_average: None = None, reduce: None = None, reduction: str = "mean",
        pos_weight: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(weight, size_average, reduce, reduction)
        self.register_buffer("pos_weight", None if pos_weight is None else Buffer(pos_weight))

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(_Loss):
    """Kullback-Leibler divergence of log-probabilities, see `functional.kl_div`; reduction also "batchmean".

    >>> import numpy as np
    >>> loss = KLDivLoss(reduction="batchmean")
    >>> round(float(loss(np.log(np.array([[0.5, 0.5]])), np.array([[1.0, 0.0]]))), 4)
    0.6931
    """

    def __init__(
        self, size_average: None = None, reduce: None = None, reduction: str = "mean", log_target: bool = False
    ) -> None:
        super().__init__(size_average, reduce, "mean" if reduction == "batchmean" else reduction)
        self.reduction = reduction
        self.log_target = bool(log_target)

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
