"""Losses."""

from __future__ import annotations

from typing import Any

from ...graph import Shape, Tensor
from .eager import eager
from .limits import limit_integers
from .sizes import label, no_legacy, one_of, real
from .softmax import log_softmax


def _rows(input: Tensor) -> Tensor:
    """Scores (C), (N,C), (N,C,L) or (N,C,H,W) with the classes innermost in memory: (N,C) or (N,C,H,W)."""
    if input.ndim == 1:
        return input.reshape(1, input.shape[0])
    if input.ndim == 3:
        n, classes, length = input.shape
        return input.reshape(n, classes, 1, length)
    if input.ndim in (2, 4):
        return input
    raise ValueError(f"scores must have the shape (C), (N,C), (N,C,L) or (N,C,H,W), got {input.shape}")


def _labels_shape(input: Shape) -> Shape:
    return () if len(input) == 1 else (input[0], *input[2:])


def _limit_labels(target: Tensor, classes: int, ignore_index: int, function: str = "cross_entropy") -> None:
    name = target.graph.origin or function
    limit_integers(target, classes, f"{name}: a target is not one of the {classes} classes", ignore_index)


def _check_class_weight(input: Tensor, weight: Tensor | None) -> None:
    classes = input.shape[0 if input.ndim == 1 else 1]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(
            f"weight must have the shape ({classes},) for scores of shape {input.shape}, got {weight.shape}"
        )


def _check_labels(input: Tensor, target: Tensor) -> None:
    if target.dtype != "int64":
        raise TypeError(
            f"class indices must be integers, got {target.dtype} of shape {target.shape}; pass y.astype(np.int64)"
        )
    wanted = _labels_shape(input.shape)
    if target.shape != wanted:
        hint = "; pass y.argmax(axis=1)" if target.shape == input.shape and input.ndim > 1 else ""
        if target.shape in ((*wanted, 1), (wanted[:1] + (1, *wanted[1:]))):
            hint = f"; pass y.reshape({wanted})"
        raise ValueError(
            f"class indices must have the shape {wanted} for scores of shape {input.shape}, got {target.shape}{hint}"
        )


def _check_target(input: Tensor, target: Tensor, weight: Tensor | None) -> bool:
    """Whether the target holds class indices; TypeError or ValueError when it fits neither form."""
    _check_class_weight(input, weight)
    if target.dtype == "int64":
        _check_labels(input, target)
        return True
    if target.shape == input.shape:
        return False
    if target.shape == _labels_shape(input.shape):
        raise TypeError(
            f"class indices must be integers, got {target.dtype} of shape {target.shape}; pass y.astype(np.int64)"
        )
    raise ValueError(f"class probabilities must have the scores' shape {input.shape}, got {target.shape}")


@eager("input", "target", "weight", integers=("target",))
def cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: None = None, ignore_index: int = -100,
    reduce: None = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """Cross-entropy of softmax(input) with target classes: -sum_c q_c log_softmax(input)_c, q the target distribution.

    Parameters
    ----------
    input : scores (C), (N,C), (N,C,L) or (N,C,H,W).
    target : class indices, integers of the shape without C; or probabilities, floats of the shape of input.
    weight : (C), multiplies each class's term.
    ignore_index : rows with this index count nowhere.
    reduction : "mean" (over the sum of the rows' class weights; for probabilities over the number of rows), "sum",
        or "none", one value for each row.
    label_smoothing : the share of q, 0 to 1, that is spread evenly over the classes.

    Raises ValueError for shapes that do not fit and, before anything is touched, for a class out of range;
    TypeError for indices given as floats.

    >>> import numpy as np
    >>> round(float(cross_entropy(np.zeros((2, 4)), np.array([1, 3]))), 5)
    1.38629
    """
    no_legacy(size_average, reduce)
    one_of(reduction, "reduction", "mean", "sum", "none")
    if not 0.0 <= real(label_smoothing, "label_smoothing") <= 1.0:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")
    if not _check_target(input, target, weight):
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    scores = _rows(input)
    rows = target.reshape(_labels_shape(scores.shape))
    _limit_labels(target, scores.shape[1], label(ignore_index, "ignore_index"))
    loss, *_ = input.graph.record(
        "cross_entropy", scores, rows, *([] if weight is None else [weight]),
        ignore_index=label(ignore_index, "ignore_index"), label_smoothing=float(label_smoothing), reduction=reduction,
    )  # fmt: skip
    return loss.reshape(_labels_shape(input.shape)) if reduction == "none" else loss


def _soft_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float
) -> Tensor:
    """Cross-entropy with target probabilities, composed of other operations."""
    axis = 0 if input.ndim == 1 else 1
    classes = input.shape[axis]
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        target = target * weight.reshape(classes, *[1] * (input.ndim - axis - 1))
    rows: Tensor = -(target * log_softmax(input, axis)).sum(axis)
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


@eager("input", "target", "weight", integers=("target",))
def nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: None = None, ignore_index: int = -100,
    reduce: None = None, reduction: str = "mean",
) -> Any:  # fmt: skip
    """Negative log-likelihood of target classes: -weight[target] * input[target] for each row.

    Parameters
    ----------
    input : log-probabilities (C), (N,C), (N,C,L) or (N,C,H,W), as log_softmax gives them.
    target : class indices, integers of the shape without C.
    weight : (C), multiplies each class's term. ignore_index : rows with this index count nowhere.
    reduction : "mean" (over the sum of the rows' class weights), "sum", or "none", one value for each row.

    Raises ValueError for shapes that do not fit and, before anything is touched, for a class out of range;
    TypeError for indices given as floats.

    >>> import numpy as np
    >>> float(nll_loss(np.array([[-0.5, -2.0], [-3.0, -4.0]]), np.array([1, 0])))
    2.5
    """
    no_legacy(size_average, reduce)
    one_of(reduction, "reduction", "mean", "sum", "none")
    rows = _rows(input)
    _check_class_weight(input, weight)
    _check_labels(input, target)
    labels = target.reshape(_labels_shape(rows.shape))
    _limit_labels(target, rows.shape[1], label(ignore_index, "ignore_index"), "nll_loss")
    loss, _ = input.graph.record(
        "nll_loss", rows, labels, *([] if weight is None else [weight]), ignore_index=label(ignore_index, "ignore_index"),
        reduction=reduction,
    )  # fmt: skip
    return loss.reshape(_labels_shape(input.shape)) if reduction == "none" else loss
