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


def convolution(
    batch: int, channels: int, height: int, width: int, out: int, kernel: int, stride: int, padding: int, groups: int,
    dilation: int = 1, *, input_gradient: bool = True,
) -> Case:  # fmt: skip
    """A Conv2d with bias, in the notation N, C, H, W, K, kernel, stride, padding, groups, dilation."""
    span = dilation * (kernel - 1) + 1
    rows = (height + 2 * padding - span) // stride + 1
    columns = (width + 2 * padding - span) // stride + 1
    flops = 2.0 * batch * out * rows * columns * (channels // groups) * kernel * kernel
    options = [f"{letter}{value}" for letter, value in (("s", stride), ("g", groups), ("d", dilation)) if value > 1]
    name = " ".join([f"conv {batch}x{channels}x{height}x{width} {kernel}x{kernel} -> {out}", *options])
    return Case(
        name,
        lambda nn: nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups),
        (batch, channels, height, width),
        flops,
        input_gradient=input_gradient,
    )


def linear(batch: int, inputs: int, outputs: int) -> Case:
    """A Linear with bias."""
    name = f"linear {batch}x{inputs} -> {outputs}"
    return Case(name, lambda nn: nn.Linear(inputs, outputs), (batch, inputs), 2.0 * batch * inputs * outputs)


def read_cases(text: str) -> list[Case]:
    """Cases from lines `conv N C H W K kernel stride padding groups [dilation] [first]` and `linear N C K`.

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
        kind, sizes = words[0], [int(word) for word in words[1 : len(words) - first]]
        if kind == "conv" and len(sizes) in (9, 10):
            cases.append(convolution(*sizes, input_gradient=not first))
        elif kind == "linear" and len(sizes) == 3 and not first:
            cases.append(linear(*sizes))
        else:
            raise ValueError(f"line {number} is no case: {line!r}")
    return cases


IMAGE = (32, 64, 56, 56)
IMAGE_BYTES = FLOAT_BYTES * 32 * 64 * 56 * 56


def streaming(name: str, layer: Callable[[Any], Any], forward: float, backward: float) -> Case:
    """A memory-bound layer at 32x64x56x56; traffic is counted in passes over the input."""
    return Case(name, layer, IMAGE, 0.0, forward * IMAGE_BYTES, backward * IMAGE_BYTES)


QUICK: tuple[Case, ...] = (
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
    streaming("batch norm, training", lambda nn: nn.BatchNorm2d(64), 3, 5),
    streaming("relu", lambda nn: nn.ReLU(), 2, 3),
    streaming("dropout 0.5", lambda nn: nn.Dropout(0.5), 2, 2),
    streaming("max pool 2x2", lambda nn: nn.MaxPool2d(2), 1.25, 1.3125),
    streaming("max pool 3x3 s2", lambda nn: nn.MaxPool2d(3, 2, 1), 1.25, 1.3125),
    streaming("average pool 2x2", lambda nn: nn.AvgPool2d(2), 1.25, 1.25),
)
