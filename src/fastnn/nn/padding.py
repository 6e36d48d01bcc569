"""Layers that pad images and sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from . import functional as F
from .functional.padding import checked_pads
from .functional.sizes import check_rank, real
from .module import Module

Ints = int | Sequence[int]


class _Pad(Module):
    axes: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Ints) -> None:
        super().__init__()
        pads = (padding,) * (2 * self.axes) if isinstance(padding, int) else padding
        self.padding = checked_pads(pads)
        if len(self.padding) != 2 * self.axes:
            raise ValueError(f"padding must be an integer or {2 * self.axes} of them, got {padding!r}")

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        form = ("(C,L)", "(N,C,L)") if self.axes == 1 else ("(C,H,W)", "(N,C,H,W)")
        check_rank(x, (self.axes + 1, self.axes + 2), " or ".join(form))
        return F.pad(x, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Ints, value: float) -> None:
        super().__init__(padding)
        self.value = real(value, "value", finite=False)

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return F.pad(x, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """A constant at either end of the last axis; padding : one for both, or (left, right). Negative ones crop.

    >>> import numpy as np
    >>> ConstantPad1d((1, 0), 9.0)(np.zeros((1, 1, 2)))
    array([[[9., 0., 0.]]], dtype=float32)
    """

    axes = 1


class ConstantPad2d(_ConstantPad):
    """A constant around the last two axes; padding : one for all sides, or (left, right, top, bottom). Negative ones crop.

    >>> import numpy as np
    >>> ConstantPad2d(2, 9.0)(np.zeros((1, 3, 4, 5))).shape
    (1, 3, 8, 9)
    """

    axes = 2


class ZeroPad1d(ConstantPad1d):
    """Zeros at either end of the last axis; padding : one for both, or (left, right). Negative ones crop.

    >>> import numpy as np
    >>> ZeroPad1d((1, -1))(np.ones((1, 1, 3)))
    array([[[0., 1., 1.]]], dtype=float32)
    """

    def __init__(self, padding: Ints) -> None:
        super().__init__(padding, 0.0)

    extra_repr = _Pad.extra_repr


class ZeroPad2d(ConstantPad2d):
    """Zeros around the last two axes; padding : one for all sides, or (left, right, top, bottom). Negative ones crop.

    >>> import numpy as np
    >>> ZeroPad2d((1, 1, 2, 0))(np.zeros((1, 3, 4, 5))).shape
    (1, 3, 6, 7)
    """

    def __init__(self, padding: Ints) -> None:
        super().__init__(padding, 0.0)

    extra_repr = _Pad.extra_repr


class ReflectionPad1d(_Pad):
    """Sequences (N,C,L) or (C,L) mirrored at their ends, the end itself not repeated; padding : an integer below L, or
    (left, right).

    >>> import numpy as np
    >>> ReflectionPad1d(2)(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[3., 2., 1., 2., 3., 2., 1.]]], dtype=float32)
    """

    axes, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Images (N,C,H,W) or (C,H,W) mirrored at their edges, the edge itself not repeated.

    padding : an integer, or (left, right, top, bottom); each smaller than the axis it extends (ValueError otherwise).

    >>> import numpy as np
    >>> ReflectionPad2d((1, 0, 0, 0))(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[2., 1., 2., 3.]]]], dtype=float32)
    """

    axes, mode = 2, "reflect"


class ReplicationPad1d(_Pad):
    """Sequences (N,C,L) or (C,L) whose ends are repeated; padding : an integer, or (left, right).

    >>> import numpy as np
    >>> ReplicationPad1d((2, 1))(np.array([[[1.0, 2.0]]]))
    array([[[1., 1., 1., 2., 2.]]], dtype=float32)
    """

    axes, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """Images (N,C,H,W) or (C,H,W) whose edges are repeated; padding : an integer, or (left, right, top, bottom).

    >>> import numpy as np
    >>> ReplicationPad2d((0, 1, 1, 0))(np.array([[[[1.0, 2.0]]]]))[0, 0].tolist()
    [[1.0, 2.0, 2.0], [1.0, 2.0, 2.0]]
    """

    axes, mode = 2, "replicate"


class CircularPad1d(_Pad):
    """Sequences (N,C,L) or (C,L) that go on at the other end; padding : an integer up to L, or (left, right).

    >>> import numpy as np
    >>> CircularPad1d((2, 1))(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[2., 3., 1., 2., 3., 1.]]], dtype=float32)
    """

    axes, mode = 1, "circular"


class CircularPad2d(_Pad):
    """Images (N,C,H,W) or (C,H,W) that go on at the other edge; padding : an integer, or (left, right, top, bottom).

    >>> import numpy as np
    >>> CircularPad2d((1, 0, 0, 0))(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[3., 1., 2., 3.]]]], dtype=float32)
    """

    axes, mode = 2, "circular"
