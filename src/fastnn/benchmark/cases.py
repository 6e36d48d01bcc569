"""What `fastnn bench` measures: layers that fastnn.nn and torch.nn both build, each with the work it cannot avoid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Case:
    """One layer on one input shape.

    `flops` of the forward pass make a case compute-bound (GFLOP/s are shown); with none it is memory-bound and
    `forward_bytes`, `backward_bytes` are the least traffic it can have (GB/s are shown).
    """

    name: str
    layer: Callable[[Any], Any]  # the namespace (fastnn.nn or torch.nn) -> the layer
    shape: tuple[int, ...]
    flops: float = 0.0
    forward_bytes: float = 0.0
    backward_bytes: float = 0.0
    input_gradient: bool = True
    has_peer: bool = True

    @property
    def directions(self) -> tuple[str, ...]:
        """What is timed, in the order of the calls that are made for the case."""
        return "forward", "backward"


Pair = tuple[int, int]


def _pair(size: int | Pair) -> Pair:
    return size if isinstance(size, tuple) else (size, size)


def _name(
    kind: str, shape: tuple[int, ...], kernel: Pair, out: int, input_gradient: bool, **options: int | Pair
) -> str:
    """`options` that are not 1 follow, each with its letter, then "first" for the first layer of a net."""
    sizes = {letter: _pair(value) for letter, value in options.items()}
    parts = [f"{letter}{h}" + (f"x{w}" if w != h else "") for letter, (h, w) in sizes.items() if (h, w) != (1, 1)]
    first = [] if input_gradient else ["first"]
    return " ".join([f"{kind} {'x'.join(map(str, shape))} {kernel[0]}x{kernel[1]} -> {out}", *parts, *first])


def convolution(
    batch: int, channels: int, height: int, width: int, out: int, kernel: int | Pair, stride: int | Pair,
    padding: int | Pair, groups: int, dilation: int | Pair = 1, *, input_gradient: bool = True,
) -> Case:  # fmt: skip
    """A Conv2d with bias, in the notation N, C, H, W, K, kernel, stride, padding, groups, dilation."""
    window = [_pair(size) for size in (kernel, stride, padding, dilation)]
    axes = zip((height, width), *window, strict=True)
    rows, columns = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    shape, taps = (batch, channels, height, width), window[0]
    return Case(
        _name("conv", shape, taps, out, input_gradient, s=stride, g=groups, d=dilation),
        lambda nn: nn.Conv2d(channels, out, *window, groups),
        shape,
        2.0 * batch * out * rows * columns * (channels // groups) * taps[0] * taps[1],
        input_gradient=input_gradient,
    )


def transposed_convolution(
    batch: int, channels: int, height: int, width: int, out: int, kernel: int | Pair, stride: int | Pair,
    padding: int | Pair, output_padding: int | Pair, groups: int, dilation: int | Pair = 1, *,
    input_gradient: bool = True,
) -> Case:  # fmt: skip
    """A ConvTranspose2d with bias, in the notation N, C, H, W, K, kernel, stride, padding, output_padding, groups, dilation.

    Every pixel of the input meets every tap: what padding cuts off is counted.
    """
    shape, taps = (batch, channels, height, width), _pair(kernel)
    window = [taps, *(_pair(size) for size in (stride, padding, output_padding))]
    return Case(
        _name("transpose", shape, taps, out, input_gradient, s=stride, g=groups, d=dilation),
        lambda nn: nn.ConvTranspose2d(channels, out, *window, groups, True, _pair(dilation)),
        shape,
        2.0 * batch * height * width * channels * (out // groups) * taps[0] * taps[1],
        input_gradient=input_gradient,
    )


def linear(batch: int, inputs: int, outputs: int) -> Case:
    """A Linear with bias."""
    name = f"linear {batch}x{inputs} -> {outputs}"
    return Case(name, lambda nn: nn.Linear(inputs, outputs), (batch, inputs), 2.0 * batch * inputs * outputs)


def _size(word: str) -> int | Pair:
    """3, or 1x7."""
    if "x" not in word:
        return int(word)
    height, width = (int(number) for number in word.split("x"))
    return height, width


MAKERS: dict[str, tuple[Callable[..., Case], tuple[int, ...]]] = {
    "conv": (convolution, (9, 10)),
    "transpose": (transposed_convolution, (10, 11)),
    "linear": (linear, (3,)),
}
"""For each kind of line what makes the case, and of how many sizes."""


def read_cases(text: str) -> list[Case]:
    """Cases from lines, sizes being numbers, or height x width (1x7) where a layer takes both:

    conv N C H W K kernel stride padding groups [dilation] [first]
    transpose N C H W K kernel stride padding output_padding groups [dilation] [first]
    linear N C K

    `first` marks the first layer of a net: no gradient of its input is asked for. `#` begins a comment.

    >>> [case.name for case in read_cases("linear 2 3 4   # small")]
    ['linear 2x3 -> 4']
    """
    cases = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        first = words[-1] == "first"
        make, counts = MAKERS.get(words[0], (linear, ()))
        sizes = [_size(word) for word in words[1 : len(words) - first]]
        if len(sizes) not in counts or (first and make is linear):
            raise ValueError(f"line {number} is no case: {line!r}")
        cases.append(make(*sizes, input_gradient=False) if first else make(*sizes))
    return cases


IMAGE = (32, 64, 56, 56)
IMAGE_BYTES = FLOAT_BYTES * 32 * 64 * 56 * 56


def streaming(
    name: str,
    layer: Callable[[Any], Any],
    forward: float,
    backward: float,
    shape: tuple[int, ...] = IMAGE,
    has_peer: bool = True,
) -> Case:
    """A memory-bound layer on as many floats as 32x64x56x56 has; traffic is counted in passes over the input."""
    return Case(name, layer, shape, 0.0, forward * IMAGE_BYTES, backward * IMAGE_BYTES, has_peer=has_peer)


COMPUTE: tuple[Case, ...] = (
    convolution(16, 64, 56, 56, 64, 3, 1, 1, 1),
    convolution(16, 128, 28, 28, 128, 3, 1, 1, 1),
    convolution(16, 256, 14, 14, 256, 3, 1, 1, 1),
    convolution(16, 64, 56, 56, 256, 1, 1, 0, 1),
    convolution(16, 3, 224, 224, 64, 7, 2, 3, 1, input_gradient=False),
    convolution(64, 3, 32, 32, 16, 3, 1, 1, 1, input_gradient=False),
    convolution(16, 64, 56, 56, 128, 3, 2, 1, 1),
    convolution(16, 32, 112, 112, 32, 3, 1, 1, 32),
    linear(128, 784, 512),
    linear(128, 4096, 4096),
    linear(1, 4096, 1000),
)

MEMORY: tuple[Case, ...] = (
    streaming("batch norm, training", lambda nn: nn.BatchNorm2d(64), 3, 5),
    streaming("group norm 32", lambda nn: nn.GroupNorm(32, 64), 2, 3),
    streaming("instance norm", lambda nn: nn.InstanceNorm2d(64), 2, 3),
    streaming("layer norm 8192x784", lambda nn: nn.LayerNorm(784), 2, 3, (8192, 784)),
    streaming("softmax 8192x784", lambda nn: nn.Softmax(1), 2, 3, (8192, 784)),
    streaming("dropout 0.5", lambda nn: nn.Dropout(0.5), 2, 2),
    streaming("dropout2d 0.5", lambda nn: nn.Dropout2d(0.5), 2, 2),
    streaming("alpha dropout 0.5", lambda nn: nn.AlphaDropout(0.5), 2, 2),
    streaming("gaussian dropout 0.5", lambda nn: nn.GaussianDropout(0.5), 2, 2, has_peer=False),
    streaming("relu", lambda nn: nn.ReLU(), 2, 3),
    streaming("relu6", lambda nn: nn.ReLU6(), 2, 3),
    streaming("leaky relu", lambda nn: nn.LeakyReLU(), 2, 3),
    streaming("prelu, 64 slopes", lambda nn: nn.PReLU(64), 2, 3),
    streaming("elu", lambda nn: nn.ELU(), 2, 3),
    streaming("sigmoid", lambda nn: nn.Sigmoid(), 2, 3),
    streaming("tanh", lambda nn: nn.Tanh(), 2, 3),
    streaming("gelu", lambda nn: nn.GELU(), 2, 3),
    streaming("gelu, tanh", lambda nn: nn.GELU("tanh"), 2, 3),
    streaming("silu", lambda nn: nn.SiLU(), 2, 3),
    streaming("mish", lambda nn: nn.Mish(), 2, 3),
    streaming("softplus", lambda nn: nn.Softplus(), 2, 3),
    streaming("hardswish", lambda nn: nn.Hardswish(), 2, 3),
    streaming("glu", lambda nn: nn.GLU(1), 1.5, 2.5),
    streaming("max pool 2x2", lambda nn: nn.MaxPool2d(2), 1.25, 1.3125),
    streaming("max pool 3x3 s2", lambda nn: nn.MaxPool2d(3, 2, 1), 1.25, 1.3125),
    streaming("average pool 2x2", lambda nn: nn.AvgPool2d(2), 1.25, 1.25),
    streaming("average pool 3x3 s2", lambda nn: nn.AvgPool2d(3, 2, 1), 1.25, 1.25),
    streaming("global average pool", lambda nn: nn.AdaptiveAvgPool2d(1), 1, 1),
)


@dataclass(frozen=True)
class OptimizerCase(Case):
    """One step of an optimizer for parameters of the given shapes (`shape` and `layer` are unused).

    `forward_bytes` counts what the step must read and write: parameters and states both, gradients read.
    """

    optimizer: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    peer_options: tuple[tuple[str, Any], ...] = ()
    parameters: tuple[tuple[int, ...], ...] = ()

    @property
    def directions(self) -> tuple[str, ...]:
        return ("step",)


MILLIONS = 10


def optimizer_step(name: str, optimizer: str, passes: int, fused: bool = False, **options: Any) -> OptimizerCase:
    """A step for ten million parameters; `passes` over them are read or written. `fused`: the peer's fused variant."""
    return OptimizerCase(
        f"{name}, {MILLIONS} M" + (", peer fused" if fused else ""),
        lambda nn: None,
        (),
        forward_bytes=passes * FLOAT_BYTES * MILLIONS * 1e6,
        optimizer=optimizer,
        options=tuple(options.items()),
        peer_options=(("fused", True),) if fused else (),
        parameters=((1000, 1000),) * MILLIONS,
    )


OPTIMIZERS: tuple[Case, ...] = (
    optimizer_step("SGD with momentum", "SGD", 5, lr=1e-3, momentum=0.9),
    optimizer_step("SGD with momentum", "SGD", 5, fused=True, lr=1e-3, momentum=0.9),
    optimizer_step("Adam", "Adam", 7, lr=1e-3),
    optimizer_step("Adam", "Adam", 7, fused=True, lr=1e-3),
    optimizer_step("AdamW", "AdamW", 7, fused=True, lr=1e-3),
)

QUICK = (*COMPUTE, *MEMORY, *OPTIMIZERS)
