"""Parameters and buffers: the variables of a module, under the names of its attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..habits import PARAMETER, no_attribute
from ..trace import structure_clock
from ..variable import Array, Variable


class Parameter:
    """A trainable array of a module.

    It reads as a NumPy array (`.shape`, `numpy.asarray(p)`, indexing, arithmetic by way of `.data`) and is changed
    by assignment to `.data`, by `copy_`, by `load_state_dict` or by training. float32; 4-D parameters lie
    channels-last in memory.

    >>> import numpy as np
    >>> p = Parameter(np.zeros((2, 3)))
    >>> p.data = np.ones((2, 3))
    >>> float(p.data.sum())
    6.0
    >>> p.data[0, 0] = 5.0
    Traceback (most recent call last):
    ...
    ValueError: assignment destination is read-only
    """

    def __init__(self, data: npt.ArrayLike, requires_grad: bool = True, dtype: npt.DTypeLike = np.float32) -> None:
        self.variable = Variable(np.asarray(data), dtype)
        self._requires_grad = requires_grad

    @property
    def requires_grad(self) -> bool:
        """Whether training changes this parameter."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = bool(value)
        structure_clock.tick()

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Sets `requires_grad` and returns the parameter."""
        self.requires_grad = requires_grad
        return self

    @property
    def data(self) -> Array:
        """The values, a read-only array; assign to change them."""
        return self.variable.view

    @data.setter
    def data(self, values: npt.ArrayLike) -> None:
        self.variable.assign(values)

    def copy_(self, values: npt.ArrayLike) -> Parameter:
        """Overwrites the values and returns the parameter."""
        self.variable.assign(np.asarray(values))
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.variable.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.variable.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.variable.storage.size

    def numel(self) -> int:
        """Number of elements."""
        return self.size

    def numpy(self) -> Array:
        """The values, a read-only array."""
        return self.data

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("a Parameter is not changed element by element: assign to .data, or use copy_(values)")

    def __iadd__(self, other: Any) -> Any:
        raise TypeError("a Parameter is not changed in place: assign to .data, or use copy_(values)")

    __isub__ = __imul__ = __itruediv__ = __iadd__

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(type(self).__name__, name, PARAMETER)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data!r})"


class Buffer(Parameter):
    """An array of a module that belongs to its state but is not trained: running statistics.

    >>> Buffer([0, 0], dtype="int64").requires_grad
    False
    """

    def __init__(self, data: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> None:
        super().__init__(data, requires_grad=False, dtype=dtype)
