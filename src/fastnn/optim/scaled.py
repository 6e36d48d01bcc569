"""RMSprop and Adagrad: gradients divided by their own size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .group import Rule, flag, fraction, not_negative
from .optimizer import Optimizer


class RMSprop(Optimizer):
    """Gradients divided by the root of their running mean square; arguments and arithmetic of torch.optim.RMSprop.

    g = gradient + weight_decay * w; v = alpha * v + (1 - alpha) * g * g; centred, a = alpha * a + (1 - alpha) * g and
    u = v - a * a, else u = v; b = momentum * b + g / (sqrt(u) + eps); w -= lr * b.

    Parameters
    ----------
    params : the parameters or groups of them; None: all trainable parameters of the trainer's model.
    lr : learning rate of at least 0, or a schedule (a callable step -> lr).
    alpha : how much of the mean square stays, in [0, 1).
    eps, weight_decay, momentum : at least 0.
    centered : subtract the square of the mean.
    maximize : go up, not down.

    Raises ValueError or TypeError for settings that do not make sense; NaN among them.

    >>> RMSprop(centered=True).param_groups[0]["alpha"]
    0.99
    """

    operation = "rmsprop_update"
    rules: ClassVar[Mapping[str, Rule]] = {
        **Optimizer.rules, "alpha": fraction, "eps": not_negative, "weight_decay": not_negative,
        "momentum": not_negative, "centered": flag, "maximize": flag,
    }  # fmt: skip

    def __init__(
        self, params: Iterable[Any] | None = None, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered,
            maximize=maximize,
        )  # fmt: skip

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        mean = ("grad_avg",) if settings["centered"] else ()
        buffer = ("momentum_buffer",) if settings["momentum"] else ()
        return ("square_avg", *mean, *buffer)

    def attributes(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        names = ("alpha", "eps", "weight_decay", "momentum", "centered", "maximize")
        return {name: settings[name] for name in names}


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all their squares (Duchi, Hazan and Singer 2011); arguments and
    arithmetic of torch.optim.Adagrad.

    g = gradient + weight_decay * w; s += g * g; w -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps) at step
    t = 1, 2, ... of the optimizer.

    Parameters
    ----------
    params : the parameters or groups of them; None: all trainable parameters of the trainer's model.
    lr : learning rate of at least 0, or a schedule (a callable step -> lr).
    lr_decay, weight_decay, eps : at least 0.
    initial_accumulator_value : what s starts with, at least 0.
    maximize : go up, not down.

    Raises ValueError or TypeError for settings that do not make sense; NaN among them.

    >>> Adagrad().param_groups[0]["eps"]
    1e-10
    """

    operation = "adagrad_update"
    rules: ClassVar[Mapping[str, Rule]] = {
        **Optimizer.rules, "lr_decay": not_negative, "weight_decay": not_negative,
        "initial_accumulator_value": not_negative, "eps": not_negative, "maximize": flag,
    }  # fmt: skip

    def __init__(
        self, params: Iterable[Any] | None = None, lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps, maximize=maximize,
        )  # fmt: skip

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("sum",)

    def initial_state(self, settings: Mapping[str, Any], name: str) -> float:
        return float(settings["initial_accumulator_value"])

    def attributes(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: settings[name] for name in ("lr_decay", "eps", "weight_decay", "maximize")}
