"""fastnn: fast CPU neural networks on NumPy arrays. See https://pypi.org/project/fastnn for the manual."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import nn, optim, profile, threadpool  # noqa: F401  the last two enter themselves: in plans, with threadpoolctl
from .config import show_config
from .graph import Tensor
from .habits import PACKAGE, no_attribute
from .nn.functional import cat
from .random import initial_seed, manual_seed
from .settings import (
    available_isas,
    conv_algorithm,
    current_isa,
    get_num_threads,
    set_num_threads,
    use_isa,
)
from .transforms import value_and_grad, vjp
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .train import Trainer

__all__ = [
    "Tensor",
    "Trainer",
    "available_isas",
    "cat",
    "conv_algorithm",
    "current_isa",
    "get_num_threads",
    "initial_seed",
    "manual_seed",
    "nn",
    "optim",
    "set_num_threads",
    "show_config",
    "use_isa",
    "value_and_grad",
    "vjp",
]


def __getattr__(name: str) -> Any:
    """Training is imported when it is first asked for: it takes a third of the time of all the rest."""
    if name not in ("Trainer", "train"):
        raise no_attribute(f"module {__name__!r}", name, PACKAGE)
    train = import_module(".train", __name__)
    return train if name == "train" else train.Trainer


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "train"})
