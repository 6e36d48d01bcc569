"""Optimizers under torch.optim's names, and learning rate schedules."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..habits import OPTIMIZERS, no_attribute
from .adam import Adam, AdamW
from .average import ExponentialMovingAverage
from .clipping import Clipping
from .group import ParameterGroup
from .optimizer import Optimizer
from .scaled import Adagrad, RMSprop
from .sgd import SGD

if TYPE_CHECKING:
    from .schedule import CosineDecay, ExponentialDecay, MultiStepDecay, OneCycle, StepDecay

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


def __getattr__(name: str) -> Any:
    """Schedules are imported when one is first asked for: their records take a tenth of the time of `import fastnn`."""
    if name not in __all__ and name != "schedule":
        raise no_attribute(f"module {__name__!r}", name, OPTIMIZERS)
    schedule = import_module(".schedule", __name__)
    return schedule if name == "schedule" else getattr(schedule, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
