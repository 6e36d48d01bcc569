"""Layers that normalise each sample by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import functional as F
from .functional.sizes import check_channels, check_rank, positive_integer, real
from .module import Module
from .normalization import _ChannelNorm, without_bias
from .parameter import Parameter


class LayerNorm(Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axes, see `functional.layer_norm`.

    normalized_shape : the extents of those axes. Attributes: weight, bias of that shape, or None.
    Source: Ba, Kiros and Hinton, "Layer normalization", 2016.

    >>> import numpy as np
    >>> LayerNorm(2)(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = tuple(positive_integer(n, "normalized_shape") for n in shape)
        self.eps = real(eps, "eps", 0.0)
        self.elementwise_affine = bool(elementwise_affine)
        self.weight = Parameter(np.ones(self.normalized_shape)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape)) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}{without_bias(self)}"
        )


class GroupNorm(Module):
    """Normalisation of (N,C,...) over groups of channels of each sample, see `functional.group_norm`.

    num_groups : must divide num_channels, C. Attributes: weight, bias (C), or None; bias=False leaves out the bias alone.
    Source: Wu and He, "Group normalization", ECCV 2018.

    >>> import numpy as np
    >>> GroupNorm(2, 4)(np.array([[1.0, 3.0, 5.0, 5.0]])).round(3)
    array([[-1.,  1.,  0.,  0.]], dtype=float32)
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.num_groups = positive_integer(num_groups, "num_groups")
        self.num_channels = positive_integer(num_channels, "num_channels")
        if num_channels % num_groups:
            raise ValueError(f"num_channels must be divisible by num_groups, got {num_channels} and {num_groups}")
        self.eps = real(eps, "eps", 0.0)
        self.affine = bool(affine)
        self.weight = Parameter(np.ones(num_channels)) if affine else None
        self.bias = Parameter(np.zeros(num_channels)) if affine and bias else None

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        if x.ndim < 2:
            raise ValueError(f"the input must have the shape (N,C,...), got {x.shape}")
        check_channels(x.shape, self.num_channels)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}{without_bias(self)}"


class _InstanceNorm(_ChannelNorm):
    """What the instance normalisations of any number of axes share."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        check_rank(x, self.ranks, self.form)
        check_channels(x.shape, self.num_features)
        return F.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats, self.momentum or 0.0, self.eps,
        )  # fmt: skip


class InstanceNorm2d(_InstanceNorm):
    """Normalisation of each channel of each image (N,C,H,W), see `functional.instance_norm`.

    Parameters
    ----------
    num_features : C. eps : added to the variance. affine : whether there are weight and, unless bias is False, bias (C).
    track_running_stats : whether inference uses running statistics, gathered in training: means over the batch of the
        images' means and unbiased variances. Otherwise always each image's own statistics.
    momentum : the weight of the new batch in the running statistics; None counts as 0.

    Attributes: weight, bias, running_mean, running_var (C), each None where switched off; num_batches_tracked, which
    PyTorch has and, for this layer, never counts up.
    Source: Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016.

    >>> import numpy as np
    >>> InstanceNorm2d(2)(np.ones((1, 2, 3, 3))).max().item()
    0.0
    """

    ranks = (4,)
    form = "(N,C,H,W)"


class InstanceNorm1d(_InstanceNorm):
    """Normalisation of each channel of each sequence (N,C,L); parameters as InstanceNorm2d.

    >>> import numpy as np
    >>> InstanceNorm1d(1)(np.array([[[1.0, 3.0]]])).round(3)
    array([[[-1.,  1.]]], dtype=float32)
    """

    ranks = (3,)
    form = "(N,C,L)"
