"""Known nets, as functions of a namespace with torch.nn's names.

`models.resnet18()` is a fastnn model; `models.resnet18(torch.nn)` is the same net in PyTorch, its `state_dict` under
the same keys. Weights are initialised as each library's layers do it; none are downloaded.

>>> from fastnn import models
>>> sum(parameter.data.size for parameter in models.lenet().parameters())
61706
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .plain import alexnet, lenet, mlp, smallcnn, vgg11
from .residual import mobilenetv2, resnet18, resnet20

__all__ = ["NETS", "Net", "alexnet", "lenet", "mlp", "mobilenetv2", "resnet18", "resnet20", "smallcnn", "vgg11"]


@dataclass(frozen=True)
class Net:
    """A net with what it takes and gives, and the batch sizes at which it is usually measured.

    >>> net = NETS["lenet"]
    >>> net.make().plan((1, *net.image)).outputs[0].shape
    (1, 10)
    """

    make: Callable[..., Any]
    image: tuple[int, int, int]
    """(C, H, W)"""
    classes: int
    inference: tuple[int, ...]
    """Batch sizes of inference."""
    training: tuple[int, ...]
    """Batch sizes of a training step."""


NETS = {
    "mlp": Net(mlp, (1, 28, 28), 10, (1, 64), (64,)),
    "lenet": Net(lenet, (1, 28, 28), 10, (1, 64), (64,)),
    "smallcnn": Net(smallcnn, (3, 32, 32), 10, (1, 128), (128,)),
    "resnet20": Net(resnet20, (3, 32, 32), 10, (1, 128), (128,)),
    "alexnet": Net(alexnet, (3, 224, 224), 1000, (1, 16), (16,)),
    "resnet18": Net(resnet18, (3, 224, 224), 1000, (1, 16), (16,)),
    "vgg11": Net(vgg11, (3, 224, 224), 1000, (1,), (8,)),
    "mobilenetv2": Net(mobilenetv2, (3, 224, 224), 1000, (1, 16), (16,)),
}
"""All nets by name."""
