"""Nets that are one chain of layers: a perceptron, LeNet, a small CNN, AlexNet, VGG-11."""

from __future__ import annotations

from typing import Any

from .. import nn as fastnn_nn
from .blocks import convolution_and_norm


def mlp(nn: Any = fastnn_nn) -> Any:
    """A perceptron for 28x28 images: 784-512-512-10, ReLU, dropout of a fifth.

    x (N,1,28,28) -> logits (N,10); 669,706 parameters.

    >>> mlp().plan((1, 1, 28, 28)).outputs[0].shape
    (1, 10)
    """
    hidden = [nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))


def lenet(nn: Any = fastnn_nn) -> Any:
    """LeNet-5 with ReLU and max pooling (after LeCun, Bottou, Bengio and Haffner 1998).

    x (N,1,28,28) -> logits (N,10); 61,706 parameters.

    >>> lenet().eval()(np.zeros((2, 1, 28, 28))).shape
    (2, 10)
    """
    features = [
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
    ]  # fmt: skip
    classifier = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*features, nn.Flatten(), *classifier)


def smallcnn(nn: Any = fastnn_nn) -> Any:
    """Two pairs of 3x3 convolutions with batch norm, each pair pooled and dropped out, for 32x32 colour images.

    x (N,3,32,32) -> logits (N,10); 1,117,162 parameters.

    >>> smallcnn().eval()(np.zeros((2, 3, 32, 32))).shape
    (2, 10)
    """
    layers: list[Any] = []
    for channels, width in ((3, 32), (32, 64)):
        for source in (channels, width):
            layers += [*convolution_and_norm(nn, source, width, 3), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Dropout(0.25)]
    classifier = [nn.Linear(4096, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *classifier)


def alexnet(nn: Any = fastnn_nn) -> Any:
    """AlexNet in its one-column form (Krizhevsky 2014).

    x (N,3,224,224) -> logits (N,1000); 61.1 million parameters, most of them in the first dense layer.

    >>> alexnet().eval()(np.zeros((1, 3, 224, 224))).shape  # doctest: +SKIP
    (1, 1000)
    """
    features = [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    ]  # fmt: skip
    classifier = [
        nn.Dropout(0.5), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000),
    ]  # fmt: skip
    return nn.Sequential(*features, nn.Flatten(), *classifier)


def vgg11(nn: Any = fastnn_nn) -> Any:
    """VGG-11 with batch norm (configuration A of Simonyan and Zisserman 2015).

    x (N,3,224,224) -> logits (N,1000); 132.9 million parameters.

    >>> vgg11().eval()(np.zeros((1, 3, 224, 224))).shape  # doctest: +SKIP
    (1, 1000)
    """
    layers: list[Any] = []
    channels = 3
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    classifier = [
        nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 1000),
    ]  # fmt: skip
    return nn.Sequential(*layers, nn.Flatten(), *classifier)
