"""Dropout layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import random
from ..variable import Array
from . import functional as F
from .functional.sizes import one_of, probability
from .module import Module


class _Random(Module):
    """What the dropouts share: a probability, and a number in the random stream."""

    channels = False

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = probability(p)
        self.inplace = inplace
        self.layer = random.next_layer()
        object.__setattr__(self, "_input_shape", None)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"

    def _seen(self, x: Any) -> Any:
        """Notes the shape of an input; returns the input."""
        object.__setattr__(self, "_input_shape", x.shape)
        return x

    def _shape(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        shape = self.__dict__["_input_shape"] if shape is None else shape
        if shape is None:
            raise ValueError(f"{type(self).__name__}: no input was seen so far; give the shape of one")
        return tuple(int(n) for n in shape)

    def mask(self, step: int, shape: tuple[int, ...] | None = None, seed: int | None = None) -> Array:
        """Which elements of an input of `shape` are kept in a step of the random stream (bool, C-contiguous).

        A pass of this model draws the mask that the seed (None: the one in force) and its step say, and no other. Steps
        count from 1: the calls since `fastnn.manual_seed`, or a Trainer's training steps with its seed. `shape` may be
        left out once the layer has seen an input: the shape last compiled for counts. ValueError before that.

        >>> from fastnn import nn
        >>> nn.Dropout(1.0).mask(1, (2, 3)).any().item()
        False
        """
        from ..reference import dropout_mask

        shape, seed = self._shape(shape), random.initial_seed() if seed is None else seed
        kept = dropout_mask(shape, self.p, seed=seed, layer=self.layer, step=step, channels=self.channels)
        return np.ascontiguousarray(np.broadcast_to(kept, shape))


class _Dropout(_Random):
    """Dropout in its two forms."""

    def __init__(self, p: float = 0.5, inplace: bool = False, *, mode: str = "inverted") -> None:
        super().__init__(p, inplace)
        self.mode = one_of(mode, "mode", "inverted", "classic")

    def extra_repr(self) -> str:
        return super().extra_repr() + (", mode='classic'" if self.mode == "classic" else "")


class Dropout(_Dropout):
    """Sets elements to 0 with probability p in training and multiplies the others by 1/(1-p); the identity otherwise.

    Masks depend on the seed (`fastnn.manual_seed`), the layer, the step and the element alone; they are the same for
    any instruction set and number of threads. `layer` numbers the layers since the last manual_seed.
    mode="classic", the form first published, leaves kept elements as they are in training and multiplies by 1-p otherwise.
    Raises ValueError unless 0 <= p <= 1. Source: Srivastava et al., "Dropout", JMLR 2014.

    >>> import numpy as np
    >>> layer = Dropout(0.5)
    >>> sorted(set(layer(np.ones(100)).tolist())), layer.eval()(np.ones(3)).tolist()
    ([0.0, 2.0], [1.0, 1.0, 1.0])
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.dropout(self._seen(x), self.p, self.training, layer=self.layer, mode=self.mode)


class Dropout1d(_Dropout):
    """Dropout of whole channels of sequences (N,C,L).

    >>> import numpy as np
    >>> Dropout1d(0.0)(np.ones((1, 1, 2)))
    array([[[1., 1.]]], dtype=float32)
    """

    channels = True

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.dropout1d(self._seen(x), self.p, self.training, layer=self.layer, mode=self.mode)


class Dropout2d(_Dropout):
    """Dropout of whole channels of images (N,C,H,W). Source: Tompson et al., CVPR 2015.

    >>> import numpy as np
    >>> Dropout2d(0.5)(np.ones((2, 3, 4, 5))).std(axis=(2, 3)).max().item()
    0.0
    """

    channels = True

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.dropout2d(self._seen(x), self.p, self.training, layer=self.layer, mode=self.mode)


class GaussianDropout(_Random):
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

    def mask(self, step: int, shape: tuple[int, ...] | None = None, seed: int | None = None) -> Array:
        raise TypeError("GaussianDropout keeps every element: it has no mask; its factors are noise(step)")

    def noise(self, step: int, shape: tuple[int, ...] | None = None, seed: int | None = None) -> Array:
        """The factors of the elements of an input of `shape` in a step of the random stream, float32; else as `mask`.

        >>> from fastnn import nn
        >>> nn.GaussianDropout(0.0).noise(1, (2,))
        array([1., 1.], dtype=float32)
        """
        from ..reference import gaussian_dropout

        shape, seed = self._shape(shape), random.initial_seed() if seed is None else seed
        factors = gaussian_dropout(np.ones(shape), self.p, seed=seed, layer=self.layer, step=step)
        return np.ascontiguousarray(factors, np.float32)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.gaussian_dropout(self._seen(x), self.p, self.training, layer=self.layer)


class AlphaDropout(_Random):
    """Dropout for nets of SELUs, which keeps mean 0 and variance 1; see functional.alpha_dropout.

    >>> import numpy as np
    >>> AlphaDropout(0.2).eval()(np.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.alpha_dropout(self._seen(x), self.p, self.training, layer=self.layer)
