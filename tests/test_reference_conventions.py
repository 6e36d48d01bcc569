"""Small cases worked out by hand: the conventions in which libraries differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastnn import reference


def row(*values: float) -> np.ndarray:
    """An image of height one: (1,1,1,W)."""
    return np.array(values, dtype=float).reshape(1, 1, 1, -1)


def test_conv2d_is_a_correlation_with_bias() -> None:
    x, weight = row(1, 2, 4, 8), row(1, 10)
    np.testing.assert_array_equal(reference.conv2d(x, weight, np.array([0.5])), row(21.5, 42.5, 84.5))


def test_same_padding_of_an_even_kernel_puts_the_extra_zero_at_the_end() -> None:
    x = row(1, 2, 4)
    np.testing.assert_array_equal(reference.conv2d(x, row(1, 10), padding="same"), row(21, 42, 4))
    # four taps, dilation 1: three zeros, one before and two after
    np.testing.assert_array_equal(reference.conv2d(x, row(1, 10, 100, 1000), padding="same"), row(4210, 421, 42))


def test_padding_forms_agree() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 3))
    by_number = reference.conv2d(x, weight, padding=1)
    for padding in ((1, 1), ((1, 1), (1, 1)), "same", [1, 1]):
        np.testing.assert_array_equal(reference.conv2d(x, weight, padding=padding), by_number)
    np.testing.assert_array_equal(reference.conv2d(x, weight, padding="valid"), by_number[:, :, 1:-1, 1:-1])
    left = reference.conv2d(x, weight, padding=((0, 0), (2, 0)))
    np.testing.assert_array_equal(left[..., 2:], reference.conv2d(x, weight))


def test_groups_see_only_their_own_channels() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1, 1)
    weight = np.array([[1.0, 1.0], [1.0, 10.0]]).reshape(2, 2, 1, 1)
    np.testing.assert_array_equal(reference.conv2d(x, weight, groups=2).ravel(), [3.0, 84.0])


def test_results_do_not_depend_on_strides_in_memory() -> None:
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 3))
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(reference.conv2d(channels_last, weight), reference.conv2d(x, weight))
    np.testing.assert_array_equal(reference.max_pool2d(channels_last, 2), reference.max_pool2d(x, 2))
    np.testing.assert_array_equal(reference.flatten(channels_last, 1), x.reshape(2, -1))


def test_ceil_mode_drops_windows_that_start_in_the_end_padding() -> None:
    x = row(1, 2, 3, 4, 5)
    np.testing.assert_array_equal(reference.max_pool2d(x, (1, 2), ceil_mode=False), row(2, 4))
    np.testing.assert_array_equal(reference.max_pool2d(x, (1, 2), ceil_mode=True), row(2, 4, 5))
    # padded to 7, kernel 2, stride 3: starts -1, 2, 5; the last would lie in the padding and is dropped
    pooled = reference.max_pool2d(x, (1, 2), stride=(1, 3), padding=(0, 1), ceil_mode=True)
    np.testing.assert_array_equal(pooled, row(1, 4))


def test_average_divisors() -> None:
    x = row(3, 6, 9)
    options = {"kernel_size": (1, 2), "stride": (1, 2), "padding": (0, 1)}
    np.testing.assert_array_equal(reference.avg_pool2d(x, **options), row(1.5, 7.5))
    np.testing.assert_array_equal(reference.avg_pool2d(x, count_include_pad=False, **options), row(3, 7.5))
    np.testing.assert_array_equal(reference.avg_pool2d(x, divisor_override=4, **options), row(0.75, 3.75))
    # windows of 3 at 0 and 2 on four elements: the second is clipped to two
    clipped = reference.avg_pool2d(row(1, 2, 3, 5), (1, 3), stride=(1, 2), ceil_mode=True)
    np.testing.assert_array_equal(clipped, row(2, 4))
    # with padding 1 the second window covers one element and the padding: divided by two, or by one
    padded = {"kernel_size": (1, 3), "stride": (1, 3), "padding": (0, 1), "ceil_mode": True}
    np.testing.assert_array_equal(reference.avg_pool2d(row(3, 6, 8), **padded), row(3, 4))
    np.testing.assert_array_equal(reference.avg_pool2d(row(3, 6, 8), count_include_pad=False, **padded), row(4.5, 8))


def test_max_pool_ties_nan_and_windows_without_elements() -> None:
    y, indices = reference.max_pool2d(row(1, 7, 7, 2), (1, 4), return_indices=True)
    assert (y.item(), indices.item()) == (7.0, 1)
    y, indices = reference.max_pool2d(row(1, np.nan, 7, np.nan), (1, 4), return_indices=True)
    assert math.isnan(y.item()) and indices.item() == 3
    y, indices = reference.max_pool2d(row(-np.inf, -np.inf), (1, 2), return_indices=True)
    assert (y.item(), indices.item()) == (-np.inf, 0)
    # one element, taps at -1 and 1: neither meets it
    options = {"kernel_size": (1, 2), "padding": (0, 1), "dilation": (1, 2)}
    y, indices = reference.max_pool2d(row(5), return_indices=True, **options)
    assert (y.item(), indices.item()) == (-np.inf, -1)
    np.testing.assert_array_equal(reference.max_pool2d_backward(row(1), row(5), **options), row(0))


def test_adaptive_windows_overlap() -> None:
    x = row(1, 2, 3, 4, 5)
    np.testing.assert_array_equal(reference.adaptive_avg_pool2d(x, (1, 3)), row(1.5, 3, 4.5))
    np.testing.assert_array_equal(reference.adaptive_max_pool2d(x, (None, 3)), row(2, 4, 5))
    np.testing.assert_array_equal(reference.adaptive_avg_pool2d(x, (2, 1)), [[[[3.0], [3.0]]]])


def test_batch_norm_statistics() -> None:
    x = np.array([[0.0], [2.0], [4.0], [6.0]])  # mean 3, biased variance 5, unbiased 20/3
    mean, var = np.array([1.0]), np.array([2.0])
    result = reference.batch_norm(x, mean, var, training=True, momentum=0.1, eps=0.0)
    np.testing.assert_allclose(result.output.ravel(), np.array([-3, -1, 1, 3]) / math.sqrt(5), rtol=1e-15)
    assert (result.mean.item(), result.variance.item()) == (3.0, 5.0)
    assert result.running_mean.item() == pytest.approx(0.9 * 1 + 0.1 * 3, rel=1e-15)
    assert result.running_var.item() == pytest.approx(0.9 * 2 + 0.1 * 20 / 3, rel=1e-15)
    biased = reference.batch_norm(x, mean, var, training=True, running_var_estimator="biased")
    assert biased.running_var.item() == pytest.approx(0.9 * 2 + 0.1 * 5, rel=1e-15)
    assert (mean.item(), var.item()) == (1.0, 2.0)
    evaluated = reference.batch_norm(x, mean, var, np.array([3.0]), np.array([7.0]), eps=2.0)
    np.testing.assert_allclose(evaluated.output.ravel(), (x.ravel() - 1) / 2 * 3 + 7, rtol=1e-15)
    assert evaluated.running_mean is mean


def test_batch_norm_of_a_large_mean_is_sound() -> None:
    x = (1e4 + np.random.default_rng(0).standard_normal((4096, 1))).astype(np.float32)
    result = reference.batch_norm(x, None, None, training=True)
    assert result.output.dtype == np.float32
    exact = x.astype(np.float64)
    assert result.variance.item() == pytest.approx(exact.var(), rel=1e-5)


def test_batch_norm_of_no_sample_and_of_one_value() -> None:
    running = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    result = reference.batch_norm(np.zeros((0, 2, 3, 3)), *running, training=True)
    assert result.output.shape == (0, 2, 3, 3)
    assert result.running_mean is running[0] and result.running_var is running[1]
    dx, dweight, _ = reference.batch_norm_backward(np.zeros((0, 2)), np.zeros((0, 2)), training=True)
    assert dx.shape == (0, 2) and dweight.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="more than one value"):
        reference.batch_norm(np.zeros((1, 2, 1, 1)), *running, training=True)


def test_cross_entropy_by_hand() -> None:
    x = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]]))
    target = np.array([0, 2, -100])
    terms = np.array([-math.log(0.5), -math.log(0.8), 0.0])
    np.testing.assert_allclose(reference.cross_entropy(x, target, reduction="none"), terms, rtol=1e-14)
    assert reference.cross_entropy(x, target) == pytest.approx(terms.sum() / 2, rel=1e-14)
    weight = np.array([2.0, 1.0, 0.5])
    weighted = 2 * terms[0] + 0.5 * terms[1]
    assert reference.cross_entropy(x, target, weight) == pytest.approx(weighted / 2.5, rel=1e-14)
    # smoothing 0.3 over three classes: 0.7 of the class, 0.1 of each
    first = 0.7 * -math.log(0.5) + 0.1 * -(math.log(0.5) + 2 * math.log(0.25))
    smooth = reference.cross_entropy(x, np.array([0, -100, -100]), label_smoothing=0.3)
    assert smooth == pytest.approx(first, rel=1e-14)
    np.testing.assert_array_equal(reference.cross_entropy_backward(1.0, x, target)[2], [0.0, 0.0, 0.0])
    one_hot = np.eye(3)[[0, 2, 1]]
    rows = reference.cross_entropy(x, one_hot, reduction="sum")
    assert rows == pytest.approx(terms.sum() - math.log(0.6), rel=1e-14)


def test_cross_entropy_with_nothing_to_average_is_nan() -> None:
    assert math.isnan(reference.cross_entropy(np.zeros((2, 3)), np.array([-100, -100])))
    assert math.isnan(reference.cross_entropy(np.zeros((0, 3)), np.zeros(0, dtype=int)))
    assert reference.cross_entropy(np.zeros((2, 3)), np.array([-100, -100]), reduction="sum") == 0


def test_impossible_classes_do_not_poison_the_loss() -> None:
    x = np.array([[0.0, -np.inf]])
    assert reference.cross_entropy(x, np.array([0])) == 0
    assert reference.cross_entropy(x, np.array([1])) == np.inf


def test_binary_cross_entropy_floors() -> None:
    loss = reference.binary_cross_entropy(np.array([0.0, 1.0]), np.array([1.0, 0.0]), reduction="none")
    np.testing.assert_array_equal(loss, [100.0, 100.0])
    slope = reference.binary_cross_entropy_backward(1.0, np.array([0.0]), np.array([1.0]))
    np.testing.assert_allclose(slope, [-1e12], rtol=1e-15)


def test_sgd_first_step_takes_no_dampening() -> None:
    parameter, state = reference.sgd_step(np.array([1.0]), np.array([2.0]), None, 0.1, momentum=0.5, dampening=0.25)
    assert (parameter.item(), state["momentum_buffer"].item()) == (0.8, 2.0)
    parameter, state = reference.sgd_step(parameter, np.array([4.0]), state, 0.1, momentum=0.5, dampening=0.25)
    assert state["momentum_buffer"].item() == 0.5 * 2 + 0.75 * 4
    assert parameter.item() == pytest.approx(0.8 - 0.4, rel=1e-15)


def test_nesterov_looks_ahead() -> None:
    options = {"lr": 0.5, "momentum": 0.5, "nesterov": True}
    parameter, state = reference.sgd_step(np.array([8.0]), np.array([2.0]), None, **options)
    assert parameter.item() == 8 - 0.5 * (2 + 0.5 * 2)
    parameter, _ = reference.sgd_step(parameter, np.array([4.0]), state, **options)
    assert parameter.item() == 6.5 - 0.5 * (4 + 0.5 * (0.5 * 2 + 4))


def test_centered_rmsprop_with_weight_decay_by_hand() -> None:
    options = {"lr": 0.1, "alpha": 0.5, "eps": 0.0, "weight_decay": 0.5, "centered": True}
    parameter, state = reference.rmsprop_step(np.array([4.0]), np.array([2.0]), None, **options)
    # g = 2 + 0.5 * 4 = 4, v = 8, a = 2, v - a^2 = 4
    assert parameter.item() == pytest.approx(4 - 0.1 * 4 / 2, rel=1e-15)
    parameter, state = reference.rmsprop_step(parameter, np.array([2.1]), state, **options)
    # g = 2.1 + 0.5 * 3.8 = 4, v = 12, a = 3, v - a^2 = 3
    assert (state["square_avg"].item(), state["grad_avg"].item()) == (pytest.approx(12), pytest.approx(3))
    assert parameter.item() == pytest.approx(3.8 - 0.1 * 4 / math.sqrt(3), rel=1e-14)


def test_leaky_slopes_hold_at_zero() -> None:
    zero, one = np.array([0.0]), np.array([1.0])
    assert reference.relu_backward(one, zero).item() == 0
    assert reference.leaky_relu_backward(one, zero, 0.25).item() == 0.25
    assert reference.rrelu_backward(one, zero, 0.25, 0.75).item() == 0.5
    dx, dweight = reference.prelu_backward(one, zero, np.array([0.25]))
    assert (dx.item(), dweight.item()) == (0.25, 0.0)


def test_pixel_shuffle_by_one_changes_nothing() -> None:
    x = np.arange(12.0).reshape(1, 3, 2, 2)
    np.testing.assert_array_equal(reference.pixel_shuffle(x, 1), x)
    np.testing.assert_array_equal(reference.pixel_shuffle_backward(x, 1), x)


def test_max_functions_propagate_nan() -> None:
    assert math.isnan(reference.relu(np.array([np.nan]))[0])
    assert math.isnan(reference.relu6(np.array([np.nan]))[0])
    assert math.isnan(reference.adaptive_max_pool2d(row(1, np.nan), 1).item())


def test_interpolate_nearest_keeps_nan_in_its_place() -> None:
    y = reference.interpolate(row(1, np.nan), (1, 4))
    np.testing.assert_array_equal(y, row(1, 1, np.nan, np.nan))


def test_interpolate_nearest_is_exact_where_a_ratio_is_not() -> None:
    """49 * (1/49) is 0.99...: element 49 of 98 must still be the second of two."""
    assert reference.interpolate(row(0, 1), (1, 98)).ravel().tolist() == [0.0] * 49 + [1.0] * 49
