"""What the self-test computes: each function forward and backward on small awkward shapes, beside the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import nn, reference
from ..nn import functional as F
from ..nn.functional import cat
from ..random import default_stream
from ..train import Trainer
from ..transforms import vjp
from ..variable import Array
from .runner import Check, Figure


def _exact(array: Any) -> Array:
    return np.asarray(array, np.float64)


def _double(arrays: Sequence[Array]) -> list[Array]:
    return [_exact(a) if a.dtype.kind == "f" else a for a in arrays]


def _normal(generator: np.random.Generator, *shape: int) -> Array:
    return generator.standard_normal(shape).astype(np.float32)


def _function(
    name: str, shapes: Sequence[tuple[int, ...]], roundings: float, backward: tuple[int, ...], **options: Any
) -> Check:
    """F.<name> against reference.<name>, and its pullback against reference.<name>_backward, which takes the arrays
    numbered in `backward` behind dy."""

    def check(generator: np.random.Generator) -> list[Figure]:
        arrays = [_normal(generator, *shape) for shape in shapes]
        y, pullback = vjp(getattr(F, name), *arrays, **options)
        dy = _normal(generator, *y.shape)
        exact = _double(arrays)
        expected = getattr(reference, name)(*exact, **options)
        gradients = getattr(reference, f"{name}_backward")(_exact(dy), *(exact[i] for i in backward), **options)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        figures = [Figure("result", y, expected, roundings)]
        for i, (got, wanted) in enumerate(zip(pullback(dy), gradients, strict=True)):
            figures.append(Figure(f"gradient {i}", got, wanted, roundings + 4 * math.sqrt(got.size + y.size)))
        return figures

    return check


def _convolution(x: tuple[int, ...], channels: int, kernel: int, **options: Any) -> Check:
    groups = options.get("groups", 1)
    weight = (channels, x[1] // groups, kernel, kernel)
    depth = weight[1] * kernel * kernel
    return _function("conv2d", [x, weight, (channels,)], depth + 4, (0, 1), **options)


def _batch_norm(shape: tuple[int, ...], training: bool) -> Check:
    def check(generator: np.random.Generator) -> list[Figure]:
        channels = shape[1]
        layer = nn.BatchNorm2d(channels).train(training)
        state = {
            "weight": _normal(generator, channels),
            "bias": _normal(generator, channels),
            "running_mean": _normal(generator, channels),
            "running_var": 0.5 + generator.random(channels, np.float32),
        }
        layer.load_state_dict({**state, "num_batches_tracked": np.int64(0)})
        mean, variance, weight, bias = _double([state[k] for k in ("running_mean", "running_var", "weight", "bias")])
        x = 3 + _normal(generator, *shape)
        y, pullback = vjp(layer, x)
        dy = _normal(generator, *shape)
        expected = reference.batch_norm(_exact(x), mean, variance, weight, bias, training=training)
        dx, *_ = reference.batch_norm_backward(_exact(dy), _exact(x), mean, variance, weight, training)
        moved = layer.state_dict()
        return [
            Figure("result", y, expected.output, 64),
            Figure("gradient 0", pullback(dy)[0], dx, 128),
            Figure("running mean", moved["running_mean"], _exact(expected.running_mean), 16),
            Figure("running variance", moved["running_var"], _exact(expected.running_var), 64),
        ]

    return check


def _dropout(shape: tuple[int, ...], name: str) -> Check:
    def check(generator: np.random.Generator) -> list[Figure]:
        x, dy = _normal(generator, *shape), _normal(generator, *shape)
        stream = default_stream()
        step = stream.step + 1
        y, pullback = vjp(getattr(F, name), x, p=0.3, layer=5, training=True)
        options: dict[str, Any] = {"training": True, "seed": stream.seed, "layer": 5, "step": step}
        stream.step = step - 1  # the next number of threads draws the same masks
        function, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
        return [
            Figure("result", y, function(_exact(x), 0.3, **options), 16),
            Figure("gradient 0", pullback(dy)[0], backward(_exact(dy), 0.3, **options), 16),
        ]

    return check


def _cross_entropy(shape: tuple[int, int], **options: Any) -> Check:
    def check(generator: np.random.Generator) -> list[Figure]:
        x, target = _normal(generator, *shape), generator.integers(0, shape[1], shape[0])
        exact = _exact(x)
        y, pullback = vjp(F.cross_entropy, x, target=target, **options)
        expected = reference.cross_entropy(exact, target, **options)
        gradient = reference.cross_entropy_backward(_exact(1), exact, target, **options)
        return [Figure("result", y, expected, 64), Figure("gradient 0", pullback(np.float32(1))[0], gradient, 64)]

    return check


def _loss(
    name: str, target_range: tuple[float, float], input_range: tuple[float, float] | None = None, **options: Any
) -> Check:
    """A loss of an input and a target of one shape; input_range draws the input uniformly from there."""

    def check(generator: np.random.Generator) -> list[Figure]:
        shape = (13, 29)
        x = generator.uniform(*input_range, shape) if input_range else generator.standard_normal(shape)
        x, target = x.astype(np.float32), generator.uniform(*target_range, shape).astype(np.float32)
        y, pullback = vjp(getattr(F, name), x, target=target, **options)
        exact, wanted = _double([x, target])
        expected = getattr(reference, name)(exact, wanted, **options)
        gradient = getattr(reference, f"{name}_backward")(_exact(1), exact, wanted, **options)
        return [Figure("result", y, expected, 64), Figure("gradient 0", pullback(np.float32(1))[0], gradient, 64)]

    return check


def _layer_norm(generator: np.random.Generator) -> list[Figure]:
    x, weight, bias = _normal(generator, 6, 5, 37), _normal(generator, 37), _normal(generator, 37)
    y, pullback = vjp(lambda *arrays: F.layer_norm(arrays[0], (37,), *arrays[1:]), x, weight, bias)
    dy = _normal(generator, *y.shape)
    exact, gamma, beta = _double([x, weight, bias])
    expected = reference.layer_norm(exact, (37,), gamma, beta)
    gradients = reference.layer_norm_backward(_exact(dy), exact, (37,), gamma)
    pairs = zip(pullback(dy), gradients, strict=True)
    return [
        Figure("result", y, expected, 64),
        *(Figure(f"gradient {i}", got, wanted, 128) for i, (got, wanted) in enumerate(pairs)),
    ]


def _gated(generator: np.random.Generator) -> list[Figure]:
    x, slopes = _normal(generator, 3, 10, 7, 5), _normal(generator, 10)
    figures = []
    for name, arrays, options in (("glu", [x], {"dim": 1}), ("prelu", [x, slopes], {})):
        y, pullback = vjp(getattr(F, name), *arrays, **options)
        dy, exact = _normal(generator, *y.shape), _double(arrays)
        figures.append(Figure(f"{name} result", y, getattr(reference, name)(*exact, **options), 16))
        gradients = getattr(reference, f"{name}_backward")(_exact(dy), *exact, **options)
        pairs = zip(pullback(dy), gradients if name == "prelu" else [gradients], strict=True)
        figures += [Figure(f"{name} gradient {i}", got, wanted, 128) for i, (got, wanted) in enumerate(pairs)]
    return figures


def _group_norm(generator: np.random.Generator) -> list[Figure]:
    x, weight, bias = _normal(generator, 3, 12, 9, 11), _normal(generator, 12), _normal(generator, 12)
    y, pullback = vjp(lambda *arrays: F.group_norm(arrays[0], 3, *arrays[1:]), x, weight, bias)
    dy = _normal(generator, *y.shape)
    exact, gamma, beta = _double([x, weight, bias])
    expected = reference.group_norm(exact, 3, gamma, beta)
    gradients = reference.group_norm_backward(_exact(dy), exact, 3, gamma)
    pairs = zip(pullback(dy), gradients, strict=True)
    return [
        Figure("result", y, expected, 64),
        *(Figure(f"gradient {i}", got, wanted, 256) for i, (got, wanted) in enumerate(pairs)),
    ]


def _arithmetic(generator: np.random.Generator) -> list[Figure]:
    """Broadcasting, slices, concatenation, sums and means in one function, with its gradients by the chain rule."""
    a, b = _normal(generator, 3, 4, 5, 7), 2 + np.abs(_normal(generator, 1, 4, 1, 7))

    def function(a: Any, b: Any) -> Any:
        joined = cat([(a * b)[:, 1:3], a / b - b], 1)
        return (joined + joined).mean((2, 3)) + a.sum((1, 2, 3)).reshape(3, 1)

    y, pullback = vjp(function, a, b)
    da, db = pullback(np.ones_like(y))
    x, z = _double([a, b])
    joined = np.concatenate([(x * z)[:, 1:3], x / z - z], 1)
    expected = 2 * joined.mean((2, 3)) + x.sum((1, 2, 3)).reshape(3, 1)
    share, inner = 2 / 35, np.array([0.0, 1.0, 1.0, 0.0]).reshape(1, 4, 1, 1)
    dx = share * (inner * z + 1 / z) + np.full(x.shape, 6.0)
    dz = (share * (inner * x - x / z**2 - 1)).sum((0, 2), keepdims=True)
    return [
        Figure("result", y, expected, 64, float(np.abs(x).sum((1, 2, 3)).max())),
        Figure("gradient 0", da, dx, 64),
        Figure("gradient 1", db, dz, 128),
    ]


def _penalty(generator: np.random.Generator) -> list[Figure]:
    """One step of gradient descent on a loss with l1 and l2 penalties."""
    from .. import optim

    layer = nn.Linear(7, 5, bias=False)
    weight, x, target = _normal(generator, 5, 7), _normal(generator, 11, 7), generator.integers(0, 5, 11)
    layer.load_state_dict({"weight": weight})
    group = {"params": layer.parameters(), "l1": 0.01, "l2": 0.02}
    Trainer(layer, nn.CrossEntropyLoss(), optim.SGD([group], lr=0.5)).step(x, target)
    exact, w = _double([x, weight])
    dy = reference.cross_entropy_backward(_exact(1), exact @ w.T, target)
    gradient = dy.T @ exact + 0.01 * np.sign(w) + 0.04 * w
    return [Figure("weight", layer.state_dict()["weight"], w - 0.5 * gradient, 64)]


def _folded(generator: np.random.Generator) -> list[Figure]:
    """Inference of convolution, batch norm, residual addition and ReLU, from an array that lies N,C,H,W."""
    channels = 20
    body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()).eval()
    state = {name: _normal(generator, *value.shape) for name, value in body.state_dict().items()}
    state["1.running_var"] = np.abs(state["1.running_var"]) + np.float32(0.5)
    body.load_state_dict(state)
    x = _normal(generator, 2, channels, 7, 9)
    names = ("0.weight", "0.bias", "1.running_mean", "1.running_var", "1.weight", "1.bias")
    weight, bias, mean, variance, gamma, beta = _double([state[name] for name in names])
    y = reference.conv2d(_exact(x), weight, bias, padding=1)
    expected = reference.relu(reference.batch_norm(y, mean, variance, gamma, beta).output)
    scale = float(np.abs(gamma / np.sqrt(variance)).max() * np.abs(y).max())
    return [Figure("result", body(x), expected, 9 * channels + 8, scale)]


def _pooled(generator: np.random.Generator) -> list[Figure]:
    """Inference of convolution, ReLU and max pooling in one."""
    model = nn.Sequential(nn.Conv2d(19, 21, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)).eval()
    model.load_state_dict({"0.weight": _normal(generator, 21, 19, 3, 3), "0.bias": _normal(generator, 21)})
    x = _normal(generator, 2, 19, 15, 16)
    weight, bias = _double(list(model.state_dict().values()))
    y = reference.conv2d(_exact(x), weight, bias, padding=1)
    expected = np.asarray(reference.max_pool2d(reference.relu(y), 2))
    return [Figure("result", model(x), expected, 9 * 19 + 4, float(np.abs(y).max()))]


def _convolution_normalized(generator: np.random.Generator) -> list[Figure]:
    """Training: a batch norm between pointwise convolutions, of images so large that these take its sums, both ways."""
    x, dy = 3 + _normal(generator, 1, 3, 128, 257), _normal(generator, 1, 2, 128, 257)
    first, last = _normal(generator, 67, 3, 1, 1), _normal(generator, 2, 67, 1, 1)
    model = nn.Sequential(nn.Conv2d(3, 67, 1, bias=False), nn.BatchNorm2d(67), nn.Conv2d(67, 2, 1, bias=False))
    model.load_state_dict({**model.state_dict(), "0.weight": first, "2.weight": last})
    y, pullback = vjp(model, x)
    image, weight, head = _double([x, first, last])
    hidden = reference.conv2d(image, weight)
    normalized = reference.batch_norm(hidden, None, None, training=True).output
    gradient, *_ = reference.conv2d_backward(_exact(dy), normalized, head)
    gradient, *_ = reference.batch_norm_backward(gradient, hidden, training=True)
    dx, *_ = reference.conv2d_backward(gradient, image, weight)
    scale = 67 * float(np.abs(head).max())
    return [
        Figure("result", y, reference.conv2d(normalized, head), 512, scale),
        Figure("gradient 0", pullback(dy)[0], dx, 1024, scale),
    ]


class _InvertedResidual(nn.Module):
    """Its inputs as an inverted residual block."""

    def forward(self, x: Any, *inputs: Any) -> Any:  # type: ignore[override]
        names = tuple(f"{prefix}{name}" for prefix in ("expand_", "depthwise_", "") for name in ("weight", "bias"))
        activations = ("relu6", "relu6", None)
        return x.graph.record(
            "inverted_residual", x, *inputs, given=names, activations=activations, stride=(2, 1), padding=(1, 1, 1, 1)
        )


def _inverted_residual(generator: np.random.Generator) -> list[Figure]:
    """The block in one step, and what its terms amount to."""
    shapes = [(2, 19, 9, 8), (37, 19, 1, 1), (37,), (37, 1, 3, 3), (37,), (21, 37, 1, 1), (21,)]
    arrays = [_normal(generator, *shape) for shape in shapes]

    def block(
        limit: float, x: Array, e: Array, expand: Array, d: Array, depthwise: Array, w: Array, bias: Array
    ) -> Array:
        e = np.clip(reference.conv2d(x, e, expand), 0, limit)
        d = np.clip(reference.conv2d(e, d, depthwise, stride=(2, 1), padding=1, groups=37), 0, limit)
        return reference.conv2d(d, w, bias)

    exact = _double(arrays)
    scale = float(block(math.inf, *(np.abs(array) for array in exact)).max())
    return [Figure("result", _InvertedResidual()(*arrays), block(6, *exact), 19 + 9 + 37 + 8, scale)]


def _optimizer(name: str, inputs: int = 7, outputs: int = 5, **options: Any) -> Check:
    """Three training steps of a linear layer, the update in one call, against the reference's update rule. In a large layer
    the update makes the gradient, too."""

    def check(generator: np.random.Generator) -> list[Figure]:
        from .. import optim

        layer = nn.Linear(inputs, outputs)
        layer.load_state_dict({"weight": _normal(generator, outputs, inputs), "bias": _normal(generator, outputs)})
        trainer = Trainer(layer, nn.CrossEntropyLoss(), getattr(optim, name)(**options))
        parameters = {key: _exact(value) for key, value in layer.state_dict().items()}
        states: dict[str, Any] = dict.fromkeys(parameters)
        update = getattr(reference, f"{name.lower()}_step")
        for _ in range(3):
            x, target = _normal(generator, 11, inputs), generator.integers(0, outputs, 11)
            trainer.step(x, target)
            exact = _exact(x)
            scores = reference.linear(exact, parameters["weight"], parameters["bias"])
            dy = reference.cross_entropy_backward(_exact(1), scores, target)
            _, weight, bias = reference.linear_backward(dy, exact, parameters["weight"])
            for key, gradient in (("weight", weight), ("bias", bias)):
                parameters[key], states[key] = update(parameters[key], gradient, states[key], **options)
        return [Figure(key, layer.state_dict()[key], value, 64) for key, value in parameters.items()]

    return check


def _max_pool_indices(generator: np.random.Generator) -> list[Figure]:
    x = _normal(generator, 2, 5, 9, 11)
    y, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    expected, positions = reference.max_pool2d(_exact(x), 3, 2, 1, return_indices=True)
    lines = _normal(generator, 2, 5, 33)
    _, places = F.max_pool1d(lines, 3, 2, 1, return_indices=True)
    _, steps = reference.max_pool1d(_exact(lines), 3, 2, 1, return_indices=True)
    figures = [Figure("result", y, expected, 1), Figure("indices", indices, positions, 0)]
    return [*figures, Figure("indices of a line", places, steps, 0)]


IMAGE = (3, 5, 9, 11)

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "relu6": {}, "leaky_relu": {"negative_slope": 0.1}, "elu": {"alpha": 1.5}, "celu": {"alpha": 1.5}, "selu": {}, "gelu": {},
    "silu": {}, "mish": {}, "softplus": {}, "hardswish": {}, "hardsigmoid": {}, "hardtanh": {}, "sigmoid": {}, "tanh": {},
    "logsigmoid": {}, "softsign": {},
}  # fmt: skip

CHECKS: dict[str, Check] = {
    "conv2d": _convolution((2, 19, 9, 10), 37, 3, padding=1),
    "conv2d 5x5": _convolution((2, 19, 13, 14), 37, 5, padding=2),
    "conv2d strided": _convolution((2, 19, 9, 10), 37, 3, stride=2, padding=1),
    "conv2d strided, many tiles": _convolution((8, 17, 14, 15), 18, 3, stride=2, padding=1),
    "conv2d strided, large images": _convolution((3, 19, 33, 31), 37, 3, stride=2, padding=1),
    "conv2d dilated": _convolution((1, 9, 13, 11), 7, 3, dilation=2, padding=2),
    "conv2d 1x1": _convolution((2, 33, 7, 5), 18, 1),
    "conv2d few channels": _convolution((2, 3, 12, 32), 10, 3, padding=1),
    "conv2d few channels strided": _convolution((2, 3, 17, 9), 10, 5, stride=2, padding=2),
    "conv2d grouped": _convolution((2, 12, 8, 7), 18, 3, groups=3),
    "conv2d small groups": _convolution((2, 20, 8, 7), 40, 3, groups=20),
    "conv2d small groups strided": _convolution((2, 40, 8, 7), 20, 3, stride=2, groups=20),
    "conv2d depthwise": _convolution((2, 21, 9, 8), 21, 3, padding=1, groups=21),
    "conv2d depthwise strided": _convolution((2, 21, 9, 8), 21, 3, stride=2, padding=1, groups=21),
    "inverted residual": _inverted_residual,
    "conv_transpose2d": _function(
        "conv_transpose2d", [(2, 19, 6, 5), (19, 7, 4, 4), (7,)], 308, (0, 1), stride=2, padding=1
    ),
    "conv_transpose2d depthwise": _function(
        "conv_transpose2d", [(2, 21, 6, 5), (21, 1, 3, 3), (21,)], 13, (0, 1), stride=2, padding=1, groups=21
    ),
    "conv_transpose2d of pixels": _function("conv_transpose2d", [(3, 23, 1, 1), (23, 9, 4, 4), (9,)], 27, (0, 1)),
    "linear": _function("linear", [(33, 70), (41, 70), (41,)], 74, (0, 1)),
    "linear, some rows": _function("linear", [(7, 301), (77, 301), (77,)], 305, (0, 1)),
    "linear, few rows": _function("linear", [(3, 301), (45, 301), (45,)], 305, (0, 1)),
    "batch norm, training": _batch_norm((4, 19, 5, 7), True),
    "batch norm between convolutions": _convolution_normalized,
    "batch norm, inference": _batch_norm((4, 19, 5, 7), False),
    "inference, folded": _folded,
    "inference, pooled": _pooled,
    "relu": _function("relu", [IMAGE], 1, (0,)),
    "max pool": _function("max_pool2d", [IMAGE], 1, (0,), kernel_size=3, stride=2, padding=1),
    "max pool indices": _max_pool_indices,
    "average pool": _function("avg_pool2d", [IMAGE], 16, (0,), kernel_size=3, stride=2, padding=1),
    "adaptive average pool": _function("adaptive_avg_pool2d", [IMAGE], 128, (0,), output_size=(4, 3)),
    "global average pool": _function("adaptive_avg_pool2d", [IMAGE], 128, (0,), output_size=1),
    "dropout": _dropout((7, 1037), "dropout"),
    "dropout of channels": _dropout((3, 37, 4, 5), "dropout2d"),
    "Gaussian dropout": _dropout((7, 1037), "gaussian_dropout"),
    "alpha dropout": _dropout((7, 1037), "alpha_dropout"),
    "softmax": _function("softmax", [(9, 37)], 64, (0,), dim=-1),
    "log softmax": _function("log_softmax", [(9, 37)], 64, (0,), dim=-1),
    "cross entropy": _cross_entropy((13, 29)),
    "cross entropy, smoothed": _cross_entropy((13, 29), label_smoothing=0.1, ignore_index=3),
    "flatten": _function("flatten", [IMAGE], 1, (0,), start_dim=1),
    "layer norm": _layer_norm,
    "group norm": _group_norm,
    "gated linear unit, learned slopes": _gated,
    "arithmetic": _arithmetic,
    **{name: _function(name, [IMAGE], 16, (0,), **options) for name, options in ACTIVATIONS.items()},
    "mse_loss": _loss("mse_loss", (-1, 1)),
    "l1_loss": _loss("l1_loss", (-1, 1)),
    "huber_loss": _loss("huber_loss", (-1, 1), delta=0.7),
    "kl_div": _loss("kl_div", (0.1, 1), reduction="sum"),
    "binary_cross_entropy": _loss("binary_cross_entropy", (0, 1), (0.1, 0.9)),
    "binary_cross_entropy_with_logits": _loss("binary_cross_entropy_with_logits", (0, 1)),
    "penalties": _penalty,
    "SGD": _optimizer("SGD", lr=0.1, momentum=0.9, weight_decay=0.01),
    "SGD, large layer": _optimizer("SGD", 1061, 991, lr=0.1, momentum=0.9),
    "Adam": _optimizer("Adam", lr=0.01),
    "AdamW": _optimizer("AdamW", lr=0.01),
    "RMSprop": _optimizer("RMSprop", lr=0.01, momentum=0.5),
    "Adagrad": _optimizer("Adagrad", lr=0.01),
}
"""Every check by name: called with a generator of random numbers, it gives native and expected arrays."""
