"""Dropout layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import random
from ..variable import Array
from . import functional as F
from .functional.sizes import probability
from .module import Module


class _Dropout(Module):
    """What the dropouts share: a probability, and a number in the random stream."""

    channels = False

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = probability(p)
        self.inplace = inplace
        self.layer = random.next_layer()

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"

    def mask(self, step: int, shape: tuple[int, ...], seed: int | None = None) -> Array:
        """Which elements of an input of `shape` are kept in a step of the random stream (bool, C-contiguous).

        A pass of this model draws the mask that the seed (None: the one in force) and its step say, and no other.

        >>> from fastnn import nn
        >>> nn.Dropout(1.0).mask(0, (2, 3)).any().item()
        False
        """
        from ..reference import dropout_mask

        seed = random.initial_seed() if seed is None else seed
        kept = dropout_mask(tuple(shape), self.p, seed=seed, layer=self.layer, step=step, channels=self.channels)
        return np.ascontiguousarray(np.broadcast_to(kept, tuple(shape)))


class Dropout(_Dropout):
    """Sets elements to 0 with probability p in training and multiplies the others by 1/(1-p); the identity otherwise.

    Masks depend on the seed (`fastnn.manual_seed`), the layer, the step and the element alone; they are the same for
    any instruction set and number of threads. `layer` numbers the layers since the last manual_seed.
    Raises ValueError unless 0 <= p <= 1. Source: Srivastava et al., "Dropout", JMLR 2014.

    >>> import numpy as np
    >>> layer = Dropout(0.5)
    >>> sorted(set(layer(np.ones(100)).tolist())), layer.eval()(np.ones(3)).tolist()
    ([0.0, 2.0], [1.0, 1.0, 1.0])
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.dropout(x, self.p, self.training, layer=self.layer)


class Dropout1d(_Dropout):
    """Dropout of whole channels of sequences (N,C,L).

    >>> import numpy as np
    >>> Dropout1d(0.0)(np.ones((1, 1, 2)))
    array([[[1., 1.]]], dtype=float32)
    """

    channels = True

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.dropout1d(x, self.p, self.training, layer=self.layer)


class Dropout2d(_Dropout):
    """Dropout of whole channels of images (N,C,H,W). Source: Tompson et al., CVPR 2015.

    >>> import numpy as np
    >>> Dropout2d(0.5)(np.ones((2, 3, 4, 5))).std(axis=(2, 3)).max().item()
    0.0
    """

    channels = True

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.dropout2d(x, self.p, self.training, layer=self.layer)


class GaussianDropout(_Dropout):
    """Multiplies by noise of mean 1 and variance p/(1-p) in training; the identity otherwise. ValueError unless 0 <= p < 1.

    >>> import numpy as np
    >>> GaussianDropout(0.2).eval()(np.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        if self.p == 1.0:
            raise ValueError("GaussianDropout needs p < 1: its noise has variance p / (1 - p)")

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def mask(self, step: int, shape: tuple[int, ...], seed: int | None = None) -> Array:
        raise TypeError("GaussianDropout keeps every element: it has noise, but no mask")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.gaussian_dropout(x, self.p, self.training, layer=self.layer)


class AlphaDropout(_Dropout):
    """Dropout for nets of SELUs, which keeps mean 0 and variance 1; see functional.alpha_dropout.

    >>> import numpy as np
    >>> AlphaDropout(0.2).eval()(np.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.alpha_dropout(x, self.p, self.training, layer=self.layer)
