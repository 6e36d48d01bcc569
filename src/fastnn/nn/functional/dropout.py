"""Dropout."""

from __future__ import annotations

import math
from typing import Any

from ...graph import Tensor
from .activation import SELU_ALPHA, SELU_SCALE
from .eager import eager
from .sizes import as_image, as_sequence, check_rank, one_of, probability


def _drop(input: Tensor, p: float, training: bool, layer: int, mode: str, channels: bool = False) -> Tensor:
    p, classic = probability(p), one_of(mode, "mode", "inverted", "classic") == "classic"
    if p == 0.0 or not (training or classic):
        return input
    if not training:
        return input * (1.0 - p)
    scale = 1.0 if classic else 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return input.graph.record("dropout", input, probability=p, scale=scale, layer=int(layer), channels=channels)


@eager("input")
def dropout(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, layer: int = 0, mode: str = "inverted"
) -> Any:
    """Sets each element to 0 with probability p and multiplies the others by 1 / (1 - p); any shape.

    Outside training, and for p = 0, it is the identity. Which elements are dropped depends on the seed
    (`fastnn.manual_seed`), the step (one for each call) and `layer`, a number that keeps the masks of several
    dropouts in one model apart; the Dropout layer has one of its own. mode="classic", the form first published, leaves
    kept elements as they are and multiplies by 1 - p outside training instead. ValueError unless 0 <= p <= 1.
    Source: Srivastava et al., "Dropout", JMLR 2014.

    >>> import numpy as np
    >>> sorted(set(dropout(np.ones(100)).tolist()))
    [0.0, 2.0]
    """
    return _drop(input, p, training, layer, mode)


@eager("input")
def dropout1d(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, layer: int = 0, mode: str = "inverted"
) -> Any:
    """dropout of whole channels of an input (N,C,L).

    >>> import numpy as np
    >>> dropout1d(np.ones((2, 3, 4))).std(axis=2).max().item()
    0.0
    """
    check_rank(input, (3,), "(N,C,L)")
    if probability(p) == 0.0 or not (training or mode == "classic"):
        return _drop(input, p, training, layer, mode)
    return as_sequence(_drop(as_image(input), p, training, layer, mode, channels=True))


@eager("input")
def dropout2d(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, layer: int = 0, mode: str = "inverted"
) -> Any:
    """dropout of whole channels of an input (N,C,H,W).

    Source: Tompson et al., "Efficient Object Localization Using Convolutional Networks", CVPR 2015.

    >>> import numpy as np
    >>> dropout2d(np.ones((2, 3, 4, 5))).std(axis=(2, 3)).max().item()
    0.0
    """
    check_rank(input, (4,), "(N,C,H,W)")
    return _drop(input, p, training, layer, mode, channels=True)


@eager("input")
def gaussian_dropout(input: Any, p: float = 0.5, training: bool = True, *, layer: int = 0) -> Any:
    """Multiplies each element by noise of mean 1 and variance p / (1 - p), as much as dropout has; any shape.

    Outside training, and for p = 0, it is the identity. PyTorch has no such function; Keras has.
    ValueError unless 0 <= p < 1. Source: Srivastava et al., "Dropout", JMLR 2014, section 10.

    >>> import numpy as np
    >>> bool(abs(gaussian_dropout(np.ones(10000)).mean() - 1) < 0.05)
    True
    """
    p = probability(p)
    if p == 1.0:
        raise ValueError("gaussian_dropout needs p < 1: its noise has variance p / (1 - p)")
    if not training or p == 0.0:
        return input
    return input.graph.record("gaussian_dropout", input, deviation=math.sqrt(p / (1.0 - p)), layer=int(layer))


SELU_LIMIT = -SELU_SCALE * SELU_ALPHA
"""What SELU tends to for large negative inputs."""


@eager("input")
def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False, *, layer: int = 0) -> Any:
    """Dropout for nets of SELUs: dropped elements get SELU's negative limit, then all are scaled and shifted so that mean 0
    and variance 1 stay so; any shape.

    Outside training, and for p = 0, it is the identity; for p = 1 all is 0. ValueError unless 0 <= p <= 1.
    Source: Klambauer et al., "Self-normalizing neural networks", NIPS 2017.

    >>> import numpy as np
    >>> alpha_dropout(np.ones(2), 1.0, training=True)
    array([0., 0.], dtype=float32)
    """
    p = probability(p)
    if not training or p == 0.0:
        return input
    scale = shift = dropped = 0.0
    if p < 1.0:
        scale = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * SELU_LIMIT**2))
        shift, dropped = -scale * SELU_LIMIT * p, scale * SELU_LIMIT * (1.0 - p)
    return input.graph.record(
        "alpha_dropout", input, probability=p, scale=scale, shift=shift, dropped=dropped, layer=int(layer)
    )
