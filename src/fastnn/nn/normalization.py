"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import functional as F
from .functional.sizes import check_channels, check_rank, one_of, positive_integer, real
from .module import Module
from .parameter import Buffer, Parameter


def without_bias(layer: Module) -> str:
    """What the text of a layer with a weight and no bias says of it."""
    return ", bias=False" if layer.weight is not None and layer.bias is None else ""


class _ChannelNorm(Module):
    """What batch and instance normalisation share: a weight and a bias for each channel, statistics of the batches seen."""

    ranks: tuple[int, ...]
    form: str

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool, bias: bool
    ) -> None:
        super().__init__()
        self.num_features = positive_integer(num_features, "num_features")
        self.eps = real(eps, "eps", 0.0)
        self.momentum = None if momentum is None else real(momentum, "momentum", 0.0)
        self.affine = bool(affine)
        self.track_running_stats = bool(track_running_stats)
        self.weight = Parameter(np.ones(num_features)) if affine else None
        self.bias = Parameter(np.zeros(num_features)) if affine and bias else None
        tracked = self.track_running_stats
        self.register_buffer("running_mean", Buffer(np.zeros(num_features)) if tracked else None)
        self.register_buffer("running_var", Buffer(np.ones(num_features)) if tracked else None)
        self.register_buffer("num_batches_tracked", Buffer(0, np.int64) if tracked else None)

    def reset_running_stats(self) -> None:
        """Forgets the batches seen: mean 0, variance 1."""
        if self.track_running_stats:
            self.running_mean.data = np.zeros(self.num_features)
            self.running_var.data = np.ones(self.num_features)
            self.num_batches_tracked.data = 0

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, no batches seen."""
        self.reset_running_stats()
        if self.weight is not None:
            self.weight.data = np.ones(self.num_features)
        if self.bias is not None:
            self.bias.data = np.zeros(self.num_features)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}{without_bias(self)}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ChannelNorm):
    """What the batch normalisations of any number of axes share."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, *, bias: bool = True, decay: float | None = None, running_var: str = "unbiased",
    ) -> None:  # fmt: skip
        if decay is not None:
            if real(decay, "decay", 0.0) > 1.0:
                raise ValueError(f"decay must lie in [0, 1], got {decay}")
            momentum = 1.0 - decay
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)
        self.running_var_estimator = one_of(running_var, "running_var", "unbiased", "biased")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        check_rank(x, self.ranks, self.form)
        check_channels(x.shape, self.num_features)
        training = self.training or not self.track_running_stats
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training, self.momentum, self.eps,
            running_var_estimator=self.running_var_estimator, num_batches_tracked=self.num_batches_tracked,
        )  # fmt: skip


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N,C,H,W) per channel: (x - mean) / sqrt(variance + eps) * weight + bias.

    Parameters
    ----------
    num_features : C. eps : added to the variance.
    momentum : the weight of the new batch in the running statistics; None makes them averages over all batches.
    affine : whether there are weight (C) and, unless bias is False, bias (C).
    track_running_stats : whether inference uses running statistics, gathered in training; otherwise always the batch's.
    decay : 1 - momentum, the weight of the old value, as Keras and ONNX count it; overrides momentum.
    running_var : the variance that is kept, "unbiased" (PyTorch) or "biased" (Keras, ONNX).

    Attributes: weight, bias, running_mean, running_var (C), num_batches_tracked (int64), each None where switched off.
    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.

    Raises ValueError that names the layer for a wrong rank or number of channels, and in training for one value per channel.

    >>> import numpy as np
    >>> layer = BatchNorm2d(3)
    >>> layer
    BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
    >>> layer(np.ones((2, 3, 4, 4))).shape, int(layer.num_batches_tracked.data)
    ((2, 3, 4, 4), 1)
    """

    ranks = (4,)
    form = "(N,C,H,W)"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of vectors (N,C) or sequences (N,C,L) per channel; parameters as BatchNorm2d.

    Errors as BatchNorm2d.

    >>> import numpy as np
    >>> BatchNorm1d(2, affine=False)(np.array([[1.0, 2.0], [3.0, 2.0]])).round(3)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    ranks = (2, 3)
    form = "(N,C) or (N,C,L)"
