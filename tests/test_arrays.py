"""What may be passed as an array: any layout, dtype and kind of container gives the bits of a contiguous float32 copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn

SHAPES = {"image": (2, 3, 6, 5), "matrix": (7, 12), "sequence": (3, 5, 4)}


class ExportsDlpack:
    """An object that is no array, but gives its memory through DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def _misaligned(x: np.ndarray) -> np.ndarray:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def _strided(x: np.ndarray) -> np.ndarray:
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def _read_only(x: np.ndarray) -> np.ndarray:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def _transposed(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.T).T


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "fortran order": np.asfortranarray,
    "transposed": _transposed,
    "channels last": _channels_last,
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "reversed rows": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "strided": _strided,
    "misaligned": _misaligned,
    "misaligned strided": lambda x: _misaligned(np.repeat(x, 2, axis=0))[::2],
    "read-only": _read_only,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "byte-swapped double": lambda x: x.astype(np.dtype(np.float64).newbyteorder()),
    "double": lambda x: x.astype(np.float64),
    "half": lambda x: x.astype(np.float16),
    "long double": lambda x: x.astype(np.longdouble),
    "list": lambda x: x.tolist(),
    "memoryview": lambda x: memoryview(np.ascontiguousarray(x)),
    "dlpack": ExportsDlpack,
    "dlpack strided": lambda x: ExportsDlpack(_strided(x)),
    "masked subclass": lambda x: x.view(np.ma.MaskedArray),
    "sliced": lambda x: np.pad(x, [(1, 2)] * x.ndim)[(slice(1, -2),) * x.ndim],
}
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def _values(shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/4 that float16 holds exactly."""
    return (np.random.default_rng(5).integers(-40, 40, shape) / 4).astype(np.float32)


def _model(kind: str) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()] if kind == "image" else []
    layers += {"image": [nn.Linear(48, 5)], "matrix": [nn.Linear(12, 9)], "sequence": [nn.Flatten(), nn.Linear(20, 3)]}[
        kind
    ]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bits(form: str, kind: str) -> None:
    x = _values(SHAPES[kind])
    model = _model(kind)
    expected = model(x)
    given = FORMS[form](x)
    before = np.array(given.array if isinstance(given, ExportsDlpack) else given, copy=True)
    got = model(given)
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    assert got.tobytes() == expected.tobytes()
    after = np.asarray(given.array if isinstance(given, ExportsDlpack) else given)
    assert after.tobytes() == before.tobytes(), "an array passed in was changed"


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("kind", SHAPES)
def test_integers(dtype: str, kind: str) -> None:
    x = np.random.default_rng(6).integers(0, 100, SHAPES[kind]).astype(dtype)
    model = _model(kind)
    assert model(x).tobytes() == model(x.astype(np.float32)).tobytes()


def test_booleans() -> None:
    x = np.random.default_rng(7).integers(0, 2, (7, 12)).astype(bool)
    model = _model("matrix")
    assert model(x).tobytes() == model(x.astype(np.float32)).tobytes()


@pytest.mark.parametrize("kind", SHAPES)
def test_broadcast_inputs_of_stride_zero(kind: str) -> None:
    shape = SHAPES[kind]
    row = _values((1, *shape[1:]))
    x = np.broadcast_to(row, shape)
    assert x.strides[0] == 0
    model = _model(kind)
    assert model(x).tobytes() == model(x.copy()).tobytes()
    scalar = np.broadcast_to(np.float32(1.5), shape)
    assert model(scalar).tobytes() == model(np.full(shape, 1.5, np.float32)).tobytes()


@pytest.mark.parametrize("shape", [(0, 3, 6, 5), (1, 3, 6, 5), (2, 3, 3, 3)])
def test_small_batches_in_both_layouts(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    x = _values(shape)
    expected = model(x)
    assert expected.shape == (shape[0], 4, shape[2] - 2, shape[3] - 2)
    assert model(_channels_last(x)).tobytes() == expected.tobytes()


def test_results_do_not_share_memory_with_inputs_or_each_other() -> None:
    model = nn.Sequential(nn.Flatten())
    x = _values((2, 3, 6, 5))
    first, second = model(x), model(x)
    assert not np.shares_memory(first, x)
    assert not np.shares_memory(first, second)
    first[...] = 0
    assert second.any()
    assert first.flags.writeable


def test_gradients_of_every_form(rng: np.random.Generator) -> None:
    x, dy = _values((2, 3, 6, 5)), rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    _, pullback = fnn.vjp(nn.functional.relu, x)
    expected = pullback(dy)[0].tobytes()
    for name, form in FORMS.items():
        if name in ("list", "memoryview", "dlpack", "dlpack strided"):
            continue
        _, pullback = fnn.vjp(nn.functional.relu, form(x))
        assert pullback(dy)[0].tobytes() == expected, name
        if "half" not in name:
            assert pullback(form(dy))[0].tobytes() == expected, name


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 3), np.complex64),
        np.array([["a", "b"]]),
        np.array([[None, 1.0]]),
        np.array([["2020-01-01"]], "datetime64[D]"),
        np.zeros(3, [("x", np.float32)]),
        [[1j]],
        "text",
        None,
        object(),
    ],
)
def test_what_is_not_real_numbers_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="real numbers"):
        nn.ReLU()(value)


def test_ragged_lists_are_refused() -> None:
    with pytest.raises((ValueError, TypeError)):
        nn.ReLU()([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("axes", [8, 9, 12, 20, 32])
def test_arrays_of_many_axes(axes: int) -> None:
    """Those of more axes than a repeated call compares are computed all the same."""
    model = nn.ReLU()
    x = _values((2, *(1,) * (axes - 2), 3))
    for _ in range(3):
        np.testing.assert_array_equal(model(x), np.maximum(x, 0))
