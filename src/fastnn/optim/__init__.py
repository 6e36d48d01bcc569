"""Optimizers under torch.optim's names, and learning rate schedules."""

from .adam import Adam, AdamW
from .average import ExponentialMovingAverage
from .clipping import Clipping
from .group import ParameterGroup
from .optimizer import Optimizer
from .scaled import Adagrad, RMSprop
from .schedule import CosineDecay, ExponentialDecay, MultiStepDecay, OneCycle, StepDecay
from .sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Clipping",
    "CosineDecay",
    "ExponentialDecay",
    "ExponentialMovingAverage",
    "MultiStepDecay",
    "OneCycle",
    "Optimizer",
    "ParameterGroup",
    "RMSprop",
    "StepDecay",
]
