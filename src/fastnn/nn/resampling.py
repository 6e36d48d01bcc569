"""Layers that resize images and sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import functional as F
from .functional.resampling import RANKS
from .functional.sizes import one_of, positive_integer
from .module import Module

Size = int | Sequence[int] | None
Scale = float | Sequence[float] | None


class Upsample(Module):
    """Images (N,C,H,W) or sequences (N,C,L) of another size, see `functional.interpolate`.

    size, scale_factor : one of the two, a number or one for each axis.
    mode : "nearest", "nearest-exact", "area", "linear" (sequences) or "bilinear" (images).
    align_corners : for the linear modes, whether the first and last elements stay first and last.
    recompute_scale_factor : whether to take the ratio of the sizes for the scale.

    >>> import numpy as np
    >>> layer = Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    >>> layer
    Upsample(scale_factor=2.0, mode='bilinear')
    >>> layer(np.zeros((1, 3, 4, 5))).shape
    (1, 3, 8, 10)
    """

    def __init__(
        self, size: Size = None, scale_factor: Scale = None, mode: str = "nearest", align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if size is not None and scale_factor is not None:
            raise ValueError(f"give either size or scale_factor, not both: {size!r}, {scale_factor!r}")
        self.size = tuple(size) if isinstance(size, Sequence) else size
        several = isinstance(scale_factor, Sequence)
        self.scale_factor: Any = tuple(map(float, scale_factor)) if several else scale_factor and float(scale_factor)  # type: ignore[arg-type]
        self.mode = one_of(mode, "mode", *RANKS)
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.interpolate(
            x, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        given = f"scale_factor={self.scale_factor}" if self.scale_factor is not None else f"size={self.size}"
        return f"{given}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Images (N,C,H,W) of another size, each pixel the nearest of the input; size or scale_factor as Upsample.

    >>> import numpy as np
    >>> UpsamplingNearest2d(scale_factor=2)(np.array([[[[1.0, 2.0]]]]))[0, 0].tolist()
    [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """

    def __init__(self, size: Size = None, scale_factor: Scale = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Images (N,C,H,W) of another size by bilinear interpolation, corners aligned; size or scale_factor as Upsample.

    >>> import numpy as np
    >>> UpsamplingBilinear2d(size=(1, 3))(np.array([[[[1.0, 2.0]]]]))
    array([[[[1. , 1.5, 2. ]]]], dtype=float32)
    """

    def __init__(self, size: Size = None, scale_factor: Scale = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class PixelShuffle(Module):
    """Channels to pixels: (N, C*r*r, H, W) -> (N, C, H*r, W*r), r = upscale_factor; see `functional.pixel_shuffle`.

    >>> import numpy as np
    >>> PixelShuffle(2)(np.zeros((1, 12, 4, 5))).shape
    (1, 3, 8, 10)
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = positive_integer(upscale_factor, "upscale_factor")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Pixels to channels: (N, C, H*r, W*r) -> (N, C*r*r, H, W), r = downscale_factor; see `functional.pixel_unshuffle`.

    >>> import numpy as np
    >>> PixelUnshuffle(2)(np.zeros((1, 3, 8, 10))).shape
    (1, 12, 4, 5)
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = positive_integer(downscale_factor, "downscale_factor")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"
