"""Dropout."""

from __future__ import annotations

from typing import Any

from ...graph import Tensor
from .eager import eager
from .sizes import as_image, as_sequence, check_rank, probability


def _drop(input: Tensor, p: float, training: bool, layer: int, channels: bool = False) -> Tensor:
    p = probability(p)
    if not training or p == 0.0:
        return input
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return input.graph.record(  # type: ignore[no-any-return]
        "dropout", input, probability=p, scale=scale, layer=int(layer), channels=channels
    )


@eager("input")
def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, layer: int = 0) -> Any:
    """Sets each element to 0 with probability p and multiplies the others by 1 / (1 - p); any shape.

    Outside training, and for p = 0, it is the identity. Which elements are dropped depends on the seed
    (`fastnn.manual_seed`), the step (one for each call) and `layer`, a number that keeps the masks of several
    dropouts in one model apart; the Dropout layer has one of its own. ValueError unless 0 <= p <= 1.
    Source: Srivastava et al., "Dropout", JMLR 2014.

    >>> import numpy as np
    >>> sorted(set(dropout(np.ones(100)).tolist()))
    [0.0, 2.0]
    """
    return _drop(input, p, training, layer)


@eager("input")
def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, layer: int = 0) -> Any:
    """dropout of whole channels of an input (N,C,L).

    >>> import numpy as np
    >>> dropout1d(np.ones((2, 3, 4))).std(axis=2).max().item()
    0.0
    """
    check_rank(input, (3,), "(N,C,L)")
    if not training or probability(p) == 0.0:
        return input
    return as_sequence(_drop(as_image(input), p, training, layer, channels=True))


@eager("input")
def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, layer: int = 0) -> Any:
    """dropout of whole channels of an input (N,C,H,W).

    Source: Tompson et al., "Efficient Object Localization Using Convolutional Networks", CVPR 2015.

    >>> import numpy as np
    >>> dropout2d(np.ones((2, 3, 4, 5))).std(axis=(2, 3)).max().item()
    0.0
    """
    check_rank(input, (4,), "(N,C,H,W)")
    return _drop(input, p, training, layer, channels=True)
