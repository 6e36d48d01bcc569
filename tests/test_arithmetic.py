"""Arithmetic under broadcasting, sums, means, slices, concatenation: exact where float32 is, else to one rounding."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, Array, SameBits, assert_equal, assert_within, differentiate, integers, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn

KERNELS = {"add_forward", "arithmetic", "copy_rows", "transpose_int64"}

Shape = tuple[int, ...]

SHAPES: list[tuple[Shape, Shape]] = [
    ((2, 3, 4, 5), (2, 3, 4, 5)),
    ((2, 3, 4, 5), (1, 3, 1, 1)),
    ((2, 19, 3, 5), (2, 19, 1, 1)),
    ((2, 3, 4, 5), ()),
    ((), (2, 3, 4, 5)),
    ((3, 1, 1), (2, 3, 4, 5)),
    ((2, 3, 4, 5), (5,)),
    ((2, 3, 4, 5), (4, 5)),
    ((2, 3, 4, 5), (2, 1, 4, 5)),
    ((2, 3, 1, 5), (3, 4, 1)),
    ((7, 37), (7, 1)),
    ((7, 37), (37,)),
    ((1, 5), (7, 1)),
    ((2, 3, 4, 5, 6), (3, 1, 5, 1)),
    ((2, 3, 4), (2, 1, 4)),
    ((2, 3, 5003), (3, 1)),
    ((0, 3), (3,)),
    ((1,), (1,)),
    ((), ()),
]


def folded(gradient: Array, shape: Shape) -> Array:
    """A gradient summed to the shape of an operand that was repeated."""
    while gradient.ndim > len(shape):
        gradient = gradient.sum(axis=0)
    axes = tuple(i for i, n in enumerate(shape) if n == 1)
    return gradient.sum(axis=axes, keepdims=True) if axes else gradient


def partials(name: str, a: Array, b: Array, dy: Array) -> tuple[Array, Array]:
    """dy times the derivatives of `a operation b`, in the shapes of a and b."""
    one = np.ones_like(a * b)
    if name == "mul":
        by_a, by_b = b * one, a * one
    elif name == "truediv":
        by_a, by_b = one / b, -a / b**2
    else:
        by_a, by_b = one, one if name == "add" else -one
    return folded(dy * by_a, a.shape), folded(dy * by_b, b.shape)


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul], ids=lambda o: o.__name__)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_exact_operations(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shapes: tuple[Shape, Shape], operation: Callable[..., Any]
) -> None:
    a, b = integers(rng, shapes[0]), integers(rng, shapes[1])
    got = differentiate(lambda s, t: operation(s, t), [a, b], lambda s: integers(rng, s), same_bits)
    exact = a.astype(float), b.astype(float)
    assert_equal(got.y, operation(*exact))
    for gradient, expected in zip(
        got.gradients, partials(operation.__name__, *exact, got.dy.astype(float)), strict=True
    ):
        assert_equal(gradient, expected)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_division(isa: str, same_bits: SameBits, rng: np.random.Generator, shapes: tuple[Shape, Shape]) -> None:
    a, b = normal(rng, shapes[0]), rng.uniform(0.5, 2, shapes[1]).astype(np.float32)
    got = differentiate(lambda s, t: s / t, [a, b], lambda s: normal(rng, s), same_bits)
    np.testing.assert_array_equal(got.y, a / b)
    exact = a.astype(float), b.astype(float)
    expected = partials("truediv", *exact, got.dy.astype(float))
    terms = partials("truediv", -np.abs(exact[0]), exact[1], np.abs(got.dy.astype(float)))
    roundings = [got.y.size // max(x.size, 1) + 4 for x in (a, b)]  # three of the operations, one an addition
    for gradient, wanted, bound, count in zip(got.gradients, expected, terms, roundings, strict=True):
        assert_within(gradient, wanted, count * UNIT * bound)


class Formula(nn.Module):
    """A forward that is given."""

    def __init__(self, formula: Callable[..., Any]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, *inputs: Any) -> Any:
        return self.formula(*inputs)


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: 1.5 + x, lambda x: x - 2, lambda x: 2 - x, lambda x: x * 0.5, lambda x: 1 / x, lambda x: x / 4,
        lambda x: -x,
        lambda x: x * np.float32([[1], [2]]), lambda x: np.float32([1, 2, 4]) - x,
        lambda x: np.float32(2) * x, lambda x: operator.iadd(np.ones((2, 3), np.float32), x),
    ],
)  # fmt: skip
def test_numbers_and_arrays_are_operands(isa: str, formula: Callable[..., Any]) -> None:
    x = np.array([[1, 2, 4], [8, 16, -32]], np.float32)
    np.testing.assert_array_equal(Formula(formula)(x), formula(x))


def test_the_same_tensor_twice(isa: str, rng: np.random.Generator) -> None:
    x = integers(rng, (3, 5))
    y, pullback = fnn.vjp(Formula(lambda t: t * t + t), x)
    assert_equal(y, x.astype(float) ** 2 + x)
    assert_equal(pullback(np.ones((3, 5)))[0], 2 * x.astype(float) + 1)


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((4, 17, 7, 9), None), ((4, 17, 7, 9), 0), ((4, 17, 7, 9), 1), ((4, 17, 7, 9), 2), ((4, 17, 7, 9), -1),
        ((4, 17, 7, 9), (2, 3)), ((4, 17, 7, 9), (0, 2)), ((4, 17, 7, 9), (1, 2)), ((4, 17, 7, 9), (0, 2, 3)),
        ((4, 17, 7, 9), (0, 1)), ((3, 5, 11), 1), ((3, 5, 11), (0, 2)), ((2, 3, 4, 5, 6), (1, 3)), ((2, 3, 4, 5, 6), 4),
        ((1031, 3), 0), ((7,), 0), ((), None), ((0, 3), 0), ((3, 0, 2, 2), (0, 2, 3)), ((1, 1), 0),
    ],
    ids=str,
)  # fmt: skip
def test_reductions(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: Shape, axes: Any, keepdim: bool, name: str
) -> None:
    x = integers(rng, shape)
    got = differentiate(lambda t: getattr(t, name)(axes, keepdim), [x], lambda s: integers(rng, s), same_bits)
    total = x.astype(float).sum(axis=axes, keepdims=keepdim)
    count = x.size // total.size if total.size else 1
    spread = np.asarray(got.dy if keepdim or axes is None else np.expand_dims(got.dy, axes), float)
    spread = np.broadcast_to(spread, shape)
    if name == "sum":
        assert_equal(got.y, total)
        assert_equal(got.gradients[0], spread)
    elif x.size:
        assert_within(got.y, total / count, UNIT * np.abs(total) / count)
        assert_within(got.gradients[0], spread / count, UNIT * np.abs(spread) / count)
    elif total.size:
        assert np.isnan(got.y).all()


@pytest.mark.parametrize("shape", [(4, 17, 7, 9), (3, 5, 11), (6, 5), (7,), (2, 3, 4, 5, 6)], ids=str)
def test_slices_and_concatenations(isa: str, same_bits: SameBits, rng: np.random.Generator, shape: Shape) -> None:
    for axis in range(len(shape)):
        part = tuple(slice(1, -1) if i == axis else slice(None) for i in range(len(shape)))
        x, other = normal(rng, shape), normal(rng, shape)
        got = differentiate(lambda t, part=part: t[part], [x], lambda s: normal(rng, s), same_bits)
        np.testing.assert_array_equal(got.y, x[part])
        expected = np.zeros_like(x)
        expected[part] = got.dy
        np.testing.assert_array_equal(got.gradients[0], expected)

        got = differentiate(
            lambda s, t, axis=axis: F.cat([s, t, s], axis), [x, other], lambda s: integers(rng, s), same_bits
        )
        np.testing.assert_array_equal(got.y, np.concatenate([x, other, x], axis))
        first, second, third = np.split(got.dy, 3, axis)
        np.testing.assert_array_equal(got.gradients[0], first + third)
        np.testing.assert_array_equal(got.gradients[1], second)


def test_slices_of_nothing_and_everything(isa: str) -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(Formula(lambda t: t[:, 5:])(x), x[:, 5:])
    np.testing.assert_array_equal(Formula(lambda t: t[:, 0:3])(x), x)
    np.testing.assert_array_equal(Formula(lambda t: t[1:, 1:, :1])(x), x[1:, 1:, :1])


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3, 5), (2, 4, 0, 3)], ids=str)
def test_slices_and_concatenations_of_empty_batches(isa: str, shape: Shape) -> None:
    x, wide = np.zeros(shape, np.float32), (shape[0], 5, *shape[2:])

    class Parts(nn.Module):
        def forward(self, x: fnn.Tensor) -> Any:
            return fnn.cat([x[:, 1:3], x[:, 1:]], 1)

    y, pullback = fnn.vjp(Parts(), x)
    assert y.shape == wide and pullback(y)[0].shape == shape
    assert F.cat([x, x[:, :1]], 1).shape == wide


def test_cat_of_arrays(isa: str, rng: np.random.Generator) -> None:
    parts = [normal(rng, (2, channels, 3, 4)) for channels in (1, 17, 0, 5)]
    np.testing.assert_array_equal(F.cat(parts, 1), np.concatenate(parts, 1))
    np.testing.assert_array_equal(F.cat(parts[:1], -3), parts[0])


@pytest.mark.parametrize(
    ("formula", "shapes", "error", "message"),
    [
        (lambda a, b: a + b, [(2, 3), (4,)], ValueError, r"shapes \(2, 3\) and \(4,\) do not broadcast"),
        (lambda a, b: F.cat([a, b], 1), [(2, 3), (3, 3)], ValueError,
         r"cat: shapes \(2, 3\) and \(3, 3\) differ in more than axis 1"),
        (lambda a, b: F.cat([a, b], 2), [(2, 3), (2, 3)], ValueError, "axis 2 is out of range"),
        (lambda a: a[0], [(2, 3)], TypeError, "sliced by slices only"),
        (lambda a: a[::2], [(2, 3)], TypeError, "without a step"),
        (lambda a: a + 1j, [(2, 3)], TypeError, "cannot compute with complex"),
        (lambda a: a if a.mean() > 0 else -a, [(2, 3)], TypeError, "a comparison needs the numbers of a tensor"),
        (lambda a: F.cat([], 0), [(2,)], TypeError, "at least one tensor"),
    ],
)  # fmt: skip
def test_what_does_not_fit(
    formula: Callable[..., Any], shapes: list[Shape], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Formula(formula)(*(np.zeros(shape, np.float32) for shape in shapes))
