"""Normalisations."""

from __future__ import annotations

import math
from typing import Any

from ...graph import Tensor
from .eager import eager
from .sizes import as_image, as_sequence, check_rank, one_of, real


@eager("input", "running_mean", "running_var", "weight", "bias", "num_batches_tracked")
def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float | None = 0.1, eps: float = 1e-5, *, running_var_estimator: str = "unbiased",
    num_batches_tracked: Any = None,
) -> Any:  # fmt: skip
    """Batch normalisation per channel: (x - mean) / sqrt(variance + eps) * weight + bias.

    Parameters
    ----------
    input : (N,C), (N,C,L) or (N,C,H,W). running_mean, running_var, weight, bias : (C) or None.
    training : normalise with the batch's own mean and biased variance, otherwise with the running ones.
    momentum : the weight of the new batch in the running statistics; None makes them averages over
        all batches, counted in the buffer num_batches_tracked.
    running_var_estimator : which variance is kept, "unbiased" (PyTorch) or "biased" (Keras, ONNX).

    Running statistics are updated in training if they are buffers of a module; an array passed in is never written
    to. An empty batch leaves them as they are. Raises ValueError for shapes that do not fit, for one value per channel
    in training, and for missing running statistics otherwise.
    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.

    >>> import numpy as np
    >>> batch_norm(np.array([[1.0], [3.0]]), None, None, training=True).round(3)
    array([[-1.],
           [ 1.]], dtype=float32)
    """
    check_rank(input, (2, 3, 4), "(N,C), (N,C,L) or (N,C,H,W)")
    if input.ndim == 3:
        image = as_image(input)
        return as_sequence(batch_norm(
            image, running_mean, running_var, weight, bias, training, momentum, eps,
            running_var_estimator=running_var_estimator, num_batches_tracked=num_batches_tracked,
        ))  # fmt: skip
    eps = real(eps, "eps", 0.0)
    given = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_variance": running_var}
    given = {name: tensor for name, tensor in given.items() if tensor is not None}
    if training:
        return _with_batch_statistics(input, given, momentum, eps, running_var_estimator, num_batches_tracked)
    if running_mean is None or running_var is None:
        raise ValueError("outside training batch normalisation needs running_mean and running_var")
    y, _ = input.graph.record("batch_norm_eval", input, *given.values(), given=tuple(given), activation=None, eps=eps)
    return y


def _with_batch_statistics(
    input: Tensor, given: dict[str, Tensor], momentum: float | None, eps: float, estimator: str, batches: Tensor | None
) -> Tensor:
    unbiased = one_of(estimator, "running_var_estimator", "unbiased", "biased") == "unbiased"
    momentum = None if momentum is None else real(momentum, "momentum", 0.0)
    if input.shape[0] * math.prod(input.shape[2:]) == 1:
        raise ValueError(
            f"training needs more than one value per channel, got an input of shape {input.shape}; "
            "pass a larger batch, or call eval() first"
        )
    if batches is not None:
        given["batches"] = batches
    tracked = [name for name in ("running_mean", "running_variance", "batches") if name in given]
    if any(given[name].variable is None for name in tracked):
        for name in tracked:
            del given[name]
        tracked = []
    y, _ = input.graph.record(
        "batch_norm_track" if tracked else "batch_norm_train", input, *given.values(),
        given=tuple(given), activation=None, eps=eps, momentum=momentum, unbiased=unbiased,
    )  # fmt: skip
    return y
