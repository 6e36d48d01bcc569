"""The reference against PyTorch, float64, random configurations: convolution, linear, normalisation, pooling."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch_agreement import agree, assert_close, flip, sizes

from fastnn import reference

CONFIGURATIONS = range(200)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def sides_around(rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    top, bottom, left, right = sizes(rng, 4, 0, 4)
    return (top, bottom), (left, right)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kind", ["symmetric", "same", "valid", "per side"])
def test_conv2d(kind: str) -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        groups, c_group, k_group, r, s, *dilation = sizes(rng, 7, 1, 4)
        stride = [1, 1] if kind == "same" else sizes(rng, 2, 1, 4)
        extents = [d * (k - 1) + 1 for d, k in zip(dilation, (r, s))]
        n, h, w = sizes(rng, 1, 0, 4) + [e + int(rng.integers(6)) for e in extents]
        padding = {"symmetric": tuple(sizes(rng, 2, 0, 4)), "per side": sides_around(rng)}.get(kind, kind)
        x = rng.standard_normal((n, groups * c_group, h, w))
        weight = rng.standard_normal((groups * k_group, c_group, r, s))
        bias = rng.standard_normal(groups * k_group)
        options = {"stride": tuple(stride), "dilation": tuple(dilation), "groups": groups}

        def peer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            if kind != "per side":
                return F.conv2d(x, weight, bias, padding=padding, **options)
            (top, bottom), (left, right) = padding
            return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, **options)

        agree(
            lambda x, weight, bias: reference.conv2d(x, weight, bias, padding=padding, **options),
            lambda dy, x, weight, bias: reference.conv2d_backward(dy, x, weight, padding=padding, **options),
            peer, (x, weight, bias), rng, f"seed {seed}, x {x.shape}, weight {weight.shape}, {padding}, {options}",
        )  # fmt: skip


def test_conv1d() -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        groups, c_group, k_group, s, dilation, stride = sizes(rng, 6, 1, 5)
        padding = "same" if stride == 1 and flip(rng) else int(rng.integers(4))
        length = dilation * (s - 1) + 1 + int(rng.integers(9))
        x = rng.standard_normal((3, groups * c_group, length))
        weight, bias = rng.standard_normal((groups * k_group, c_group, s)), rng.standard_normal(groups * k_group)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        agree(
            lambda *arrays: reference.conv1d(*arrays, **options),
            lambda dy, x, weight, bias: reference.conv1d_backward(dy, x, weight, **options),
            lambda *tensors: F.conv1d(*tensors, **options),
            (x, weight, bias), rng, f"seed {seed}, x {x.shape}, weight {weight.shape}, {options}",
        )  # fmt: skip


def test_conv_transpose2d() -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        groups, c_group, k_group, r, s, *dilation = sizes(rng, 7, 1, 4)
        stride = sizes(rng, 2, 1, 4)
        extra = [int(rng.integers(max(pair))) for pair in zip(stride, dilation)]
        padding = [int(rng.integers(0, d * (k - 1) // 2 + 1)) for d, k in zip(dilation, (r, s))]
        x = rng.standard_normal((2, groups * c_group, *sizes(rng, 2, 1, 6)))
        weight = rng.standard_normal((groups * c_group, k_group, r, s))
        bias = rng.standard_normal(groups * k_group)
        options = {
            "stride": tuple(stride), "padding": tuple(padding), "output_padding": tuple(extra),
            "groups": groups, "dilation": tuple(dilation),
        }  # fmt: skip
        agree(
            lambda *arrays: reference.conv_transpose2d(*arrays, **options),
            lambda dy, x, weight, bias: reference.conv_transpose2d_backward(dy, x, weight, **options),
            lambda *tensors: F.conv_transpose2d(*tensors, **options),
            (x, weight, bias), rng, f"seed {seed}, x {x.shape}, weight {weight.shape}, {options}",
        )  # fmt: skip


def test_conv_transpose1d() -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        groups, c_group, k_group, s, dilation, stride = sizes(rng, 6, 1, 4)
        options = {
            "stride": stride, "padding": int(rng.integers(0, dilation * (s - 1) // 2 + 1)), "groups": groups,
            "output_padding": int(rng.integers(max(stride, dilation))), "dilation": dilation,
        }  # fmt: skip
        x = rng.standard_normal((3, groups * c_group, *sizes(rng, 1, 1, 9)))
        weight, bias = rng.standard_normal((groups * c_group, k_group, s)), rng.standard_normal(groups * k_group)
        agree(
            lambda *arrays: reference.conv_transpose1d(*arrays, **options),
            lambda dy, x, weight, bias: reference.conv_transpose1d_backward(dy, x, weight, **options),
            lambda *tensors: F.conv_transpose1d(*tensors, **options),
            (x, weight, bias), rng, f"seed {seed}, x {x.shape}, weight {weight.shape}, {options}",
        )  # fmt: skip


def test_linear() -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        leading, (c, k) = sizes(rng, int(rng.integers(1, 4)), 1, 5), sizes(rng, 2)
        arrays = rng.standard_normal((*leading, c)), rng.standard_normal((k, c)), rng.standard_normal(k)
        agree(
            reference.linear,
            lambda dy, x, weight, bias: reference.linear_backward(dy, x, weight),
            F.linear, arrays, rng, f"seed {seed}, x {arrays[0].shape}",
        )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training: bool) -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        c = int(rng.integers(1, 7))
        x = rng.standard_normal((int(rng.integers(2, 6)), c, *sizes(rng, int(rng.integers(3)), 1, 5)))
        weight, bias, mean = rng.standard_normal((3, c))
        variance, eps, momentum = rng.uniform(0.1, 2.0, c), float(rng.uniform(1e-6, 0.1)), float(rng.uniform(0, 1))
        running = torch.tensor(mean), torch.tensor(variance)
        what = f"seed {seed}, x {x.shape}, eps {eps}, momentum {momentum}"
        agree(
            lambda x, w, b: reference.batch_norm(x, mean, variance, w, b, training, momentum, eps).output,
            lambda dy, x, w, b: reference.batch_norm_backward(dy, x, mean, variance, w, training, eps),
            lambda x, w, b: F.batch_norm(x, *running, w, b, training, momentum, eps),
            (x, weight, bias), rng, what,
        )  # fmt: skip
        result = reference.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
        assert_close(result.running_mean, running[0].numpy(), f"{what}: running_mean")
        assert_close(result.running_var, running[1].numpy(), f"{what}: running_var")


def pooling_options(rng: np.random.Generator, dilated: bool) -> tuple[dict, tuple[int, int]]:
    """Random pooling arguments and an image size that holds at least one window.

    The size is never below the dilation: a window whose taps all miss the image sends PyTorch's gradient
    to a place outside it, ours nowhere (tests/test_kernels_pooling.py).
    """
    kernel, stride = sizes(rng, 2, 1, 5), sizes(rng, 2, 1, 5)
    dilation = sizes(rng, 2, 1, 4) if dilated else [1, 1]
    padding = [int(rng.integers(0, k // 2 + 1)) for k in kernel]
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    size = [max(d, e - 2 * p + int(rng.integers(8))) for e, p, d in zip(extents, padding, dilation)]
    options = {"kernel_size": tuple(kernel), "stride": tuple(stride), "padding": tuple(padding), "ceil_mode": flip(rng)}
    if dilated:
        options["dilation"] = tuple(dilation)
    return options, (size[0], size[1])


def test_max_pool2d() -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        options, size = pooling_options(rng, dilated=True)
        x = rng.integers(-3, 3, (2, 3, *size)).astype(float)  # many ties: the first maximum must win
        what = f"seed {seed}, x {x.shape}, {options}"
        agree(
            lambda x: reference.max_pool2d(x, **options),
            lambda dy, x: reference.max_pool2d_backward(dy, x, **options),
            lambda x: F.max_pool2d(x, **options), (x,), rng, what,
        )  # fmt: skip
        x[rng.random(x.shape) < 0.2] = np.nan
        x[rng.random(x.shape) < 0.3] = -np.inf
        y, indices = reference.max_pool2d(x, **options, return_indices=True)
        expected = F.max_pool2d(torch.tensor(x), **options, return_indices=True)
        np.testing.assert_array_equal(y, expected[0].numpy(), err_msg=what)
        np.testing.assert_array_equal(indices, expected[1].numpy(), err_msg=what)


def test_avg_pool2d() -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        options, size = pooling_options(rng, dilated=False)
        options["count_include_pad"] = flip(rng)
        if flip(rng):
            options["divisor_override"] = int(rng.integers(1, 9))
        x = rng.standard_normal((2, 3, *size))
        agree(
            lambda x: reference.avg_pool2d(x, **options),
            lambda dy, x: reference.avg_pool2d_backward(dy, x, **options),
            lambda x: F.avg_pool2d(x, **options), (x,), rng, f"seed {seed}, x {x.shape}, {options}",
        )  # fmt: skip


def test_pool1d() -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        options, size = pooling_options(rng, dilated=False)
        options = {name: value[0] if isinstance(value, tuple) else value for name, value in options.items()}
        x = rng.standard_normal((2, 3, size[0]))
        what = f"seed {seed}, x {x.shape}, {options}"
        agree(
            lambda x: reference.max_pool1d(x, **options),
            lambda dy, x: reference.max_pool1d_backward(dy, x, **options),
            lambda x: F.max_pool1d(x, **options), (x,), rng, what,
        )  # fmt: skip
        options["count_include_pad"] = flip(rng)
        agree(
            lambda x: reference.avg_pool1d(x, **options),
            lambda dy, x: reference.avg_pool1d_backward(dy, x, **options),
            lambda x: F.avg_pool1d(x, **options), (x,), rng, what,
        )  # fmt: skip


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, 2.5])
def test_lp_pool2d(norm_type: float) -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        options, size = pooling_options(rng, dilated=False)
        del options["padding"]
        x = rng.uniform(0.1, 2.0, (2, 3, *(max(s, k) for s, k in zip(size, options["kernel_size"]))))
        agree(
            lambda x: reference.lp_pool2d(x, norm_type, **options),
            lambda dy, x: reference.lp_pool2d_backward(dy, x, norm_type, **options),
            lambda x: F.lp_pool2d(x, norm_type, **options), (x,), rng, f"seed {seed}, x {x.shape}, {options}",
        )  # fmt: skip


def test_adaptive_pool2d() -> None:
    for seed in CONFIGURATIONS:
        rng = generator(seed)
        size = tuple(None if rng.random() < 0.2 else int(rng.integers(1, 8)) for _ in range(2))
        x = rng.standard_normal((2, 3, *sizes(rng, 2, 1, 12)))
        what = f"seed {seed}, x {x.shape}, output_size {size}"
        agree(
            lambda x: reference.adaptive_avg_pool2d(x, size),
            lambda dy, x: reference.adaptive_avg_pool2d_backward(dy, x, size),
            lambda x: F.adaptive_avg_pool2d(x, size), (x,), rng, what,
        )  # fmt: skip
        ties = np.floor(2 * x)
        agree(
            lambda x: reference.adaptive_max_pool2d(x, size),
            lambda dy, x: reference.adaptive_max_pool2d_backward(dy, x, size),
            lambda x: F.adaptive_max_pool2d(x, size), (ties,), rng, what,
        )  # fmt: skip
        ties[rng.random(x.shape) < 0.2] = np.nan
        y, indices = reference.adaptive_max_pool2d(ties, size, return_indices=True)
        expected = F.adaptive_max_pool2d(torch.tensor(ties), size, return_indices=True)
        np.testing.assert_array_equal(y, expected[0].numpy(), err_msg=what)
        np.testing.assert_array_equal(indices, expected[1].numpy(), err_msg=what)
