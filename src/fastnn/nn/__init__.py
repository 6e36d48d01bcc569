"""Layers and models, under torch.nn's names."""

from . import functional, init
from .activation import LogSoftmax, ReLU, Softmax
from .container import ModuleDict, ModuleList, Sequential
from .convolution import Conv1d, Conv2d
from .dropout import Dropout, Dropout1d, Dropout2d
from .linear import Linear
from .loss import CrossEntropyLoss
from .module import Module
from .normalization import BatchNorm1d, BatchNorm2d
from .parameter import Buffer, Parameter
from .pooling import AdaptiveAvgPool1d, AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from .shape import Flatten, Identity, Unflatten

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AvgPool1d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Buffer", "Conv1d",
    "Conv2d", "CrossEntropyLoss", "Dropout", "Dropout1d", "Dropout2d", "Flatten", "Identity", "Linear", "LogSoftmax",
    "MaxPool1d", "MaxPool2d", "Module", "ModuleDict", "ModuleList", "Parameter", "ReLU", "Sequential", "Softmax",
    "Unflatten", "functional", "init",
]  # fmt: skip
