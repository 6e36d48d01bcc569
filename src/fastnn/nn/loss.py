"""Losses as modules: loss(prediction, target) -> one number, or one for each row."""

from __future__ import annotations

from typing import Any

from . import functional as F
from .functional.sizes import label, no_legacy, one_of, real
from .module import Module
from .parameter import Buffer


class _Loss(Module):
    """What the losses share: how the elements' losses are reduced, "mean", "sum" or "none"."""

    def __init__(self, size_average: None = None, reduce: None = None, reduction: str = "mean") -> None:
        super().__init__()
        no_legacy(size_average, reduce)
        self.reduction = one_of(reduction, "reduction", "mean", "sum", "none")


class _ClassLoss(_Loss):
    """What the losses of class indices share: the classes' weights, and the index that counts nowhere."""

    _integers = (False, True)

    def __init__(
        self, weight: Any = None, size_average: None = None, ignore_index: int = -100, reduce: None = None,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", None if weight is None else Buffer(weight))
        self.ignore_index = label(ignore_index, "ignore_index")


class CrossEntropyLoss(_ClassLoss):
    """Cross-entropy of the softmax of scores with target classes, see `functional.cross_entropy`.

    Parameters
    ----------
    weight : (C), multiplies each class's term. ignore_index : rows with this index count nowhere.
    reduction : "mean", "sum" or "none". label_smoothing : the share spread evenly over the classes, 0 to 1.

    Called with scores (C), (N,C), (N,C,L) or (N,C,H,W) and integer class indices of the shape without C, or float
    probabilities of the scores' shape.

    Raises ValueError that names the layer for shapes that do not fit and, before anything is touched, for a class out of range;
    TypeError for indices given as floats.

    >>> import numpy as np
    >>> loss = CrossEntropyLoss(reduction="sum")
    >>> round(float(loss(np.zeros((2, 4)), np.array([1, 3]))), 4)
    2.7726
    """

    def __init__(
        self, weight: Any = None, size_average: None = None, ignore_index: int = -100, reduce: None = None,
        reduction: str = "mean", label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(weight, size_average, ignore_index, reduce, reduction)
        self.label_smoothing = real(label_smoothing, "label_smoothing", 0.0)
        if self.label_smoothing > 1.0:
            raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class NLLLoss(_ClassLoss):
    """Negative log-likelihood of target classes, see `functional.nll_loss`.

    Parameters
    ----------
    weight : (C), multiplies each class's term. ignore_index : rows with this index count nowhere.
    reduction : "mean", "sum" or "none".

    Called with log-probabilities (C), (N,C), (N,C,L) or (N,C,H,W) and integer class indices of the shape without C.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> log_probabilities = nn.LogSoftmax(dim=1)(np.zeros((2, 4)))
    >>> round(float(NLLLoss()(log_probabilities, np.array([1, 3]))), 4)
    1.3863
    """

    def forward(self, input: Any, target: Any) -> Any:  # type: ignore[override]
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)
