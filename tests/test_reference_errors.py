"""What the reference says to arguments that make no sense, and that its docstring examples are true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

from fastnn import reference

IMAGE = np.zeros((2, 4, 5, 5))
FILTER = np.zeros((6, 4, 3, 3))

WRONG_VALUES = {
    "channels": ("4 channels", lambda: reference.conv2d(IMAGE, np.zeros((6, 3, 3, 3)))),
    "groups": ("groups=3", lambda: reference.conv2d(IMAGE, FILTER, groups=3)),
    "rank": ("4-D", lambda: reference.conv2d(IMAGE[0], FILTER)),
    "kernel": ("larger than the padded", lambda: reference.conv2d(IMAGE, FILTER, dilation=3)),
    "stride": ("stride must be at least 1", lambda: reference.conv2d(IMAGE, FILTER, stride=0)),
    "strided same": ("stride 1", lambda: reference.conv2d(IMAGE, FILTER, padding="same", stride=2)),
    "padding word": ("same", lambda: reference.conv2d(IMAGE, FILTER, padding="full")),
    "padding form": ("top, bottom", lambda: reference.conv2d(IMAGE, FILTER, padding=((1, 1), 2))),
    "negative padding": ("padding must be at least 0", lambda: reference.conv2d(IMAGE, FILTER, padding=-1)),
    "bias": ("bias must have shape", lambda: reference.conv2d(IMAGE, FILTER, np.zeros(5))),
    "dy": ("dy must have shape", lambda: reference.conv2d_backward(IMAGE, IMAGE, FILTER)),
    "output_padding": (
        "output_padding", lambda: reference.conv_transpose2d(IMAGE, np.zeros((4, 2, 3, 3)), output_padding=1),
    ),
    "transposed padding": (
        "too large", lambda: reference.conv_transpose2d(IMAGE[..., :1, :1], np.zeros((4, 2, 3, 3)), padding=2),
    ),
    "features": ("last axis", lambda: reference.linear(np.zeros((2, 3)), np.zeros((4, 5)))),
    "pool padding": ("more than half", lambda: reference.max_pool2d(IMAGE, 2, padding=2)),
    "pool kernel": ("larger than", lambda: reference.avg_pool2d(IMAGE, 6)),
    "divisor": ("divisor_override", lambda: reference.avg_pool2d(IMAGE, 2, divisor_override=0)),
    "adaptive size": ("positive", lambda: reference.adaptive_avg_pool2d(IMAGE, 0)),
    "running statistics": ("running_mean and running_var", lambda: reference.batch_norm(IMAGE, None, None)),
    "estimator": (
        "running_var_estimator",
        lambda: reference.batch_norm(IMAGE, None, None, training=True, running_var_estimator="both"),
    ),
    "normalized shape": ("must end with", lambda: reference.layer_norm(IMAGE, (4, 5))),
    "number of groups": ("num_groups=3", lambda: reference.group_norm(IMAGE, 3)),
    "instance": ("more than one value", lambda: reference.instance_norm(IMAGE[..., :1, :1])),
    "class": ("not a class", lambda: reference.cross_entropy(np.zeros((2, 3)), np.array([0, 3]))),
    "target shape": ("target must have shape", lambda: reference.cross_entropy(np.zeros((2, 3)), np.array([0]))),
    "smoothing": ("label_smoothing", lambda: reference.cross_entropy(np.zeros((1, 3)), [0], label_smoothing=2.0)),
    "reduction": ("reduction", lambda: reference.mse_loss(IMAGE, IMAGE, "average")),
    "logits as probabilities": ("probabilities", lambda: reference.binary_cross_entropy(IMAGE + 2, IMAGE)),
    "delta": ("delta", lambda: reference.huber_loss(IMAGE, IMAGE, delta=0.0)),
    "glu": ("even", lambda: reference.glu(IMAGE)),
    "gelu": ("approximate", lambda: reference.gelu(IMAGE, "fast")),
    "prelu": ("one for each channel", lambda: reference.prelu(IMAGE, np.zeros(3))),
    "slopes": ("slopes", lambda: reference.rrelu(IMAGE, training=True)),
    "dropout mode": ("mode", lambda: reference.dropout(IMAGE, mode="scaled")),
    "reflect": ("smaller than the axis", lambda: reference.pad(IMAGE, (5, 0), "reflect")),
    "pad mode": ("mode", lambda: reference.pad(IMAGE, (1, 1), "wrap")),
    "size and scale": ("either", lambda: reference.interpolate(IMAGE, 3, 2.0)),
    "corners": ("align_corners", lambda: reference.interpolate(IMAGE, 3, align_corners=True)),
    "shuffle": ("upscale_factor", lambda: reference.pixel_shuffle(IMAGE, 3)),
    "index": ("table has 4 rows", lambda: reference.embedding(np.array([4]), np.zeros((4, 2)))),
    "flatten": ("cannot flatten", lambda: reference.flatten(IMAGE, 2, 1)),
    "learning rate": ("lr", lambda: reference.sgd_step(IMAGE, IMAGE, lr=float("nan"))),
    "nesterov": ("nesterov", lambda: reference.sgd_step(IMAGE, IMAGE, nesterov=True)),
    "betas": ("betas", lambda: reference.adam_step(IMAGE, IMAGE, betas=(0.9, 1.0))),
    "words": ("words", lambda: reference.philox4x32(np.zeros(3), np.zeros(2))),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_wrong_value(name: str) -> None:
    message, call = WRONG_VALUES[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_dtype() -> None:
    for array in (np.zeros(3, int), np.zeros(3, complex), np.array([object()])):
        with pytest.raises(TypeError, match="floating"):
            reference.relu(array)
    with pytest.raises(TypeError, match="class indices"):
        reference.nll_loss(np.zeros((1, 3)), np.zeros(1))
    with pytest.raises(TypeError, match="integers"):
        reference.embedding(np.zeros(1), np.zeros((4, 2)))


def modules() -> list[str]:
    return [f"fastnn.reference.{module.name}" for module in pkgutil.iter_modules(reference.__path__)]


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


def test_everything_public_is_documented_with_an_example() -> None:
    for name in reference.__all__:
        assert ">>> " in inspect.getdoc(getattr(reference, name)), name


def test_nothing_given_is_changed() -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 4, 5, 5)), rng.standard_normal((6, 4, 3, 3)), rng.standard_normal(6)
    for array in (x, weight, bias):
        array.flags.writeable = False
    y = reference.conv2d(x, weight, bias)
    y.flags.writeable = False
    reference.conv2d_backward(y, x, weight)
    reference.batch_norm(y, bias, bias**2, training=True)
    reference.batch_norm_backward(y, y, training=True)
    reference.max_pool2d_backward(reference.max_pool2d(y, 2), y, 2)
    reference.pad_backward(reference.pad(y, (1, 1), "reflect"), y, (1, 1), "reflect")
    _, state = reference.adam_step(bias, bias, amsgrad=True)
    before = {key: np.copy(value) for key, value in state.items()}
    reference.adam_step(bias, bias, state, amsgrad=True)
    for key, value in before.items():
        np.testing.assert_array_equal(state[key], value)


def test_empty_batches() -> None:
    x = np.zeros((0, 4, 5, 5))
    assert reference.conv2d(x, FILTER).shape == (0, 6, 3, 3)
    dx, dweight, dbias = reference.conv2d_backward(np.zeros((0, 6, 3, 3)), x, FILTER)
    assert dx.shape == x.shape and not dweight.any() and not dbias.any()
    assert reference.max_pool2d(x, 2).shape == (0, 4, 2, 2)
    assert reference.max_pool2d_backward(np.zeros((0, 4, 2, 2)), x, 2).shape == x.shape
    assert reference.adaptive_avg_pool2d(x, 1).shape == (0, 4, 1, 1)
    assert reference.adaptive_max_pool2d(x, 1).shape == (0, 4, 1, 1)
    assert reference.linear(np.zeros((0, 3)), np.zeros((2, 3))).shape == (0, 2)
    assert reference.softmax(np.zeros((0, 3)), 1).shape == (0, 3)
    assert reference.dropout(x).shape == x.shape
    assert reference.flatten(x, 1).shape == (0, 100)
    assert reference.group_norm(x, 2).shape == x.shape
