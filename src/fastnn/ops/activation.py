"""Activations along the innermost axis in memory: the last one, of images (N,C,H,W) the channels."""

from __future__ import annotations

from ..graph import Tensor, register
from .elementwise import EXPONENTIALS_PER_NANOSECOND, ByOutput, ByOutputBackward, elements


def rows_and_columns(x: Tensor) -> dict[str, int]:
    """A tensor as a matrix whose rows run along its innermost axis."""
    columns = 1 if x.ndim == 0 else x.shape[1 if x.ndim == 4 else -1]
    return {"rows": elements(x) // columns if columns else 0, "columns": columns}


class _AlongRows(ByOutput):
    rate = EXPONENTIALS_PER_NANOSECOND
    extents = staticmethod(rows_and_columns)


class _AlongRowsBackward(ByOutputBackward):
    rate = EXPONENTIALS_PER_NANOSECOND
    extents = staticmethod(rows_and_columns)


@register
class Softmax(_AlongRows):
    """y = exp(x) / sum exp(x)."""

    name = "softmax"


@register
class SoftmaxBackward(_AlongRowsBackward):
    """dx = y * (dy - sum(dy * y))."""

    name = "softmax_backward"


@register
class LogSoftmax(_AlongRows):
    """y = x - log(sum exp(x))."""

    name = "log_softmax"


@register
class LogSoftmaxBackward(_AlongRowsBackward):
    """dx = dy - exp(y) * sum(dy)."""

    name = "log_softmax_backward"
