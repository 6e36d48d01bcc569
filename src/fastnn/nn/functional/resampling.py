"""Resizing of images and sequences: interpolation, and channels to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...graph import Shape
from ...ops.resampling import Taps, check_axis
from .eager import eager
from .pooling import adaptive_avg_pool1d, adaptive_avg_pool2d
from .sizes import check_rank, integers, one_of, positive_integer, real

Numbers = float | Sequence[float] | None

RANKS = {"nearest": (3, 4), "nearest-exact": (3, 4), "area": (3, 4), "linear": (3,), "bilinear": (4,)}
"""The modes, and how many axes their inputs have."""


def _nearest(size: int, output: int, scale: float | None, shift: float) -> Taps:
    """floor((i + shift) * in/out), rounded as PyTorch rounds it: in float32."""
    step = np.float32(1.0 / scale) if scale else np.float32(size) / np.float32(output)
    places = np.floor((np.arange(output, dtype=np.float32) + np.float32(shift)) * step)
    return tuple(((min(int(place), size - 1), 1.0),) for place in places)


def _linear(size: int, output: int, scale: float | None, align_corners: bool) -> Taps:
    """The two neighbours of (i + 0.5) * in/out - 0.5, or of i * (in-1)/(out-1), with weights that add up to 1."""
    taps: list[tuple[tuple[int, float], ...]] = []
    for i in range(output):
        if size == output:
            place = float(i)
        elif align_corners:
            place = i * (size - 1) / (output - 1) if output > 1 else 0.0
        else:
            place = max((i + 0.5) * (1.0 / scale if scale else size / output) - 0.5, 0.0)
        lower = min(int(place), size - 1)
        fraction = min(place - lower, 1.0)
        if fraction == 0.0 or lower == size - 1:
            taps.append(((lower, 1.0),))
        else:
            taps.append(((lower, 1.0 - fraction), (lower + 1, fraction)))
    return tuple(taps)


@lru_cache(maxsize=256)
def _taps(size: int, output: int, scale: float | None, mode: str, align_corners: bool, is_image: bool) -> Taps:
    """Where the elements of one axis come from. `scale`: given in place of a size."""
    if mode in ("linear", "bilinear"):
        return _linear(size, output, scale, align_corners)
    plain = is_image and output in (size, 2 * size)  # PyTorch's images leave the scale's rounding aside then
    return _nearest(
        size, output, None if plain and mode == "nearest" else scale, 0.5 if mode == "nearest-exact" else 0.0
    )


def _sizes(
    shape: Shape, size: Any, scale_factor: Any, recompute_scale_factor: bool | None
) -> tuple[list[int], list[float | None]]:
    """The spatial axes' sizes afterwards, and the scales that the positions are computed from (None: the sizes')."""
    extents = shape[2:]
    if (size is None) == (scale_factor is None):
        raise ValueError(f"give either size or scale_factor, got size {size!r} and scale_factor {scale_factor!r}")
    if min(extents) < 1:
        raise ValueError(f"cannot interpolate {shape}: there is nothing between two elements")
    if size is not None:
        if recompute_scale_factor:
            raise ValueError("recompute_scale_factor is for a scale_factor, not for a size")
        return list(integers(size, len(extents), "size")), [None] * len(extents)
    given = list(scale_factor) if isinstance(scale_factor, Sequence) else [scale_factor] * len(extents)
    if len(given) != len(extents):
        raise ValueError(f"scale_factor must be a number or {len(extents)} of them, got {scale_factor!r}")
    scales: list[float | None] = [real(scale, "scale_factor", 0.0) for scale in given]
    sizes = [math.floor(extent * scale) for extent, scale in zip(extents, scales, strict=True) if scale is not None]
    if min(sizes) < 1:
        raise ValueError(f"scale_factor {scale_factor!r} leaves nothing of {shape}")
    return sizes, [None] * len(extents) if recompute_scale_factor else scales


@eager("input")
def interpolate(
    input: Any, size: int | Sequence[int] | None = None, scale_factor: Numbers = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Any:  # fmt: skip
    """Images (N,C,H,W) or sequences (N,C,L) of another size.

    size, scale_factor : one of the two, a number or one for each axis; a scale's size is rounded down.
    mode : "nearest", "nearest-exact" (of the elements' middles), "area" (means), "linear" for sequences, "bilinear" for
        images. Element i lies at i * in/out (nearest) or (i + 0.5) * in/out - 0.5 of the input; 1 / scale_factor takes the
        place of in/out where it was given, unless recompute_scale_factor.
    align_corners : for the linear modes: the first and last elements stay first and last, i * (in-1)/(out-1).

    Raises ValueError for both or neither of size and scale_factor, a mode that does not fit the input's axes, align_corners
    with another mode, and antialias, which is not there.

    >>> import numpy as np
    >>> interpolate(np.array([[[0.0, 4.0]]]), 4, mode="linear").tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    >>> interpolate(np.arange(4.0).reshape(1, 1, 2, 2), scale_factor=2)[0, 0, :, 0].tolist()
    [0.0, 0.0, 2.0, 2.0]
    """
    one_of(mode, "mode", *RANKS)
    if antialias:
        raise ValueError("antialias is not supported")
    if align_corners is not None and mode not in ("linear", "bilinear"):
        raise ValueError(
            f'align_corners is for the modes "linear" and "bilinear", got {align_corners} with mode {mode!r}'
        )
    check_rank(
        input, RANKS[mode], " or ".join({3: "(N,C,L)", 4: "(N,C,H,W)"}[rank] for rank in RANKS[mode]) + f" for {mode}"
    )
    sizes, scales = _sizes(input.shape, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return adaptive_avg_pool2d(input, sizes) if input.ndim == 4 else adaptive_avg_pool1d(input, sizes)
    for output in sizes:
        check_axis(output)
    axes = tuple(range(2, input.ndim))
    taps = tuple(
        _taps(input.shape[axis], output, scale, mode, bool(align_corners), input.ndim == 4)
        for axis, output, scale in zip(axes, sizes, scales, strict=True)
    )
    return input.graph.record("resample", input, axes=axes, taps=taps, value=0.0)


@eager("input")
def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """Channels to pixels: input (N, C*r*r, H, W) -> (N, C, H*r, W*r), r = upscale_factor.

    y[n, c, h*r + i, w*r + j] = x[n, (c*r + i)*r + j, h, w]. ValueError when r * r does not divide the channels.
    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution", CVPR 2016.

    >>> import numpy as np
    >>> pixel_shuffle(np.arange(4.0).reshape(1, 4, 1, 1), 2).tolist()
    [[[[0.0, 1.0], [2.0, 3.0]]]]
    """
    check_rank(input, (4,), "(N,C,H,W)")
    factor = positive_integer(upscale_factor, "upscale_factor")
    if input.shape[1] % (factor * factor):
        raise ValueError(
            f"upscale_factor {factor} needs a multiple of {factor * factor} channels, got {input.shape[1]} in {input.shape}"
        )
    return input.graph.record("pixel_shuffle", input, factor=factor, inverse=False)


@eager("input")
def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """Pixels to channels, the inverse of pixel_shuffle: input (N, C, H*r, W*r) -> (N, C*r*r, H, W), r = downscale_factor.

    ValueError when r does not divide height and width.

    >>> import numpy as np
    >>> pixel_unshuffle(np.arange(4.0).reshape(1, 1, 2, 2), 2).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    check_rank(input, (4,), "(N,C,H,W)")
    factor = positive_integer(downscale_factor, "downscale_factor")
    if input.shape[2] % factor or input.shape[3] % factor:
        raise ValueError(f"downscale_factor {factor} does not divide the image {input.shape[2:]} of {input.shape}")
    return input.graph.record("pixel_shuffle", input, factor=factor, inverse=True)
