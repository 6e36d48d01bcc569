"""Integers that must lie in a range: class labels, indices."""

from __future__ import annotations

from ...graph import Tensor


def limit_integers(tensor: Tensor, count: int, message: str, exception: int | None = None) -> None:
    """Has integers checked to lie in 0 to count - 1, or to be `exception`: those of an input before each run, constants now.

    Raises ValueError, beginning with `message`, for a constant outside, and for a tensor that is computed.
    """
    source = tensor
    while source.node is not None and source.node.op.name == "reshape":
        source = source.node.inputs[0]
    if source.variable is not None:
        values = source.variable.view
        wrong = (values < 0) | (values >= count)
        if exception is not None:
            wrong &= values != exception
        if wrong.any():
            raise ValueError(f"{message}: got {values[wrong].flat[0]}, allowed are 0 to {count - 1}")
    elif source.node is None:
        limit = (0, count - 1, exception, message)
        if limit not in source.limits:
            source.limits.append(limit)
    else:
        raise ValueError("labels and indices must be an argument of the traced function, not something computed in it")
