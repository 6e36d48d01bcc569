"""Layers and models, under torch.nn's names."""

from . import functional
from .activation import ReLU
from .container import ModuleDict, ModuleList, Sequential
from .module import Module
from .parameter import Buffer, Parameter
from .shape import Flatten, Identity

__all__ = [
    "Buffer", "Flatten", "Identity", "Module", "ModuleDict", "ModuleList", "Parameter", "ReLU", "Sequential", "functional",
]
