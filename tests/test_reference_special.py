"""erf and erfc in double precision, the stability of what is built on exp, and dtypes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastnn import reference


def test_erf_against_the_c_library() -> None:
    x = np.concatenate([np.linspace(-7, 7, 20011), np.linspace(-0.5, 0.5, 5003), 10.0 ** np.arange(-300, 1)])
    expected = np.array([math.erf(value) for value in x])
    assert np.abs(reference.erf(x) - expected).max() <= 1e-15
    np.testing.assert_allclose(reference.erf(x), expected, rtol=2e-15, atol=0)


def test_erfc_against_the_c_library() -> None:
    x = np.linspace(-7, 26, 30011)
    np.testing.assert_allclose(reference.erfc(x), [math.erfc(value) for value in x], rtol=2e-15, atol=0)


def test_erf_at_the_ends() -> None:
    ends = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])
    np.testing.assert_array_equal(reference.erf(ends), [np.nan, 1.0, -1.0, 0.0, -0.0])
    assert np.signbit(reference.erf(ends))[4]
    np.testing.assert_array_equal(reference.erfc(ends), [np.nan, 0.0, 2.0, 1.0, 1.0])


def test_nothing_overflows() -> None:
    """Warnings are errors in this suite: an overflow in exp would fail here."""
    x = np.array([-1e4, -800.0, 0.0, 800.0, 1e4])
    np.testing.assert_array_equal(reference.sigmoid(x), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(reference.softplus(x), [0, 0, math.log(2), 800, 1e4], rtol=1e-15)
    np.testing.assert_allclose(reference.logsigmoid(x), [-1e4, -800, -math.log(2), 0, 0], rtol=1e-15)
    np.testing.assert_array_equal(reference.softmax(x, 0), [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(reference.log_softmax(x, 0), x - 1e4)
    for name in ("silu", "mish", "gelu", "elu", "celu", "selu"):
        values = getattr(reference, name)(x)
        slopes = getattr(reference, f"{name}_backward")(np.ones(5), x)
        assert np.isfinite(values).all() and np.isfinite(slopes).all(), name


def test_gelu_keeps_its_digits_in_the_tail() -> None:
    x = -10.0
    expected = x * 0.5 * math.erfc(10.0 / math.sqrt(2.0))
    assert reference.gelu(np.array([x]))[0] == pytest.approx(expected, rel=1e-13)


ACTIVATIONS = [
    "relu", "relu6", "leaky_relu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus", "hardswish",
    "hardsigmoid", "hardtanh", "sigmoid", "tanh", "logsigmoid", "softsign",
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_are_kept(dtype: type) -> None:
    x = np.linspace(-2, 2, 72, dtype=dtype).reshape(2, 4, 3, 3)
    weight, vector = np.ones((4, 4, 2, 2), dtype), np.ones(4, dtype)
    results = [getattr(reference, name)(x) for name in ACTIVATIONS]
    results += [getattr(reference, f"{name}_backward")(x, x) for name in ACTIVATIONS]
    results += [reference.conv2d(x, weight, vector), *reference.conv2d_backward(x[..., :2, :2], x, weight)]
    results += [reference.conv_transpose2d(x, weight), reference.linear(x, np.ones((5, 3), dtype))]
    results += [*reference.batch_norm(x, vector, vector, vector, vector, training=True)]
    results += [reference.layer_norm(x, 3), reference.group_norm(x, 2, vector), reference.instance_norm(x).output]
    results += [reference.max_pool2d(x, 2), reference.avg_pool2d(x, 2), reference.adaptive_avg_pool2d(x, 2)]
    results += [reference.avg_pool2d_backward(x[..., :1, :1], x, 2), reference.interpolate(x, 5, mode="bilinear")]
    results += [reference.softmax(x, 1), reference.log_softmax(x, 1), reference.glu(x, 1), reference.pad(x, (1, 1))]
    results += [reference.cross_entropy(x, np.zeros((2, 3, 3), int)), reference.mse_loss(x, x + 1)]
    results += [reference.cross_entropy_backward(1.0, x, np.zeros((2, 3, 3), int)), reference.relu(x)]
    results += [reference.adam_step(x, x)[0], reference.sgd_step(x, x, momentum=0.5)[0]]
    assert [result.dtype for result in results] == [np.dtype(dtype)] * len(results)
