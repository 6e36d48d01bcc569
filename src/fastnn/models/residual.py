"""Nets of blocks: ResNet-20, ResNet-18, MobileNetV2."""

from __future__ import annotations

from typing import Any

from .. import nn as fastnn_nn
from .blocks import basic_block, convolution_and_norm, inverted_residual

MOBILE_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""MobileNetV2's stages (table 2 of Sandler et al. 2018): expansion, channels, blocks, stride of the first block."""


def _stages(nn: Any, channels: int, widths: tuple[int, ...], blocks: int) -> list[Any]:
    """`blocks` basic blocks of each width; the first of every width but the first halves the image."""
    layers = []
    for number, width in enumerate(widths):
        for block in range(blocks):
            layers.append(basic_block(nn, channels, width, 2 if number and not block else 1))
            channels = width
    return layers


def resnet20(nn: Any = fastnn_nn) -> Any:
    """The 20-layer ResNet for 32x32 images (He, Zhang, Ren and Sun 2016, section 4.2), with 1x1 shortcuts.

    x (N,3,32,32) -> logits (N,10); 272,474 parameters.

    >>> resnet20().plan((1, 3, 32, 32)).outputs[0].shape
    (1, 10)
    """
    first = [*convolution_and_norm(nn, 3, 16, 3), nn.ReLU()]
    stages = _stages(nn, 16, (16, 32, 64), 3)
    return nn.Sequential(*first, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet18(nn: Any = fastnn_nn) -> Any:
    """The 18-layer ResNet for 224x224 images (He, Zhang, Ren and Sun 2016, table 1).

    x (N,3,224,224) -> logits (N,1000); 11.7 million parameters.

    >>> sum(parameter.size for parameter in resnet18().parameters())
    11689512
    """
    first = [*convolution_and_norm(nn, 3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    stages = _stages(nn, 64, (64, 128, 256, 512), 2)
    return nn.Sequential(*first, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def mobilenetv2(nn: Any = fastnn_nn) -> Any:
    """MobileNetV2 for 224x224 images: inverted residuals of depthwise convolutions (Sandler et al. 2018).

    x (N,3,224,224) -> logits (N,1000); 3.5 million parameters.

    >>> sum(parameter.size for parameter in mobilenetv2().parameters())
    3504872
    """
    layers = [*convolution_and_norm(nn, 3, 32, 3, 2), nn.ReLU6()]
    channels = 32
    for expansion, width, blocks, stride in MOBILE_STAGES:
        for block in range(blocks):
            layers.append(inverted_residual(nn, channels, width, 1 if block else stride, expansion))
            channels = width
    last = [*convolution_and_norm(nn, channels, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *last, nn.Dropout(0.2), nn.Linear(1280, 1000))
