"""Gradient tier: every backward function of the reference against central differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradient_check import assert_gradients, away_from, distinct

from fastnn import reference

Case = tuple[Callable[..., Any], Callable[..., Any], list[np.ndarray]]


def case(name: str, arrays: list[np.ndarray], constants: tuple[Any, ...] = (), **options: Any) -> Case:
    """forward(*arrays, *constants, **options) and its backward of the same arguments after dy."""
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    return (
        lambda *a: forward(*a, *constants, **options),
        lambda dy, *a: backward(dy, *a, *constants, **options),
        arrays,
    )


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape)


def with_bias(name: str, x: np.ndarray, weight: np.ndarray, outputs: int, **options: Any) -> Case:
    """An operation of (x, weight, bias) whose backward does not ask for the bias."""
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    return (
        lambda x, w, b: forward(x, w, b, **options),
        lambda dy, x, w, b: backward(dy, x, w, **options),
        [x, weight, normal(outputs)],
    )


CONVOLUTIONS = {
    "conv2d": with_bias("conv2d", normal(2, 4, 5, 7), normal(6, 2, 3, 2), 6,
                        stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2),
    "conv2d same": with_bias("conv2d", normal(1, 2, 4, 5), normal(3, 2, 2, 4), 3, padding="same"),
    "conv1d": with_bias("conv1d", normal(2, 3, 8), normal(4, 3, 3), 4, stride=2, padding=(2, 1)),
    "conv_transpose2d": with_bias("conv_transpose2d", normal(2, 4, 3, 2), normal(4, 3, 3, 2), 6,
                                  stride=(2, 3), padding=(1, 0), output_padding=(1, 2), groups=2, dilation=(2, 1)),
    "conv_transpose2d dilated": with_bias("conv_transpose2d", normal(1, 2, 3, 3), normal(2, 2, 2, 2), 2,
                                          output_padding=1, dilation=3),
    "conv_transpose1d": with_bias("conv_transpose1d", normal(2, 4, 5), normal(4, 3, 3), 6,
                                  stride=3, padding=1, output_padding=2, groups=2, dilation=2),
    "linear": with_bias("linear", normal(3, 4), normal(5, 4), 5),
    "linear of rank 3": with_bias("linear", normal(2, 3, 4), normal(5, 4), 5),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_and_linear(name: str) -> None:
    assert_gradients(*CONVOLUTIONS[name])


MEAN, VARIANCE = normal(3), normal(3) ** 2 + 0.5
NORMALIZATIONS: dict[str, Case] = {
    "batch_norm training": (
        lambda x, w, b: reference.batch_norm(x, None, None, w, b, training=True).output,
        lambda dy, x, w, b: reference.batch_norm_backward(dy, x, weight=w, training=True),
        [normal(2, 3, 2, 4), normal(3), normal(3) + 1],
    ),
    "batch_norm training, rank 2": (
        lambda x, w, b: reference.batch_norm(x, None, None, w, b, training=True, eps=0.1).output,
        lambda dy, x, w, b: reference.batch_norm_backward(dy, x, weight=w, training=True, eps=0.1),
        [normal(7, 3), normal(3), normal(3) + 1],
    ),
    "batch_norm evaluation": (
        lambda x, w, b: reference.batch_norm(x, MEAN, VARIANCE, w, b).output,
        lambda dy, x, w, b: reference.batch_norm_backward(dy, x, MEAN, VARIANCE, w),
        [normal(2, 3, 2, 2), normal(3), normal(3) + 1],
    ),
    "layer_norm": (
        lambda x, w, b: reference.layer_norm(x, (3, 4), w, b),
        lambda dy, x, w, b: reference.layer_norm_backward(dy, x, (3, 4), w),
        [normal(2, 3, 4), normal(3, 4), normal(3, 4) + 1],
    ),
    "group_norm": (
        lambda x, w, b: reference.group_norm(x, 2, w, b),
        lambda dy, x, w, b: reference.group_norm_backward(dy, x, 2, w),
        [normal(2, 4, 2, 3), normal(4), normal(4) + 1],
    ),
    "instance_norm": (
        lambda x, w, b: reference.instance_norm(x, None, None, w, b).output,
        lambda dy, x, w, b: reference.instance_norm_backward(dy, x, weight=w),
        [normal(2, 3, 2, 3), normal(3), normal(3) + 1],
    ),
    "instance_norm evaluation": (
        lambda x, w, b: reference.instance_norm(x, MEAN, VARIANCE, w, b, use_input_stats=False).output,
        lambda dy, x, w, b: reference.instance_norm_backward(dy, x, MEAN, VARIANCE, w, use_input_stats=False),
        [normal(2, 3, 2, 3), normal(3), normal(3) + 1],
    ),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalization(name: str) -> None:
    assert_gradients(*NORMALIZATIONS[name])


IMAGE = distinct(np.random.default_rng(1), (2, 2, 5, 6))
POSITIVE = np.abs(IMAGE) + 0.1
SIGNAL = distinct(np.random.default_rng(2), (2, 2, 9))
POOLS = {
    "max_pool2d": case("max_pool2d", [IMAGE], ((3, 2),), stride=2, padding=1, dilation=(1, 2), ceil_mode=True),
    "max_pool1d": case("max_pool1d", [SIGNAL], (3,), stride=2, padding=1, ceil_mode=True),
    "avg_pool2d": case("avg_pool2d", [IMAGE], ((3, 2),), stride=2, padding=1, ceil_mode=True),
    "avg_pool2d inside": case("avg_pool2d", [IMAGE], (3,), padding=1, count_include_pad=False),
    "avg_pool2d divisor": case("avg_pool2d", [IMAGE], (2,), divisor_override=3),
    "avg_pool1d": case("avg_pool1d", [SIGNAL], (4,), stride=3, padding=2, ceil_mode=True, count_include_pad=False),
    "lp_pool2d": case("lp_pool2d", [POSITIVE], (2.5, (2, 3)), stride=2, ceil_mode=True),
    "adaptive_avg_pool2d": case("adaptive_avg_pool2d", [IMAGE], ((3, 4),)),
    "adaptive_max_pool2d": case("adaptive_max_pool2d", [IMAGE], ((2, 4),)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling(name: str) -> None:
    assert_gradients(*POOLS[name])


def smooth(name: str, *kinks: float, **options: Any) -> Case:
    """An activation on 30 numbers between -6 and 6 that keep away from its kinks."""
    return case(name, [away_from(np.linspace(-6, 6, 30).reshape(5, 6), kinks)], **options)


ACTIVATIONS = {
    "relu": smooth("relu", 0.0),
    "relu6": smooth("relu6", 0.0, 6.0),
    "leaky_relu": smooth("leaky_relu", 0.0, negative_slope=0.2),
    "prelu": case("prelu", [away_from(normal(3, 4, 2), [0.0]), normal(4)]),
    "prelu, one slope": case("prelu", [away_from(normal(3, 4, 2), [0.0]), normal(1)]),
    "rrelu": smooth("rrelu", 0.0),
    "rrelu training": smooth("rrelu", 0.0, training=True, slopes=np.linspace(0.125, 0.333, 30).reshape(5, 6)),
    "elu": smooth("elu", 0.0, alpha=1.7),
    "celu": smooth("celu", 0.0, alpha=1.7),
    "selu": smooth("selu", 0.0),
    "gelu": smooth("gelu"),
    "gelu tanh": smooth("gelu", approximate="tanh"),
    "silu": smooth("silu"),
    "mish": smooth("mish"),
    "softplus": smooth("softplus", 2.0, beta=1.5, threshold=3.0),
    "hardswish": smooth("hardswish", -3.0, 3.0),
    "hardsigmoid": smooth("hardsigmoid", -3.0, 3.0),
    "hardtanh": smooth("hardtanh", -1.5, 2.0, min_val=-1.5, max_val=2.0),
    "sigmoid": smooth("sigmoid"),
    "tanh": smooth("tanh"),
    "logsigmoid": smooth("logsigmoid"),
    "softsign": smooth("softsign"),
    "softmax": smooth("softmax", dim=1),
    "log_softmax": smooth("log_softmax", dim=0),
    "glu": smooth("glu", dim=1),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    assert_gradients(*ACTIVATIONS[name])


LOGITS, TARGET = normal(4, 3, 2), np.array([[0, 2], [1, 1], [-100, 0], [2, -100]])
PROBABILITIES = reference.softmax(normal(4, 3, 2) + 1, 1)
CLASS_WEIGHT = np.array([0.5, 2.0, 1.25])
NEAR, FAR = away_from(normal(3, 5), [0.0]), np.zeros((3, 5))
UNIT = np.linspace(0.05, 0.95, 15).reshape(3, 5)
LOSSES = {
    "cross_entropy": case("cross_entropy", [LOGITS], (TARGET, CLASS_WEIGHT), label_smoothing=0.1),
    "cross_entropy sum": case("cross_entropy", [LOGITS], (TARGET,), reduction="sum"),
    "cross_entropy none": case("cross_entropy", [LOGITS], (TARGET, CLASS_WEIGHT), reduction="none"),
    "cross_entropy probabilities": case("cross_entropy", [LOGITS], (PROBABILITIES, CLASS_WEIGHT), label_smoothing=0.2),
    "nll_loss": case("nll_loss", [LOGITS], (TARGET, CLASS_WEIGHT)),
    "binary_cross_entropy": case("binary_cross_entropy", [UNIT.copy()], (UNIT[::-1], UNIT)),
    "binary_cross_entropy_with_logits": case(
        "binary_cross_entropy_with_logits", [normal(3, 5)], (UNIT, UNIT[::-1]), pos_weight=UNIT[0] * 4, reduction="sum"
    ),
    "mse_loss": case("mse_loss", [NEAR], (FAR,)),
    "l1_loss": case("l1_loss", [NEAR], (FAR,), reduction="none"),
    "smooth_l1_loss": case("smooth_l1_loss", [away_from(NEAR, [-0.5, 0.5])], (FAR,), beta=0.5),
    "smooth_l1_loss beta 0": case("smooth_l1_loss", [NEAR], (FAR,), beta=0.0),
    "huber_loss": case("huber_loss", [away_from(NEAR, [-0.5, 0.5])], (FAR,), delta=0.5, reduction="sum"),
    "kl_div": case("kl_div", [normal(3, 5)], (UNIT,), reduction="batchmean"),
    "kl_div log": case("kl_div", [normal(3, 5)], (np.log(UNIT),), log_target=True),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str) -> None:
    assert_gradients(*LOSSES[name])


INDICES = np.array([[0, 3], [3, 1]])
SHAPES: dict[str, Case] = {
    "flatten": case("flatten", [normal(2, 3, 2, 2)], (1, 2)),
    "pad constant": case("pad", [normal(2, 3, 4)], ((1, -1, 2, 0),), mode="constant"),
    "pad reflect": case("pad", [normal(1, 2, 4, 3)], ((2, 1, 3, 0),), mode="reflect"),
    "pad replicate": case("pad", [normal(1, 2, 2, 3)], ((2, 1, 3, 0),), mode="replicate"),
    "pad circular": case("pad", [normal(1, 2, 2, 3)], ((2, 1, -1, 2),), mode="circular"),
    "interpolate nearest-exact": case("interpolate", [normal(1, 2, 3, 4)], ((5, 3),), mode="nearest-exact"),
    "interpolate nearest": case("interpolate", [normal(1, 2, 3, 4)], ((5, 3),)),
    "interpolate bilinear": case("interpolate", [normal(1, 2, 3, 4)], ((5, 7),), mode="bilinear"),
    "interpolate corners": case("interpolate", [normal(1, 2, 3, 4)], ((5, 2),), mode="bilinear", align_corners=True),
    "interpolate linear": case("interpolate", [normal(1, 2, 3)], scale_factor=2.5, mode="linear"),
    "pixel_shuffle": (
        lambda x: reference.pixel_shuffle(x, 2),
        lambda dy, x: reference.pixel_shuffle_backward(dy, 2),
        [normal(2, 8, 2, 3)],
    ),
    "cat": (
        lambda *arrays: reference.cat(arrays, 1),
        lambda dy, *arrays: reference.cat_backward(dy, arrays, 1),
        [normal(2, 3, 2), normal(2, 1, 2), normal(2, 4, 2)],
    ),
    "embedding": (
        lambda weight: reference.embedding(INDICES, weight),
        lambda dy, weight: reference.embedding_backward(dy, INDICES, weight),
        [normal(4, 3)],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    assert_gradients(*SHAPES[name])


STREAM = {"seed": 11, "layer": 2, "step": 5, "training": True}


def dropping(name: str, *shape: int, **options: Any) -> Case:
    """A dropout, whose backward takes dy but not x."""
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    options = {"p": 0.4, **STREAM, **options}
    return lambda x: forward(x, **options), lambda dy, x: backward(dy, **options), [normal(*shape)]


DROPOUTS = {
    "dropout": dropping("dropout", 2, 3, 2, 3),
    "dropout classic": dropping("dropout", 5, 4, mode="classic"),
    "dropout classic, evaluation": dropping("dropout", 5, 4, mode="classic", training=False),
    "dropout1d": dropping("dropout1d", 3, 4, 2),
    "dropout2d": dropping("dropout2d", 3, 4, 2, 2),
    "gaussian_dropout": dropping("gaussian_dropout", 2, 3, 4),
    "alpha_dropout": dropping("alpha_dropout", 2, 3, 2, 2),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout(name: str) -> None:
    assert_gradients(*DROPOUTS[name])


def test_every_backward_function_is_checked_here() -> None:
    cases = [CONVOLUTIONS, NORMALIZATIONS, POOLS, ACTIVATIONS, LOSSES, SHAPES, DROPOUTS]
    checked = {name.split(" ")[0].rstrip(",") for group in cases for name in group}
    exported = {name.removesuffix("_backward") for name in reference.__all__ if name.endswith("_backward")}
    assert exported == checked
